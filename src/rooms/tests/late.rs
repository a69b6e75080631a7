//! Relations and redactions of events that come late: from before a join, from a gap, in the wrong order.

use std::sync::atomic::Ordering;

use hearth_event::RoomVersion;
use hearth_schema::{Aggregates, PendingRelations, Threads};
use hearth_store::Order;
use ruma_common::{OwnedEventId, RoomId};
use serde_json::{Value, json};

use super::fixture::{Fixture, creation, message, object, user};
use super::neighbour::{Town, event, other};
use crate::{CreateRoom, Direction, EventFilter, HistoryQuery, Preset};

/// What a server makes of an event's children.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    edit: Option<String>,
    /// Newest reply and how many there are.
    thread: Option<(OwnedEventId, u32)>,
    references: u32,
    content: String,
}

async fn summary(on: &Fixture, room_id: &RoomId, id: &OwnedEventId) -> Summary {
    let event = event(&on.rooms, room_id, id).await.expect("an event");
    let view = on.rooms.view().await.expect("a view");
    let row = view.get::<Aggregates>(&(event.room, event.n)).await.expect("readable").unwrap_or_default();
    let mut thread = None;
    if let Some(found) = row.thread {
        let latest = on.rooms.events(&view, event.room, &[found.latest]).await.expect("events").remove(0);
        assert_eq!(view.get::<Threads>(&(event.room, found.latest)).await.expect("readable"), Some(event.n));
        thread = Some((latest.event_id().to_owned(), found.replies));
    }
    let edit = row.edit.map(|edit| edit.event_id);
    Summary { edit, thread, references: row.references, content: event.pdu.content().get().to_owned() }
}

async fn send(town: &Town, room_id: &RoomId, body: &str, relates: Value) -> OwnedEventId {
    let mut event = message(room_id, &other("olga"), body, body);
    let mut content = json!({ "msgtype": "m.text", "body": body });
    if !relates.is_null() {
        content["m.relates_to"] = relates;
        content["m.new_content"] = json!({ "msgtype": "m.text", "body": body });
    }
    event.content = object(content);
    town.there.rooms.send(event).await.expect("sent").event_id
}

async fn plain(town: &Town, room_id: &RoomId, body: &str) -> OwnedEventId {
    send(town, room_id, body, Value::Null).await
}

async fn child(town: &Town, room_id: &RoomId, body: &str, (parent, kind): (&OwnedEventId, &str)) -> OwnedEventId {
    send(town, room_id, body, json!({ "event_id": parent, "rel_type": kind })).await
}

async fn redact(town: &Town, room_id: &RoomId, target: &OwnedEventId) -> OwnedEventId {
    let original = event(&town.there.rooms, room_id, target).await.expect("an event").pdu.clone();
    town.neighbour.originals.lock().expect("not poisoned").push(original);
    let mut event = message(room_id, &other("olga"), "", &format!("redact {target}"));
    event.event_type = "m.room.redaction".into();
    event.content = object(json!({}));
    event.redacts = Some(target.clone());
    town.there.rooms.send(event).await.expect("sent").event_id
}

async fn scroll_back(town: &Town, room_id: &RoomId) {
    let (direction, filter) = (Direction::Backward, EventFilter::default());
    let mut query = HistoryQuery { room_id: room_id.to_owned(), from: None, to: None, direction, limit: 50, filter };
    loop {
        let page = town.here.rooms.messages(&user("alice"), &query).await.expect("a page");
        query.from = page.end;
        if page.end.is_none() {
            return;
        }
    }
}

async fn alike(town: &Town, room_id: &RoomId, ids: &[&OwnedEventId]) {
    for (i, id) in ids.iter().enumerate() {
        assert_eq!(summary(&town.here, room_id, id).await, summary(&town.there, room_id, id).await, "event {i}");
    }
}

async fn waiting(town: &Town, room_id: &RoomId) -> usize {
    let view = town.here.rooms.view().await.expect("a view");
    let room = town.here.rooms.ids().room(room_id);
    view.page::<PendingRelations, _>(&(room,), Order::Ascending, 100).await.expect("readable").len()
}

async fn room_there(town: &Town, version: &str) -> ruma_common::OwnedRoomId {
    let version = RoomVersion::parse(version);
    let create = CreateRoom { creator: other("olga"), version, ..creation(Preset::PublicChat) };
    town.there.rooms.create(create).await.expect("a room")
}

