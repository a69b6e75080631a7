//! Pushers and settings that go with their device.

use serde_json::json;

use crate::testing::*;
use crate::{MAX_PUSHERS, NewAccountData, NewPusher, PusherError, Requester, Sharing};

fn pusher(app_id: &str, pushkey: &str) -> NewPusher {
    let data = json!({"url": "https://push.test/_matrix/push/v1/notify", "format": "event_id_only"});
    NewPusher {
        app_id: app_id.into(),
        pushkey: pushkey.into(),
        app_display_name: "App".into(),
        device_display_name: "Phone".into(),
        profile_tag: None,
        lang: "en".into(),
        data: data.as_object().expect("an object").clone(),
    }
}

impl World {
    async fn set(&self, by: &Requester, app_id: &str, pushkey: &str, sharing: Sharing) -> Result<(), PusherError> {
        self.accounts.set_pusher(by, pusher(app_id, pushkey), sharing).await
    }

    async fn push_keys(&self, of: &Requester) -> Vec<String> {
        let pushers = self.accounts.pushers(of.user).await.expect("readable");
        pushers.into_iter().map(|pusher| pusher.pushkey).collect()
    }

    async fn requester(&self, user: &str, device: &str) -> Requester {
        let token = self.token(user, device).await;
        self.accounts.authenticate(&token).await.expect("readable").expect("a new token works")
    }
}

#[tokio::test]
async fn a_pusher_is_set_changed_and_removed() {
    let world = world();
    let ann = world.user("ann").await;
    world.set(&ann, "app", "k", Sharing::Replace).await.unwrap();
    let first = world.accounts.pushers(ann.user).await.unwrap().remove(0);
    assert_eq!((first.app_id.as_str(), first.pusher.lang.as_str()), ("app", "en"));
    assert_eq!(first.data["format"], "event_id_only");

    world.clock.advance(std::time::Duration::from_secs(9));
    let changed = NewPusher { lang: "de".into(), profile_tag: Some("t".into()), ..pusher("app", "k") };
    world.accounts.set_pusher(&ann, changed, Sharing::Replace).await.unwrap();
    let second = world.accounts.pushers(ann.user).await.unwrap().remove(0);
    assert_eq!((second.pusher.lang.as_str(), second.pusher.profile_tag.as_deref()), ("de", Some("t")));
    assert_eq!(second.pusher.created_at, first.pusher.created_at);

    world.accounts.remove_pusher(ann.user, "app", "other").await.unwrap();
    assert_eq!(world.push_keys(&ann).await, ["k"]);
    world.accounts.remove_pusher(ann.user, "app", "k").await.unwrap();
    assert!(world.push_keys(&ann).await.is_empty());
}

#[tokio::test]
async fn one_device_pushes_for_one_user_unless_it_says_otherwise() {
    let world = world();
    let (ann, bob) = (world.user("ann").await, world.user("bob").await);
    world.set(&ann, "app", "k", Sharing::Replace).await.unwrap();
    world.set(&ann, "other", "k", Sharing::Replace).await.unwrap();
    world.set(&bob, "app", "k", Sharing::Append).await.unwrap();
    assert_eq!((world.push_keys(&ann).await.len(), world.push_keys(&bob).await.len()), (2, 1));
    world.set(&bob, "app", "k", Sharing::Replace).await.unwrap();
    let left = world.accounts.pushers(ann.user).await.unwrap();
    assert_eq!(left.iter().map(|pusher| pusher.app_id.as_str()).collect::<Vec<_>>(), ["other"]);
    assert_eq!(world.push_keys(&bob).await, ["k"]);
}

#[tokio::test]
async fn what_is_no_pusher_is_refused() {
    let world = world();
    let ann = world.user("ann").await;
    let with_url =
        |url: &str| NewPusher { data: [("url".to_owned(), json!(url))].into_iter().collect(), ..pusher("a", "k") };
    let long = "x".repeat(600);
    let bad = [
        pusher("", "k"),
        pusher(&long, "k"),
        pusher("a", ""),
        pusher("a", &long),
        NewPusher { lang: long.clone(), ..pusher("a", "k") },
        with_url("http://push.test/_matrix/push/v1/notify"),
        with_url("https://push.test/elsewhere"),
        with_url("nonsense"),
        with_url(&format!("https://push.test/_matrix/push/v1/notify?{}", "x".repeat(5000))),
        NewPusher { data: serde_json::Map::new(), ..pusher("a", "k") },
    ];
    for new in bad {
        let refused = world.accounts.set_pusher(&ann, new.clone(), Sharing::Replace).await;
        assert!(matches!(refused, Err(PusherError::Invalid(_))), "{new:?}");
    }
    for n in 0..MAX_PUSHERS {
        world.set(&ann, "app", &n.to_string(), Sharing::Replace).await.unwrap();
    }
    assert!(matches!(world.set(&ann, "app", "more", Sharing::Replace).await, Err(PusherError::TooMany)));
    world.set(&ann, "app", "0", Sharing::Replace).await.expect("the old ones can be changed");
}

#[tokio::test]
async fn what_belongs_to_a_device_goes_with_it() {
    let world = world();
    world.user("ann").await;
    let (phone, tablet) = (world.requester("ann", "PHONE").await, world.requester("ann", "TABLET").await);
    world.set(&phone, "app", "phone", Sharing::Replace).await.unwrap();
    world.set(&tablet, "app", "tablet", Sharing::Replace).await.unwrap();
    let kinds = ["m.local_notification_settings.PHONE", "org.matrix.msc3890.local_notification_settings.TABLET"];
    for kind in kinds {
        let data = NewAccountData { room: None, kind: kind.into(), json: "{\"is_silenced\":true}".into() };
        world.accounts.set_account_data(phone.user, data).await.unwrap();
    }
    let kept = async |kind: &str| world.accounts.account_data(phone.user, None, kind).await.unwrap().is_some();

    world.accounts.logout(&phone).await.unwrap();
    assert_eq!(world.push_keys(&tablet).await, ["tablet"]);
    assert_eq!((kept(kinds[0]).await, kept(kinds[1]).await), (false, true));
    assert!(matches!(world.set(&phone, "app", "late", Sharing::Replace).await, Err(PusherError::NoDevice)));

    world.accounts.logout_all(tablet.user).await.unwrap();
    assert!(world.push_keys(&tablet).await.is_empty());
    assert!(!kept(kinds[1]).await);
}
