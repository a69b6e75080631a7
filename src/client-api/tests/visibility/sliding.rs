//! The row of sliding sync: a list, and a subscription to the room, with all of its state or some.

use super::super::*;
use super::room::Stage;
use super::rows::{Reading, Told};

pub(super) const ROUTE: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";

/// What connection number `connection` asks for.
pub(super) fn body(stage: &Stage, connection: usize, limit: usize) -> Value {
    let rule = json!({"timeline_limit": limit, "required_state": [["*", "*"]]});
    let mut body = json!({"conn_id": connection.to_string(), "lists": {"all": rule}, "extensions": {
        "receipts": {"enabled": true}, "typing": {"enabled": true}, "account_data": {"enabled": true},
    }});
    if !stage.room.is_empty() {
        body["room_subscriptions"] = json!({stage.room.as_str(): rule});
    }
    body
}

pub(super) async fn ask(stage: &Stage, by: &Person, body: Value) -> Value {
    stage.world.raw(Method::POST, ROUTE, Some(by), body.to_string()).await.ok()
}

pub(super) async fn sliding(r: &Reading<'_>) {
    let told = Told::of(r);
    for limit in [3, 100] {
        check(r, &told, &format!("first, {limit}"), body(r.stage, 99, limit)).await;
        for (connection, positions) in r.stage.slides.iter().enumerate() {
            let mut body = body(r.stage, connection, limit);
            body["pos"] = json!(positions[r.name]);
            check(r, &told, &format!("of connection {connection}, {limit}"), body).await;
        }
    }
    for state in [json!([["*", "*"], ["m.room.member", "$LAZY"]]), json!([["m.room.topic", ""], ["*", "$ME"]])] {
        let rule = json!({"timeline_limit": 7, "required_state": state});
        let body = json!({"conn_id": "some", "room_subscriptions": {r.stage.room.as_str(): rule}});
        check(r, &told, &format!("with {state}"), body).await;
    }
}

async fn check(r: &Reading<'_>, told: &Told, what: &str, body: Value) {
    let is_whole = body["lists"].is_object();
    let answer = ask(r.stage, r.person, body).await;
    r.no_leak(what, &answer, &told.known);
    let Some(room) = answer["rooms"].get(&r.stage.room) else {
        if told.membership == "join" && what.starts_with("first") {
            r.problem(&format!("{what}: the room is not there"));
        }
        return;
    };
    r.same(&format!("{what}, membership"), &room["membership"].as_str(), &Some(told.membership.as_str()));
    let timeline = r.numbers(&room["timeline"]);
    r.same(&format!("{what}, timeline"), &told.hides(&timeline), &Vec::new());
    let newest = told.visible.iter().rev().take(timeline.len()).rev().copied().collect();
    r.same(&format!("{what}, newest of the timeline"), &timeline, &newest);
    if room["limited"] == json!(true) {
        r.same_bundles(&format!("{what}, timeline"), &room["timeline"]);
    }
    let state = r.numbers(&room["required_state"]);
    let unknown: Vec<_> = state.iter().filter(|event| !told.known.contains(event)).collect();
    r.same(&format!("{what}, state"), &unknown, &Vec::new());
    if let Some(wanted) = told.state.as_ref().filter(|_| is_whole && room["initial"] == json!(true)) {
        let wanted: BTreeSet<usize> = wanted.values().copied().collect();
        r.same(&format!("{what}, whole state"), &state.into_iter().collect(), &wanted);
    }
}
