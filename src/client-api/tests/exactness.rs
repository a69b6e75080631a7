//! What every route has in common, asked of every route: the path to the letter, bodies that no route
//! takes, answers that repeat no secret.

use http::HeaderName;

use super::*;
use crate::{Peer, TrustedProxies};

/// Segments of a path or a pattern.
fn split(path: &str) -> Vec<&str> {
    path.split('/').collect()
}

/// Whether some route is for `path`: the same number of segments, each equal or a parameter, and no
/// parameter empty. Written without looking at the router.
fn exists(patterns: &[String], path: &str) -> bool {
    patterns.iter().any(|pattern| {
        let (pattern, path) = (split(pattern), split(path));
        let fits = |(wanted, given): (&&str, &&str)| {
            if wanted.starts_with('{') { !given.is_empty() } else { wanted == given }
        };
        pattern.len() == path.len() && pattern.iter().zip(&path).all(fits)
    })
}

fn patterns() -> Vec<String> {
    let old = |path: &String| path.strip_prefix("/_matrix/client/v3").map(|rest| format!("/_matrix/client/r0{rest}"));
    let mut all = crate::routes::paths();
    all.extend(all.iter().filter_map(old).collect::<Vec<_>>());
    all
}

/// The pattern with something in place of its parameters.
fn concrete(pattern: &str) -> String {
    let segments = split(pattern).into_iter();
    segments.map(|segment| if segment.starts_with('{') { "p" } else { segment }).collect::<Vec<_>>().join("/")
}

/// What somebody might try instead of `path`.
fn variants(path: &str) -> Vec<String> {
    let segments = split(path);
    let mut all = vec![format!("{path}x"), format!("{path}/"), format!("{path}%00"), path.to_uppercase()];
    for at in 1..segments.len() {
        let (before, after) = (segments[..at].join("/"), segments[at..].join("/"));
        all.push(format!("{before}/x/{after}"));
        all.push(format!("{before}//{after}"));
        all.push(format!("{before}/./{after}"));
        all.push(format!("{before}/../{after}"));
        all.push(format!("{before}%2F{after}"));
        all.push([&before[..], &segments[at + 1..].join("/")].join("/"));
        all.push(format!("{before}/x{after}"));
    }
    all.retain(|variant| variant.starts_with('/'));
    all
}

#[tokio::test]
async fn a_path_reaches_a_route_only_if_it_is_that_routes() {
    let (world, patterns) = (World::new(), patterns());
    for pattern in &patterns {
        let path = concrete(pattern);
        assert!(exists(&patterns, &path));
        for asked in variants(&path).into_iter().chain([path]) {
            // No route has this method, so 405 says that one has the path.
            let verdict = world.raw(Method::TRACE, &asked, None, "").await;
            let wanted = if exists(&patterns, &asked) { (405, "M_UNRECOGNIZED") } else { (404, "M_UNRECOGNIZED") };
            assert_eq!(verdict.verdict(), wanted, "{asked}");
        }
    }
}

/// The requests that some route answers, with a method of its own.
async fn endpoints(world: &World) -> Vec<(Method, String)> {
    let mut found = Vec::new();
    for pattern in patterns() {
        for method in [Method::GET, Method::PUT, Method::POST, Method::DELETE] {
            let path = concrete(&pattern);
            if world.raw(method.clone(), &path, None, "").await.status != StatusCode::METHOD_NOT_ALLOWED {
                found.push((method, path));
            }
        }
    }
    found
}

