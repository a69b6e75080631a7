//! Promises about rooms.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use hearth_event::{Pdu, RoomVersion};
use hearth_rooms::state::{self, Missing, Node};
use hearth_schema::{
    Aliases, Change, CurrentState, EventIds, EventKey, EventNid, Events, Gaps, Membership, NodeId, OutsideStates,
    Outsides, Receipt, ReceiptLog, ReceiptName, Receipts, RoomHead, RoomHeads, RoomMeta, RoomNid, Rooms, Source,
    StateEntry, StateId, StateKeyNames, StateKeyNid, StateKeys, StateNodes, StoredEvent, Timeline, UserNid, UserRoom,
    UserRooms, Verdict,
};
use hearth_store::{Keyspace, Lane, Order, Owner as _, Pos, StoreError};
use ruma_common::{EventId, RoomAliasId, RoomId, UserId};

use super::report::{Invariant, Violation};
use super::{Context, Finding};

type Checked = Result<Finding, StoreError>;

const MEMBER: &str = "m.room.member";
/// Rows of the current state that are read at a time.
const PAGE: usize = 1000;

#[expect(clippy::unnecessary_wraps, reason = "what a check returns, so that it reads as one")]
fn broken<K: Keyspace>(invariant: Invariant, detail: String) -> Checked {
    Ok(Some(Violation { invariant, keyspace: K::DEF.name, detail }))
}

pub(super) async fn fact(context: &Context, pos: Pos, change: &Change) -> Checked {
    let Change::Event { event } = change else { return Ok(None) };
    let stored = context.view.get::<Events>(&(event.room, event.n)).await?;
    if stored.is_some_and(|stored| stored.pos == pos) {
        return Ok(None);
    }
    broken::<Events>(Invariant::I4, format!("the change log's {pos:?} is not the position of {event:?}"))
}

pub(super) async fn room(context: &Context, room: RoomNid, meta: &RoomMeta) -> Checked {
    let named = <&RoomId>::try_from(meta.room_id.as_str()).is_ok_and(|id| context.ids.room(id) == room);
    if !named || RoomVersion::parse(&meta.version).is_none() {
        return broken::<Rooms>(Invariant::I3, format!("{room:?} is not {} or of unknown version", meta.room_id));
    }
    match context.view.get::<RoomHeads>(&(room,)).await? {
        Some(_) => Ok(None),
        None => broken::<Rooms>(Invariant::I13, format!("{} has no head", meta.room_id)),
    }
}

pub(super) async fn head(context: &Context, room: RoomNid, head: &RoomHead) -> Checked {
    if context.view.get::<Rooms>(&(room,)).await?.is_none() {
        return broken::<RoomHeads>(Invariant::I13, format!("{room:?} has a head and no room"));
    }
    if head.extremities.is_empty() {
        return broken::<RoomHeads>(Invariant::I1, format!("{room:?} has no extremity"));
    }
    for extremity in &head.extremities {
        let stored = context.view.get::<Events>(&(room, extremity.n)).await?;
        let good = stored.as_ref().is_some_and(|event| {
            *event.event_id == *extremity.event_id
                && event.verdict == Verdict::Accepted
                && extremity.n < head.next_event
        });
        if !good {
            return broken::<RoomHeads>(Invariant::I1, format!("extremity {} of {room:?}", extremity.event_id));
        }
    }
    current_state_is(context, room, head.state).await
}

/// The rows of `CurrentState` are the entries of the head's trie.
async fn current_state_is(context: &Context, room: RoomNid, state: StateId) -> Checked {
    let mut expected: BTreeMap<StateKeyNid, u32> = match entries(context, room, state).await? {
        Ok(entries) => entries.into_iter().map(|(nid, n)| (StateKeyNid(nid), n)).collect(),
        Err(missing) => return broken::<StateNodes>(Invariant::I2, format!("{room:?} lacks {missing:?}")),
    };
    let mut rows = Vec::new();
    context
        .view
        .scan::<CurrentState, _>(&(room,), Order::Ascending, PAGE, |(_, event_type, state_key), entry| {
            rows.push((event_type, state_key, entry.n));
            ControlFlow::Continue(())
        })
        .await?;
    for (event_type, state_key, n) in rows {
        let nid = context.view.get::<StateKeys>(&(room, event_type.clone(), state_key.clone())).await?;
        if nid.and_then(|nid| expected.remove(&nid)) != Some(n) {
            return broken::<CurrentState>(
                Invariant::I7,
                format!("({event_type}, {state_key}) of {room:?} is not what the head's state has"),
            );
        }
    }
    match expected.len() {
        0 => Ok(None),
        left => broken::<CurrentState>(Invariant::I7, format!("{room:?} lacks {left} entries of the head's state")),
    }
}

