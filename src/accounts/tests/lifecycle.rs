//! Deactivation, profiles, administrators.

use crate::testing::*;
use crate::{
    Admin, DeactivateError, Erase, LoginError, NewAccountData, Profile, ProfileChange, ProfileError, RegisterError,
};

fn profile(name: Option<&str>, avatar: Option<&str>) -> Profile {
    Profile { displayname: name.map(Into::into), avatar_url: avatar.map(Into::into), ..Profile::default() }
}

#[tokio::test]
async fn a_deactivated_account_is_closed_and_its_name_stays_taken() {
    let world = world();
    let ann = world.user("ann").await;
    let token = world.token("ann", "PHONE").await;
    assert!(world.works(&token).await);
    world.accounts.set_displayname(ann.user, Some("Ann".into())).await.unwrap();
    let data = NewAccountData { room: None, kind: "t".into(), json: "{\"a\":1}".into() };
    world.accounts.set_account_data(ann.user, data).await.unwrap();
    let filter = world.accounts.store_filter(ann.user, "{}").await.unwrap();

    world.accounts.deactivate(ann.user, Erase::No).await.unwrap();
    assert!(!world.works(&token).await);
    assert!(matches!(world.login("ann", "PHONE").await, Err(LoginError::Deactivated)));
    assert!(matches!(world.login("ann", "PHONE").await, Err(LoginError::Deactivated)));
    assert!(matches!(world.register("ann").await, Err(RegisterError::UserInUse)));
    assert_eq!(world.accounts.devices(ann.user).await.unwrap(), []);
    assert_eq!(world.accounts.all_account_data(ann.user).await.unwrap(), []);
    assert_eq!(world.accounts.filter(ann.user, &filter).await.unwrap(), None);
    let info = world.accounts.account(ann.user).await.unwrap().unwrap();
    assert_eq!((info.deactivated, info.has_password), (true, false));
    assert_eq!(world.accounts.profile(&ann.user_id).await.unwrap(), Some(profile(Some("Ann"), None)));

    world.accounts.deactivate(ann.user, Erase::Yes).await.unwrap();
    assert_eq!(world.accounts.profile(&ann.user_id).await.unwrap(), Some(profile(None, None)));
    let nobody = world.accounts.user_nid("@nobody:hs.test".try_into().unwrap());
    assert!(matches!(world.accounts.deactivate(nobody, Erase::No).await, Err(DeactivateError::NoAccount)));
}

#[tokio::test]
async fn profiles_change_one_field_at_a_time() {
    let world = world();
    let ann = world.user("ann").await;
    assert_eq!(world.accounts.profile(&ann.user_id).await.unwrap(), Some(profile(None, None)));
    let change = world.accounts.set_displayname(ann.user, Some("Ann".into())).await.unwrap();
    assert_eq!(change, ProfileChange { before: profile(None, None), after: profile(Some("Ann"), None) });
    let change = world.accounts.set_avatar_url(ann.user, Some("mxc://a/b".into())).await.unwrap();
    assert_eq!(change.after, profile(Some("Ann"), Some("mxc://a/b")));
    let change = world.accounts.set_displayname(ann.user, Some(String::new())).await.unwrap();
    assert_eq!(change.after, profile(None, Some("mxc://a/b")));
    assert_eq!(world.accounts.profile(&ann.user_id).await.unwrap(), Some(change.after));
}

#[tokio::test]
async fn profiles_of_others_are_unknown_here() {
    let world = world();
    for id in ["@ann:hs.test", "@ann:other.test"] {
        assert_eq!(world.accounts.profile(id.try_into().unwrap()).await.unwrap(), None, "{id}");
    }
}

#[tokio::test]
async fn profiles_have_limits() {
    let world = world();
    let ann = world.user("ann").await;
    let name = |count| world.accounts.set_displayname(ann.user, Some("ü".repeat(count)));
    name(256).await.unwrap();
    assert!(matches!(name(257).await, Err(ProfileError::DisplaynameTooLong)));
    let avatar = |count| world.accounts.set_avatar_url(ann.user, Some("x".repeat(count)));
    avatar(1000).await.unwrap();
    assert!(matches!(avatar(1001).await, Err(ProfileError::AvatarUrlTooLong)));
    let after = world.accounts.profile(&ann.user_id).await.unwrap().unwrap();
    assert_eq!(after, profile(Some(&"ü".repeat(256)), Some(&"x".repeat(1000))));
}

#[tokio::test]
async fn profiles_keep_any_field_within_64_kib() {
    let world = world();
    let ann = world.user("ann").await;
    let set = |name: &str, json: Option<String>| {
        let (accounts, name) = (&world.accounts, name.to_owned());
        async move { accounts.set_profile_field(ann.user, &name, json).await }
    };
    set("m.tz", Some("\"Europe/Vienna\"".into())).await.unwrap();
    set("org.x.list", Some("[1,null]".into())).await.unwrap();
    world.accounts.set_displayname(ann.user, Some("Ann".into())).await.unwrap();
    let fields = [("m.tz", "\"Europe/Vienna\""), ("org.x.list", "[1,null]")];
    let fields = fields.map(|(name, json)| (name.to_owned(), json.to_owned())).into();
    let expected = Profile { fields, ..profile(Some("Ann"), None) };
    assert_eq!(world.accounts.profile(&ann.user_id).await.unwrap(), Some(expected));
    set("m.tz", None).await.unwrap();
    set("org.x.none", None).await.unwrap();
    // {"displayname":"Ann","org.x.list":…} takes 35 bytes with an empty value.
    let room = crate::MAX_PROFILE_BYTES - 35;
    assert!(matches!(set("org.x.list", Some("1".repeat(room))).await, Err(ProfileError::TooLarge)));
    set("org.x.list", Some("1".repeat(room - 1))).await.unwrap();
    let longer = world.accounts.set_displayname(ann.user, Some("Anna".into())).await;
    assert!(matches!(longer, Err(ProfileError::TooLarge)), "{longer:?}");
    world.accounts.set_displayname(ann.user, None).await.unwrap();
    assert!(matches!(set(&format!("a.{}", "b".repeat(254)), None).await, Err(ProfileError::NameTooLong)));
    assert!(matches!(set("colour", Some("1".into())).await, Err(ProfileError::BadName)));
}

#[tokio::test]
async fn administrators_are_made_and_unmade() {
    let world = world();
    let ann = world.user("ann").await;
    for admin in [Admin::Yes, Admin::No] {
        assert!(world.accounts.set_admin(ann.user, admin).await.unwrap());
        assert_eq!(world.accounts.account(ann.user).await.unwrap().unwrap().admin, admin == Admin::Yes);
    }
    world.accounts.set_admin(ann.user, Admin::Yes).await.unwrap();
    world.accounts.deactivate(ann.user, Erase::No).await.unwrap();
    assert!(!world.accounts.account(ann.user).await.unwrap().unwrap().admin);
    assert!(!world.accounts.set_admin(ann.user, Admin::Yes).await.unwrap());
}
