//! Who is let in at all, and how much they may bring.

use super::*;

#[tokio::test]
async fn whoever_signs_is_let_in_and_nobody_else() {
    let (world, friend) = (World::new().await, Other::friend());
    let path = format!("{V1}/query/profile?user_id=@nobody:hs.test");
    assert_eq!(friend.get(&world, &path).await.verdict(), (404, "M_NOT_FOUND"));
    let refused = (401, "M_UNAUTHORIZED");
    assert_eq!(world.open(Method::GET, &path, "").await.verdict(), refused, "no header");
    // Everything of the request is signed: another query, method, body, key or name does not do.
    let header = |request: Request<Body>| request.headers()[header::AUTHORIZATION].to_str().unwrap().to_owned();
    let signed = header(friend.request(&Method::GET, &path, None));
    let with = |method: Method, path: &str, header: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, header);
        request.body(Body::from(body.to_owned())).unwrap()
    };
    let other_query = format!("{V1}/query/profile?user_id=@somebody:hs.test");
    let mallory = signed.replace("other.test", "mal.test");
    let stranger = signed.replace("other.test", "stranger.test");
    let for_another = signed.replace("hs.test", "elsewhere.test");
    let nobody = signed.replace("destination=\"hs.test\",", "");
    let unknown_key = signed.replace("ed25519:1", "ed25519:2");
    for (why, request) in [
        ("another query", with(Method::GET, &other_query, &signed, "")),
        ("a body", with(Method::GET, &path, &signed, "{}")),
        ("another server's name", with(Method::GET, &path, &mallory, "")),
        ("a server whose keys nobody has", with(Method::GET, &path, &stranger, "")),
        ("another destination", with(Method::GET, &path, &for_another, "")),
        ("no destination", with(Method::GET, &path, &nobody, "")),
        ("an unknown key", with(Method::GET, &path, &unknown_key, "")),
        ("no signature", with(Method::GET, &path, "X-Matrix origin=\"other.test\"", "")),
        ("another scheme", with(Method::GET, &path, "Bearer abc", "")),
    ] {
        assert_eq!(world.send(request).await.verdict(), refused, "{why}");
    }
}

#[tokio::test]
async fn paths_are_known_to_the_letter() {
    let (world, friend) = (World::new().await, Other::friend());
    let unknown = (404, "M_UNRECOGNIZED");
    for path in crate::routes::paths() {
        let path: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part }).collect();
        let path = path.join("/");
        assert_eq!(world.open(Method::TRACE, &path, "").await.verdict(), (405, "M_UNRECOGNIZED"), "{path}");
        assert_eq!(friend.get(&world, &format!("{path}/x/x/x")).await.verdict(), unknown, "{path}");
    }
    for path in ["/_matrix/federation/v1/user/keys/query", "/_matrix/federation/v3/version", "/_matrix/key/v2//server"]
    {
        assert_eq!(friend.get(&world, path).await.verdict(), unknown, "{path}");
    }
}

#[tokio::test]
async fn what_is_too_large_or_in_pieces_is_refused() {
    let world = World::with(|settings| {
        settings.max_body_bytes = 1000;
        settings.max_transaction_bytes = 5000;
    })
    .await;
    let friend = Other::friend();
    let padded = |bytes: usize| format!(r#"{{"pdus":[],"x":"{}"}}"#, "x".repeat(bytes));
    let too_large = (413, "M_TOO_LARGE");
    assert_eq!(friend.put(&world, &format!("{V1}/send/1"), &padded(4000)).await.verdict(), (200, ""));
    assert_eq!(friend.put(&world, &format!("{V1}/send/2"), &padded(6000)).await.verdict(), too_large);
    let path = format!("{V1}/publicRooms");
    assert_eq!(friend.post(&world, &path, json!({"x": "x".repeat(2000)})).await.verdict(), too_large);
    let mut zipped = friend.request(&Method::PUT, &format!("{V1}/send/3"), Some("{}"));
    zipped.headers_mut().insert(header::CONTENT_ENCODING, "gzip".parse().unwrap());
    assert_eq!(world.send(zipped).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn a_server_that_asks_too_often_waits() {
    let world = World::with(|settings| {
        settings.rates.heavy = Some(hearth_base::Rate::per_minute(1, 3));
    })
    .await;
    let (friend, room) = (Other::friend(), world.room(Preset::PublicChat).await);
    let path = about("state", &room, &world.say(&room, "x").await);
    for _ in 0..3 {
        assert_eq!(friend.get(&world, &path).await.verdict(), (403, "M_FORBIDDEN"));
    }
    let answer = friend.get(&world, &path).await;
    assert_eq!(answer.verdict(), (429, "M_LIMIT_EXCEEDED"));
    assert!(answer.body["retry_after_ms"].as_u64().unwrap() > 0 && answer.headers.contains_key(header::RETRY_AFTER));
    // What is less work goes on, and so do others.
    assert_eq!(friend.put(&world, &format!("{V1}/send/1"), r#"{"pdus":[]}"#).await.verdict(), (200, ""));
    assert_eq!(Other::mallory().get(&world, &path).await.verdict(), (403, "M_FORBIDDEN"));
}

#[tokio::test]
async fn anybody_may_know_the_version_and_the_keys() {
    let world = World::new().await;
    let version = world.open(Method::GET, &format!("{V1}/version"), "").await.ok();
    assert_eq!(version["server"]["name"], "Hearth");
    let keys = world.open(Method::GET, "/_matrix/key/v2/server", "").await.ok();
    assert_eq!(keys["server_name"], "hs.test");
    assert!(keys["verify_keys"]["ed25519:test"]["key"].is_string());
    let own = world.open(Method::GET, "/_matrix/key/v2/query/hs.test", "").await.ok();
    assert!(own["server_keys"].is_array());
    let asked = json!({"server_keys": {"hs.test": {}}}).to_string();
    assert!(world.open(Method::POST, "/_matrix/key/v2/query", &asked).await.ok()["server_keys"].is_array());
    let many: serde_json::Map<_, _> = (0..200).map(|i| (format!("s{i}.test"), json!({}))).collect();
    let many = json!({"server_keys": many}).to_string();
    assert_eq!(world.open(Method::POST, "/_matrix/key/v2/query", &many).await.verdict(), (413, "M_TOO_LARGE"));
    assert_eq!(world.open(Method::POST, "/_matrix/key/v2/query", "[]").await.verdict(), (400, "M_NOT_JSON"));
}
