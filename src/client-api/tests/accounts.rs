//! Accounts, sessions and what they keep.

use super::*;

#[tokio::test]
async fn registering_asks_for_a_stage_and_then_logs_in() {
    let world = World::new();
    let asked = world.open(Method::POST, "/register", json!({})).await;
    assert_eq!(asked.status, StatusCode::UNAUTHORIZED);
    let Answer { body: asked, .. } = asked;
    assert_eq!((&asked["flows"], &asked["errcode"]), (&json!([{"stages": ["m.login.dummy"]}]), &Value::Null));
    let auth = json!({"type": "m.login.dummy", "session": asked["session"]});
    let wish = json!({"username": "ann", "password": PASSWORD, "device_id": "D1", "auth": auth});
    let made = world.open(Method::POST, "/register", wish.clone()).await.ok();
    assert_eq!((&made["user_id"], &made["device_id"]), (&json!("@ann:hs.test"), &json!("D1")));
    assert_eq!(world.get("/account/whoami", &person(&made)).await.ok()["is_guest"], false);

    assert_eq!(world.open(Method::POST, "/register", wish).await.verdict(), (400, "M_USER_IN_USE"));
    let quiet =
        json!({"username": "bob", "password": PASSWORD, "inhibit_login": true, "auth": {"type": "m.login.dummy"}});
    let made = world.open(Method::POST, "/register", quiet).await.ok();
    assert_eq!(made, json!({"user_id": "@bob:hs.test", "home_server": "hs.test"}));
}

