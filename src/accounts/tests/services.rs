//! Application services as users.

use std::sync::Arc;

use hearth_schema::{Profiles, Users};
use hearth_store::View;
use ruma_common::server_name;
use serde_json::json;

use crate::testing::*;
use crate::{
    AccountsSettings, Acting, ActingError, Client, DeviceError, DeviceRequest, Erase, LoginError, Measure, NewAccount,
    PutDevice, RegisterError, Registration, Requester, Service, ServiceLoginError, Services,
};

fn services() -> Services {
    let read = |id| Service::from_registration(&service(id), server_name!("hs.test")).unwrap();
    Services::new(vec![read("one"), read("two")]).unwrap()
}

fn with_services() -> AccountsSettings {
    AccountsSettings { services: services(), registration: Registration::Closed, ..settings() }
}

async fn started() -> World {
    let world = world_with(with_services());
    world.accounts.make_senders().await.unwrap();
    world
}

fn as_user(user_id: &str) -> Acting<'_> {
    Acting { user_id: Some(user_id), device_id: None }
}

fn silent(localpart: &str) -> NewAccount {
    NewAccount { localpart: Some(localpart.into()), inhibit_login: true, ..NewAccount::default() }
}

impl World {
    fn service(&self, id: &str) -> Arc<Service> {
        self.accounts.service(&format!("as-{id}-0123456789")).expect("a service has this token").clone()
    }

    async fn ghost(&self, localpart: &str) -> Requester {
        let one = self.service("one");
        let done = self.accounts.register_by_service(&one, silent(localpart)).await.unwrap();
        self.accounts.act(&one, as_user(done.user_id.as_str())).await.unwrap()
    }
}

#[tokio::test]
async fn a_sender_is_made_once_without_password_and_profile() {
    let world = started().await;
    world.accounts.make_senders().await.unwrap();
    let bot = world.accounts.act(&world.service("one"), Acting::default()).await.unwrap();
    assert_eq!(bot.user_id, "@one-bot:hs.test");
    assert_eq!(bot.client, Client::Service { service: world.service("one"), device_id: None });
    let view = View::latest(&*world.store).await.unwrap();
    let row = view.get::<Users>(&(bot.user,)).await.unwrap().expect("an account");
    assert_eq!(row.password_hash, None);
    assert_eq!(view.get::<Profiles>(&(bot.user,)).await.unwrap(), None);
    // The clock has gone on, and the server has started again.
    let again = world_on(Arc::clone(&world.store), with_services(), 2);
    again.clock.advance(std::time::Duration::from_secs(60));
    again.accounts.make_senders().await.unwrap();
    let view = View::latest(&*world.store).await.unwrap();
    assert_eq!(view.get::<Users>(&(bot.user,)).await.unwrap(), Some(row));
}

#[tokio::test]
async fn only_a_whole_token_is_a_services() {
    let world = started().await;
    for wrong in
        ["", "as-one-012345678", "as-one-01234567890", "AS-ONE-0123456789", "hs-one-0123456789", "as-one-0123456789\0"]
    {
        assert!(world.accounts.service(wrong).is_none(), "{wrong}");
    }
    assert!(!world.works("as-one-0123456789").await, "it is no token of a device");
    let without = world_with(settings());
    assert!(without.accounts.service("as-one-0123456789").is_none());
}

#[tokio::test]
async fn a_service_acts_as_users_that_it_claims_and_that_are_there() {
    let world = started().await;
    let one = world.service("one");
    let act = |named: &'static str| {
        let (accounts, one) = (&world.accounts, &one);
        async move { accounts.act(one, as_user(named)).await }
    };
    assert!(matches!(act("@_one_ann:hs.test").await, Err(ActingError::NotRegistered)));
    world.ghost("_one_ann").await;
    assert_eq!(act("@_one_ann:hs.test").await.unwrap().user_id, "@_one_ann:hs.test");
    assert_eq!(act("@one-bot:hs.test").await.unwrap().user_id, "@one-bot:hs.test");
    for other in [
        "@two-bot:hs.test",
        "@_two_x:hs.test",
        "@_one_ann:other.test",
        "@ann:hs.test",
        "_one_ann",
        "",
        "@",
        "@:hs.test",
    ] {
        assert!(matches!(act(other).await, Err(ActingError::OtherUser)), "{other}");
    }
}

#[tokio::test]
async fn a_service_names_devices_of_the_user_alone() {
    let world = started().await;
    let (one, ann, bob) = (world.service("one"), world.ghost("_one_ann").await, world.ghost("_one_bob").await);
    let put = |by: &Requester, id: &'static str, name: Option<&'static str>| {
        let (accounts, by) = (Arc::clone(&world.accounts), by.clone());
        async move { accounts.put_device_by_service(&by, id.into(), name.map(str::to_owned)).await }
    };
    assert_eq!(put(&ann, "PHONE", Some("Phone")).await.unwrap(), PutDevice::Created);
    assert_eq!(put(&ann, "PHONE", None).await.unwrap(), PutDevice::Updated);
    let known = world.accounts.device(ann.user, "PHONE".into()).await.unwrap().unwrap();
    assert_eq!(known.display_name.as_deref(), Some("Phone"));
    put(&bob, "TABLET", None).await.unwrap();
    for bad in ["", "\0service one", "x\0"] {
        assert!(matches!(put(&ann, bad, None).await, Err(DeviceError::InvalidName(_))), "{bad:?}");
    }
    let on = |device: &'static str| {
        let (accounts, one, user) = (&world.accounts, &one, ann.user_id.as_str());
        async move { accounts.act(one, Acting { user_id: Some(user), device_id: Some(device) }).await }
    };
    assert_eq!(on("PHONE").await.unwrap().client.device_id().map(AsRef::as_ref), Some("PHONE"));
    let long: &'static str = "x".repeat(300).leak();
    for other in ["TABLET", "", "phone", ann.client.name().as_str().to_owned().leak(), long] {
        assert!(matches!(on(other).await, Err(ActingError::UnknownDevice)), "{other:?}");
    }
}

