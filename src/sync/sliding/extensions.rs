//! What is told besides rooms, for clients that ask for it.

use std::collections::BTreeMap;

use hearth_rooms::{ThreadChange, ThreadChanges};
use hearth_schema::Subscription;
use hearth_store::{Pos, StoreError};

use super::by_room::write_by_room;
use super::compose::Slide;
use super::connection::Added;
use super::list::Wishes;
use super::room::Told;
use crate::json::{self, Parts};
use crate::token::{Incarnation, Token};

/// Decisions about threads in one answer: when the client says nothing, and at the most.
const MAX_THREADS: u64 = 100;

/// The members of `extensions`, with commas between.
#[derive(Default)]
pub(super) struct Extensions {
    pub json: Vec<u8>,
    /// None of it is new.
    pub empty: bool,
}

impl Slide<'_> {
    pub(super) async fn extensions(
        &self,
        (wishes, told): (&Wishes<'_>, &[Told]),
        added: &mut Added,
    ) -> Result<Extensions, StoreError> {
        let asked = &self.body.extensions;
        let mut out = Vec::new();
        let mut object = Parts::members();
        if asked.to_device.is_on() {
            // Nothing can be sent to devices yet.
            let out = object.key("to_device", &mut out);
            out.extend_from_slice(b"{\"next_batch\":");
            json::plain_string(&Token::pagination(self.incarnation, self.until), out);
            out.extend_from_slice(b",\"events\":[]}");
        }
        if asked.e2ee.is_on() {
            // As in `/v3/sync`.
            object.key("e2ee", &mut out).extend_from_slice(b"{\"device_one_time_keys_count\":{}}");
        }
        let without_news = out.len();
        if asked.account_data.is_on()
            && let Some(json) = self.account_data(wishes, added).await?
        {
            object.key("account_data", &mut out).extend_from_slice(&json);
        }
        if asked.receipts.is_on() {
            let rooms = self.receipts((wishes, told), added).await?;
            if !rooms.is_empty() {
                write_by_room(&rooms, object.key("receipts", &mut out));
            }
        }
        if asked.typing.is_on() {
            let rooms = self.typing(wishes, added).await?;
            if !rooms.is_empty() {
                write_by_room(&rooms, object.key("typing", &mut out));
            }
        }
        if asked.thread_subscriptions.is_on() {
            let found = self.threads(asked.thread_subscriptions.limit).await?;
            added.threads = Some(self.until);
            if !found.changes.is_empty() {
                let out = object.key("io.element.msc4308.thread_subscriptions", &mut out);
                write_threads(&found, ("prev_batch", self.incarnation), out);
            }
        }
        Ok(Extensions { empty: out.len() == without_news, json: out })
    }

    async fn threads(&self, limit: Option<u64>) -> Result<ThreadChanges, StoreError> {
        let limit = usize::try_from(limit.unwrap_or(MAX_THREADS).clamp(1, MAX_THREADS)).unwrap_or(1);
        let since = self.sent.threads.unwrap_or(Pos::ZERO);
        if self.sent.threads.is_some() && !self.user.has_threads(since) {
            return Ok(ThreadChanges::default());
        }
        self.rooms.thread_changes(&self.view, self.who.user, (since, self.until), limit).await
    }
}

/// Appends the object; the token for what is older goes under `rest`.
pub(crate) fn write_threads(found: &ThreadChanges, (rest, incarnation): (&str, Incarnation), out: &mut Vec<u8>) {
    let is_ended = |change: &&ThreadChange| change.subscription == Subscription::Ended;
    let (ended, followed): (Vec<_>, Vec<_>) = found.changes.iter().partition(is_ended);
    let mut object = Parts::open(b'{', out);
    for (name, changes) in [("subscribed", followed), ("unsubscribed", ended)] {
        if changes.is_empty() {
            continue;
        }
        let mut by_room: BTreeMap<&str, Vec<&ThreadChange>> = BTreeMap::new();
        for change in changes {
            by_room.entry(change.room_id.as_str()).or_default().push(change);
        }
        let out = object.key(name, out);
        let mut rooms = Parts::open(b'{', out);
        for (room_id, changes) in by_room {
            let out = rooms.key(room_id, out);
            let mut threads = Parts::open(b'{', out);
            for change in changes {
                write_thread(change, threads.key(change.root.as_str(), out));
            }
            out.push(b'}');
        }
        out.push(b'}');
    }
    if let Some(more) = found.more {
        json::plain_string(&Token::pagination(incarnation, more), object.key(rest, out));
    }
    out.push(b'}');
}

fn write_thread(change: &ThreadChange, out: &mut Vec<u8>) {
    out.extend_from_slice(match change.subscription {
        Subscription::Manual => b"{\"automatic\":false,\"bump_stamp\":",
        Subscription::Automatic => b"{\"automatic\":true,\"bump_stamp\":".as_slice(),
        Subscription::Ended => b"{\"bump_stamp\":",
    });
    json::number(change.pos.get(), out);
    out.push(b'}');
}
