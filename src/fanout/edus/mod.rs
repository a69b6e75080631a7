//! What other servers say that is no event: typing, receipts, presence.
//!
//! The problem: nothing of it is signed but the request that brought it, so a server could speak for the users of
//! others; and it costs a sender nothing to say a lot. The answer: only [`bind()`] makes a [`BoundEdu`], in which everybody
//! belongs to the server that spoke; and each server may say so many things in a second. Whatever is wrong is dropped,
//! counted by reason, and changes nothing.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#edus>

mod bind;
mod floods;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hearth_accounts::{ForeignPresence, Presence};
use hearth_base::{Clock, Millis};
use hearth_rooms::{ForeignReceipt, Ignored, Rooms, SendError, Typing};
use parking_lot::Mutex;
use ruma_common::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::bind::{BoundEdu, Dropped, bind};
use self::bind::{Kind, SaidPresence, SaidReceipt};
use self::floods::Floods;

/// How long somebody is shown typing whose server says nothing more.
const TYPING: Duration = Duration::from_secs(60);
/// Receipts for events that have not come yet, of all servers.
const MAX_EARLY: usize = 5_000;
/// The same of one server.
const MAX_EARLY_OF_ONE: usize = 500;
/// How long a receipt waits for its event.
const EARLY: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// Receipts stored at once.
const AT_ONCE: usize = 100;

/// Takes what other servers say. Cheap to clone.
#[derive(Clone)]
pub struct ForeignEdus(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    presence: Presence,
    clock: Arc<dyn Clock>,
    floods: Floods,
    early: Mutex<Early>,
    /// There is something in `early`.
    waiting: Notify,
}

/// Whose receipt: room, user, thread.
type ReceiptOf = (OwnedRoomId, OwnedUserId, Option<String>);

/// Receipts that came before their events: events are judged behind the answer to their transaction.
#[derive(Default)]
struct Early {
    receipts: BTreeMap<ReceiptOf, (Millis, ForeignReceipt)>,
    by_server: BTreeMap<OwnedServerName, usize>,
}

impl Early {
    fn add(&mut self, of: ReceiptOf, since: Millis, receipt: ForeignReceipt) -> bool {
        if !self.receipts.contains_key(&of) {
            let server = of.1.server_name().to_owned();
            let users = self.by_server.entry(server).or_default();
            if *users >= MAX_EARLY_OF_ONE || self.receipts.len() >= MAX_EARLY {
                return false;
            }
            *users += 1;
        }
        self.receipts.insert(of, (since, receipt));
        true
    }

    fn take(&mut self) -> BTreeMap<ReceiptOf, (Millis, ForeignReceipt)> {
        self.by_server.clear();
        std::mem::take(&mut self.receipts)
    }
}

impl ForeignEdus {
    /// For these rooms and users.
    pub fn new(rooms: Rooms, presence: Presence, clock: Arc<dyn Clock>) -> Self {
        let floods = Floods::default();
        Self(Arc::new(Inner { rooms, presence, clock, floods, early: Mutex::default(), waiting: Notify::new() }))
    }

    /// Takes an EDU of `origin`, or drops it.
    pub async fn accept(&self, origin: &ServerName, edu_type: &str, content: &RawValue) {
        if let Err(dropped) = self.try_accept(origin, edu_type, content).await {
            metrics::counter!("hearth_federation_edus_dropped_total", "why" => dropped.as_str()).increment(1);
            tracing::debug!(%origin, why = dropped.as_str(), "an EDU is dropped");
        }
    }

    async fn try_accept(&self, origin: &ServerName, edu_type: &str, content: &RawValue) -> Result<(), Dropped> {
        let now = self.0.clock.now();
        // Reading it is work already.
        if !self.0.floods.allow(origin, 1, now) {
            return Err(Dropped::Flood);
        }
        let bound = bind(origin, edu_type, content)?;
        let items = bound.items();
        if items > 1 && !self.0.floods.allow(origin, items - 1, now) {
            return Err(Dropped::Flood);
        }
        match bound.into_kind() {
            Kind::Typing { room_id, user_id, typing } => {
                let typing = if typing { Typing::For(TYPING) } else { Typing::Stopped };
                let done = self.0.rooms.set_foreign_typing(&room_id, &user_id, typing).await;
                done.map_err(|error| failed(&error.into()))?.map_err(Dropped::from)
            }
            Kind::Receipts(receipts) => self.receipts(origin, receipts).await,
            Kind::Presence(said) => {
                for said in said {
                    self.presence(said, now);
                }
                Ok(())
            }
        }
    }

