//! Raw events of a room that is joined → verified ones, a portion at a time and on all cores.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_event::{Checked, Pdu, PublicKeys, RoomVersion};
use hearth_schema::RoomNid;
use hearth_store::StoreError;
use parking_lot::Mutex;
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedServerName};
use tokio::sync::Semaphore;

use crate::graph::Graph;
use crate::inbound::wishes;
use crate::intake::Rooms;
use crate::remote::RawPdu;

/// A list of the answer to a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    State,
    AuthChain,
}

/// What became of one event that was told; those that are no good are gone.
#[derive(Debug)]
pub(super) enum Item {
    /// It was told before.
    Again(OwnedEventId),
    /// It is stored: what it says was verified and judged when it was written.
    Known(OwnedEventId),
    /// It is what it says.
    Fresh(Pdu),
}

/// Events that came together.
#[derive(Debug)]
pub(super) struct Portion {
    pub of: List,
    pub items: Vec<Item>,
}

/// Events for which there were no keys.
#[derive(Default)]
struct Keyless {
    events: Vec<(List, RawPdu)>,
    bytes: usize,
}

/// Bytes of events that are tried again because there were no keys for them.
const KEYLESS_BYTES: usize = 32 << 20;

/// Verifies the events of one room.
pub(super) struct Verifier {
    rooms: Rooms,
    room: RoomNid,
    room_id: OwnedRoomId,
    version: RoomVersion,
    via: OwnedServerName,
    /// Every event that was told so far.
    seen: Mutex<HashSet<OwnedEventId>>,
    /// Events that nobody could tell the keys for.
    keyless: Mutex<Keyless>,
    cores: Semaphore,
}

impl Verifier {
    pub(super) fn new(rooms: &Rooms, join: &Pdu, via: &OwnedServerName) -> Self {
        let room_id = join.room_id().to_owned();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            rooms: rooms.clone(),
            room: rooms.ids().room(&room_id),
            room_id,
            version: join.version(),
            via: via.clone(),
            seen: Mutex::default(),
            keyless: Mutex::default(),
            cores: Semaphore::new(cores),
        }
    }

    /// Whatever is no good is left out.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn verify(self: Arc<Self>, of: List, raw: Vec<RawPdu>) -> Result<Portion, StoreError> {
        let version = self.version;
        let check = move |raw: RawPdu| (hearth_event::check(raw.get().as_bytes(), version), raw);
        let checked = self.on_a_core(move || raw.into_iter().map(check).collect::<Vec<_>>()).await;
        let mut items = Vec::with_capacity(checked.len());
        let mut fresh: HashMap<OwnedEventId, (Checked, RawPdu)> = HashMap::new();
        {
            let mut seen = self.seen.lock();
            for (one, raw) in checked {
                match one {
                    Ok(one) if seen.insert(one.event_id().to_owned()) => {
                        fresh.insert(one.event_id().to_owned(), (one, raw));
                    }
                    Ok(one) => items.push(Item::Again(one.event_id().to_owned())),
                    Err(error) => self.left_out(None, &error.to_string()),
                }
            }
        }
        let graph = Graph::latest(&self.rooms, self.room, version).await?;
        let ids: Vec<OwnedEventId> = fresh.keys().cloned().collect();
        for (id, _) in graph.numbers(&ids).await? {
            fresh.remove(&id);
            items.push(Item::Known(id));
        }
        let wishes = wishes(fresh.values().map(|(one, _)| one));
        let keys = if wishes.is_empty() { PublicKeys::default() } else { self.rooms.0.remote.keys(&wishes).await? };
        let fresh = self.with_keys(of, fresh, &keys);
        let this = Arc::clone(&self);
        let verified = self.on_a_core(move || fresh.into_iter().filter_map(|one| this.verified(one, &keys)).collect());
        let verified: Vec<Pdu> = verified.await;
        items.extend(verified.into_iter().map(Item::Fresh));
        Ok(Portion { of, items })
    }

    /// Those of `events` for which there are keys; the others are kept for another time.
    fn with_keys(&self, of: List, events: HashMap<OwnedEventId, (Checked, RawPdu)>, keys: &PublicKeys) -> Vec<Checked> {
        let mut good = Vec::with_capacity(events.len());
        for (id, (checked, raw)) in events {
            if checked.signers().iter().all(|server| keys.knows(server)) {
                good.push(checked);
                continue;
            }
            let mut keyless = self.keyless.lock();
            if keyless.bytes + raw.get().len() > KEYLESS_BYTES {
                self.left_out(Some(&id), "there are no keys for it, as for many others");
                continue;
            }
            keyless.bytes += raw.get().len();
            keyless.events.push((of, raw));
            self.seen.lock().remove(&id);
        }
        good
    }

    /// Events for which there were no keys so far: a server that is asked for its keys may have to wait until others,
    /// which are gone, have not answered.
    pub(super) fn take_keyless(&self) -> Vec<(List, RawPdu)> {
        std::mem::take(&mut *self.keyless.lock()).events
    }

    fn verified(&self, checked: Checked, keys: &PublicKeys) -> Option<Pdu> {
        let id = checked.event_id().to_owned();
        match checked.verify(keys) {
            Ok(event) if event.pdu().room_id() == self.room_id => Some(event.into_pdu()),
            Ok(_) => {
                self.left_out(Some(&id), "it belongs to another room");
                None
            }
            Err(error) => {
                self.left_out(Some(&id), &error.to_string());
                None
            }
        }
    }

    fn left_out(&self, id: Option<&OwnedEventId>, why: &str) {
        let Self { room_id, via, .. } = self;
        tracing::info!(?id, %room_id, %via, why, "an event of a room that is joined is no good");
    }

    /// Runs `work` where it keeps no request waiting, on all cores and no more threads than that.
    async fn on_a_core<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        // Nobody closes the semaphore.
        let _permit = self.cores.acquire().await;
        blocking(work).await
    }
}

/// Runs `work` where it keeps no request waiting.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            // A panic in there is one of ours and goes on here.
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
