//! A store that a real server has filled is clean, and each kind of damage is told.

mod outbound;
mod peers;
mod refresh;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use hearth_base::{SeededRandom, Supervisor};
use hearth_schema::{
    AccessTokens, Aggregates, CurrentState, DelayedEvents, DelayedLists, EventIds, EventNid, Events, Gap, Gaps,
    Membership, PendingRelations, RoomHeads, RoomNid, Subscription, ThreadSubscription, ThreadSubscriptionLog,
    ThreadSubscriptions, Threads, Timeline, TxnIds, User, UserNid, UserRooms, Users,
};
use hearth_store::{Batch, Keyspace as _, Op, Owner as _, Pos, raw_key};
use ruma_common::{EventId, RoomId, UserId};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::graph::Graph;
use crate::signing_key;

struct Filled {
    store: Arc<RocksStore>,
    ids: Ids,
    room: RoomNid,
    user: UserNid,
    event_id: String,
    _directory: tempfile::TempDir,
}

fn settings(directory: &Path) -> Settings {
    let text = format!(
        "[server]\nname = \"hearth.test\"\n[storage]\npath = {}\n[registration]\nmode = \"open\"\n\
         [accounts]\nargon2_memory = \"64 KiB\"\nargon2_iterations = 1\n",
        hearth_settings::quoted(&directory.display().to_string())
    );
    Settings::parse(Path::new("hearth.toml"), &text, []).expect("valid")
}

async fn call(router: &Router, method: &str, path: &str, token: &str, body: Value) -> Value {
    let request = Request::builder()
        .method(method)
        .uri(format!("/_matrix/client/v3{path}"))
        .header("authorization", format!("Bearer {token}"))
        .body(Body::from(body.to_string()))
        .expect("valid");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    assert!(status.is_success(), "{method} {path}: {status} {body:?}");
    serde_json::from_slice(&body).expect("JSON")
}

async fn register(router: &Router, name: &str) -> String {
    let wish = json!({"username": name, "password": "wonderland", "auth": {"type": "m.login.dummy"}});
    let request = Request::post("/_matrix/client/v3/register").body(Body::from(wish.to_string())).expect("valid");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
}

/// What two people leave behind who use most of the server.
async fn filled() -> Filled {
    let directory = tempfile::tempdir().expect("a directory");
    let settings = settings(directory.path());
    let key = signing_key::load(&settings, &SeededRandom::new(1)).expect("made");
    let store = open::store(&settings, Rollback::Refuse).expect("opened");
    let (requests, tasks) = (Supervisor::new(), Supervisor::new());
    let graph = Graph::build(&settings, &store, key, &requests, &tasks).await.expect("built");
    let router = graph.router.clone();
    let (alice, bob) = (register(&router, "alice").await, register(&router, "bob").await);
    let wish = json!({"preset": "public_chat", "room_alias_name": "tea", "name": "Tea", "topic": "hot"});
    let room_id =
        call(&router, "POST", "/createRoom", &alice, wish).await["room_id"].as_str().expect("made").to_owned();
    call(&router, "POST", &format!("/join/{room_id}"), &bob, json!({})).await;
    let message = json!({"msgtype": "m.text", "body": "hello"});
    let path = format!("/rooms/{room_id}/send/m.room.message/t1");
    let sent = call(&router, "PUT", &path, &bob, message).await;
    let event_id = sent["event_id"].as_str().expect("sent").to_owned();
    for (i, rel_type) in ["m.thread", "m.thread", "m.replace", "m.reference", "m.annotation"].iter().enumerate() {
        let content = json!({"msgtype": "m.text", "body": "child", "m.new_content": {}, "m.relates_to": {
            "event_id": event_id, "rel_type": rel_type, "key": "+"}});
        call(&router, "PUT", &format!("/rooms/{room_id}/send/m.room.message/c{i}"), &bob, content).await;
    }
    let redact = format!("/rooms/{room_id}/redact/{event_id}/t2");
    call(&router, "PUT", &redact, &alice, json!({})).await;
    call(&router, "POST", &format!("/rooms/{room_id}/receipt/m.read/{event_id}"), &alice, json!({})).await;
    call(&router, "PUT", "/user/@alice:hearth.test/account_data/org.example", &alice, json!({"a": 1})).await;
    let later = format!("/rooms/{room_id}/send/m.room.message/t3?org.matrix.msc4140.delay=100000");
    call(&router, "PUT", &later, &alice, json!({})).await;
    call(&router, "PUT", "/profile/@alice:hearth.test/displayname", &alice, json!({"displayname": "Al"})).await;
    call(&router, "POST", "/logout", &bob, json!({})).await;
    requests.shutdown(Duration::from_secs(5)).await.expect("stopped");
    graph.stop().await;
    tasks.shutdown(Duration::from_secs(5)).await.expect("stopped");
    let ids = Ids::new(store.store_key());
    let room = ids.room(<&RoomId>::try_from(room_id.as_str()).expect("an ID"));
    let user = ids.user(<&UserId>::try_from("@alice:hearth.test").expect("an ID"));
    Filled { store, ids, room, user, event_id, _directory: directory }
}