#[tokio::test]
async fn no_endpoint_takes_packed_bodies_or_forms() {
    let world = World::new();
    let ann = world.register("ann").await;
    let endpoints = endpoints(&world).await;
    assert!(endpoints.len() > 100, "{}", endpoints.len());
    for (method, path) in endpoints {
        for (name, value) in [
            (header::CONTENT_ENCODING, "gzip"),
            (header::CONTENT_ENCODING, "identity, deflate"),
            (header::CONTENT_TYPE, "MULTIPART/form-data; boundary=x"),
        ] {
            let request = Request::builder().method(method.clone()).uri(&path).header(&name, value);
            let request = request.header(header::AUTHORIZATION, format!("Bearer {}", ann.token));
            let answer = world.send(request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{method} {path} {value}");
        }
    }
    // None of them did anything: her log-in is still good.
    world.get("/account/whoami", &ann).await.ok();
}

/// What a client sends in confidence must not come back in an error, or it ends up where errors do.
#[tokio::test]
async fn no_refusal_repeats_a_secret() {
    const SECRET: &str = "hunter2-correct-horse";
    let world = World::new();
    let endpoints = endpoints(&world).await;
    let auth = json!({"type": "m.login.password", "session": SECRET, "password": SECRET, "token": SECRET});
    let objects = json!({
        "password": SECRET, "new_password": SECRET, "old_password": SECRET, "token": SECRET, "refresh_token": SECRET,
        "client_secret": SECRET, "type": "m.login.password", "user": "nobody", "auth": auth,
    });
    let bodies = [
        objects.to_string(),
        json!({"password": {"a": SECRET}, "auth": SECRET, "type": [SECRET]}).to_string(),
        format!("{{\"password\":{SECRET}}}"),
        format!("{SECRET}{{\"password\":"),
        format!("[\"{SECRET}\"]"),
    ];
    let mut refused = 0;
    for (method, path) in endpoints {
        for body in &bodies {
            for token in [SECRET.to_owned(), format!("hrt_{SECRET}")] {
                let request = Request::builder().method(method.clone()).uri(&path);
                let request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
                let request = request.header(HeaderName::from_static("cookie"), SECRET);
                let answer = world.send(request.body(Body::from(body.clone())).unwrap()).await;
                if answer.status.is_client_error() || answer.status.is_server_error() {
                    refused += 1;
                    let shown = format!("{:?} {}", answer.headers, answer.body);
                    assert!(!shown.contains(SECRET), "{method} {path} {body}: {shown}");
                }
            }
        }
    }
    assert!(refused > 500, "{refused}");
}

#[tokio::test]
async fn refusals_of_those_who_are_known_repeat_no_secret_either() {
    const SECRET: &str = "hunter2-correct-horse";
    let world = World::new();
    let ann = world.register("ann").await;
    for (method, path) in endpoints(&world).await {
        if path.ends_with("/logout") || path.ends_with("/logout/all") {
            continue;
        }
        for body in [format!("{{\"password\":{SECRET}}}"), format!("{{\"password\":[\"{SECRET}\"],\"auth\":5}}")] {
            let answer = world.raw(method.clone(), &path, Some(&ann), body).await;
            let shown = format!("{:?} {}", answer.headers, answer.body);
            let leaks = shown.contains(SECRET) || shown.contains(&ann.token);
            assert!(answer.status.is_success() || !leaks, "{method} {path}: {shown}");
        }
    }
    world.get("/account/whoami", &ann).await.ok();
}

#[tokio::test]
async fn unix_sockets_are_believed_only_if_the_operator_says_so() {
    for local in [false, true] {
        let rate = Some(hearth_base::Rate::per_second(1, 1));
        let world = World::with(Registration::Open, |settings| {
            settings.rate_limits = Some(crate::RateLimits { address: rate, ..crate::RateLimits::default() });
            settings.trusted_proxies = TrustedProxies { networks: Vec::new(), local };
        });
        let ask = async |forwarded: &str| {
            let request = Request::get("/_matrix/client/versions").header("x-forwarded-for", forwarded);
            let request = request.extension(Peer::Local).body(Body::empty()).unwrap();
            world.send(request).await.status.as_u16()
        };
        assert_eq!(ask("192.0.2.1").await, 200);
        assert_eq!(ask("192.0.2.2").await, if local { 200 } else { 429 }, "another client");
        assert_eq!(ask("198.51.100.1, 192.0.2.1").await, 429, "the same client");
    }
}

/// A page of a long room in which nothing is wanted must still lead on, and to the end.
#[tokio::test]
async fn pages_end_although_nearly_everything_is_filtered() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({})).await;
    let send = async |kind: &str, txn: &str| {
        world.put(&in_room(&room, &format!("send/{kind}/{txn}")), &ann, json!({})).await.ok();
    };
    send("org.example.wanted", "first").await;
    for n in 0..1000 {
        send("org.example.noise", &n.to_string()).await;
    }
    send("org.example.wanted", "last").await;
    let filter = pct(&json!({"types": ["org.example.wanted"]}).to_string());
    for dir in ["b", "f"] {
        let (mut from, mut found, mut calls) = (String::new(), 0, 0);
        loop {
            let path = in_room(&room, &format!("messages?dir={dir}&limit=5&filter={filter}{from}"));
            let page = world.get(&path, &ann).await.ok();
            found += page["chunk"].as_array().unwrap().len();
            calls += 1;
            assert!(calls <= 50, "pages of nothing go on and on");
            match page["end"].as_str() {
                Some(end) => from = format!("&from={}", pct(end)),
                None => break,
            }
        }
        assert_eq!(found, 2, "{dir}");
    }
}