#[tokio::test]
async fn registering_is_refused_with_the_spec_s_errcodes() {
    let world = World::new();
    world.register("ann").await;
    let dummy = json!({"type": "m.login.dummy"});
    for (body, wanted) in [
        // Bad names are told before any stage.
        (json!({"username": "ann"}), (400, "M_USER_IN_USE")),
        (json!({"username": "a b"}), (400, "M_INVALID_USERNAME")),
        (json!({"username": "admin"}), (400, "M_EXCLUSIVE")),
        (json!({"username": 5}), (400, "M_BAD_JSON")),
        (json!({"username": "bob", "auth": dummy}), (400, "M_MISSING_PARAM")),
        (json!({"username": "bob", "password": "short", "auth": dummy}), (400, "M_WEAK_PASSWORD")),
        (json!({"username": "bob", "password": PASSWORD, "auth": []}), (400, "M_BAD_JSON")),
        (json!({"username": "bob", "password": PASSWORD, "auth": null}), (401, "")),
        (json!({"username": "bob", "password": PASSWORD, "auth": {"type": "m.login.magic"}}), (401, "M_UNRECOGNIZED")),
        (json!({"username": "bob", "auth": {"type": "m.login.dummy", "session": "nobody's"}}), (400, "M_UNKNOWN")),
    ] {
        let answer = world.open(Method::POST, "/register", body.clone()).await;
        assert_eq!(answer.verdict(), wanted, "{body}");
    }
    let guest = world.open(Method::POST, "/register?kind=guest", json!({})).await;
    assert_eq!(guest.verdict(), (403, "M_GUEST_ACCESS_FORBIDDEN"));
    let odd = world.open(Method::POST, "/register?kind=king", json!({})).await;
    assert_eq!(odd.verdict(), (400, "M_INVALID_PARAM"));
    let available = async |query: &str| {
        let answer = world.open(Method::GET, &format!("/register/available{query}"), json!({})).await;
        (answer.verdict().0, answer.verdict().1.to_owned())
    };
    assert_eq!(available("?username=bob").await.0, 200);
    assert_eq!(available("?username=ann").await, (400, "M_USER_IN_USE".into()));
    assert_eq!(available("").await, (400, "M_MISSING_PARAM".into()));

    let closed = World::with(Registration::Closed, |_| {});
    assert_eq!(closed.open(Method::POST, "/register", json!({})).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn a_registration_token_opens_the_door_as_often_as_it_says() {
    let world = World::with(Registration::Token, |_| {});
    let wish = NewRegistrationToken { token: Some("come-in".into()), uses_allowed: Some(1), expires_at: None };
    world.accounts.create_registration_token(wish).await.unwrap();
    let valid = async |token: &str| {
        let path = format!("/_matrix/client/v1/register/m.login.registration_token/validity?token={token}");
        world.raw(Method::GET, &path, None, "").await.ok()["valid"].clone()
    };
    assert_eq!((valid("come-in").await, valid("stay-out").await), (json!(true), json!(false)));
    let attempt = |name: &str, token: &str| {
        let auth = json!({"type": "m.login.registration_token", "token": token});
        json!({"username": name, "password": PASSWORD, "auth": auth})
    };
    let refused = world.open(Method::POST, "/register", attempt("ann", "stay-out")).await;
    assert_eq!(refused.verdict(), (401, "M_UNAUTHORIZED"));
    assert_eq!(refused.body["flows"], json!([{"stages": ["m.login.registration_token"]}]));
    world.open(Method::POST, "/register", attempt("ann", "come-in")).await.ok();
    assert_eq!(world.open(Method::POST, "/register", attempt("bob", "come-in")).await.status.as_u16(), 401);
    assert_eq!(valid("come-in").await, json!(false));
}

#[tokio::test]
async fn logging_in_takes_every_way_to_say_who_one_is() {
    let world = World::new();
    let ann = world.register("ann").await;
    for who in [
        json!({"identifier": {"type": "m.id.user", "user": "ann"}}),
        json!({"identifier": {"type": "m.id.user", "user": "@ann:hs.test"}}),
        json!({"user": "ann"}),
        json!({"user": "@ann:hs.test", "device_id": "PHONE", "initial_device_display_name": "Phone"}),
    ] {
        let mut body = json!({"type": "m.login.password", "password": PASSWORD});
        body.as_object_mut().unwrap().extend(who.as_object().unwrap().clone());
        let done = world.open(Method::POST, "/login", body).await.ok();
        assert_eq!(done["user_id"], "@ann:hs.test");
    }
    let phone = world.get("/devices/PHONE", &ann).await.ok();
    let unseen = json!({"device_id": "PHONE", "display_name": "Phone", "last_seen_ip": null, "last_seen_ts": null});
    assert_eq!(phone, unseen);
    for (body, wanted) in [
        (json!({"type": "m.login.password", "user": "ann", "password": "wrong"}), (403, "M_FORBIDDEN")),
        (json!({"type": "m.login.password", "user": "nobody", "password": PASSWORD}), (403, "M_FORBIDDEN")),
        (json!({"type": "m.login.password", "user": "ann"}), (400, "M_MISSING_PARAM")),
        (json!({"type": "m.login.password", "password": PASSWORD}), (400, "M_MISSING_PARAM")),
        (json!({"type": "m.login.token", "token": "x"}), (400, "M_UNKNOWN")),
        (
            json!({"type": "m.login.password", "password": "x", "identifier": {"type": "m.id.phone"}}),
            (400, "M_UNKNOWN"),
        ),
        (
            json!({"type": "m.login.password", "password": "x", "identifier": {"type": "m.id.user"}}),
            (400, "M_MISSING_PARAM"),
        ),
    ] {
        assert_eq!(world.open(Method::POST, "/login", body.clone()).await.verdict(), wanted, "{body}");
    }
    let flows = world.open(Method::GET, "/login", json!({})).await.ok();
    assert_eq!(flows, json!({"flows": [{"type": "m.login.password"}]}));
}

#[tokio::test]
async fn a_token_ends_with_its_session() {
    let world = World::new();
    let ann = world.register("ann").await;
    let body = json!({"type": "m.login.password", "user": "ann", "password": PASSWORD});
    let second = person(&world.open(Method::POST, "/login", body.clone()).await.ok());
    world.post("/logout", &second, json!({})).await.ok();
    assert_eq!(world.get("/account/whoami", &second).await.verdict(), (401, "M_UNKNOWN_TOKEN"));
    world.get("/account/whoami", &ann).await.ok();
    let third = person(&world.open(Method::POST, "/login", body).await.ok());
    world.post("/logout/all", &third, json!({})).await.ok();
    for gone in [&ann, &third] {
        assert_eq!(world.get("/account/whoami", gone).await.verdict(), (401, "M_UNKNOWN_TOKEN"));
    }
}

#[tokio::test]
async fn who_asks_for_it_can_refresh_a_session() {
    let world = World::new();
    let wish =
        json!({"username": "ann", "password": PASSWORD, "refresh_token": true, "auth": {"type": "m.login.dummy"}});
    let made = world.open(Method::POST, "/register", wish).await.ok();
    assert_eq!(made["expires_in_ms"], 300_000);
    let body = json!({"type": "m.login.password", "user": "ann", "password": PASSWORD, "refresh_token": true});
    let login = world.open(Method::POST, "/login", body).await.ok();
    for session in [made, login] {
        let renewed = world.open(Method::POST, "/refresh", json!({"refresh_token": session["refresh_token"]})).await;
        let renewed = renewed.ok();
        assert_eq!((renewed["expires_in_ms"].as_u64(), renewed.as_object().unwrap().len()), (Some(300_000), 3));
        let ann = Person { token: renewed["access_token"].as_str().unwrap().to_owned(), ..person(&session) };
        assert_eq!(world.get("/account/whoami", &ann).await.ok()["device_id"], session["device_id"]);
        assert_eq!(world.get("/account/whoami", &person(&session)).await.verdict(), (401, "M_UNKNOWN_TOKEN"));
    }
    let unknown = world.open(Method::POST, "/refresh", json!({"refresh_token": "x"})).await;
    assert_eq!((unknown.verdict(), &unknown.body["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(false)));
    assert_eq!(world.open(Method::POST, "/refresh", json!({})).await.verdict(), (400, "M_MISSING_PARAM"));
    let plain = world.register("bob").await;
    world.get("/account/whoami", &plain).await.ok();
    let body = json!({"type": "m.login.password", "user": "bob", "password": PASSWORD});
    assert_eq!(world.open(Method::POST, "/login", body).await.ok()["refresh_token"], Value::Null);
}

#[tokio::test]
async fn an_expired_token_is_a_soft_logout() {
    let world = World::new();
    let wish =
        json!({"username": "ann", "password": PASSWORD, "refresh_token": true, "auth": {"type": "m.login.dummy"}});
    let ann = person(&world.open(Method::POST, "/register", wish).await.ok());
    world.get("/account/whoami", &ann).await.ok();
    world.clock.advance(Duration::from_secs(300));
    let expired = world.get("/account/whoami", &ann).await;
    assert_eq!((expired.verdict(), &expired.body["soft_logout"]), ((401, "M_UNKNOWN_TOKEN"), &json!(true)));
}

#[tokio::test]
async fn an_openid_token_tells_others_who_somebody_is() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let path = format!("/user/{}/openid/request_token", pct(&ann.id));
    assert_eq!(world.post(&path, &bob, json!({})).await.verdict(), (403, "M_FORBIDDEN"));
    let token = world.post(&path, &ann, json!({})).await.ok();
    let rest = ["token_type", "matrix_server_name", "expires_in"].map(|key| token[key].clone());
    assert_eq!(rest, [json!("Bearer"), json!("hs.test"), json!(3600)]);
    let info = "/_matrix/federation/v1/openid/userinfo";
    let text = token["access_token"].as_str().unwrap();
    let asked = world.raw(Method::GET, &format!("{info}?access_token={}", pct(text)), None, "").await;
    assert_eq!(asked.ok(), json!({"sub": "@ann:hs.test"}));
    let wrong = world.raw(Method::GET, &format!("{info}?access_token=x"), None, "").await;
    assert_eq!(wrong.verdict(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(world.raw(Method::GET, info, None, "").await.verdict(), (400, "M_MISSING_PARAM"));
    assert_eq!(world.get("/account/3pid", &ann).await.ok(), json!({"threepids": []}));
}

#[tokio::test]
async fn deleting_devices_needs_the_password_and_for_that_request_only() {
    let world = World::new();
    let ann = world.register("ann").await;
    for device in ["D1", "D2"] {
        let body = json!({"type": "m.login.password", "user": "ann", "password": PASSWORD, "device_id": device});
        world.open(Method::POST, "/login", body).await.ok();
    }
    let delete = async |device: &str, body: Value| {
        let path = format!("{CLIENT}/devices/{device}");
        world.raw(Method::DELETE, &path, Some(&ann), body.to_string()).await
    };
    let asked = world.raw(Method::DELETE, &format!("{CLIENT}/devices/D1"), Some(&ann), "").await;
    assert_eq!(asked.verdict(), (401, ""));
    let session = &asked.body["session"];
    let wrong = json!({"type": "m.login.password", "user": "ann", "password": "wrong", "session": session});
    assert_eq!(delete("D1", json!({"auth": wrong})).await.verdict(), (401, "M_FORBIDDEN"));
    let auth = with_password(&ann, session);
    assert_eq!(delete("D2", json!({"auth": auth})).await.verdict(), (403, "M_FORBIDDEN"), "another device");
    let many = json!({"devices": ["D1"], "auth": auth});
    assert_eq!(world.post("/delete_devices", &ann, many).await.verdict(), (403, "M_FORBIDDEN"), "another endpoint");
    delete("D1", json!({"auth": auth})).await.ok();
    assert_eq!(world.get("/devices/D1", &ann).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(delete("D1", json!({"auth": auth})).await.verdict(), (400, "M_UNKNOWN"), "the session is used up");

    let asked = world.post("/delete_devices", &ann, json!({"devices": ["D2"]})).await;
    let auth = with_password(&ann, &asked.body["session"]);
    let swapped = json!({"devices": [ann.device], "auth": auth});
    assert_eq!(world.post("/delete_devices", &ann, swapped).await.verdict(), (403, "M_FORBIDDEN"), "another body");
    world.post("/delete_devices", &ann, json!({"devices": ["D2"], "auth": auth})).await.ok();
    let left = world.get("/devices", &ann).await.ok();
    assert_eq!(left["devices"].as_array().unwrap().len(), 1, "{left}");
}

#[tokio::test]
async fn devices_have_names() {
    let world = World::new();
    let ann = world.register("ann").await;
    let own = format!("/devices/{}", ann.device);
    world.put(&own, &ann, json!({"display_name": "Laptop"})).await.ok();
    world.put(&own, &ann, json!({})).await.ok();
    assert_eq!(world.get(&own, &ann).await.ok()["display_name"], "Laptop");
    for body in [json!({"display_name": "x"}), json!({})] {
        assert_eq!(world.put("/devices/NONE", &ann, body).await.verdict(), (404, "M_NOT_FOUND"));
    }
    assert_eq!(world.put(&own, &ann, json!({"display_name": 5})).await.verdict(), (400, "M_BAD_JSON"));
}

#[tokio::test]
async fn a_new_password_ends_other_sessions() {
    let world = World::new();
    let ann = world.register("ann").await;
    let login = async |password: &str| {
        let body = json!({"type": "m.login.password", "user": "ann", "password": password});
        world.open(Method::POST, "/login", body).await
    };
    let other = person(&login(PASSWORD).await.ok());
    let wish = json!({"new_password": "battery staple"});
    let asked = world.post("/account/password", &ann, wish.clone()).await;
    assert_eq!(asked.verdict(), (401, ""));
    let auth = with_password(&ann, &asked.body["session"]);
    world.post("/account/password", &ann, json!({"new_password": "battery staple", "auth": auth})).await.ok();
    assert_eq!(login(PASSWORD).await.verdict(), (403, "M_FORBIDDEN"));
    login("battery staple").await.ok();
    world.get("/account/whoami", &ann).await.ok();
    assert_eq!(world.get("/account/whoami", &other).await.verdict(), (401, "M_UNKNOWN_TOKEN"));
    assert_eq!(world.post("/account/password", &ann, json!({})).await.verdict(), (400, "M_MISSING_PARAM"));
}

#[tokio::test]
async fn a_deactivated_user_is_nowhere() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({"preset": "public_chat"})).await;
    world.post(&in_room(&room, "join"), &bob, json!({})).await.ok();
    let asked = world.post("/account/deactivate", &bob, json!({"erase": true})).await;
    assert_eq!(asked.verdict(), (401, ""));
    let auth = with_password(&bob, &asked.body["session"]);
    let done = world.post("/account/deactivate", &bob, json!({"erase": true, "auth": auth})).await.ok();
    assert_eq!(done, json!({"id_server_unbind_result": "success"}));
    assert_eq!(world.get("/account/whoami", &bob).await.verdict(), (401, "M_UNKNOWN_TOKEN"));
    world.has_departed(&bob).await;
    let joined = world.get(&in_room(&room, "joined_members"), &ann).await.ok();
    assert_eq!(joined["joined"].as_object().unwrap().len(), 1, "{joined}");
    let body = json!({"type": "m.login.password", "user": "bob", "password": PASSWORD});
    assert_eq!(world.open(Method::POST, "/login", body).await.status.as_u16(), 403);
    let again = json!({"username": "bob", "password": PASSWORD, "auth": {"type": "m.login.dummy"}});
    assert_eq!(world.open(Method::POST, "/register", again).await.verdict(), (400, "M_USER_IN_USE"));
}

#[tokio::test]
async fn profiles_are_open_to_read_and_travel_into_rooms() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({})).await;
    let own = format!("/profile/{}", pct(&ann.id));
    let name = format!("{own}/displayname");
    assert_eq!(world.open(Method::GET, &name, json!({})).await.verdict(), (404, "M_NOT_FOUND"));
    world.put(&name, &ann, json!({"displayname": "Ann"})).await.ok();
    world.put(&format!("{own}/avatar_url"), &ann, json!({"avatar_url": "mxc://hs.test/a"})).await.ok();
    let whole = world.open(Method::GET, &own, json!({})).await.ok();
    assert_eq!(whole, json!({"displayname": "Ann", "avatar_url": "mxc://hs.test/a"}));
    assert_eq!(world.open(Method::GET, &name, json!({})).await.ok(), json!({"displayname": "Ann"}));
    let member = in_room(&room, &format!("state/m.room.member/{}", pct(&ann.id)));
    let wanted = json!({"membership": "join", "displayname": "Ann", "avatar_url": "mxc://hs.test/a"});
    assert_eq!(world.get(&member, &ann).await.ok(), wanted);
    world.raw(Method::DELETE, &format!("{CLIENT}{name}"), Some(&ann), "").await.ok();
    assert_eq!(world.get(&member, &ann).await.ok()["displayname"], Value::Null);

    let zone = format!("{own}/m.tz");
    world.put(&zone, &ann, json!({"m.tz": "Europe/Vienna"})).await.ok();
    world.put(&format!("{own}/org.x"), &ann, json!({"org.x": {"a": [null, 1]}})).await.ok();
    assert_eq!(world.open(Method::GET, &zone, json!({})).await.ok(), json!({"m.tz": "Europe/Vienna"}));
    let all = json!({"avatar_url": "mxc://hs.test/a", "m.tz": "Europe/Vienna", "org.x": {"a": [null, 1]}});
    assert_eq!(world.open(Method::GET, &own, json!({})).await.ok(), all);
    for _ in 0..2 {
        world.raw(Method::DELETE, &format!("{CLIENT}{zone}"), Some(&ann), "").await.ok();
    }
    assert_eq!(world.open(Method::GET, &zone, json!({})).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(world.raw(Method::DELETE, &format!("{CLIENT}{own}/org.x"), Some(&bob), "").await.status.as_u16(), 403);

    let (long, key) = ("x".repeat(5000), format!("a.{}", "b".repeat(254)));
    for (path, body, wanted) in [
        (name.clone(), json!({}), (400, "M_MISSING_PARAM")),
        (name.clone(), json!({"displayname": 5}), (400, "M_BAD_JSON")),
        (name.clone(), json!({"displayname": long}), (400, "M_INVALID_PARAM")),
        (format!("{own}/m.tz"), json!({"m.tz": 5}), (400, "M_BAD_JSON")),
        (format!("{own}/org.x"), json!({"org.y": 5}), (400, "M_MISSING_PARAM")),
        (format!("{own}/colour"), json!({"colour": 5}), (400, "M_INVALID_PARAM")),
        (format!("{own}/{key}"), json!({(key.as_str()): 5}), (400, "M_KEY_TOO_LARGE")),
        (format!("{own}/org.x"), json!({"org.x": "x".repeat(66_000)}), (400, "M_PROFILE_TOO_LARGE")),
        (format!("/profile/{}/displayname", pct(&bob.id)), json!({"displayname": "x"}), (403, "M_FORBIDDEN")),
        ("/profile/nobody/displayname".into(), json!({"displayname": "x"}), (400, "M_INVALID_PARAM")),
    ] {
        assert_eq!(world.put(&path, &ann, body).await.verdict(), wanted, "{path}");
    }
    let nobody = format!("/profile/{}", pct("@nobody:hs.test"));
    assert_eq!(world.open(Method::GET, &nobody, json!({})).await.verdict(), (404, "M_NOT_FOUND"));
}

#[tokio::test]
async fn account_data_is_kept_as_it_came() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let of = |person: &Person, rest: &str| format!("/user/{}/{rest}", pct(&person.id));
    let (global, room) =
        (of(&ann, "account_data/x.y"), of(&ann, &format!("rooms/{}/account_data/x.y", pct("!r:hs.test"))));
    for path in [&global, &room] {
        assert_eq!(world.get(path, &ann).await.verdict(), (404, "M_NOT_FOUND"));
        world.put(path, &ann, json!({"a": 1.5, "path": path})).await.ok();
        assert_eq!(world.get(path, &ann).await.ok(), json!({"a": 1.5, "path": path}));
    }
    for path in ["account_data/m.push_rules", "account_data/m.fully_read", "rooms/!r/account_data/m.fully_read"] {
        assert_eq!(world.put(&of(&ann, path), &ann, json!({})).await.verdict(), (405, "M_BAD_JSON"), "{path}");
    }
    let rules = world.get(&of(&ann, "account_data/m.push_rules"), &ann).await.ok();
    assert!(rules["global"]["override"].is_array(), "{rules}");
    assert_eq!(world.get(&global, &bob).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.put(&global, &bob, json!({})).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.put(&global, &ann, json!([1])).await.verdict(), (400, "M_BAD_JSON"));
    let large = json!({"a": "x".repeat(70_000)});
    assert_eq!(world.put(&global, &ann, large).await.verdict(), (413, "M_TOO_LARGE"));
}

#[tokio::test]
async fn deleted_account_data_is_told_once_and_then_gone() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({})).await;
    let (in_user, of_room) = (format!("user/{}", pct(&ann.id)), format!("rooms/{}/", pct(&room)));
    let unstable = "/_matrix/client/unstable/org.matrix.msc3391";
    for (place, prefix) in [("", CLIENT), ("", unstable), (of_room.as_str(), CLIENT), (of_room.as_str(), unstable)] {
        let path = format!("/{in_user}/{place}account_data/x.y");
        world.put(&path, &ann, json!({"a": 1})).await.ok();
        let first = world.get("/sync", &ann).await.ok();
        let delete = async |by: &Person| world.raw(Method::DELETE, &format!("{prefix}{path}"), Some(by), "").await;
        assert_eq!(delete(&bob).await.verdict(), (403, "M_FORBIDDEN"));
        assert_eq!(delete(&ann).await.ok(), json!({}));
        assert_eq!(world.get(&path, &ann).await.verdict(), (404, "M_NOT_FOUND"));
        let since = first["next_batch"].as_str().unwrap();
        let news = world.get(&format!("/sync?timeout=5000&since={since}"), &ann).await.ok();
        let told = if place.is_empty() { &news } else { &news["rooms"]["join"][&room] };
        assert_eq!(told["account_data"]["events"], json!([{"type": "x.y", "content": {}}]), "{news}");
        assert!(first.to_string().contains("x.y"));
        assert!(!world.get("/sync", &ann).await.ok().to_string().contains("x.y"));
        assert_eq!(delete(&ann).await.ok(), json!({}), "a second time");
    }
    for kind in ["account_data/m.push_rules", "account_data/m.fully_read"] {
        let path = format!("{CLIENT}/{in_user}/{kind}");
        assert_eq!(world.raw(Method::DELETE, &path, Some(&ann), "").await.verdict(), (405, "M_BAD_JSON"));
    }
}

#[tokio::test]
async fn rooms_have_tags() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let room = world.create_room(&ann, json!({})).await;
    let tags = format!("/user/{}/rooms/{}/tags", pct(&ann.id), pct(&room));
    assert_eq!(world.get(&tags, &ann).await.ok(), json!({"tags": {}}));
    world.put(&format!("{tags}/m.favourite"), &ann, json!({"order": 0.5})).await.ok();
    world.put(&format!("{tags}/u.a%2Fb"), &ann, json!({})).await.ok();
    let both = json!({"tags": {"m.favourite": {"order": 0.5}, "u.a/b": {}}});
    assert_eq!(world.get(&tags, &ann).await.ok(), both);
    let all = world.get("/sync", &ann).await.ok();
    let told = &all["rooms"]["join"][&room]["account_data"]["events"];
    assert_eq!(*told, json!([{"type": "m.tag", "content": both}]));
    for _ in 0..2 {
        world.raw(Method::DELETE, &format!("{CLIENT}{tags}/u.a%2Fb"), Some(&ann), "").await.ok();
    }
    assert_eq!(world.get(&tags, &ann).await.ok(), json!({"tags": {"m.favourite": {"order": 0.5}}}));
    let long = format!("{tags}/{}", "x".repeat(256));
    for (path, by, body, wanted) in [
        (format!("{tags}/x"), &bob, json!({}), (403, "M_FORBIDDEN")),
        (format!("{tags}/x"), &ann, json!([]), (400, "M_BAD_JSON")),
        (long, &ann, json!({}), (400, "M_INVALID_PARAM")),
    ] {
        assert_eq!(world.put(&path, by, body).await.verdict(), wanted, "{path}");
    }
    assert_eq!(world.get(&tags, &bob).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn filters_are_checked_and_found_again() {
    let world = World::new();
    let (ann, bob) = (world.register("ann").await, world.register("bob").await);
    let filters = format!("/user/{}/filter", pct(&ann.id));
    let filter = json!({"room": {"timeline": {"limit": 5}}});
    let id = world.post(&filters, &ann, filter.clone()).await.ok()["filter_id"].as_str().unwrap().to_owned();
    assert_eq!(world.get(&format!("{filters}/{id}"), &ann).await.ok(), filter);
    assert_eq!(world.post(&filters, &ann, filter.clone()).await.ok()["filter_id"], json!(id), "the same again");
    world.get(&format!("/sync?filter={id}"), &ann).await.ok();
    assert_eq!(world.get("/sync?filter=99", &ann).await.verdict(), (400, "M_INVALID_PARAM"));
    assert_eq!(world.get("/sync?filter=%7B%22room%22%3A5%7D", &ann).await.verdict(), (400, "M_BAD_JSON"));
    assert_eq!(world.get(&format!("{filters}/99"), &ann).await.verdict(), (404, "M_NOT_FOUND"));
    assert_eq!(world.get(&format!("{filters}/{id}"), &bob).await.verdict(), (403, "M_FORBIDDEN"));
    assert_eq!(world.post(&filters, &ann, json!({"room": 5})).await.verdict(), (400, "M_BAD_JSON"));
}

#[tokio::test]
async fn push_rules_can_be_read_changed_and_removed() {
    let world = World::new();
    let ann = world.register("ann").await;
    let all = world.get("/pushrules/", &ann).await.ok();
    assert_eq!(all["global"], world.get("/pushrules/global/", &ann).await.ok());
    let master = "/pushrules/global/override/.m.rule.master";
    assert_eq!(world.get(&format!("{master}/enabled"), &ann).await.ok(), json!({"enabled": false}));
    world.put(&format!("{master}/enabled"), &ann, json!({"enabled": true})).await.ok();
    assert_eq!(world.get(master, &ann).await.ok()["enabled"], true);

    let cake = "/pushrules/global/content/cake";
    world.put(cake, &ann, json!({"pattern": "cake", "actions": ["notify"]})).await.ok();
    assert_eq!(world.get(cake, &ann).await.ok()["pattern"], "cake");
    world.put(&format!("{cake}/actions"), &ann, json!({"actions": []})).await.ok();
    assert_eq!(world.get(&format!("{cake}/actions"), &ann).await.ok(), json!({"actions": []}));
    world.raw(Method::DELETE, &format!("{CLIENT}{cake}"), Some(&ann), "").await.ok();
    assert_eq!(world.get(cake, &ann).await.verdict(), (404, "M_NOT_FOUND"));

    let own = world.raw(Method::DELETE, &format!("{CLIENT}{master}"), Some(&ann), "").await;
    assert_eq!(own.verdict(), (400, "M_UNKNOWN"));
    for (path, body, wanted) in [
        ("/pushrules/global/content/.mine", json!({"pattern": "x", "actions": []}), (400, "M_INVALID_PARAM")),
        ("/pushrules/global/content/a", json!({"actions": []}), (400, "M_MISSING_PARAM")),
        ("/pushrules/global/content/a", json!({"pattern": "x"}), (400, "M_MISSING_PARAM")),
        ("/pushrules/global/room/no-room", json!({"actions": []}), (400, "M_INVALID_PARAM")),
        ("/pushrules/global/magic/a", json!({"actions": []}), (400, "M_INVALID_PARAM")),
        ("/pushrules/global/content/a/enabled", json!({"enabled": true}), (404, "M_NOT_FOUND")),
        ("/pushrules/global/content/a?before=b", json!({"pattern": "x", "actions": []}), (400, "M_UNKNOWN")),
    ] {
        assert_eq!(world.put(path, &ann, body).await.verdict(), wanted, "{path}");
    }
    assert_eq!(world.get("/pushrules/global/content/a/colour", &ann).await.status.as_u16(), 404);
}