    async fn receipts(&self, origin: &ServerName, said: Vec<SaidReceipt>) -> Result<(), Dropped> {
        let now = self.0.clock.now();
        let mut by_room: BTreeMap<OwnedRoomId, Vec<ForeignReceipt>> = BTreeMap::new();
        for SaidReceipt { room_id, receipt } in said {
            by_room.entry(room_id).or_default().push(receipt);
        }
        let mut dropped = None;
        for (room_id, receipts) in by_room {
            let with_time: Vec<_> = receipts.into_iter().map(|receipt| (now, receipt)).collect();
            dropped = self.receipts_in(origin, &room_id, &with_time).await.err().or(dropped);
        }
        dropped.map_or(Ok(()), Err)
    }

    /// Stores receipts in one room; gives the last reason why one was dropped.
    async fn receipts_in(
        &self,
        origin: &ServerName,
        room_id: &OwnedRoomId,
        receipts: &[(Millis, ForeignReceipt)],
    ) -> Result<(), Dropped> {
        let now = self.0.clock.now();
        let mut dropped = None;
        for chunk in receipts.chunks(AT_ONCE) {
            let new: Vec<ForeignReceipt> = chunk.iter().map(|(_, receipt)| receipt.clone()).collect();
            let results = self.0.rooms.set_foreign_receipts(origin, room_id, &new).await;
            let results = results.map_err(|error| failed(&error))?;
            for ((since, receipt), result) in chunk.iter().zip(results) {
                match result {
                    Ok(()) => {}
                    Err(Ignored::UnknownEvent) if now.since(*since) < EARLY => {
                        let thread = receipt.thread.as_ref().map(|thread| thread.as_str().to_owned());
                        let of = (room_id.clone(), receipt.user_id.clone(), thread);
                        if self.0.early.lock().add(of, *since, receipt.clone()) {
                            self.0.waiting.notify_one();
                        } else {
                            dropped = Some(Dropped::Flood);
                        }
                    }
                    Err(ignored) => dropped = Some(ignored.into()),
                }
            }
        }
        dropped.map_or(Ok(()), Err)
    }

    fn presence(&self, said: SaidPresence, now: Millis) {
        let SaidPresence { user_id, state, currently_active, last_active_ago, status_msg } = said;
        let presence = ForeignPresence {
            state,
            currently_active,
            last_active: last_active_ago.map(|ago| Millis(now.0.saturating_sub(ago))),
            status_msg: status_msg.map(Into::into),
        };
        self.0.presence.hear_foreign(self.0.rooms.ids().user(&user_id), &user_id, presence);
    }

    /// Tries receipts again whose events had not come.
    pub async fn look_again(&self) {
        let early = self.0.early.lock().take();
        let mut by_place: BTreeMap<(OwnedServerName, OwnedRoomId), Vec<(Millis, ForeignReceipt)>> = BTreeMap::new();
        for ((room_id, user_id, _), entry) in early {
            by_place.entry((user_id.server_name().to_owned(), room_id)).or_default().push(entry);
        }
        for ((server, room_id), receipts) in by_place {
            if let Err(dropped) = self.receipts_in(&server, &room_id, &receipts).await {
                metrics::counter!("hearth_federation_edus_dropped_total", "why" => dropped.as_str()).increment(1);
            }
        }
    }

    /// Keeps trying receipts whose events have not come, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let look = async || {
            self.0.waiting.notified().await;
            tokio::time::sleep_until(hearth_base::next_tick(Instant::now(), LOOK)).await;
        };
        while shutdown.run_until_cancelled(look()).await.is_some() {
            self.look_again().await;
        }
    }
}

fn failed(error: &SendError) -> Dropped {
    tracing::warn!(%error, "what another server said could not be stored and is dropped");
    Dropped::Failed
}