/// All entries of a state, or the first node that is missing.
async fn entries(
    context: &Context,
    room: RoomNid,
    state: StateId,
) -> Result<Result<Vec<(u32, u32)>, NodeId>, StoreError> {
    let mut nodes: HashMap<NodeId, Arc<Node>> = HashMap::new();
    loop {
        let at_hand = |id: NodeId| nodes.get(&id).cloned();
        match state::entries(&at_hand, state) {
            Ok(entries) => return Ok(Ok(entries)),
            Err(Missing(id)) => match context.view.get::<StateNodes>(&(room, id)).await? {
                None => return Ok(Err(id)),
                Some(raw) => {
                    // A node that does not decode was told by the scan: here it is missing.
                    let Ok(node) = Node::decode(&raw.0) else { return Ok(Err(id)) };
                    nodes.insert(id, Arc::new(node));
                }
            },
        }
    }
}

pub(super) async fn event_id(context: &Context, lane: Lane, key: EventKey, nid: EventNid) -> Checked {
    let stored = context.view.get::<Events>(&(nid.room, nid.n)).await?;
    let hashed = stored.and_then(|event| Some(context.ids.event(<&EventId>::try_from(&*event.event_id).ok()?)));
    if hashed == Some(key) && nid.room.lane() == lane {
        return Ok(None);
    }
    broken::<EventIds>(Invariant::I3, format!("{key:?} leads to {nid:?}, which is another event or none"))
}

pub(super) async fn event(context: &Context, nid: EventNid, event: &StoredEvent) -> Checked {
    let wrong = |invariant, what: &str| broken::<Events>(invariant, format!("{} ({nid:?}) {what}", event.event_id));
    let Ok(event_id) = <&EventId>::try_from(&*event.event_id) else {
        return wrong(Invariant::I3, "has no event ID");
    };
    let key = (nid.room.lane(), context.ids.event(event_id));
    if context.view.get::<EventIds>(&key).await? != Some(nid) {
        return wrong(Invariant::I3, "is not found by its ID");
    }
    let Some(meta) = context.view.get::<Rooms>(&(nid.room,)).await? else {
        // A join through another server that was cut off; the next one uses what is there.
        let cut_off = event.verdict != Verdict::Accepted && event.source == Source::Remote;
        return if cut_off { Ok(None) } else { wrong(Invariant::I2, "has no room") };
    };
    let Some(version) = RoomVersion::parse(&meta.version) else { return Ok(None) };
    match Pdu::from_stored(event_id, event.json.clone(), version) {
        Ok(pdu) if pdu.room_id() == meta.room_id.as_str() => {}
        Ok(_) => return wrong(Invariant::I2, "names another room"),
        Err(_) => return wrong(Invariant::I2, "is not an event"),
    }
    let NodeId(root) = NodeId(event.state_before.0);
    let has_state = event.state_before == StateId::EMPTY
        || context.view.get::<StateNodes>(&(nid.room, NodeId(root))).await?.is_some();
    if has_state { Ok(None) } else { wrong(Invariant::I2, "has no state before it") }
}

pub(super) async fn timeline(context: &Context, room: RoomNid, pos: Pos, n: u32) -> Checked {
    match context.view.get::<Events>(&(room, n)).await? {
        Some(event) if event.verdict == Verdict::Accepted && event.pos == pos => Ok(None),
        Some(event) => broken::<Timeline>(
            Invariant::I2,
            format!("{} of {room:?} at {pos:?} is {:?} at {:?}", event.event_id, event.verdict, event.pos),
        ),
        None => broken::<Timeline>(Invariant::I2, format!("event {n} of {room:?} at {pos:?} is not stored")),
    }
}

/// The event after a gap is in the timeline.
pub(super) async fn gap(context: &Context, room: RoomNid, at: Pos) -> Checked {
    if context.view.get::<Timeline>(&(room, at)).await?.is_some() {
        return Ok(None);
    }
    broken::<Gaps>(Invariant::I2, format!("there is no event after the gap before {at:?} in {room:?}"))
}

pub(super) async fn state_key(context: &Context, room: RoomNid, name: (String, String), nid: StateKeyNid) -> Checked {
    if context.view.get::<StateKeyNames>(&(room, nid)).await?.as_ref() == Some(&name) {
        return Ok(None);
    }
    broken::<StateKeys>(Invariant::I3, format!("{name:?} of {room:?} is {nid:?}, which is another name"))
}

pub(super) async fn state_key_name(
    context: &Context,
    room: RoomNid,
    nid: StateKeyNid,
    name: (String, String),
) -> Checked {
    if context.view.get::<StateKeys>(&(room, name.0.clone(), name.1.clone())).await? == Some(nid) {
        return Ok(None);
    }
    broken::<StateKeyNames>(Invariant::I3, format!("{nid:?} of {room:?} is {name:?}, which has another number"))
}

