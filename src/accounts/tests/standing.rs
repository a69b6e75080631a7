//! Locking, suspending, guests, tokens that log in once, the shared secret, policies. Rows F3, F4, F5
//! and F9 of the attack classes.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use hearth_base::FixedClock;
use hearth_schema::{AccountKind, Moderation};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::testing::*;
use crate::{
    AccountsSettings, Admin, AdminError, Erase, LoginError, LoginTokenError, LogoutDevices, MAX_LOGIN_TOKENS, Measure,
    NewAccount, NewAccountData, Policy, RefreshError, RegisterError, Registration, SessionEnd, SharedSecretError,
    SharedSecretRequest, TokenState,
};

const MINUTE: Duration = Duration::from_secs(60);

fn later(clock: &FixedClock, by: Duration) {
    clock.advance(by);
}

fn governed() -> AccountsSettings {
    AccountsSettings { admins: BTreeSet::from(["@root:hs.test".to_owned()]), ..settings() }
}

#[tokio::test]
async fn a_locked_account_waits_and_a_suspended_one_is_marked() {
    let world = world_with(governed());
    let (root, ann) = (world.user("root").await, world.user("ann").await);
    assert!(root.standing.admin && !ann.standing.admin);
    let mut device = on_device("PHONE");
    device.refresh = true;
    let phone = world.accounts.login_password("ann", &secret(PASSWORD), device).await.unwrap().session;
    let token = phone.access_token.expose();
    let standing = async || match world.accounts.token_state(token).await.unwrap() {
        TokenState::Live(requester) => requester.standing.moderation,
        other => panic!("{other:?}"),
    };
    assert_eq!(standing().await, Moderation::default());
    let locked = world.accounts.moderate(&root, &ann.user_id, Measure::Lock).await.unwrap();
    assert_eq!(locked, Moderation { locked: true, suspended: false });
    // The cache does not remember the old standing.
    assert_eq!(standing().await, locked);
    assert!(matches!(world.login("ann", "PHONE").await, Err(LoginError::Locked)));
    let wrong = world.accounts.login_password("ann", &secret("wrong password"), on_device("PHONE")).await;
    assert!(matches!(wrong, Err(LoginError::Forbidden)), "only the user learns of it");
    let refresh = phone.refresh.unwrap().token;
    assert!(matches!(world.accounts.refresh(refresh.expose()).await, Err(RefreshError::Locked)));
    world.accounts.moderate(&root, &ann.user_id, Measure::Unlock).await.unwrap();
    assert_eq!(standing().await, Moderation::default());
    world.accounts.moderate(&root, &ann.user_id, Measure::Suspend).await.unwrap();
    assert!(standing().await.suspended);
    world.login("ann", "LAPTOP").await.unwrap();
    world.accounts.refresh(refresh.expose()).await.unwrap();
    world.accounts.moderate(&root, &ann.user_id, Measure::Unsuspend).await.unwrap();
}

#[tokio::test]
async fn whoever_waits_hears_of_a_lock() {
    let world = world_with(governed());
    let (root, ann) = (world.user("root").await, world.user("ann").await);
    let watch = world.accounts.watch_session(&ann).await.unwrap().unwrap();
    world.accounts.moderate(&root, &ann.user_id, Measure::Suspend).await.unwrap();
    assert_eq!(watch.ended(), None, "who is suspended goes on reading");
    world.accounts.moderate(&root, &ann.user_id, Measure::Lock).await.unwrap();
    assert_eq!(watch.end().await, SessionEnd::Superseded);
}

#[tokio::test]
async fn only_administrators_decide_and_not_about_administrators() {
    let world = world_with(governed());
    let (root, ann) = (world.user("root").await, world.user("ann").await);
    let nobody = "@nobody:hs.test".try_into().unwrap();
    let lock = |by, user| world.accounts.moderate(by, user, Measure::Lock);
    // Who may not ask learns nothing about who is here.
    for user in [nobody, root.user_id.as_ref(), "@x:other.test".try_into().unwrap()] {
        assert!(matches!(lock(&ann, user).await, Err(AdminError::NotAdmin)), "{user}");
        assert!(matches!(world.accounts.moderation(&ann, user).await, Err(AdminError::NotAdmin)), "{user}");
    }
    assert!(matches!(lock(&root, nobody).await, Err(AdminError::NoAccount)));
    assert!(matches!(lock(&root, "@x:other.test".try_into().unwrap()).await, Err(AdminError::NotLocal)));
    assert!(matches!(lock(&root, &root.user_id).await, Err(AdminError::Oneself)));
    world.accounts.set_admin(ann.user, Admin::Yes).await.unwrap();
    assert!(matches!(lock(&root, &ann.user_id).await, Err(AdminError::OtherAdmin)));
    let bob = world.user("bob").await;
    world.accounts.deactivate(bob.user, Erase::No).await.unwrap();
    assert!(matches!(lock(&root, &bob.user_id).await, Err(AdminError::NoAccount)));
}

