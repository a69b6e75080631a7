//! Pushers, and kinds of push rules, over HTTP.

use super::*;

fn pusher(kind: &Value) -> Value {
    json!({
        "app_id": "app", "pushkey": "k", "kind": kind, "app_display_name": "App", "device_display_name": "Phone",
        "lang": "en", "data": {"url": "https://push.test/_matrix/push/v1/notify", "format": "event_id_only"},
    })
}

#[tokio::test]
async fn pushers_are_set_listed_and_removed() {
    let world = World::new();
    let ann = world.register("ann").await;
    let set = async |body: &Value| world.post("/pushers/set", &ann, body.clone()).await;
    let listed = async || world.get("/pushers", &ann).await.ok()["pushers"].clone();
    set(&pusher(&json!("http"))).await.ok();
    assert_eq!(listed().await, json!([pusher(&json!("http"))]));

    for missing in ["app_id", "pushkey", "kind", "app_display_name", "device_display_name", "lang", "data"] {
        let mut body = pusher(&json!("http"));
        body.as_object_mut().unwrap().remove(missing);
        assert_eq!(set(&body).await.verdict(), (400, "M_MISSING_PARAM"), "{missing}");
    }
    assert_eq!(set(&pusher(&json!("email"))).await.verdict(), (400, "M_INVALID_PARAM"));
    let mut elsewhere = pusher(&json!("http"));
    elsewhere["data"]["url"] = json!("https://push.test/");
    assert_eq!(set(&elsewhere).await.verdict(), (400, "M_INVALID_PARAM"));

    set(&json!({"app_id": "app", "pushkey": "k", "kind": null})).await.ok();
    assert_eq!(listed().await, json!([]));
}

#[tokio::test]
async fn a_kind_of_push_rules_that_does_not_exist_has_no_rules() {
    let world = World::new();
    let ann = world.register("ann").await;
    for path in ["/pushrules/global/postcontent/.rule", "/pushrules/global/postcontent/.rule/enabled"] {
        assert_eq!(world.get(path, &ann).await.verdict(), (404, "M_NOT_FOUND"), "{path}");
    }
    let set = world.put("/pushrules/global/postcontent/.rule/enabled", &ann, json!({"enabled": false})).await;
    assert_eq!(set.verdict(), (400, "M_INVALID_PARAM"));
}
