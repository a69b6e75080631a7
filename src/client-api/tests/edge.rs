//! What holds for every request.

use super::*;

async fn verdict(world: &World, method: Method, path: &str) -> (u16, String) {
    let answer = world.raw(method, path, None, "").await;
    let (status, errcode) = answer.verdict();
    (status, errcode.to_owned())
}

#[tokio::test]
async fn unknown_paths_and_methods_are_unrecognized() {
    let world = World::new();
    for path in [
        "/",
        "/_matrix/client/v3",
        "/_matrix/client/v3/nothing",
        "/_matrix/client/v3/account/whoami/",
        "/_matrix/client/v3//account/whoami",
        "/_matrix/client/v3/account%2Fwhoami",
        "/_matrix/client/v3x/account/whoami",
        "/_matrix/client/v9/account/whoami",
        "/_matrix/client/v3/keys/upload",
    ] {
        assert_eq!(verdict(&world, Method::GET, path).await, (404, "M_UNRECOGNIZED".into()), "{path}");
    }
    for (method, path) in [
        (Method::DELETE, "/_matrix/client/v3/login"),
        (Method::PUT, "/_matrix/client/v3/sync"),
        (Method::PATCH, "/_matrix/client/versions"),
        (Method::POST, "/_matrix/client/v3/rooms/%21r/send/m.room.message/1"),
    ] {
        assert_eq!(verdict(&world, method, path).await, (405, "M_UNRECOGNIZED".into()), "{path}");
    }
}

#[tokio::test]
async fn every_answer_has_the_cors_headers_of_the_spec() {
    let world = World::new();
    let requests = [
        (Method::OPTIONS, "/_matrix/client/v3/login", 204),
        (Method::OPTIONS, "/_matrix/client/v3/rooms/%21r/send/m.room.message/1", 204),
        (Method::OPTIONS, "/nothing", 204),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/_matrix/client/versions", 200),
        (Method::GET, "/_matrix/client/v3/sync", 401),
    ];
    for (method, path, status) in requests {
        let answer = world.raw(method, path, None, "").await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        let header = |name| answer.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header(header::ACCESS_CONTROL_ALLOW_ORIGIN), Some("*"), "{path}");
        let methods = Some("GET, POST, PUT, DELETE, OPTIONS");
        assert_eq!(header(header::ACCESS_CONTROL_ALLOW_METHODS), methods, "{path}");
        let headers = Some("X-Requested-With, Content-Type, Authorization");
        assert_eq!(header(header::ACCESS_CONTROL_ALLOW_HEADERS), headers, "{path}");
    }
}