#[tokio::test]
async fn whois_is_for_oneself_and_for_administrators() {
    let world = world_with(governed());
    let (root, ann) = (world.user("root").await, world.user("ann").await);
    assert_eq!(world.accounts.whois(&root, &ann.user_id).await.unwrap().len(), 1);
    assert_eq!(world.accounts.whois(&ann, &ann.user_id).await.unwrap().len(), 1);
    assert!(matches!(world.accounts.whois(&ann, &root.user_id).await, Err(AdminError::NotAdmin)));
}

#[tokio::test]
async fn a_login_token_logs_in_once_and_for_two_minutes() {
    let world = world_with(AccountsSettings { login_token_lifetime: Some(2 * MINUTE), ..governed() });
    let ann = world.user("a_n_n").await;
    let make = async || world.accounts.create_login_token(&ann).await.map(|(token, _)| token.expose().clone());
    let login = |token: String| {
        let accounts = &world.accounts;
        async move { accounts.login_token(&token, on_device("PHONE")).await }
    };
    let token = make().await.unwrap();
    let other = format!("hlt_{}", token.split_once('_').unwrap().1.replace("a_n_n", "bob"));
    for wrong in [String::new(), "hlt_".into(), token[..token.len() - 1].into(), format!("{token}x"), other] {
        assert!(matches!(login(wrong.clone()).await, Err(LoginError::Forbidden)), "{wrong}");
    }
    assert!(matches!(login(format!("{token}{}", "x".repeat(10_000))).await, Err(LoginError::Forbidden)));
    let (first, second) = tokio::join!(login(token.clone()), login(token.clone()));
    assert_eq!([&first, &second].iter().filter(|done| done.is_ok()).count(), 1, "{first:?} {second:?}");
    let done = first.or(second).unwrap();
    assert_eq!((done.user_id, done.session.device_id.as_str()), (ann.user_id.clone(), "PHONE"));
    assert!(matches!(login(token).await, Err(LoginError::Forbidden)), "spent");

    let old = make().await.unwrap();
    later(&world.clock, 2 * MINUTE);
    assert!(matches!(login(old).await, Err(LoginError::Forbidden)), "expired");
    for _ in 0..MAX_LOGIN_TOKENS {
        make().await.unwrap();
    }
    assert!(matches!(make().await, Err(LoginTokenError::TooMany)));
    later(&world.clock, 2 * MINUTE);
    let last = make().await.unwrap();
    let keep = LogoutDevices::Others(ann.client.name().to_owned());
    world.accounts.change_password(ann.user, &secret("another password"), keep).await.unwrap();
    assert!(matches!(login(last).await, Err(LoginError::Forbidden)), "whoever had the old password may have made it");
    let last = make().await.unwrap();
    world.accounts.logout_all(ann.user).await.unwrap();
    assert!(matches!(login(last).await, Err(LoginError::Forbidden)));
}

#[tokio::test]
async fn locked_and_deactivated_users_have_no_use_of_a_login_token() {
    let world = world_with(AccountsSettings { login_token_lifetime: Some(MINUTE), ..governed() });
    let (root, ann) = (world.user("root").await, world.user("ann").await);
    let (token, lifetime) = world.accounts.create_login_token(&ann).await.unwrap();
    assert_eq!(lifetime, MINUTE);
    world.accounts.moderate(&root, &ann.user_id, Measure::Lock).await.unwrap();
    let login = async || world.accounts.login_token(token.expose(), on_device("PHONE")).await;
    assert!(matches!(login().await, Err(LoginError::Locked)));
    world.accounts.deactivate(ann.user, Erase::No).await.unwrap();
    assert!(matches!(login().await, Err(LoginError::Forbidden)));
    let off = world_with(settings());
    let bob = off.user("bob").await;
    assert!(matches!(off.accounts.create_login_token(&bob).await, Err(LoginTokenError::Disabled)));
}