#[tokio::test]
async fn a_service_registers_what_it_claims_although_registration_is_closed() {
    let world = started().await;
    let one = world.service("one");
    assert!(matches!(world.register("ann").await, Err(RegisterError::Closed)));
    let account = NewAccount { device: on_device("PHONE"), inhibit_login: false, ..silent("_one_ann") };
    let done = world.accounts.register_by_service(&one, account.clone()).await.unwrap();
    assert!(world.works(done.session.unwrap().access_token.expose()).await);
    let again = world.accounts.register_by_service(&one, account).await;
    assert!(matches!(again, Err(RegisterError::UserInUse)));
    for (name, other) in [("ann", true), ("_two_ann", true), ("two-bot", true), ("one-bot", false)] {
        let result = world.accounts.register_by_service(&one, silent(name)).await;
        let expected = if other {
            matches!(result, Err(RegisterError::Exclusive))
        } else {
            matches!(result, Err(RegisterError::UserInUse))
        };
        assert!(expected, "{name}: {result:?}");
    }
    let device = DeviceRequest { device_id: Some("\0service one".into()), ..DeviceRequest::default() };
    let result = world.accounts.register_by_service(&one, NewAccount { device, ..silent("_one_bob") }).await;
    assert!(matches!(result, Err(RegisterError::InvalidDevice(_))));
}

#[tokio::test]
async fn nobody_else_registers_what_a_service_claims_alone() {
    let mut wide = service("wide");
    wide["namespaces"]["users"] =
        json!([{"exclusive": true, "regex": "@irc-.*"}, {"exclusive": false, "regex": "@.*"}]);
    let wide = Service::from_registration(&wide, server_name!("hs.test")).unwrap();
    let services = Services::new(vec![wide]).unwrap();
    let world = world_with(AccountsSettings { services, ..settings() });
    world.accounts.make_senders().await.unwrap();
    for name in ["irc-ann", "IRC-Ann", "wide-bot"] {
        assert!(matches!(world.register(name).await, Err(RegisterError::Exclusive)), "{name}");
        assert!(matches!(world.accounts.is_available(name).await, Err(RegisterError::Exclusive)), "{name}");
    }
    world.register("ann").await.unwrap();
}

#[tokio::test]
async fn a_service_logs_in_what_it_claims() {
    let world = started().await;
    let one = world.service("one");
    let ann = world.ghost("_one_ann").await;
    let login = |user: &'static str| {
        let (accounts, one) = (&world.accounts, &one);
        async move { accounts.login_by_service(one, user, on_device("PHONE")).await }
    };
    for user in ["_one_ann", "@_one_ann:hs.test", "_One_Ann"] {
        let done = login(user).await.unwrap();
        assert_eq!(done.user_id, ann.user_id);
        assert!(world.works(done.session.access_token.expose()).await);
    }
    for other in ["_two_x", "@ann:hs.test", "@_one_ann:other.test", ""] {
        assert!(matches!(login(other).await, Err(ServiceLoginError::Exclusive)), "{other}");
    }
    assert!(matches!(login("_one_bob").await, Err(ServiceLoginError::NotRegistered)));
}

#[tokio::test]
async fn what_is_decided_about_a_user_holds_when_a_service_acts() {
    let mut settings = with_services();
    settings.admins.extend(["@one-bot:hs.test".to_owned(), "@_one_chief:hs.test".to_owned()]);
    let world = world_with(settings);
    world.accounts.make_senders().await.unwrap();
    let one = world.service("one");
    let bot = world.accounts.act(&one, Acting::default()).await.unwrap();
    assert!(bot.standing.admin, "the operator named the sender itself");
    assert!(!world.ghost("_one_chief").await.standing.admin, "a namespace is no leave to administer");
    let login = world.accounts.login_by_service(&one, "_one_chief", on_device("PHONE")).await;
    assert!(matches!(login, Err(ServiceLoginError::Administrator)));
    world.accounts.login_by_service(&one, "one-bot", on_device("PHONE")).await.unwrap();
    let ann = world.ghost("_one_ann").await;
    world.accounts.moderate(&bot, &ann.user_id, Measure::Lock).await.unwrap();
    let locked = world.accounts.act(&one, as_user(ann.user_id.as_str())).await.unwrap();
    assert!(locked.standing.moderation.locked);
    let login = world.accounts.login_by_service(&one, "_one_ann", on_device("PHONE")).await;
    assert!(matches!(login, Err(ServiceLoginError::Login(LoginError::Locked))));
    world.accounts.moderate(&bot, &ann.user_id, Measure::Unlock).await.unwrap();
    world.accounts.deactivate(ann.user, Erase::No).await.unwrap();
    let acting = world.accounts.act(&one, as_user(ann.user_id.as_str())).await;
    assert!(matches!(acting, Err(ActingError::Deactivated)));
    let login = world.accounts.login_by_service(&one, "_one_ann", on_device("PHONE")).await;
    assert!(matches!(login, Err(ServiceLoginError::Login(LoginError::Deactivated))));
}

#[tokio::test]
async fn a_service_may_wait_with_its_token() {
    let world = started().await;
    let ann = world.ghost("_one_ann").await;
    let watch = world.accounts.watch_session(&ann).await.unwrap().expect("its token works");
    assert_eq!(watch.ended(), None);
}