#[tokio::test]
async fn encoded_bodies_and_forms_are_refused() {
    let world = World::new();
    for (name, value) in [
        (header::CONTENT_ENCODING, "gzip"),
        (header::CONTENT_ENCODING, "zstd"),
        (header::CONTENT_TYPE, "multipart/form-data; boundary=x"),
        (header::CONTENT_TYPE, "MultiPart/Mixed"),
    ] {
        let request = Request::post("/_matrix/client/v3/login").header(&name, value).body(Body::from("{}")).unwrap();
        assert_eq!(world.send(request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{name}: {value}");
    }
}

#[tokio::test]
async fn tokens_are_missing_unknown_or_good() {
    let world = World::new();
    let ann = world.register("ann").await;
    let ask = async |authorization: Option<&str>, query: &str| {
        let mut request = Request::get(format!("{CLIENT}/account/whoami{query}"));
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let answer = world.send(request.body(Body::empty()).unwrap()).await;
        assert!(answer.status != StatusCode::UNAUTHORIZED || answer.body["error"].is_string());
        (answer.status.as_u16(), answer.body["errcode"].as_str().unwrap_or_default().to_owned(), answer.body)
    };
    for missing in [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic YTpi"), Some("Bearer\u{7f}x")] {
        if missing.is_none_or(|value| http::HeaderValue::from_str(value).is_ok()) {
            let (status, errcode, _) = ask(missing, "").await;
            assert_eq!((status, errcode.as_str()), (401, "M_MISSING_TOKEN"), "{missing:?}");
        }
    }
    let long = format!("Bearer {}", "x".repeat(10_000));
    for unknown in ["Bearer x", "Bearer hrt_x", &long] {
        let (status, errcode, body) = ask(Some(unknown), "").await;
        assert_eq!((status, errcode.as_str()), (401, "M_UNKNOWN_TOKEN"), "{unknown}");
        assert_eq!(body["soft_logout"], false);
    }
    for good in [format!("Bearer {}", ann.token), format!("bearer {}", ann.token)] {
        let (status, _, body) = ask(Some(&good), "").await;
        assert_eq!((status, &body["user_id"]), (200, &json!("@ann:hs.test")));
    }
    let (_, errcode, _) = ask(None, &format!("?access_token={}", ann.token)).await;
    assert_eq!(errcode, "M_MISSING_TOKEN", "tokens in query strings end up in logs");
}

#[tokio::test]
async fn tokens_in_query_strings_work_where_the_operator_wants_it() {
    let world = World::with(Registration::Open, |settings| settings.query_access_token = true);
    let ann = world.register("ann").await;
    let path = format!("{CLIENT}/account/whoami?access_token={}", ann.token);
    assert_eq!(world.raw(Method::GET, &path, None, "").await.ok()["device_id"], json!(ann.device));
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let world = World::with(Registration::Open, |s| s.public_base_url = Some("https://hs.test".into()));
    let ann = world.register("ann").await;
    let versions = world.raw(Method::GET, "/_matrix/client/versions", None, "").await.ok();
    assert!(versions["versions"].as_array().unwrap().contains(&json!("v1.19")), "{versions}");
    let found = world.raw(Method::GET, "/.well-known/matrix/client", None, "").await.ok();
    assert_eq!(found, json!({"m.homeserver": {"base_url": "https://hs.test"}}));
    let capabilities = &world.get("/capabilities", &ann).await.ok()["capabilities"];
    assert_eq!(capabilities["m.room_versions"]["default"], "12");
    assert_eq!(capabilities["m.room_versions"]["available"].as_object().unwrap().len(), 12);
    assert_eq!(world.get("/voip/turnServer", &ann).await.ok(), json!({}));
    assert_eq!(world.get("/thirdparty/protocols", &ann).await.ok(), json!({}));

    let silent = World::new();
    let answer = silent.raw(Method::GET, "/.well-known/matrix/client", None, "").await;
    assert_eq!(answer.verdict(), (404, "M_NOT_FOUND"));
}

/// Who registers a path and does not look at the rest of it would serve what it does not know.
#[tokio::test]
async fn routes_are_taken_to_the_letter() {
    let world = World::new();
    for path in crate::routes::paths() {
        let mut concrete = String::new();
        for segment in path.split_inclusive('/') {
            let parameter = segment.starts_with('{');
            concrete.push_str(if parameter { "x" } else { segment.trim_end_matches('/') });
            concrete.push_str(if segment.ends_with('/') { "/" } else { "" });
        }
        let last_is_free = path.ends_with('}');
        for wrong in [format!("{concrete}x"), format!("{concrete}/x/y/z/q"), format!("/x{concrete}")] {
            let answer = world.raw(Method::TRACE, &wrong, None, "").await;
            let longer_parameter = last_is_free && wrong == format!("{concrete}x");
            if !longer_parameter && !path.ends_with("/state/{type}/") {
                assert_eq!(answer.verdict().0, 404, "{wrong} reaches {path}");
            }
        }
        let answer = world.raw(Method::TRACE, &concrete, None, "").await;
        assert_eq!(answer.verdict(), (405, "M_UNRECOGNIZED"), "{concrete}");
    }
}