#[tokio::test]
async fn guests_come_only_where_they_may_and_can_stay() {
    let world = world();
    assert!(matches!(world.accounts.register_guest(None).await, Err(RegisterError::NoGuests)));
    let world = world_with(AccountsSettings { guests: true, ..settings() });
    let made = world.accounts.register_guest(Some("Browser".into())).await.unwrap();
    let token = made.session.unwrap().access_token;
    let guest = world.accounts.authenticate(token.expose()).await.unwrap().unwrap();
    assert_eq!(guest.standing.kind, AccountKind::Guest);
    let name = guest.user_id.localpart().to_owned();
    assert!(matches!(world.login(&name, "PHONE").await, Err(LoginError::Forbidden)), "there is no password");
    assert_eq!(world.accounts.guest(token.expose(), Some("somebody")).await.unwrap(), None);
    assert_eq!(world.accounts.guest(token.expose(), None).await.unwrap(), None);
    let found = world.accounts.guest(token.expose(), Some(&name)).await.unwrap().unwrap();
    let wish = NewAccount { device: on_device("PHONE"), ..new_account(&name) };
    let stayed = world.accounts.upgrade_guest(&found, wish).await.unwrap();
    assert_eq!(stayed.user_id, guest.user_id);
    world.login(&name, "LAPTOP").await.unwrap();
    let now = world.accounts.authenticate(token.expose()).await.unwrap().unwrap();
    assert_eq!(now.standing.kind, AccountKind::User, "at once, with the old token");
    let again = world.accounts.upgrade_guest(&found, new_account(&name)).await;
    assert!(matches!(again, Err(RegisterError::UserInUse)));
    assert_eq!(world.accounts.guest(token.expose(), Some(&name)).await.unwrap(), None);
}

fn wish(nonce: String, name: &str) -> SharedSecretRequest {
    SharedSecretRequest {
        nonce,
        localpart: name.to_owned(),
        password: secret(PASSWORD),
        admin: Admin::Yes,
        user_type: None,
        displayname: None,
        inhibit_login: false,
        mac: String::new(),
    }
}

fn signed(request: SharedSecretRequest, key: &str) -> SharedSecretRequest {
    let admin = if request.admin == Admin::Yes { "admin" } else { "notadmin" };
    let mut text = format!("{}\0{}\0{PASSWORD}\0{admin}", request.nonce, request.localpart);
    if let Some(user_type) = &request.user_type {
        text.push('\0');
        text.push_str(user_type);
    }
    let mut mac = Hmac::<Sha1>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    let mut digits = String::new();
    for byte in mac.finalize().into_bytes() {
        write!(digits, "{byte:02x}").unwrap();
    }
    SharedSecretRequest { mac: digits, ..request }
}

#[tokio::test]
async fn whoever_knows_the_secret_registers_anybody_with_a_fresh_nonce() {
    let key = "a secret of the operator";
    let closed = AccountsSettings { registration: Registration::Closed, ..settings() };
    let world = world_with(AccountsSettings { shared_secret: Some(secret(key)), ..closed.clone() });
    let nonce = || world.accounts.shared_secret_nonce().unwrap();
    let register = |request| world.accounts.register_with_secret(request);
    let root = SharedSecretRequest {
        user_type: Some("support".into()),
        displayname: Some("Root".into()),
        ..wish(nonce(), "Root")
    };
    let root = signed(root, key);
    let made = register(root.clone()).await.unwrap();
    assert_eq!(made.user_id, "@root:hs.test");
    let token = made.session.unwrap().access_token;
    assert!(world.accounts.authenticate(token.expose()).await.unwrap().unwrap().standing.admin);
    let info = world.accounts.account(world.accounts.user_nid(&made.user_id)).await.unwrap().unwrap();
    assert_eq!((info.admin, info.user_type.as_deref()), (true, Some("support")));
    let profile = world.accounts.profile(&made.user_id).await.unwrap().unwrap();
    assert_eq!(profile.displayname.as_deref(), Some("Root"));
    assert!(matches!(register(root).await, Err(SharedSecretError::UnknownNonce)), "used");

    for broken in [
        signed(wish(nonce(), "ann"), "another secret"),
        SharedSecretRequest { admin: Admin::No, ..signed(wish(nonce(), "ann"), key) },
        SharedSecretRequest { localpart: "bob".into(), ..signed(wish(nonce(), "ann"), key) },
        SharedSecretRequest { user_type: Some("bot".into()), ..signed(wish(nonce(), "ann"), key) },
        SharedSecretRequest { mac: "é".into(), ..wish(nonce(), "ann") },
        wish(nonce(), "ann"),
    ] {
        let mac = broken.mac.clone();
        assert!(matches!(register(broken).await, Err(SharedSecretError::WrongMac)), "{mac}");
    }
    let guessed = signed(wish(nonce(), "ann"), key);
    let wrong = SharedSecretRequest { mac: "00".into(), ..guessed.clone() };
    assert!(matches!(register(wrong).await, Err(SharedSecretError::WrongMac)));
    assert!(matches!(register(guessed).await, Err(SharedSecretError::UnknownNonce)), "one guess a nonce");
    let late = signed(wish(nonce(), "ann"), key);
    later(&world.clock, MINUTE);
    assert!(matches!(register(late).await, Err(SharedSecretError::UnknownNonce)));
    let again = register(signed(wish(nonce(), "root"), key)).await;
    assert!(matches!(again, Err(SharedSecretError::Register(RegisterError::UserInUse))));
    let symbols = register(signed(wish(nonce(), "us,er"), key)).await;
    assert!(matches!(symbols, Err(SharedSecretError::Register(RegisterError::InvalidUsername(_)))));
    let zero = register(signed(wish(nonce(), "a\0b"), key)).await;
    assert!(matches!(zero, Err(SharedSecretError::BadValue(_))));

    let off = world_with(closed);
    assert_eq!(off.accounts.shared_secret_nonce(), None);
    let refused = off.accounts.register_with_secret(signed(wish(String::new(), "ann"), "")).await;
    assert!(matches!(refused, Err(SharedSecretError::Disabled)));
}

