//! How much lies in the inboxes of rooms, of which server, and who waits for whom.
//!
//! The rows themselves are in the store. What is counted here is counted before a row is written and after it is deleted,
//! so that the inbox of a room is bounded without reading it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use hearth_base::Millis;
use hearth_schema::RoomNid;
use parking_lot::Mutex;
use ruma_common::{OwnedServerName, ServerName};
use tokio::sync::Notify;

use crate::intake::Rooms;

/// Events of one server in the inbox of one room.
const MAX_OF_SERVER: usize = 1_000;
/// Events in the inbox of one room.
const MAX_OF_ROOM: usize = 5_000;

/// Rooms that have something in the inbox.
#[derive(Default)]
pub(crate) struct Workers(Mutex<HashMap<RoomNid, Arc<Desk>>>);

/// The inbox of one room.
#[derive(Default)]
pub(super) struct Desk {
    now: Mutex<Now>,
    /// Something has come, or somebody was heard from.
    pub wake: Notify,
}

#[derive(Default)]
struct Now {
    at_work: bool,
    /// Rows by the server that sent them.
    staged: BTreeMap<String, usize>,
    /// Servers that some of them wait for.
    aside: BTreeMap<OwnedServerName, Awaited>,
}

#[derive(Default)]
struct Awaited {
    rows: usize,
    /// When the server was heard from since the first of them began to wait.
    heard: Option<Millis>,
}

impl Now {
    fn total(&self) -> usize {
        self.staged.values().sum()
    }

    fn is_idle(&self) -> bool {
        !self.at_work && self.staged.is_empty()
    }

    fn remove(&mut self, origin: &str, rows: usize) {
        if let Some(staged) = self.staged.get_mut(origin) {
            *staged = staged.saturating_sub(rows);
            if *staged == 0 {
                self.staged.remove(origin);
            }
        }
    }
}

impl Desk {
    /// A row of `origin` is gone from the store.
    pub(super) fn is_done(&self, origin: &str) {
        self.now.lock().remove(origin, 1);
    }

    /// One more row waits for `server`.
    pub(super) fn is_aside(&self, server: &ServerName) {
        self.now.lock().aside.entry(server.to_owned()).or_default().rows += 1;
    }

    /// A row waits for `server` no more.
    pub(super) fn is_back(&self, server: &ServerName) {
        let mut now = self.now.lock();
        if let Some(awaited) = now.aside.get_mut(server) {
            awaited.rows = awaited.rows.saturating_sub(1);
            if awaited.rows == 0 {
                now.aside.remove(server);
            }
        }
    }

    /// Whether a row waits for `server`.
    pub(super) fn waits_for(&self, server: &ServerName) -> bool {
        self.now.lock().aside.contains_key(server)
    }

    /// When a server was heard from that some row waits for.
    pub(super) fn heard(&self, server: &ServerName) -> Option<Millis> {
        self.now.lock().aside.get(server)?.heard
    }

    fn hears(&self, at: Millis, who: impl Fn(&OwnedServerName) -> bool) {
        let mut now = self.now.lock();
        let mut any = false;
        for (_, awaited) in now.aside.iter_mut().filter(|(server, _)| who(server)) {
            awaited.heard = Some(at);
            any = true;
        }
        drop(now);
        if any {
            self.wake.notify_one();
        }
    }
}

impl Workers {
    /// What `staged` says is in a room's inbox, whatever was counted before.
    pub(super) fn count(&self, room: RoomNid, staged: BTreeMap<String, usize>) {
        let desk = Arc::clone(self.0.lock().entry(room).or_default());
        desk.now.lock().staged = staged;
    }

    /// The desk of a room whose inbox nobody works on; it is woken if somebody does.
    pub(super) fn begin(&self, room: RoomNid) -> Option<Arc<Desk>> {
        let desk = Arc::clone(self.0.lock().entry(room).or_default());
        let begun = !std::mem::replace(&mut desk.now.lock().at_work, true);
        if begun {
            return Some(desk);
        }
        desk.wake.notify_one();
        None
    }

    /// Ends the work on an inbox, if that is empty.
    pub(super) fn end(&self, room: RoomNid) -> bool {
        let mut desks = self.0.lock();
        let Some(desk) = desks.get(&room) else { return true };
        let is_empty = desk.now.lock().staged.is_empty();
        if is_empty {
            desks.remove(&room);
        }
        is_empty
    }

    /// Whether something in a room's inbox is about to be taken. What is put aside is not.
    pub(crate) fn is_busy(&self, room: RoomNid) -> bool {
        let desk = self.0.lock().get(&room).cloned();
        desk.is_some_and(|desk| {
            let now = desk.now.lock();
            now.total() > now.aside.values().map(|awaited| awaited.rows).sum()
        })
    }

    /// `server` has shown that it lives; `None`: perhaps all have.
    pub(crate) fn heard_from(&self, server: Option<&ServerName>, at: Millis) {
        let desks: Vec<Arc<Desk>> = self.0.lock().values().cloned().collect();
        for desk in desks {
            desk.hears(at, |waited_for| server.is_none_or(|server| server == waited_for));
        }
    }
}

/// Leave to put events of one server into the inbox of one room. What is not used is given back.
pub(super) struct Places {
    rooms: Rooms,
    room: RoomNid,
    desk: Arc<Desk>,
    origin: String,
    left: usize,
}

impl Places {
    /// For `wanted` events; `None`: that is more than there may be.
    pub(super) fn take(rooms: &Rooms, room: RoomNid, origin: &ServerName, wanted: usize) -> Option<Self> {
        let mut desks = rooms.0.workers.0.lock();
        let desk = Arc::clone(desks.entry(room).or_default());
        let mut now = desk.now.lock();
        let of_server = now.staged.get(origin.as_str()).copied().unwrap_or(0);
        if of_server + wanted > MAX_OF_SERVER || now.total() + wanted > MAX_OF_ROOM {
            let idle = now.is_idle();
            drop(now);
            if idle {
                desks.remove(&room);
            }
            return None;
        }
        *now.staged.entry(origin.to_string()).or_default() += wanted;
        drop(now);
        drop(desks);
        Some(Self { rooms: rooms.clone(), room, desk, origin: origin.to_string(), left: wanted })
    }

    /// So many of them are used: the events are in the store.
    pub(super) fn use_up(&mut self, used: usize) {
        self.left = self.left.saturating_sub(used);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let mut desks = self.rooms.0.workers.0.lock();
        let mut now = self.desk.now.lock();
        now.remove(&self.origin, self.left);
        let idle = now.is_idle();
        drop(now);
        if idle {
            desks.remove(&self.room);
        }
        drop(desks);
        self.desk.wake.notify_one();
    }
}

#[cfg(test)]
pub(crate) const fn limits() -> (usize, usize) {
    (MAX_OF_SERVER, MAX_OF_ROOM)
}
