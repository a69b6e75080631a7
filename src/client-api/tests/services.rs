//! Application services: as whom they act, what they may have, and what others may not.

use hearth_accounts::{Service, Services};
use hearth_base::Rate;

use super::*;
use crate::RateLimits;

const TOKEN: &str = "as-irc-0123456789abcdef";
const LAX: &str = "as-lax-0123456789abcdef";

fn registration(id: &str, rate_limited: &Value, aliases: &Value) -> Service {
    let document = json!({
        "id": id, "url": null, "as_token": format!("as-{id}-0123456789abcdef"),
        "hs_token": format!("hs-{id}-0123456789abcdef"), "sender_localpart": format!("{id}-bot"),
        "rate_limited": rate_limited, "protocols": [id],
        "namespaces": {
            "users": [{"exclusive": true, "regex": format!("@_{id}_.*")}], "aliases": aliases, "rooms": [],
        },
    });
    Service::from_registration(&document, server_name!("hs.test")).unwrap()
}

async fn world_with(change: impl FnOnce(&mut ClientApiSettings)) -> World {
    let irc = registration("irc", &json!(true), &json!([{"exclusive": true, "regex": "#_irc_.*"}]));
    let lax = registration("lax", &json!(false), &json!([{"exclusive": false, "regex": "#.*"}]));
    let services = Services::new(vec![irc, lax]).unwrap();
    let world = World::build(AccountsSettings { services, ..World::accounts(Registration::Open) }, change);
    world.accounts.make_senders().await.unwrap();
    world
}

async fn world() -> World {
    world_with(|_| {}).await
}

fn of_token(token: &str) -> Person {
    Person { id: String::new(), token: token.to_owned(), device: String::new() }
}

fn bot() -> Person {
    of_token(TOKEN)
}

async fn ghost(world: &World, name: &str) -> String {
    let body = json!({"type": "m.login.application_service", "username": name, "inhibit_login": true});
    let done = world.post("/register", &bot(), body).await.ok();
    assert_eq!(done.get("access_token"), None, "{done}");
    done["user_id"].as_str().unwrap().to_owned()
}

/// The path with the user that the service acts as.
fn acting(path: &str, user: &str) -> String {
    let separator = if path.contains('?') { '&' } else { '?' };
    format!("{path}{separator}user_id={}", pct(user))
}