#[tokio::test]
async fn history_from_before_the_join_is_summed_up_as_it_was() {
    for version in ["5", "11"] {
        let town = Town::new();
        let room_id = room_there(&town, version).await;
        let top = plain(&town, &room_id, "top").await;
        let edited = plain(&town, &room_id, "typo").await;
        let secret = plain(&town, &room_id, "secret").await;
        child(&town, &room_id, "reply 1", (&top, "m.thread")).await;
        child(&town, &room_id, "fixed", (&edited, "m.replace")).await;
        child(&town, &room_id, "see", (&top, "m.reference")).await;
        let gone = child(&town, &room_id, "reply 2", (&top, "m.thread")).await;
        redact(&town, &room_id, &secret).await;
        redact(&town, &room_id, &gone).await;
        town.join(&room_id, &user("alice")).await;
        // Children of what came before the join.
        let reply = child(&town, &room_id, "reply 3", (&top, "m.thread")).await;
        let again = child(&town, &room_id, "fixed again", (&edited, "m.replace")).await;
        Town::deliver(&town.there, &town.here, &room_id, &[&reply, &again]).await;
        assert_eq!(waiting(&town, &room_id).await, 2);
        scroll_back(&town, &room_id).await;
        alike(&town, &room_id, &[&top, &edited, &secret, &gone, &reply, &again]).await;
        assert_eq!(waiting(&town, &room_id).await, 0, "version {version}");
    }
}

#[tokio::test]
async fn a_redaction_after_the_join_takes_effect_on_what_was_before() {
    let town = Town::new();
    let room_id = room_there(&town, "11").await;
    let secret = plain(&town, &room_id, "secret").await;
    town.join(&room_id, &user("alice")).await;
    let redaction = redact(&town, &room_id, &secret).await;
    Town::deliver(&town.there, &town.here, &room_id, &[&redaction]).await;
    scroll_back(&town, &room_id).await;
    alike(&town, &room_id, &[&secret]).await;
    let found = event(&town.here.rooms, &room_id, &secret).await.expect("an event");
    assert!(found.redacted_by.is_some() && !found.pdu.content().get().contains("secret"));
}

#[tokio::test]
async fn what_is_in_a_gap_is_summed_up_with_what_is_around_it() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    let (top, typo) = (plain(&town, &room_id, "top").await, plain(&town, &room_id, "typo").await);
    Town::deliver(&town.there, &town.here, &room_id, &[&top, &typo]).await;
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    child(&town, &room_id, "reply 1", (&top, "m.thread")).await;
    let hidden = plain(&town, &room_id, "a thread that begins in the gap").await;
    child(&town, &room_id, "reply 2", (&top, "m.thread")).await;
    let secret = plain(&town, &room_id, "secret").await;
    child(&town, &room_id, "fixed", (&typo, "m.replace")).await;
    redact(&town, &room_id, &typo).await;
    plain(&town, &room_id, "nothing").await;
    let reply = child(&town, &room_id, "reply 3", (&top, "m.thread")).await;
    let first = child(&town, &room_id, "first", (&hidden, "m.thread")).await;
    let redaction = redact(&town, &room_id, &secret).await;
    Town::deliver(&town.there, &town.here, &room_id, &[&reply, &first, &redaction]).await;
    scroll_back(&town, &room_id).await;
    alike(&town, &room_id, &[&top, &typo, &hidden, &secret, &reply, &first]).await;
    let thread = summary(&town.here, &room_id, &top).await.thread;
    assert_eq!(thread, Some((reply, 3)), "the newest reply stays the newest");
}

#[tokio::test]
async fn a_parent_that_comes_after_its_child_has_it() {
    let town = Town::new();
    let room_id = town.shared_room(RoomVersion::DEFAULT).await;
    town.neighbour.forgetful.store(true, Ordering::Relaxed);
    let top = plain(&town, &room_id, "top").await;
    let reply = child(&town, &room_id, "reply", (&top, "m.thread")).await;
    let seen = child(&town, &room_id, "see", (&top, "m.reference")).await;
    Town::deliver(&town.there, &town.here, &room_id, &[&reply]).await;
    Town::deliver(&town.there, &town.here, &room_id, &[&seen]).await;
    assert_eq!(waiting(&town, &room_id).await, 2);
    Town::deliver(&town.there, &town.here, &room_id, &[&top]).await;
    alike(&town, &room_id, &[&top]).await;
    assert_eq!(waiting(&town, &room_id).await, 0);
}

#[tokio::test]
async fn what_was_hidden_once_stays_hidden_when_history_comes() {
    let town = Town::new();
    let room_id = room_there(&town, "11").await;
    let olga = other("olga");
    let place = ("m.room.history_visibility", "");
    town.there.set(&room_id, &olga, place, json!({ "history_visibility": "joined" })).await.expect("set");
    plain(&town, &room_id, "for members").await;
    town.there.set(&room_id, &olga, place, json!({ "history_visibility": "shared" })).await.expect("set");
    plain(&town, &room_id, "for all").await;
    town.join(&room_id, &user("alice")).await;
    scroll_back(&town, &room_id).await;
    let history = town.here.history(&room_id, &user("alice")).await;
    assert!(history.contains(&"for all".to_owned()), "{history:?}");
    assert!(!history.contains(&"for members".to_owned()), "{history:?}");
}
