//! Two use-cases in each other's way, step by step.

use std::sync::Arc;

use ruma_common::push::{RuleKind, Ruleset};

use super::gates::{GatedStore, Place};
use crate::testing::*;
use crate::{
    AccountDataError, AccountsSettings, Erase, LoginError, LogoutDevices, NewRegistrationToken, RegisterError,
    Registration,
};

const NEW: &str = "a very different one";

fn gated(settings: AccountsSettings) -> (Arc<GatedStore>, Arc<World>) {
    let store = GatedStore::new();
    let world = world_on(Arc::clone(&store) as _, settings, 1);
    (store, Arc::new(world))
}

#[tokio::test]
async fn a_look_up_that_began_before_a_log_out_is_not_remembered() {
    let (store, world) = gated(settings());
    world.register("ann").await.unwrap();
    let token = world.token("ann", "PHONE").await;
    let phone = world.accounts.authenticate(&token).await.unwrap().unwrap();
    // A server that has just started knows no token yet.
    world.accounts.sessions.forget(&[phone.token]);
    let gate = store.hold(Place::Read);
    let (reader, shown) = (Arc::clone(&world), token.clone());
    let reader = tokio::spawn(async move { reader.works(&shown).await });
    gate.reached().await;
    world.accounts.logout(&phone).await.unwrap();
    gate.open();
    assert!(reader.await.unwrap(), "it began before");
    assert!(!world.works(&token).await);
}

#[tokio::test]
async fn a_log_out_whose_client_hangs_up_still_ends_the_session() {
    let (store, world) = gated(settings());
    world.register("ann").await.unwrap();
    let token = world.token("ann", "PHONE").await;
    let phone = world.accounts.authenticate(&token).await.unwrap().unwrap();
    let gate = store.hold(Place::Answer);
    let logout = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.accounts.logout(&phone).await }
    });
    gate.reached().await;
    logout.abort();
    assert!(logout.await.unwrap_err().is_cancelled());
    gate.open();
    tokio::task::yield_now().await;
    assert!(!world.works(&token).await);
}

#[tokio::test]
async fn a_log_in_during_a_deactivation_does_not_survive_it() {
    let (store, world) = gated(settings());
    let ann = world.user("ann").await;
    let gate = store.hold(Place::Commit);
    let deactivation = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.accounts.deactivate(ann.user, Erase::No).await }
    });
    gate.reached().await;
    let token = world.token("ann", "LATE").await;
    assert!(world.works(&token).await);
    gate.open();
    deactivation.await.unwrap().unwrap();
    assert!(!world.works(&token).await);
    assert_eq!(world.accounts.devices(ann.user).await.unwrap(), []);
}

#[tokio::test]
async fn a_log_in_on_a_known_device_during_a_log_out_everywhere_does_not_survive_it() {
    let (store, world) = gated(settings());
    let ann = world.user("ann").await;
    world.token("ann", "PHONE").await;
    let gate = store.hold(Place::Commit);
    let everywhere = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.accounts.logout_all(ann.user).await }
    });
    gate.reached().await;
    let token = world.token("ann", "PHONE").await;
    gate.open();
    everywhere.await.unwrap().unwrap();
    assert!(!world.works(&token).await);
}

#[tokio::test]
async fn a_deactivation_during_a_log_in_refuses_it() {
    let (store, world) = gated(settings());
    let ann = world.user("ann").await;
    let gate = store.hold(Place::Commit);
    let login = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.login("ann", "LATE").await }
    });
    gate.reached().await;
    world.accounts.deactivate(ann.user, Erase::No).await.unwrap();
    gate.open();
    assert!(matches!(login.await.unwrap(), Err(LoginError::Deactivated)));
    assert_eq!(world.accounts.devices(ann.user).await.unwrap(), []);
}

#[tokio::test]
async fn a_new_password_during_a_log_in_refuses_the_old_one() {
    let (store, world) = gated(settings());
    let ann = world.user("ann").await;
    let gate = store.hold(Place::Commit);
    let login = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.login("ann", "LATE").await }
    });
    gate.reached().await;
    world.accounts.change_password(ann.user, &secret(NEW), LogoutDevices::None).await.unwrap();
    gate.open();
    assert!(matches!(login.await.unwrap(), Err(LoginError::Forbidden)));
    let again = world.accounts.login_password("ann", &secret(NEW), on_device("LATE")).await;
    assert!(again.is_ok());
}

