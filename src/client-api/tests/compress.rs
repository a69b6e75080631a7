//! Which answers are compressed.

use std::io::Read as _;

use super::*;

/// Headers and body of a GET by somebody who accepts `encodings`.
async fn get(world: &World, by: &Person, path: &str, encodings: &str) -> (HeaderMap, Bytes) {
    let request = Request::get(format!("{CLIENT}{path}"))
        .header(header::AUTHORIZATION, format!("Bearer {}", by.token))
        .header(header::ACCEPT_ENCODING, encodings)
        .body(Body::empty())
        .unwrap();
    let response: Response = world.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let (parts, body) = response.into_parts();
    (parts.headers, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_accept_it() {
    let world = World::new();
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({"topic": "x".repeat(5000)})).await;
    let path = in_room(&room, "state");
    let (headers, plain) = get(&world, &ann, &path, "identity").await;
    assert!(!headers.contains_key(header::CONTENT_ENCODING));

    let (headers, packed) = get(&world, &ann, &path, "br, gzip").await;
    assert_eq!(headers[header::CONTENT_ENCODING], "gzip");
    assert!(headers[header::VARY].to_str().unwrap().eq_ignore_ascii_case("accept-encoding"), "caches must know");
    assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(packed.len() < plain.len() / 2, "{} of {}", packed.len(), plain.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(read(&unpacked), read(&plain));

    let (headers, small) = get(&world, &ann, "/account/whoami", "gzip").await;
    assert!(!headers.contains_key(header::CONTENT_ENCODING), "{small:?}");
}

#[tokio::test]
async fn nothing_is_compressed_where_the_operator_does_not_want_it() {
    let world = World::with(Registration::Open, |settings| settings.compress = false);
    let ann = world.register("ann").await;
    let room = world.create_room(&ann, json!({"topic": "x".repeat(5000)})).await;
    let (headers, _) = get(&world, &ann, &in_room(&room, "state"), "gzip").await;
    assert!(!headers.contains_key(header::CONTENT_ENCODING));
}