#[tokio::test]
async fn a_service_acts_as_its_sender_or_as_a_user_that_it_names() {
    let world = world().await;
    let me = world.get("/account/whoami", &bot()).await.ok();
    assert_eq!(me, json!({"user_id": "@irc-bot:hs.test", "is_guest": false}));
    let ann = ghost(&world, "_irc_ann").await;
    let me = world.get(&acting("/account/whoami", &ann), &bot()).await.ok();
    assert_eq!(me, json!({"user_id": "@_irc_ann:hs.test", "is_guest": false}));
    for (other, verdict) in [
        ("@_irc_bob:hs.test", (403, "M_FORBIDDEN")),
        ("@_lax_x:hs.test", (403, "M_FORBIDDEN")),
        ("@lax-bot:hs.test", (403, "M_FORBIDDEN")),
        ("@_irc_ann:other.test", (403, "M_FORBIDDEN")),
        ("nonsense", (403, "M_FORBIDDEN")),
        ("", (403, "M_FORBIDDEN")),
    ] {
        let answer = world.get(&acting("/account/whoami", other), &bot()).await;
        assert_eq!(answer.verdict(), verdict, "{other}");
    }
    // For others the parameters mean nothing.
    let cleo = world.register("cleo").await;
    let me = world.get(&acting("/account/whoami?device_id=X", &ann), &cleo).await.ok();
    assert_eq!(me["user_id"], cleo.id);
    let answer = world.get("/account/whoami", &of_token("as-irc-0123456789abcdeX")).await;
    assert_eq!(answer.verdict(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn devices_are_made_named_and_deleted_without_password() {
    let world = world().await;
    let [ann, bob] = [ghost(&world, "_irc_ann").await, ghost(&world, "_irc_bob").await];
    let path = |user: &str| acting("/devices/PHONE", user);
    let made = world.put(&path(&ann), &bot(), json!({"display_name": "Phone"})).await;
    assert_eq!((made.status, made.body), (StatusCode::CREATED, json!({})));
    assert_eq!(world.put(&path(&ann), &bot(), json!({})).await.status, StatusCode::OK);
    let device = world.get(&path(&ann), &bot()).await.ok();
    assert_eq!(device["display_name"], "Phone");
    let with_device = |user: &str| acting("/account/whoami?device_id=PHONE", user);
    assert_eq!(world.get(&with_device(&ann), &bot()).await.ok()["device_id"], "PHONE");
    assert_eq!(world.get(&with_device(&bob), &bot()).await.verdict(), (400, "M_UNKNOWN_DEVICE"));
    assert_eq!(world.get("/account/whoami?device_id=PHONE", &bot()).await.verdict(), (400, "M_UNKNOWN_DEVICE"));
    let gone = world.raw(Method::DELETE, &format!("{CLIENT}{}", path(&ann)), Some(&bot()), "").await;
    assert_eq!(gone.ok(), json!({}));
    assert_eq!(world.get(&path(&ann), &bot()).await.verdict(), (404, "M_NOT_FOUND"));
    world.put(&path(&ann), &bot(), json!({})).await;
    world.post(&acting("/delete_devices", &ann), &bot(), json!({"devices": ["PHONE"]})).await.ok();
    assert_eq!(world.get(&acting("/devices", &ann), &bot()).await.ok(), json!({"devices": []}));
    // Others name only what they have.
    let cleo = world.register("cleo").await;
    assert_eq!(world.put("/devices/NEW", &cleo, json!({"display_name": "x"})).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn what_is_no_services_to_do_is_refused() {
    let world = world().await;
    let ann = ghost(&world, "_irc_ann").await;
    for path in ["/account/password", "/account/deactivate", "/logout"] {
        let answer = world.post(&acting(path, &ann), &bot(), json!({"new_password": "long enough"})).await;
        assert_eq!(answer.verdict(), (403, "M_FORBIDDEN"), "{path}");
    }
    assert_eq!(world.get("/sync", &bot()).await.verdict(), (403, "M_FORBIDDEN"));
    assert!(world.get(&acting("/sync", &ann), &bot()).await.ok()["next_batch"].is_string());
    let pusher = json!({"app_id": "a", "pushkey": "k", "kind": "http", "app_display_name": "x", "lang": "en",
        "device_display_name": "x", "data": {"url": "https://push.test/_matrix/push/v1/notify"}});
    let answer = world.post(&acting("/pushers/set", &ann), &bot(), pusher).await;
    assert_eq!(answer.verdict(), (400, "M_MISSING_PARAM"));
}

#[tokio::test]
async fn a_service_says_when_an_event_was_sent() {
    let world = world().await;
    let room = world.create_room(&bot(), json!({"preset": "public_chat"})).await;
    let message = |txn: &str, query: &str| in_room(&room, &format!("send/m.room.message/{txn}{query}"));
    let body = json!({"msgtype": "m.text", "body": "x"});
    let sent = world.put(&message("1", "?ts=1641168000000"), &bot(), body.clone()).await.ok();
    let again = world.put(&message("1", "?ts=5"), &bot(), body.clone()).await.ok();
    assert_eq!(sent, again, "the same transaction");
    let event = in_room(&room, &format!("event/{}", pct(sent["event_id"].as_str().unwrap())));
    let event = world.get(&event, &bot()).await.ok();
    assert_eq!(event["origin_server_ts"], 1_641_168_000_000_u64);
    assert_eq!(event["unsigned"]["transaction_id"], "1", "told to who sent it");
    let state = in_room(&room, "state/m.room.topic/?ts=7");
    world.put(&state, &bot(), json!({"topic": "old"})).await.ok();
    let topic = world.get(&in_room(&room, "state/m.room.topic/?format=event"), &bot()).await.ok();
    assert_eq!(topic["origin_server_ts"], 7);
    for wrong in ["-1", "x", "1.5", "", "9007199254740992", "99999999999999999999"] {
        for path in [message("2", &format!("?ts={wrong}")), in_room(&room, &format!("state/m.room.name/?ts={wrong}"))] {
            assert_eq!(world.put(&path, &bot(), body.clone()).await.verdict(), (400, "M_INVALID_PARAM"), "{path}");
        }
    }
    world.put(&message("3", "?ts=9007199254740991"), &bot(), body.clone()).await.ok();
    let delayed = message("4", "?ts=1&org.matrix.msc4140.delay=1000");
    assert_eq!(world.put(&delayed, &bot(), body.clone()).await.verdict(), (400, "M_INVALID_PARAM"));
    // For others it means nothing.
    let cleo = world.register("cleo").await;
    world.post(&format!("/join/{}", pct(&room)), &cleo, json!({})).await.ok();
    for (txn, ts) in [("1", "5"), ("2", "-1")] {
        let sent = world.put(&message(txn, &format!("?ts={ts}")), &cleo, body.clone()).await.ok();
        let event = in_room(&room, &format!("event/{}", pct(sent["event_id"].as_str().unwrap())));
        assert_eq!(world.get(&event, &cleo).await.ok()["origin_server_ts"], world.clock.now().0);
    }
}

#[tokio::test]
async fn an_event_that_says_an_old_time_is_found_at_that_time() {
    let world = world().await;
    let cleo = world.register("cleo").await;
    let room = world.create_room(&cleo, json!({"preset": "public_chat"})).await;
    world.post(&format!("/join/{}", pct(&room)), &bot(), json!({})).await.ok();
    let send = |txn: &str, ts: u64| in_room(&room, &format!("send/m.room.message/{txn}?ts={ts}"));
    let body = json!({"msgtype": "m.text", "body": "x"});
    let old = world.put(&send("old", 1_641_168_000_000), &bot(), body.clone()).await.ok();
    let older = world.put(&send("older", 1_641_000_000_000), &bot(), body.clone()).await.ok();
    world.clock.advance(Duration::from_secs(60));
    let now = world.clock.now().0;
    let same: Vec<_> = [
        world.put(&send("a", now), &bot(), body.clone()).await.ok(),
        world.put(&send("b", now), &bot(), body.clone()).await.ok(),
    ]
    .into();
    world.clock.advance(Duration::from_secs(60));
    world.put(&in_room(&room, "send/m.room.message/last"), &cleo, body).await.ok();
    let at = |ts: u64, dir: &str| {
        let path = format!("/_matrix/client/v1{}", in_room(&room, &format!("timestamp_to_event?ts={ts}&dir={dir}")));
        let (world, cleo) = (&world, &cleo);
        async move { world.raw(Method::GET, &path, Some(cleo), "").await }
    };
    assert_eq!(at(1_690_000_000_000, "b").await.ok()["event_id"], old["event_id"], "before the room was made");
    assert_eq!(at(1_641_100_000_000, "b").await.ok()["event_id"], older["event_id"]);
    assert_eq!(at(1_600_000_000_000, "b").await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(at(now, "b").await.ok()["event_id"], same[1]["event_id"], "the last of the same time");
    assert_eq!(at(now, "f").await.ok()["event_id"], same[0]["event_id"], "the first of the same time");
}

#[tokio::test]
async fn transactions_of_a_service_and_of_a_device_are_apart() {
    let world = world().await;
    let ann = ghost(&world, "_irc_ann").await;
    let body = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": ann}});
    let device = person(&world.post("/login", &bot(), body).await.ok());
    let room = world.create_room(&device, json!({})).await;
    let path = in_room(&room, "send/m.room.message/same");
    let content = json!({"msgtype": "m.text", "body": "x"});
    let by_device = world.put(&path, &device, content.clone()).await.ok();
    let by_service = world.put(&acting(&path, &ann), &bot(), content.clone()).await.ok();
    assert_ne!(by_device, by_service);
    assert_eq!(world.put(&acting(&path, &ann), &bot(), content.clone()).await.ok(), by_service);
    let as_device = format!("{}&device_id={}", acting(&path, &ann), device.device);
    assert_eq!(world.put(&as_device, &bot(), content).await.ok(), by_device, "the service acts as the device");
}

#[tokio::test]
async fn registering_and_logging_in_need_the_token_of_a_service() {
    let world = world().await;
    let flows = world.open(Method::GET, "/login", Value::Null).await.ok();
    assert!(flows["flows"].as_array().unwrap().contains(&json!({"type": "m.login.application_service"})));
    ghost(&world, "_irc_ann").await;
    let cleo = world.register("cleo").await;
    let register = json!({"type": "m.login.application_service", "username": "_irc_bob"});
    let login = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": "_irc_ann"}});
    for (path, body) in [("/register", &register), ("/login", &login)] {
        let nobody = world.open(Method::POST, path, body.clone()).await;
        assert_eq!(nobody.verdict(), (401, "M_MISSING_TOKEN"), "{path}");
        for other in ["", "as-irc-", "hs-irc-0123456789abcdef", cleo.token.as_str()] {
            let verdict = if other.is_empty() { (401, "M_MISSING_TOKEN") } else { (401, "M_UNKNOWN_TOKEN") };
            let answer = world.post(path, &of_token(other), body.clone()).await;
            assert_eq!(answer.verdict(), verdict, "{path} {other}");
        }
    }
    let bob = person(&world.post("/register", &bot(), register).await.ok());
    assert_eq!(world.get("/account/whoami", &bob).await.ok()["device_id"], bob.device);
    for (name, verdict) in [
        ("_irc_bob", (400, "M_USER_IN_USE")),
        ("bob", (400, "M_EXCLUSIVE")),
        ("_lax_bob", (400, "M_EXCLUSIVE")),
        ("_irc_b b", (400, "M_INVALID_USERNAME")),
    ] {
        let body = json!({"type": "m.login.application_service", "username": name});
        assert_eq!(world.post("/register", &bot(), body).await.verdict(), verdict, "{name}");
    }
    let body = json!({"type": "m.login.application_service"});
    assert_eq!(world.post("/register", &bot(), body).await.verdict(), (400, "M_MISSING_PARAM"));
    for (user, verdict) in
        [("cleo", (400, "M_EXCLUSIVE")), ("_lax_bob", (400, "M_EXCLUSIVE")), ("_irc_nobody", (403, "M_FORBIDDEN"))]
    {
        let body = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": user}});
        assert_eq!(world.post("/login", &bot(), body).await.verdict(), verdict, "{user}");
    }
    assert_eq!(world.post("/login", &bot(), login).await.ok()["user_id"], "@_irc_ann:hs.test");
}

#[tokio::test]
async fn without_services_nobody_logs_in_as_one() {
    let world = World::new();
    let flows = world.open(Method::GET, "/login", Value::Null).await.ok();
    assert_eq!(flows, json!({"flows": [{"type": "m.login.password"}]}));
    let body = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": "x"}});
    assert_eq!(world.post("/login", &bot(), body).await.verdict(), (400, "M_UNKNOWN"));
    assert_eq!(world.get("/account/whoami", &bot()).await.verdict(), (401, "M_UNKNOWN_TOKEN"));
}

#[tokio::test]
async fn others_have_no_names_that_a_service_claims_alone() {
    let world = world().await;
    let available = |name: &str| format!("/register/available?username={name}");
    assert_eq!(world.open(Method::GET, &available("irc-bot"), Value::Null).await.verdict(), (400, "M_EXCLUSIVE"));
    let body = json!({"username": "irc-bot", "password": PASSWORD, "auth": {"type": "m.login.dummy"}});
    assert_eq!(world.open(Method::POST, "/register", body).await.verdict(), (400, "M_EXCLUSIVE"));
    let cleo = world.register("cleo").await;
    let room = world.create_room(&cleo, json!({"preset": "public_chat"})).await;
    let alias = |name: &str| format!("/directory/room/{}", pct(&format!("#{name}:hs.test")));
    let body = json!({"room_id": room});
    let delete = |name: &str| format!("{CLIENT}{}", alias(name));
    let lax = of_token(LAX);
    for other in [&cleo, &lax] {
        assert_eq!(world.put(&alias("_irc_x"), other, body.clone()).await.verdict(), (400, "M_EXCLUSIVE"));
        let answer = world.raw(Method::DELETE, &delete("_irc_x"), Some(other), "").await;
        assert_eq!(answer.verdict(), (400, "M_EXCLUSIVE"));
        let answer = world.post("/createRoom", other, json!({"room_alias_name": "_irc_x"})).await;
        assert_eq!(answer.verdict(), (400, "M_EXCLUSIVE"));
    }
    // The service has its names, and no others.
    assert_eq!(world.put(&alias("x"), &bot(), body.clone()).await.verdict(), (400, "M_EXCLUSIVE"));
    assert_eq!(
        world.post("/createRoom", &bot(), json!({"room_alias_name": "x"})).await.verdict(),
        (400, "M_EXCLUSIVE")
    );
    world.put(&alias("_irc_x"), &bot(), body.clone()).await.ok();
    world.post("/createRoom", &bot(), json!({"room_alias_name": "_irc_y"})).await.ok();
    world.raw(Method::DELETE, &delete("_irc_x"), Some(&bot()), "").await.ok();
    // A claim that is not exclusive is no leave to manage the aliases of rooms that it is not in.
    assert_eq!(world.put(&alias("free"), &lax, body.clone()).await.verdict(), (403, "M_FORBIDDEN"));
    world.put(&alias("free"), &cleo, body).await.ok();
    assert_eq!(world.raw(Method::DELETE, &delete("free"), Some(&lax), "").await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn the_requests_of_a_service_are_counted_unless_its_registration_says_no() {
    let one = Rate::per_second(1, 1);
    let limits = RateLimits {
        user: Some(one),
        registration: Some(Rate::per_second(1, 2)),
        invites: Some(one),
        ..RateLimits::default()
    };
    let world = world_with(|settings| settings.rate_limits = Some(limits)).await;
    let register = |name: &str| json!({"type": "m.login.application_service", "username": name, "inhibit_login": true});
    let lax = of_token(LAX);
    for n in 0..5 {
        world.post("/register", &lax, register(&format!("_lax_{n}"))).await.ok();
    }
    for n in 0..2 {
        world.post("/register", &bot(), register(&format!("_irc_{n}"))).await.ok();
    }
    let refused = world.post("/register", &bot(), register("_irc_9")).await;
    assert_eq!(refused.verdict(), (429, "M_LIMIT_EXCEEDED"));
    let whoami = |user: &str| acting("/account/whoami", user);
    for _ in 0..3 {
        world.get(&whoami("@_lax_0:hs.test"), &lax).await.ok();
        world.get("/account/whoami", &bot()).await.ok();
    }
    world.get(&whoami("@_irc_0:hs.test"), &bot()).await.ok();
    assert_eq!(world.get(&whoami("@_irc_0:hs.test"), &bot()).await.verdict(), (429, "M_LIMIT_EXCEEDED"));
    let invite = |n: u32| json!({"invite": [format!("@_lax_{n}:hs.test")]});
    for n in 1..4 {
        world.post(&acting("/createRoom", "@_lax_0:hs.test"), &lax, invite(n)).await.ok();
        world.post("/createRoom", &bot(), invite(n)).await.ok();
    }
    world.post(&acting("/createRoom", "@_irc_1:hs.test"), &bot(), invite(1)).await.ok();
    let refused = world.post(&acting("/createRoom", "@_irc_1:hs.test"), &bot(), invite(2)).await;
    assert_eq!(refused.verdict(), (429, "M_LIMIT_EXCEEDED"));
}

#[tokio::test]
async fn locks_suspensions_and_deactivations_hold_for_services() {
    let world = world().await;
    let ann = ghost(&world, "_irc_ann").await;
    let path = |what: &str| format!("/_matrix/client/v1/admin/{what}/{}", pct(&ann));
    let admin = world.register("chief").await;
    assert_eq!(
        world.raw(Method::PUT, &path("lock"), Some(&admin), json!({"locked": true}).to_string()).await.verdict().0,
        403
    );
    let requester = world.accounts.authenticate(&admin.token).await.unwrap().unwrap();
    let mut chief = requester;
    chief.standing.admin = true;
    let user = ruma_common::UserId::parse(&*ann).unwrap();
    let set = |measure| world.accounts.moderate(&chief, &user, measure);
    set(hearth_accounts::Measure::Lock).await.unwrap();
    let answer = world.get(&acting("/account/whoami", &ann), &bot()).await;
    assert_eq!((answer.verdict(), &answer.body["soft_logout"]), ((401, "M_USER_LOCKED"), &json!(true)));
    set(hearth_accounts::Measure::Unlock).await.unwrap();
    set(hearth_accounts::Measure::Suspend).await.unwrap();
    let answer = world.post(&acting("/createRoom", &ann), &bot(), json!({})).await;
    assert_eq!(answer.verdict(), (403, "M_USER_SUSPENDED"));
    let nid = world.accounts.user_nid(&user);
    world.accounts.deactivate(nid, hearth_accounts::Erase::No).await.unwrap();
    let answer = world.get(&acting("/account/whoami", &ann), &bot()).await;
    assert_eq!(answer.verdict(), (403, "M_USER_DEACTIVATED"));
    let body = json!({"type": "m.login.application_service", "identifier": {"type": "m.id.user", "user": ann}});
    assert_eq!(world.post("/login", &bot(), body).await.verdict(), (403, "M_USER_DEACTIVATED"));
}

#[tokio::test]
async fn a_service_sees_the_members_of_rooms_that_any_of_its_users_is_in() {
    let world = world().await;
    let [ann, bob] = [ghost(&world, "_irc_ann").await, ghost(&world, "_irc_bob").await];
    let cleo = world.register("cleo").await;
    let room = world.create_room(&cleo, json!({"preset": "public_chat"})).await;
    let path = in_room(&room, "joined_members");
    assert_eq!(world.get(&path, &bot()).await.verdict(), (403, "M_FORBIDDEN"), "nobody of the service is there");
    world.post(&acting(&format!("/join/{}", pct(&room)), &ann), &bot(), json!({})).await.ok();
    for user in [&ann, &bob, "@irc-bot:hs.test"] {
        let joined = world.get(&acting(&path, user), &bot()).await.ok();
        assert_eq!(joined["joined"].as_object().unwrap().len(), 2, "{user}");
    }
    assert_eq!(world.get(&path, &of_token(LAX)).await.verdict(), (403, "M_FORBIDDEN"), "another service");
    assert_eq!(world.get("/rooms/!none:hs.test/joined_members", &bot()).await.verdict().0, 403);
    let everything = world.get(&acting(&in_room(&room, "members"), &bob), &bot()).await;
    assert_eq!(everything.verdict(), (403, "M_FORBIDDEN"), "of the other endpoints only members may ask");
}