#[tokio::test]
async fn the_last_use_of_a_registration_token_is_taken_once() {
    let (store, world) = gated(AccountsSettings { registration: Registration::Token, ..settings() });
    let wish = NewRegistrationToken { token: Some("one".into()), uses_allowed: Some(1), expires_at: None };
    world.accounts.create_registration_token(wish).await.unwrap();
    let by_token = |name: &str| crate::NewAccount { registration_token: Some("one".into()), ..new_account(name) };
    // The first commit of a registration takes the use.
    let gate = store.hold(Place::Commit);
    let slow = tokio::spawn({
        let (world, account) = (Arc::clone(&world), by_token("slow"));
        async move { world.accounts.register(account).await }
    });
    gate.reached().await;
    world.accounts.register(by_token("quick")).await.unwrap();
    gate.open();
    assert!(matches!(slow.await.unwrap(), Err(RegisterError::InvalidToken)));
    assert!(world.accounts.is_available("slow").await.is_ok());
    assert_eq!(world.accounts.registration_tokens().await.unwrap()[0].used, 1);
}

#[tokio::test]
async fn two_changes_of_a_profile_at_once_are_both_kept() {
    let (store, world) = gated(settings());
    let ann = world.user("ann").await;
    let gate = store.hold(Place::Commit);
    let name = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.accounts.set_displayname(ann.user, Some("Ann".into())).await }
    });
    gate.reached().await;
    world.accounts.set_avatar_url(ann.user, Some("mxc://a/b".into())).await.unwrap();
    gate.open();
    let change = name.await.unwrap().unwrap();
    let expected = crate::Profile {
        displayname: Some("Ann".into()),
        avatar_url: Some("mxc://a/b".into()),
        ..crate::Profile::default()
    };
    assert_eq!(change.after, expected);
    assert_eq!(world.accounts.profile(&ann.user_id).await.unwrap(), Some(expected));
}

#[tokio::test]
async fn two_tags_of_a_room_at_once_are_both_kept() {
    let (store, world) = gated(settings());
    let ann = world.user("ann").await;
    let room = ruma_common::room_id!("!room:hs.test");
    let gate = store.hold(Place::Commit);
    let slow = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.accounts.set_room_tag(ann.user, room, ("slow", &serde_json::Map::new())).await }
    });
    gate.reached().await;
    world.accounts.set_room_tag(ann.user, room, ("quick", &serde_json::Map::new())).await.unwrap();
    gate.open();
    assert!(slow.await.unwrap().unwrap().is_some());
    let tags = world.accounts.room_tags(ann.user, room).await.unwrap();
    assert_eq!(tags.keys().collect::<Vec<_>>(), ["quick", "slow"]);
}

#[tokio::test]
async fn two_changes_of_push_rules_at_once_are_both_kept() {
    let (store, world) = gated(settings());
    let ann = world.user("ann").await;
    let enable = |rules: &mut Ruleset| {
        rules.set_enabled(RuleKind::Override, ".m.rule.master", true).unwrap();
        Ok::<_, AccountDataError>(())
    };
    let disable = |rules: &mut Ruleset| {
        rules.set_enabled(RuleKind::Override, ".m.rule.suppress_notices", false).unwrap();
        Ok::<_, AccountDataError>(())
    };
    let gate = store.hold(Place::Commit);
    let slow = tokio::spawn({
        let (world, user_id) = (Arc::clone(&world), ann.user_id.clone());
        async move { world.accounts.change_push_rules(&user_id, enable).await }
    });
    gate.reached().await;
    world.accounts.change_push_rules(&ann.user_id, disable).await.unwrap();
    gate.open();
    slow.await.unwrap().unwrap();
    let rules = world.accounts.push_rules(&ann.user_id).await.unwrap();
    let enabled = |rule: &str| rules.get(RuleKind::Override, rule).unwrap().enabled();
    assert!(enabled(".m.rule.master"));
    assert!(!enabled(".m.rule.suppress_notices"));
}