pub(super) async fn current_state(
    context: &Context,
    room: RoomNid,
    name: &(String, String),
    entry: StateEntry,
) -> Checked {
    let wrong = |invariant, what: &str| broken::<CurrentState>(invariant, format!("{name:?} of {room:?} {what}"));
    if context.view.get::<Rooms>(&(room,)).await?.is_none() {
        // A join that was cut off; the next one begins with removing these rows.
        return Ok(None);
    }
    let Some(pdu) = pdu(context, room, entry.n).await? else { return wrong(Invariant::I2, "has no event") };
    if !pdu.is_state(&name.0, &name.1) {
        return wrong(Invariant::I7, "is an event with another name");
    }
    if name.0 != MEMBER {
        return Ok(None);
    }
    if entry.membership != membership(&pdu) {
        return wrong(Invariant::I6, "is an event with another membership");
    }
    // Remote users have no list here.
    let Ok(user_id) = <&UserId>::try_from(name.1.as_str()) else { return Ok(None) };
    let listed = context.view.get::<UserRooms>(&(context.ids.user(user_id), room)).await?;
    match listed {
        // The newest may be from a time after this server has left the room.
        Some(UserRoom { n: Some(n), membership, .. }) if n != entry.n || Some(membership) != entry.membership => {
            wrong(Invariant::I6, "differs in the user's list of rooms")
        }
        _ => Ok(None),
    }
}

pub(super) async fn user_room(context: &Context, user: UserNid, room: RoomNid, row: &UserRoom) -> Checked {
    let wrong = |what: &str| broken::<UserRooms>(Invariant::I6, format!("{user:?} in {} {what}", row.room_id));
    let Some(n) = row.n else {
        let key = (user, room);
        let outside = context.view.get::<Outsides>(&key).await?;
        let matches = outside.is_some_and(|outside| (outside.pos, outside.membership) == (row.pos, row.membership));
        let described = row.forgotten || context.view.get::<OutsideStates>(&key).await?.is_some();
        return if matches && described { Ok(None) } else { wrong("is not explained by what is known from outside") };
    };
    let Some(pdu) = pdu(context, room, n).await? else { return wrong("has no membership event") };
    let of_user = pdu
        .state_key()
        .and_then(|key| <&UserId>::try_from(key).ok())
        .filter(|id| context.ids.user(id) == user && pdu.event_type() == MEMBER);
    let Some(user_id) = of_user else { return wrong("is another user's membership") };
    let current = context.view.get::<CurrentState>(&(room, MEMBER.to_owned(), user_id.to_string())).await?;
    if current == Some(StateEntry { n, membership: Some(row.membership) }) {
        return Ok(None);
    }
    wrong("differs from the room's state")
}

pub(super) async fn txn_id(context: &Context, room: RoomNid, n: u32) -> Checked {
    match context.view.get::<Events>(&(room, n)).await? {
        Some(_) => Ok(None),
        None => broken::<hearth_schema::TxnIds>(Invariant::I9, format!("event {n} of {room:?} is not stored")),
    }
}

pub(super) async fn receipt(context: &Context, room: RoomNid, name: &ReceiptName, receipt: &Receipt) -> Checked {
    if context.view.get::<ReceiptLog>(&(room, receipt.pos)).await?.as_ref() == Some(name) {
        return Ok(None);
    }
    broken::<Receipts>(Invariant::I13, format!("{name:?} in {room:?} is not in the log at {:?}", receipt.pos))
}

pub(super) async fn receipt_log(context: &Context, room: RoomNid, pos: Pos, name: ReceiptName) -> Checked {
    let key = (room, name.kind, name.thread, name.user_id);
    if context.view.get::<Receipts>(&key).await?.is_some_and(|receipt| receipt.pos == pos) {
        return Ok(None);
    }
    broken::<ReceiptLog>(Invariant::I13, format!("{pos:?} in {room:?} has no receipt"))
}

pub(super) async fn alias(context: &Context, room: RoomNid, alias: &str) -> Checked {
    let Ok(alias_id) = <&RoomAliasId>::try_from(alias) else {
        return broken::<hearth_schema::RoomAliases>(Invariant::I13, format!("{alias} is no alias"));
    };
    let row = context.view.get::<Aliases>(&(context.ids.alias(alias_id),)).await?;
    let points_here =
        row.is_some_and(|row| <&RoomId>::try_from(row.room_id.as_str()).is_ok_and(|id| context.ids.room(id) == room));
    // An alias of a room that never came to be may be taken by another one.
    if points_here || context.view.get::<Rooms>(&(room,)).await?.is_none() {
        return Ok(None);
    }
    broken::<hearth_schema::RoomAliases>(Invariant::I13, format!("{alias} does not point to {room:?}"))
}

/// A stored event, parsed. `None`: not there, or not parseable, which other checks tell.
async fn pdu(context: &Context, room: RoomNid, n: u32) -> Result<Option<Pdu>, StoreError> {
    let Some(meta) = context.view.get::<Rooms>(&(room,)).await? else { return Ok(None) };
    let Some(event) = context.view.get::<Events>(&(room, n)).await? else { return Ok(None) };
    let parsed = RoomVersion::parse(&meta.version)
        .zip(<&EventId>::try_from(&*event.event_id).ok())
        .and_then(|(version, id)| Pdu::from_stored(id, event.json.clone(), version).ok());
    Ok(parsed)
}

fn membership(pdu: &Pdu) -> Option<Membership> {
    let content: serde_json::Value = serde_json::from_slice(pdu.content_json()).ok()?;
    Membership::parse(content.get("membership")?.as_str()?)
}