#[tokio::test]
async fn nobody_starts_with_an_empty_secret() {
    let world = world();
    for short in ["", "1234567"] {
        let parts = crate::AccountsParts {
            store: world.store.clone(),
            ids: hearth_schema::Ids::new([7; 32]),
            clock: world.clock.clone(),
            random: std::sync::Arc::new(hearth_base::SeededRandom::new(1)),
            server_name: ruma_common::server_name!("hs.test").to_owned(),
            settings: AccountsSettings { shared_secret: Some(secret(short)), ..settings() },
        };
        assert!(matches!(crate::Accounts::new(parts), Err(crate::StartError::ShortSecret)), "{short}");
    }
}

#[tokio::test]
async fn an_account_remembers_which_policies_were_accepted() {
    let policy = |id: &str, language: &str, version: &str| Policy {
        id: id.into(),
        version: version.into(),
        language: language.into(),
        url: "https://hs.test/terms".into(),
        name: "Terms".into(),
    };
    let policies = vec![policy("tos", "en", "1.2"), policy("tos", "fr", "1.2"), policy("privacy", "en", "3")];
    let world = world_with(AccountsSettings { policies, ..settings() });
    let ann = world.user("ann").await;
    let view = hearth_store::View::latest(&*world.store).await.unwrap();
    let row = view.get::<hearth_schema::Users>(&(ann.user,)).await.unwrap().unwrap();
    let accepted = [("privacy", "3"), ("tos", "1.2")].map(|(id, version)| (id.to_owned(), version.to_owned()));
    assert_eq!(row.accepted_terms, accepted.into());
}

#[tokio::test]
async fn deleted_account_data_makes_room_for_more() {
    let world = world();
    let ann = world.user("ann").await;
    let put = |n: u32| {
        let data = NewAccountData { room: None, kind: format!("t{n}"), json: "{\"n\":1}".into() };
        world.accounts.set_account_data(ann.user, data)
    };
    let before = put(0).await.unwrap();
    // Three times as many as may be there at once, each deleted before the next.
    for n in 1..3 * crate::MAX_ACCOUNT_DATA_ENTRIES {
        put(n).await.unwrap();
        assert!(world.accounts.delete_account_data(ann.user, None, &format!("t{n}")).await.unwrap());
    }
    let all = world.accounts.all_account_data(ann.user).await.unwrap();
    assert_eq!(all.len(), 1, "what was not deleted");
    let since = world.accounts.account_data_since(ann.user, before, hearth_store::Pos::MAX).await.unwrap();
    assert!(since.len() <= 2 * crate::MAX_ACCOUNT_DATA_ENTRIES as usize, "{} rows of deleted items", since.len());
    put(1).await.unwrap();
    for n in 2..crate::MAX_ACCOUNT_DATA_ENTRIES {
        put(n).await.unwrap();
    }
    assert!(matches!(put(5000).await, Err(crate::AccountDataError::TooMany)));
}

#[tokio::test]
async fn damaged_tags_are_an_error_and_not_no_tags() {
    let world = world();
    let ann = world.user("ann").await;
    let room = ruma_common::room_id!("!room:hs.test");
    let data = NewAccountData { room: Some(room.to_owned()), kind: "m.tag".into(), json: "{\"tags\":".into() };
    world.accounts.set_account_data(ann.user, data).await.unwrap();
    world.accounts.room_tags(ann.user, room).await.unwrap_err();
    let content = serde_json::Map::new();
    world.accounts.set_room_tag(ann.user, room, ("u.work", &content)).await.unwrap_err();
    let kept = world.accounts.account_data(ann.user, Some(room), "m.tag").await.unwrap();
    assert_eq!(kept.as_deref(), Some("{\"tags\":"), "nothing was written over it");
}

#[tokio::test]
async fn damaged_lists_of_blocked_users_let_nobody_in() {
    for kind in ["m.ignored_user_list", "m.invite_permission_config"] {
        let world = world();
        let ann = world.user("ann").await;
        let data = NewAccountData { room: None, kind: kind.into(), json: "{\"default_action\":".into() };
        world.accounts.set_account_data(ann.user, data).await.unwrap();
        world.accounts.screening(ann.user).await.unwrap_err();
    }
}
