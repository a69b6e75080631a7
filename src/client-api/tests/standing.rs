//! Guests, locked and suspended users, administrators, tokens that log in, policies, well-known files.

use std::time::Duration;

use hearth_accounts::Policy;
use hearth_base::Secret;

use super::*;
use crate::{Contact, Support};

fn governed() -> AccountsSettings {
    AccountsSettings {
        admins: BTreeSet::from(["@root:hs.test".to_owned()]),
        guests: true,
        shared_secret: Some(Secret::new("complement".to_owned())),
        login_token_lifetime: Some(Duration::from_secs(120)),
        ..World::accounts(Registration::Open)
    }
}

fn world() -> World {
    World::build(governed(), |_| {})
}

async fn guest(world: &World) -> Person {
    person(&world.open(Method::POST, "/register?kind=guest", json!({"username": "ignored"})).await.ok())
}

async fn whole(world: &World, method: Method, path: &str, by: &Person, body: Value) -> Answer {
    world.raw(method, path, Some(by), body.to_string()).await
}

#[tokio::test]
async fn guests_may_do_what_the_spec_lists_and_nothing_else() {
    let world = world();
    let (ann, guest) = (world.register("ann").await, guest(&world).await);
    assert_ne!(guest.id, "@ignored:hs.test");
    assert_eq!(world.get("/account/whoami", &guest).await.ok()["is_guest"], true);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let guests_join = json!({"guest_access": "can_join"});
    world.put(&in_room(&room, "state/m.room.guest_access"), &ann, guests_join).await.ok();
    let closed = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    assert_eq!(world.post(&in_room(&closed, "join"), &guest, json!({})).await.status, StatusCode::FORBIDDEN);
    let member = in_room(&closed, &format!("state/m.room.member/{}", pct(&guest.id)));
    let entry = world.put(&member, &guest, json!({"membership": "join"})).await;
    assert_eq!(entry.verdict(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    world.post(&in_room(&room, "join"), &guest, json!({})).await.ok();
    world.put(&in_room(&room, "send/m.room.message/1"), &guest, json!({"body": "hi", "msgtype": "m.text"})).await.ok();
    world.get(&in_room(&room, "messages?dir=b"), &guest).await.ok();
    world.get("/devices", &guest).await.ok();
    let name = format!("/profile/{}/displayname", guest.id);
    world.put(&name, &guest, json!({"displayname": "Passer-by"})).await.ok();
    let forbidden = (403, "M_GUEST_ACCESS_FORBIDDEN");
    let avatar = format!("/profile/{}/avatar_url", guest.id);
    assert_eq!(world.put(&avatar, &guest, json!({"avatar_url": "mxc://a/b"})).await.verdict(), forbidden);
    for path in ["/createRoom", "/account/password", "/account/deactivate", &format!("/user/{}/filter", guest.id)] {
        assert_eq!(world.post(path, &guest, json!({})).await.verdict(), forbidden, "{path}");
    }
    for path in ["/capabilities", "/pushrules/", "/joined_rooms", "/publicRooms"] {
        let answer = world.get(path, &guest).await;
        // What needs no token knows no guests.
        assert!(answer.verdict() == forbidden || path == "/publicRooms", "{path}");
    }
    world.post(&in_room(&room, "leave"), &guest, json!({})).await.ok();
}

#[tokio::test]
async fn guests_enter_only_rooms_that_let_them() {
    let world = world();
    let (ann, guest) = (world.register("ann").await, guest(&world).await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    let member = in_room(&room, &format!("state/m.room.member/{}", pct(&guest.id)));
    let by_join = world.post(&in_room(&room, "join"), &guest, json!({})).await;
    assert_eq!(by_join.verdict(), (403, "M_FORBIDDEN"));
    let by_state = world.put(&member, &guest, json!({"membership": "join"})).await;
    assert_eq!(by_state.verdict(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    let access = in_room(&room, "state/m.room.guest_access");
    world.put(&access, &ann, json!({"guest_access": "can_join"})).await.ok();
    world.post(&in_room(&room, "join"), &guest, json!({})).await.ok();

    // When the room thinks better of it, the guest is put out; Ann is not.
    world.put(&access, &ann, json!({"guest_access": "forbidden"})).await.ok();
    for _ in 0..200 {
        if world.get(&member, &ann).await.ok()["membership"] == "leave" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the guest is still there");
}

#[tokio::test]
async fn a_guest_can_register_and_keeps_the_account() {
    let world = world();
    let guest = guest(&world).await;
    let localpart = guest.id[1..].split(':').next().unwrap().to_owned();
    let wish = |name: &str, token: &str| {
        let auth = json!({"type": "m.login.dummy"});
        json!({"username": name, "password": PASSWORD, "guest_access_token": token, "auth": auth})
    };
    let register = async |wish: Value| world.open(Method::POST, "/register", wish).await;
    assert_eq!(register(wish("bob", &guest.token)).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(register(wish(&localpart, "nobody's")).await.verdict(), (403, "M_FORBIDDEN"));
    let stayed = person(&register(wish(&localpart, &guest.token)).await.ok());
    assert_eq!(stayed.id, guest.id);
    assert_eq!(world.get("/account/whoami", &guest).await.ok()["is_guest"], false);
    world.create_room(&guest, json!({})).await;
    assert_eq!(register(wish(&localpart, &guest.token)).await.verdict(), (403, "M_FORBIDDEN"), "no guest any more");
}

#[tokio::test]
async fn administrators_lock_and_unlock() {
    let world = world();
    let (boss, ann) = (world.register("root").await, world.register("ann").await);
    let path = format!("/_matrix/client/v1/admin/lock/{}", pct(&ann.id));
    let set = |locked: bool| whole(&world, Method::PUT, &path, &boss, json!({ "locked": locked }));
    assert_eq!(whole(&world, Method::GET, &path, &boss, json!({})).await.ok(), json!({"locked": false}));
    assert_eq!(set(true).await.ok(), json!({"locked": true}));
    let refused = world.get("/account/whoami", &ann).await;
    assert_eq!(refused.verdict(), (401, "M_USER_LOCKED"));
    assert_eq!(refused.body["soft_logout"], true);
    let login = json!({"type": "m.login.password", "user": "ann", "password": PASSWORD});
    assert_eq!(world.open(Method::POST, "/login", login.clone()).await.verdict(), (401, "M_USER_LOCKED"));
    assert_eq!(set(false).await.ok(), json!({"locked": false}));
    world.get("/account/whoami", &ann).await.ok();
    set(true).await.ok();
    world.post("/logout", &ann, json!({})).await.ok();
    set(false).await.ok();
    assert_eq!(world.get("/account/whoami", &ann).await.verdict(), (401, "M_UNKNOWN_TOKEN"));
    for (by, user, verdict) in [
        (&ann, "@root:hs.test", (401, "M_UNKNOWN_TOKEN")),
        (&boss, "@root:hs.test", (403, "M_FORBIDDEN")),
        (&boss, "@nobody:hs.test", (404, "M_NOT_FOUND")),
        (&boss, "@ann:other.test", (400, "M_INVALID_PARAM")),
    ] {
        let path = format!("/_matrix/client/v1/admin/lock/{}", pct(user));
        let answer = whole(&world, Method::PUT, &path, by, json!({"locked": true})).await;
        assert_eq!(answer.verdict(), verdict, "{user}");
    }
    assert_eq!(whole(&world, Method::PUT, &path, &boss, json!({})).await.verdict(), (400, "M_MISSING_PARAM"));
    let bob = world.register("bob").await;
    let answer = whole(&world, Method::GET, &path, &bob, json!({})).await;
    assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"));
    let may = |answer: Value| answer["capabilities"]["m.account_moderation"].clone();
    assert_eq!(may(world.get("/capabilities", &boss).await.ok()), json!({"lock": true, "suspend": true}));
    assert_eq!(may(world.get("/capabilities", &bob).await.ok()), Value::Null);
}

#[tokio::test]
async fn suspended_users_read_leave_and_take_back_what_they_said() {
    let world = world();
    let (boss, ann) = (world.register("root").await, world.register("ann").await);
    let room = world.create_room(&boss, json!({"preset": "public_chat"})).await;
    let other = world.create_room(&boss, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &ann, json!({})).await.ok();
    let text = json!({"msgtype": "m.text", "body": "hi"});
    let mine = world.put(&in_room(&room, "send/m.room.message/1"), &ann, text.clone()).await.ok();
    let theirs = world.put(&in_room(&room, "send/m.room.message/1"), &boss, text.clone()).await.ok();
    let path = format!("/_matrix/client/v1/admin/suspend/{}", pct(&ann.id));
    let done = whole(&world, Method::PUT, &path, &boss, json!({"suspended": true})).await.ok();
    assert_eq!(done, json!({"suspended": true}));
    assert_eq!(whole(&world, Method::GET, &path, &boss, json!({})).await.ok(), done);

    let suspended = (403, "M_USER_SUSPENDED");
    let id = |event: &Value| event["event_id"].as_str().unwrap().to_owned();
    let redact = |event: &Value| in_room(&room, &format!("redact/{}/1", pct(&id(event))));
    let redaction = |event: &Value| json!({"redacts": id(event)});
    for (path, body) in [
        (in_room(&room, "send/m.room.message/2"), text.clone()),
        (in_room(&room, "state/m.room.topic"), json!({"topic": "x"})),
        (redact(&theirs), json!({})),
        (in_room(&room, "send/m.room.redaction/3"), redaction(&theirs)),
        (format!("/profile/{}/displayname", ann.id), json!({"displayname": "x"})),
    ] {
        assert_eq!(world.put(&path, &ann, body).await.verdict(), suspended, "{path}");
    }
    for path in ["/createRoom", &in_room(&other, "join"), &format!("/join/{}", pct(&other)), &in_room(&room, "invite")]
    {
        assert_eq!(world.post(path, &ann, json!({"user_id": "@x:hs.test"})).await.verdict(), suspended, "{path}");
    }
    world.get("/sync?timeout=0", &ann).await.ok();
    world.get(&in_room(&room, "messages?dir=b"), &ann).await.ok();
    world.put(&redact(&mine), &ann, json!({})).await.ok();
    world.post(&in_room(&room, "leave"), &ann, json!({})).await.ok();
    let login = json!({"type": "m.login.password", "user": "ann", "password": PASSWORD});
    let again = person(&world.open(Method::POST, "/login", login).await.ok());
    assert_eq!(world.post("/createRoom", &again, json!({})).await.verdict(), suspended);
    whole(&world, Method::PUT, &path, &boss, json!({"suspended": false})).await.ok();
    world.create_room(&ann, json!({})).await;
}

#[tokio::test]
async fn whois_lists_devices() {
    let world = world();
    let (boss, ann) = (world.register("root").await, world.register("ann").await);
    let path = format!("/admin/whois/{}", pct(&ann.id));
    let sessions = json!({"sessions": [{"connections": []}]});
    let mut expected = json!({"user_id": ann.id, "devices": {}});
    expected["devices"][&ann.device] = sessions;
    for by in [&boss, &ann] {
        assert_eq!(world.get(&path, by).await.ok(), expected);
    }
    let boss_path = format!("/admin/whois/{}", pct(&boss.id));
    assert_eq!(world.get(&boss_path, &ann).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn a_token_of_one_device_logs_another_in() {
    let world = world();
    let ann = world.register("ann").await;
    let path = "/_matrix/client/v1/login/get_token";
    let asked = whole(&world, Method::POST, path, &ann, json!({})).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
    let auth = with_password(&ann, &asked.body["session"]);
    let given = whole(&world, Method::POST, path, &ann, json!({ "auth": auth })).await.ok();
    assert_eq!(given["expires_in_ms"], 120_000);
    let login = json!({"type": "m.login.token", "token": given["login_token"], "device_id": "PHONE"});
    let done = person(&world.open(Method::POST, "/login", login.clone()).await.ok());
    assert_eq!((done.id, done.device.as_str()), (ann.id.clone(), "PHONE"));
    assert_eq!(world.open(Method::POST, "/login", login).await.verdict(), (403, "M_FORBIDDEN"), "once");
    let none = json!({"type": "m.login.token"});
    assert_eq!(world.open(Method::POST, "/login", none).await.verdict(), (400, "M_MISSING_PARAM"));
    let flows = world.open(Method::GET, "/login", json!({})).await.ok();
    assert_eq!(flows["flows"][1], json!({"type": "m.login.token", "get_login_token": true}));
    let enabled = |answer: Value| answer["capabilities"]["m.get_login_token"]["enabled"].clone();
    assert_eq!(enabled(world.get("/capabilities", &ann).await.ok()), true);

    let without = World::new();
    let bob = without.register("bob").await;
    assert_eq!(whole(&without, Method::POST, path, &bob, json!({})).await.verdict(), (404, "M_UNRECOGNIZED"));
    assert_eq!(enabled(without.get("/capabilities", &bob).await.ok()), false);
}

#[tokio::test]
async fn the_shared_secret_is_unknown_where_there_is_none() {
    let path = "/_synapse/admin/v1/register";
    let without = World::new();
    for method in [Method::GET, Method::POST] {
        let body = json!({"nonce": "", "username": "a", "password": PASSWORD, "mac": ""}).to_string();
        assert_eq!(without.raw(method, path, None, body).await.verdict(), (404, "M_UNRECOGNIZED"));
    }
    let world = world();
    let nonce = world.raw(Method::GET, path, None, "").await.ok()["nonce"].clone();
    let body = json!({"nonce": nonce, "username": "a", "password": PASSWORD, "mac": "00", "admin": true});
    assert_eq!(world.raw(Method::POST, path, None, body.to_string()).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.raw(Method::POST, path, None, body.to_string()).await.verdict(), (400, "M_UNKNOWN"), "used");
    assert_eq!(world.raw(Method::POST, path, None, "{}").await.verdict(), (400, "M_MISSING_PARAM"));
}

#[tokio::test]
async fn notices_of_the_server_come_in_one_room() {
    let world = world();
    let (boss, ann) = (world.register("root").await, world.register("ann").await);
    let path = "/_synapse/admin/v1/send_server_notice";
    let notice = json!({"user_id": ann.id, "content": {"msgtype": "m.text", "body": "hello"}});
    assert_eq!(world.raw(Method::POST, path, Some(&ann), "").await.verdict(), (403, "M_FORBIDDEN"));
    for (user, verdict) in [("@nobody:hs.test", (404, "M_NOT_FOUND")), ("@a:b.test", (400, "M_INVALID_PARAM"))] {
        let body = json!({"user_id": user, "content": {}});
        assert_eq!(whole(&world, Method::POST, path, &boss, body).await.verdict(), verdict, "{user}");
    }
    let first = whole(&world, Method::POST, path, &boss, notice.clone()).await.ok();
    let invited = async || {
        let sync = world.get("/sync?timeout=0", &ann).await.ok();
        let (room, invite) = sync["rooms"]["invite"].as_object().unwrap().iter().next().unwrap();
        assert_eq!(invite["invite_state"]["events"][0]["sender"], "@_server:hs.test");
        room.clone()
    };
    let room = invited().await;
    let cannot = (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM");
    assert_eq!(world.post(&in_room(&room, "leave"), &ann, json!({})).await.verdict(), cannot);
    let member = in_room(&room, &format!("state/m.room.member/{}", pct(&ann.id)));
    assert_eq!(world.put(&member, &ann, json!({"membership": "leave"})).await.verdict(), cannot);
    let later = json!({"delay_ms": 1, "state_key": ann.id, "content": {"membership": "leave"}});
    assert_eq!(world.put(&in_room(&room, "delayed_event/m.room.member/1"), &ann, later).await.verdict(), cannot);
    world.post(&in_room(&room, "join"), &ann, json!({})).await.ok();
    let event = world.get(&in_room(&room, &format!("event/{}", pct(first["event_id"].as_str().unwrap()))), &ann).await;
    assert_eq!(event.ok()["content"]["body"], "hello");
    let tags = format!("/user/{}/rooms/{}/tags", ann.id, pct(&room));
    assert_eq!(world.get(&tags, &ann).await.ok(), json!({"tags": {"m.server_notice": {}}}));
    let text = json!({"msgtype": "m.text", "body": "why?"});
    assert_eq!(world.put(&in_room(&room, "send/m.room.message/1"), &ann, text).await.verdict(), (403, "M_FORBIDDEN"));
    world.post(&in_room(&room, "leave"), &ann, json!({})).await.ok();
    whole(&world, Method::POST, path, &boss, notice.clone()).await.ok();
    assert_eq!(invited().await, room, "the same room again");
    let once = format!("{path}/1");
    let sent = whole(&world, Method::PUT, &once, &boss, notice.clone()).await.ok();
    assert_eq!(whole(&world, Method::PUT, &once, &boss, notice).await.ok(), sent);
}

#[tokio::test]
async fn whoever_registers_accepts_the_policies() {
    let policy = |language: &str, name: &str| Policy {
        id: "terms_of_service".into(),
        version: "1.2".into(),
        language: language.into(),
        url: format!("https://hs.test/{language}"),
        name: name.into(),
    };
    let policies = vec![policy("en", "Terms"), policy("fr", "Conditions")];
    let world = World::build(AccountsSettings { policies, ..World::accounts(Registration::Open) }, |_| {});
    let asked = world.open(Method::POST, "/register", json!({})).await.body;
    assert_eq!(asked["flows"], json!([{"stages": ["m.login.terms"]}]));
    let expected = json!({"policies": {"terms_of_service": {
        "version": "1.2",
        "en": {"name": "Terms", "url": "https://hs.test/en"},
        "fr": {"name": "Conditions", "url": "https://hs.test/fr"},
    }}});
    assert_eq!(asked["params"]["m.login.terms"], expected);
    let wish = |kind: &str| json!({"username": "ann", "password": PASSWORD, "auth": {"type": kind, "session": asked["session"]}});
    assert_eq!(world.open(Method::POST, "/register", wish("m.login.dummy")).await.status.as_u16(), 401);
    world.open(Method::POST, "/register", wish("m.login.terms")).await.ok();
}

#[tokio::test]
async fn well_known_files_say_what_is_set_and_nothing_else() {
    let paths = ["client", "server", "support"].map(|name| format!("/.well-known/matrix/{name}"));
    let world = World::new();
    for path in &paths {
        assert_eq!(world.raw(Method::GET, path, None, "").await.verdict(), (404, "M_NOT_FOUND"), "{path}");
    }
    let world = World::with(Registration::Open, |settings| {
        settings.public_base_url = Some("https://m.hs.test".into());
        settings.federation_address = Some("m.hs.test:443".into());
        let contact = Contact { matrix_id: None, email_address: Some("a@hs.test".into()), role: "m.role.security" };
        settings.support = Support { contacts: vec![contact], page: Some("https://hs.test/help".into()) };
    });
    let mut said = Vec::new();
    for path in &paths {
        let answer = world.raw(Method::GET, path, None, "").await;
        assert_eq!(answer.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        said.push(answer.ok());
    }
    let contact = json!({"email_address": "a@hs.test", "role": "m.role.security"});
    let expected = [
        json!({"m.homeserver": {"base_url": "https://m.hs.test"}}),
        json!({"m.server": "m.hs.test:443"}),
        json!({"contacts": [contact], "support_page": "https://hs.test/help"}),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn who_comes_later_does_not_see_what_an_erased_user_said() {
    let world = World::new();
    let (ann, bob, carl) = (world.register("ann").await, world.register("bob").await, world.register("carl").await);
    let room = world.create_room(&bob, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &ann, json!({})).await.ok();
    let said = json!({"msgtype": "m.text", "body": "a secret"});
    let said = world.put(&in_room(&room, "send/m.room.message/1"), &ann, said).await.ok();
    let event = in_room(&room, &format!("event/{}", pct(said["event_id"].as_str().unwrap())));
    let asked = world.post("/account/deactivate", &ann, json!({"erase": true})).await;
    let auth = with_password(&ann, &asked.body["session"]);
    world.post("/account/deactivate", &ann, json!({"erase": true, "auth": auth})).await.ok();
    world.post(&in_room(&room, "join"), &carl, json!({})).await.ok();

    let messages = in_room(&room, "messages?dir=b&limit=50");
    let bodies = async |by: &Person| {
        let chunk = world.get(&messages, by).await.ok()["chunk"].clone();
        let said = chunk.as_array().unwrap().iter().find(|other| other["event_id"] == said["event_id"]);
        said.expect("it is there").clone()
    };
    assert_eq!(bodies(&bob).await["content"]["body"], "a secret");
    assert_eq!(world.get(&event, &bob).await.ok()["content"]["body"], "a secret");
    assert_eq!(bodies(&carl).await["content"], json!({}));
    assert_eq!(world.get(&event, &carl).await.ok()["content"], json!({}));
    let sync = world.get("/sync?timeout=0", &carl).await.ok();
    assert!(!sync.to_string().contains("a secret"), "{sync}");
    // Who leaves and comes back was there when it was said.
    world.post(&in_room(&room, "leave"), &bob, json!({})).await.ok();
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    assert_eq!(bodies(&bob).await["content"]["body"], "a secret");
    // Who only deactivates is still read.
    let dora = world.register("dora").await;
    world.post(&in_room(&room, "join"), &dora, json!({})).await.ok();
    let said = json!({"msgtype": "m.text", "body": "no secret"});
    world.put(&in_room(&room, "send/m.room.message/1"), &dora, said).await.ok();
    let asked = world.post("/account/deactivate", &dora, json!({})).await;
    let auth = with_password(&dora, &asked.body["session"]);
    world.post("/account/deactivate", &dora, json!({ "auth": auth })).await.ok();
    let emma = world.register("emma").await;
    world.post(&in_room(&room, "join"), &emma, json!({})).await.ok();
    let all = world.get(&messages, &emma).await.ok().to_string();
    assert!(all.contains("no secret") && !all.contains("a secret"));
}