impl Filled {
    /// Writes past everybody who would have refused.
    async fn damage(&self, change: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new(self.room.lane());
        change(&mut batch);
        self.store.commit(batch).await.expect("committed");
    }

    async fn event_number(&self) -> u32 {
        let id = <&EventId>::try_from(self.event_id.as_str()).expect("an ID");
        let view = View::latest(&*self.store).await.expect("readable");
        view.get::<EventIds>(&(self.room.lane(), self.ids.event(id))).await.expect("readable").expect("there").n
    }

    async fn broken(&self) -> BTreeSet<String> {
        let report = check(self.store.clone()).await.expect("readable");
        let json: Value = serde_json::from_str(&report.to_json()).expect("JSON");
        assert_eq!(json["ok"], json!(report.violations() == 0));
        let shown = json["shown"].as_array().expect("a list");
        shown.iter().map(|violation| violation["invariant"].as_str().expect("a name").to_owned()).collect()
    }

    async fn breaks(&self, invariant: Invariant) {
        let broken = self.broken().await;
        assert!(broken.contains(&format!("{invariant:?}")), "{broken:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_in_use_is_clean() {
    let filled = filled().await;
    assert_eq!(filled.broken().await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_event_breaks_extremities_timeline_and_ids() {
    let filled = filled().await;
    let head = View::latest(&*filled.store).await.expect("readable").get::<RoomHeads>(&(filled.room,)).await;
    let newest = head.expect("readable").expect("there").extremities[0].n;
    filled.damage(|batch| batch.delete::<Events>(&(filled.room, newest))).await;
    for invariant in [Invariant::I1, Invariant::I2, Invariant::I3, Invariant::I4] {
        filled.breaks(invariant).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_leads_elsewhere_is_told() {
    let filled = filled().await;
    let id = <&EventId>::try_from(filled.event_id.as_str()).expect("an ID");
    let key = (filled.room.lane(), filled.ids.event(id));
    filled.damage(|batch| batch.put::<EventIds>(&key, &EventNid { room: filled.room, n: 0 })).await;
    filled.breaks(Invariant::I3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_entry_of_the_current_state_is_told() {
    let filled = filled().await;
    let key = (filled.room, "m.room.name".to_owned(), String::new());
    filled.damage(|batch| batch.delete::<CurrentState>(&key)).await;
    filled.breaks(Invariant::I7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_list_that_differs_from_the_room_is_told() {
    let filled = filled().await;
    let view = View::latest(&*filled.store).await.expect("readable");
    let key = (filled.user, filled.room);
    let mut row = view.get::<UserRooms>(&key).await.expect("readable").expect("there");
    row.membership = Membership::Leave;
    filled.damage(|batch| batch.put_elsewhere::<UserRooms>(&key, &row)).await;
    filled.breaks(Invariant::I6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_membership_from_outside_that_nothing_explains_is_told() {
    let filled = filled().await;
    let view = View::latest(&*filled.store).await.expect("readable");
    let key = (filled.user, filled.room);
    let mut row = view.get::<UserRooms>(&key).await.expect("readable").expect("there");
    (row.n, row.membership) = (None, Membership::Invite);
    filled.damage(|batch| batch.put_elsewhere::<UserRooms>(&key, &row)).await;
    filled.breaks(Invariant::I6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_without_event_is_told() {
    let filled = filled().await;
    let key = (filled.room, filled.user, "DEVICE".to_owned(), "send".to_owned(), "t9".to_owned());
    filled.damage(|batch| batch.put::<TxnIds>(&key, &9_999)).await;
    filled.breaks(Invariant::I9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_is_not_listed_is_told() {
    let filled = filled().await;
    let root = filled.event_number().await;
    let view = View::latest(&*filled.store).await.expect("readable");
    let row = view.get::<Aggregates>(&(filled.room, root)).await.expect("readable").expect("there");
    let latest = row.thread.expect("a thread").latest;
    filled.damage(|batch| batch.delete::<Threads>(&(filled.room, latest))).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_to_no_thread_is_told() {
    let filled = filled().await;
    let row = ThreadSubscription { pos: Pos::new(1), subscription: Subscription::Manual };
    let (room, n) = (filled.room, filled.event_number().await);
    let at = (filled.user, row.pos);
    filled.damage(|batch| batch.put_elsewhere::<ThreadSubscriptions>(&(filled.user, room, n), &row)).await;
    filled.damage(|batch| batch.put_elsewhere::<ThreadSubscriptionLog>(&at, &EventNid { room, n })).await;
    assert_eq!(filled.broken().await, BTreeSet::new());
    filled.damage(|batch| batch.put_elsewhere::<ThreadSubscriptions>(&(filled.user, room, 9_999), &row)).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_and_its_place_in_the_log_name_each_other() {
    let filled = filled().await;
    let row = ThreadSubscription { pos: Pos::new(1), subscription: Subscription::Manual };
    let (room, n) = (filled.room, filled.event_number().await);
    let (key, at) = ((filled.user, room, n), (filled.user, row.pos));
    filled.damage(|batch| batch.put_elsewhere::<ThreadSubscriptionLog>(&at, &EventNid { room, n })).await;
    filled.breaks(Invariant::I13).await;
    filled.damage(|batch| batch.put_elsewhere::<ThreadSubscriptions>(&key, &row)).await;
    assert_eq!(filled.broken().await, BTreeSet::new());
    filled.damage(|batch| batch.delete_elsewhere::<ThreadSubscriptionLog>(&at)).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_before_nothing_and_a_child_that_is_not_there_are_told() {
    let filled = filled().await;
    let gap = (filled.room.lane(), filled.room, Pos::new(1));
    filled.damage(|batch| batch.put::<Gaps>(&gap, &Gap::default())).await;
    filled.breaks(Invariant::I2).await;
    let parent = filled.ids.event(<&EventId>::try_from("$parent").expect("an event ID"));
    filled.damage(|batch| batch.put::<PendingRelations>(&(filled.room, parent, 9_999), &())).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_decode_is_told() {
    let filled = filled().await;
    let (key, _) = raw_key::<RoomHeads>(&(filled.room,));
    let garbage = Op::Put { key, key_holes: Vec::new(), value: vec![0xFF; 3], value_holes: Vec::new() };
    filled.damage(|batch| batch.ops.push(garbage)).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_of_the_future_is_told() {
    let filled = filled().await;
    let n = filled.event_number().await;
    filled.damage(|batch| batch.put::<Timeline>(&(filled.room, Pos::new(1 << 50)), &n)).await;
    filled.breaks(Invariant::I4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readable_password_and_a_token_without_device_are_told() {
    let filled = filled().await;
    let view = View::latest(&*filled.store).await.expect("readable");
    let row = view.get::<Users>(&(filled.user,)).await.expect("readable").expect("there");
    let readable = User { password_hash: Some("wonderland".into()), ..row };
    let orphan = hearth_schema::AccessToken { user_id: "@alice:hearth.test".into(), device_id: "GONE".into() };
    filled
        .damage(|batch| {
            batch.put_elsewhere::<Users>(&(filled.user,), &readable);
            batch.put_elsewhere::<AccessTokens>(&(filled.ids.token("x"),), &orphan);
        })
        .await;
    filled.breaks(Invariant::I14).await;
    filled.breaks(Invariant::I13).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_event_and_its_list_have_each_other() {
    for lost in [DelayedEvents::DEF.id, DelayedLists::DEF.id] {
        let filled = filled().await;
        let user = filled.user;
        let mut batch = Batch::new(user.lane());
        if lost == DelayedEvents::DEF.id {
            batch.delete_prefix::<DelayedEvents, _>(&(user,));
        } else {
            batch.delete::<DelayedLists>(&(user.lane(), user));
        }
        filled.store.commit(batch).await.expect("committed");
        filled.breaks(Invariant::I13).await;
    }
}
