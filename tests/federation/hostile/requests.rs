//! Requests that are not signed as they should be.

use hearth_test_harness::{Claim, Hostile, pct};
use serde_json::json;

use super::scene::Scene;

/// What is wrong with what a request claims.
type Change<'a> = &'a dyn Fn(&mut Claim);

/// A question that takes a valid signature and nothing else.
fn profile(user: &str) -> String {
    format!("/_matrix/federation/v1/query/profile?field=displayname&user_id={}", pct(user))
}

#[tokio::test]
async fn only_requests_signed_for_what_they_are_get_in() {
    let scene = Scene::new().await;
    let alice = scene.side().person("alice").await;
    let (mal, name, uri) = (&scene.mal, scene.name(), profile(alice.id()));
    let right = mal.get(&name, &uri);
    let claim = right.claim.clone();
    assert_eq!(right.send().await.status, 200, "the request itself is right");

    let reordered = uri.replace("field=displayname&", "") + "&field=displayname";
    let changes: [(&str, Change<'_>); 10] = [
        ("no destination", &|claim| claim.destination.clear()),
        ("another destination", &|claim| claim.destination = "127.0.0.9:1".to_owned()),
        ("another method", &|claim| claim.method = "PUT".to_owned()),
        ("another path", &|claim| claim.uri = claim.uri.replace("/v1/", "/v2/")),
        ("another case of the path", &|claim| claim.uri = claim.uri.replace("/query/", "/Query/")),
        ("another query", &|claim| claim.uri.push_str("&x=1")),
        ("no query", &|claim| claim.uri.truncate(claim.uri.find('?').expect("a query"))),
        ("another order of the query", &|claim| claim.uri.clone_from(&reordered)),
        ("a body that is not there", &|claim| claim.content = Some(json!({}))),
        ("a key that nobody has", &|claim| claim.key_id = "ed25519:none".to_owned()),
    ];
    for (what, change) in changes {
        let mut ask = mal.get(&name, &uri);
        change(&mut ask.claim);
        let answer = ask.send().await;
        assert_eq!((answer.status, answer.errcode()), (401, "M_UNAUTHORIZED"), "{what}: {}", answer.text);
    }
    let other = Hostile::start();
    for (what, origin, key_id) in [
        ("a key of another server", other.name(), mal.key_id()),
        ("in our own name", name.as_str(), mal.key_id()),
        ("no server's name", "not a name", mal.key_id()),
        ("an algorithm that nobody knows", mal.name(), "rsa:1"),
    ] {
        let mut ask = mal.get(&name, &uri);
        (ask.claim.origin, ask.claim.key_id) = (origin.to_owned(), key_id.to_owned());
        let answer = ask.send().await;
        assert_eq!((answer.status, answer.errcode()), (401, "M_UNAUTHORIZED"), "{what}: {}", answer.text);
    }
    let header = |claim: &Claim| mal.authorization(claim);
    let good = header(&claim);
    let bad = good.replace("sig=\"", "sig=\"AAAA");
    for (what, headers) in [
        ("no header", vec![]),
        ("an empty header", vec![String::new()]),
        ("another scheme", vec![good.replace("X-Matrix", "Bearer")]),
        ("no signature", vec![good[..good.find(",sig=").expect("a signature")].to_owned()]),
        ("no base64", vec![good.replace("sig=\"", "sig=\"!")]),
        ("two bad headers", vec![bad.clone(), bad.clone()]),
        ("an origin twice", vec![good.replace("X-Matrix ", &format!("X-Matrix origin=\"{}\",", other.name()))]),
        ("a quote that does not end", vec![good.trim_end_matches('"').to_owned()]),
        ("not ASCII", vec![good.replace("origin=\"", "origin=\"ü")]),
    ] {
        let answer = mal.get(&name, &uri).with_authorization(headers).send().await;
        assert_eq!((answer.status, answer.errcode()), (401, "M_UNAUTHORIZED"), "{what}: {}", answer.text);
    }
    let huge = mal.get(&name, &uri).with_authorization(vec![format!("{good},x=\"{}\"", "a".repeat(64 * 1024))]);
    let answer = huge.send().await;
    assert_eq!(answer.status, 431, "{}", answer.text);

    // Slashes need quotes, colons do not: the signature keeps them.
    let (names, signature) = good.split_once("sig=").expect("a signature");
    let unquoted = format!("{}sig={signature}", names.replace('"', ""));
    for (what, header) in [
        ("names without quotes", unquoted),
        ("a scheme in lower case", good.replace("X-Matrix", "x-matrix")),
        ("spaces after commas", good.replace(',', ", ")),
        ("parameters in upper case", good.replace("origin=", "ORIGIN=")),
        ("something unknown besides", format!("{good},more=\"yes\"")),
        ("escapes in quotes", good.replace("127.0.0.3", "127.0\\.0.3")),
    ] {
        let answer = mal.get(&name, &uri).with_authorization(vec![header]).send().await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text);
    }
    scene.end().await;
}

#[tokio::test]
async fn the_signature_covers_the_body() {
    let scene = Scene::new().await;
    let uri = "/_matrix/federation/v1/send/once";
    let body = json!({"origin": scene.mal.name(), "origin_server_ts": 1, "pdus": [], "edus": []});
    for (what, sent) in [
        ("another body", Some(json!({"pdus": [], "edus": [], "more": 1}).to_string())),
        ("no body", None),
        ("no JSON", Some("pdus".to_owned())),
    ] {
        let mut ask = scene.mal.put(&scene.name(), uri, &body);
        ask.sent.2 = sent.map(String::into_bytes);
        let answer = ask.send().await;
        assert!([400, 401].contains(&answer.status), "{what}: {} {}", answer.status, answer.text);
    }
    let mut unsigned = scene.mal.put(&scene.name(), uri, &body);
    unsigned.claim.content = None;
    assert_eq!(unsigned.send().await.status, 401, "a body that is not signed");
    scene.mal.put(&scene.name(), uri, &body).ok().await;
    scene.end().await;
}

#[tokio::test]
async fn a_transaction_counts_once_also_after_a_crash() {
    let mut scene = Scene::new().await;
    let mut shared = scene.room(11).await;
    let event = shared.room.message(&shared.mallory, "first");
    let first = shared.room.send(&scene.mal, &event);
    let answer = scene.transaction_called("same", std::slice::from_ref(&first.text), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    shared.alice.sees(&shared.room.id, &first.id).await;
    let second = shared.room.message(&shared.mallory, "second").sign(&scene.mal);
    for _ in 0..2 {
        let again = scene.transaction_called("same", std::slice::from_ref(&second.text), &[]).await;
        assert_eq!((again.status, &again.body), (200, &answer.body), "the same answer, whatever comes the second time");
        scene.all_is_looked_at(&mut shared).await;
        shared.is_kept_out("a transaction of the same name", &second.id).await;
        scene.restart().await;
    }
    scene.end().await;
}
