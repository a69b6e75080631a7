//! Typing and receipts.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use hearth_schema::{Receipt, ReceiptKind, ReceiptLog, Receipts, RoomNid};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{OwnedUserId, UserId};

use crate::json::{self, Parts};

/// Receipts read at a time.
const PAGE: usize = 256;
/// Receipts of one kind shown of one room at the most.
const MAX_RECEIPTS: usize = 4096;

/// Receipts by event, kind and user, as `m.receipt` nests them.
#[derive(Default)]
pub(crate) struct ReceiptEvents {
    by_event: BTreeMap<String, BTreeMap<&'static str, ByUser>>,
    /// Whether one of them is the reader's.
    pub own: bool,
}

/// An event `m.receipt` has one place for a user's receipts for an event. One without a thread says
/// it all; those of several threads need several events.
type ByUser = BTreeMap<String, Vec<Line>>;

struct Line {
    /// `""`: the receipt has no thread.
    thread: String,
    ts: u64,
}

impl ReceiptEvents {
    /// Those that were stored after `since` and not after `upto`.
    pub(crate) async fn since(
        view: &View,
        reader: &UserId,
        room: RoomNid,
        (since, upto): (Pos, Pos),
    ) -> Result<Self, StoreError> {
        let mut found = Self::default();
        let mut after = since;
        // Ends: `after` grows, and there is one row a receipt.
        loop {
            let window = (Bound::Excluded(after), Bound::Included(upto));
            let log = view.page_between::<ReceiptLog, _>(&(room,), window, Order::Ascending, PAGE).await?;
            let Some(((_, last), _)) = log.last() else { return Ok(found) };
            after = *last;
            let complete = log.len() < PAGE;
            let keys: Vec<_> = log.into_iter().map(|(_, name)| (room, name.kind, name.thread, name.user_id)).collect();
            let rows = view.get_many::<Receipts>(&keys).await?;
            for ((_, kind, thread, user_id), row) in keys.into_iter().zip(rows) {
                let row = row.ok_or(StoreError::Corrupt {
                    keyspace: "Receipts",
                    detail: "a receipt is logged but absent".into(),
                })?;
                found.add(reader, (kind, user_id), Line { thread, ts: row.ts }, row.event_id);
            }
            if complete {
                return Ok(found);
            }
        }
    }

    /// All of the room that were stored not after `upto`.
    pub(crate) async fn all(view: &View, reader: &UserId, room: RoomNid, upto: Pos) -> Result<Self, StoreError> {
        let mut found = Self::default();
        for wanted in [ReceiptKind::Read, ReceiptKind::ReadPrivate] {
            let mut seen = 0;
            let mut add = |(_, kind, thread, user_id), row: Receipt| {
                // A receipt that moved after `upto` comes with the next answer.
                if row.pos <= upto {
                    found.add(reader, (kind, user_id), Line { thread, ts: row.ts }, row.event_id);
                }
                seen += 1;
                if seen < MAX_RECEIPTS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            };
            view.scan::<Receipts, _>(&(room, wanted), Order::Ascending, PAGE, &mut add).await?;
        }
        Ok(found)
    }

    /// Private receipts are for who sent them.
    fn add(&mut self, reader: &UserId, (kind, user_id): (ReceiptKind, String), line: Line, event_id: String) {
        let own = user_id == reader.as_str();
        let word = match kind {
            ReceiptKind::Read => "m.read",
            ReceiptKind::ReadPrivate if own => "m.read.private",
            ReceiptKind::ReadPrivate => return,
        };
        self.own |= own;
        let lines = self.by_event.entry(event_id).or_default().entry(word).or_default().entry(user_id).or_default();
        if line.thread.is_empty() {
            lines.clear();
        } else if lines.iter().any(|known| known.thread.is_empty()) {
            return;
        }
        lines.push(line);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_event.is_empty()
    }

    /// Leaves out those of others but for the events that `is_wanted` names.
    pub(crate) fn retain(&mut self, reader: &UserId, is_wanted: impl Fn(&str) -> bool) {
        self.by_event.retain(|event_id, kinds| {
            if !is_wanted(event_id) {
                for users in kinds.values_mut() {
                    users.retain(|user_id, _| user_id == reader.as_str());
                }
                kinds.retain(|_, users| !users.is_empty());
            }
            !kinds.is_empty()
        });
    }

    /// Appends one event `m.receipt`, where there is place for no more: of somebody's receipts for the same event in
    /// several threads it has one.
    pub(crate) fn write_one(&self, out: &mut Vec<u8>) {
        self.write_event(0, out);
    }

    /// Appends events `m.receipt`: one, unless somebody has read an event in several threads.
    pub(crate) fn write(&self, list: &mut Parts, out: &mut Vec<u8>) {
        let users = self.by_event.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
        let events = users.map(Vec::len).max().unwrap_or(0);
        for nth in 0..events {
            self.write_event(nth, list.part(out));
        }
    }

    /// Everybody's `nth` receipt for each event.
    fn write_event(&self, nth: usize, out: &mut Vec<u8>) {
        let has_any = |users: &ByUser| users.values().any(|lines| lines.len() > nth);
        out.extend_from_slice(b"{\"content\":");
        let mut events = Parts::open(b'{', out);
        for (event_id, kinds) in self.by_event.iter().filter(|(_, kinds)| kinds.values().any(has_any)) {
            let out = events.key(event_id, out);
            let mut object = Parts::open(b'{', out);
            for (kind, users) in kinds.iter().filter(|(_, users)| has_any(users)) {
                write_lines(users, nth, object.key(kind, out));
            }
            out.push(b'}');
        }
        out.extend_from_slice(b"},\"type\":\"m.receipt\"}");
    }
}

fn write_lines(users: &ByUser, nth: usize, out: &mut Vec<u8>) {
    let mut object = Parts::open(b'{', out);
    for (user_id, line) in users.iter().filter_map(|(user_id, lines)| Some((user_id, lines.get(nth)?))) {
        let out = object.key(user_id, out);
        if line.thread.is_empty() {
            out.extend_from_slice(b"{\"ts\":");
        } else {
            out.extend_from_slice(b"{\"thread_id\":");
            json::string(&line.thread, out);
            out.extend_from_slice(b",\"ts\":");
        }
        json::number(line.ts, out);
        out.push(b'}');
    }
    out.push(b'}');
}

/// Appends the event `m.typing`.
pub(crate) fn write_typing(users: &[OwnedUserId], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"content\":{\"user_ids\":");
    let mut list = Parts::open(b'[', out);
    for user in users {
        json::string(user.as_str(), list.part(out));
    }
    out.extend_from_slice(b"]},\"type\":\"m.typing\"}");
}
