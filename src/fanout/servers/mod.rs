//! What leaves for other servers.
//!
//! The problem: an event has to reach every server in its room, also those that are down for days, and without one of
//! them holding up the others. The answer: a consumer of the change log ([`ToServers`]) puts events into a durable queue
//! for each destination; each destination with something to send has a task of its own, with one transaction under way.
//! Queue rows and the consumer's cursor are one batch, a transaction is stored before it is sent: after a crash some
//! things are sent again, which the other server knows by their IDs, and nothing is forgotten.
//!
//! What is bounded, and how: a destination that does not answer keeps the latest event of each room it shares with us,
//! once more than [`OutboundSettings::catch_up_events`] wait or it was away for longer than
//! [`OutboundSettings::catch_up_after`]; one that answers slowly does so beyond [`MAX_QUEUED`] events. Typing and
//! presence do not wait for who does not answer, receipts wait in memory, a thousand at the most.
//! [`OutboundSettings::in_flight`] transactions of a mebibyte are under way at a time.

mod back_off;
mod body;
mod consumer;
mod destination;
mod edus;
mod ephemeral;
mod queue;
mod recipients;
mod sender;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hearth_accounts::Presence;
use hearth_base::{Clock, Millis, Random};
use hearth_peers::Peers;
use hearth_rooms::Rooms;
use hearth_rooms::remote::RemoteError;
use hearth_schema::Destinations;
use hearth_store::{Lane, Order, Pos, Store, StoreError, View};
use parking_lot::Mutex;
use ruma_common::{OwnedEventId, OwnedServerName, ServerName};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::body::Inspector;
pub use self::consumer::ToServers;
use self::destination::{Destination, Task};
use self::ephemeral::Ephemeral;
use self::sender::Sender;

/// PDUs of a transaction.
const MAX_PDUS: usize = 50;
/// Events that wait for a destination that answers; beyond it, only the latest of each room are kept.
const MAX_QUEUED: usize = 10_000;
/// Destinations that are remembered although nothing waits for them.
const MAX_IDLE: usize = 10_000;
/// Who is heard from is tried again after this part of the first pause.
const HEARD_SHARE: u32 = 6;
/// Destinations read at a time.
const PAGE: usize = 512;
/// How often it is looked for what is due without anybody saying so.
const TICK: Duration = Duration::from_secs(1);
/// How often idle destinations are forgotten.
const LET_GO: Duration = Duration::from_secs(30);
/// After the store has failed at the start.
const RESUME_RETRY: Duration = Duration::from_secs(5);

/// Brings a transaction to another server.
pub trait Deliver: Send + Sync + 'static {
    /// Sends it once; gives the events that the other server did not take, with its reasons.
    fn transaction<'a>(
        &'a self,
        destination: &'a ServerName,
        id: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<BTreeMap<OwnedEventId, String>, RemoteError>>;
}

impl Deliver for Peers {
    fn transaction<'a>(
        &'a self,
        destination: &'a ServerName,
        id: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<BTreeMap<OwnedEventId, String>, RemoteError>> {
        Box::pin(async move { Ok(Self::transaction(self, destination, id, body).await?.refused) })
    }
}

/// Whether other servers are told of local users' presence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PresenceOut {
    /// Those that share a room with the user.
    #[default]
    Told,
    /// Nobody.
    Kept,
}

/// How things leave.
#[derive(Clone, Debug)]
pub struct OutboundSettings {
    /// How long a destination is left alone after the first failure; it doubles with each one.
    pub first_retry: Duration,
    /// How long it is left alone at the most.
    pub longest_retry: Duration,
    /// Events that wait for a destination that does not answer; beyond it, only the latest of each room are kept.
    pub catch_up_events: usize,
    /// After this time without an answer only the latest events are sent, however few they are.
    pub catch_up_after: Duration,
    /// Transactions that are under way at a time.
    pub in_flight: usize,
    /// Whether others are told of presence.
    pub presence: PresenceOut,
}

impl Default for OutboundSettings {
    fn default() -> Self {
        Self {
            first_retry: Duration::from_secs(60),
            longest_retry: Duration::from_secs(7 * 24 * 60 * 60),
            catch_up_events: 100,
            catch_up_after: Duration::from_secs(60 * 60),
            in_flight: 200,
            presence: PresenceOut::Told,
        }
    }
}

/// What [`Outbound`] is made of.
pub struct OutboundParts {
    /// Where events are.
    pub rooms: Rooms,
    /// Who is online.
    pub presence: Presence,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Spreads retries, and names transactions.
    pub random: Arc<dyn Random>,
    /// This server.
    pub server_name: OwnedServerName,
    /// Brings transactions to where they belong.
    pub deliver: Arc<dyn Deliver>,
    /// How.
    pub settings: OutboundSettings,
    /// Ends all of it.
    pub shutdown: CancellationToken,
}

/// What leaves for other servers. Cheap to clone.
#[derive(Clone)]
pub struct Outbound(Arc<Inner>);

struct Inner {
    rooms: Rooms,
    presence: Presence,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    server_name: OwnedServerName,
    deliver: Arc<dyn Deliver>,
    settings: OutboundSettings,
    shutdown: CancellationToken,
    destinations: Mutex<HashMap<OwnedServerName, Arc<Destination>>>,
    /// Destinations of events that the consumer has looked at: their rows are there when it has come past them.
    touched: Mutex<HashMap<OwnedServerName, Touched>>,
    /// How far the consumer had come when it had touched one.
    reached: watch::Sender<Pos>,
    in_flight: Semaphore,
    inspector: Inspector,
    tasks: TaskTracker,
}

/// Events for one destination that it was not told of yet.
struct Touched {
    first: Pos,
    last: Pos,
    events: usize,
}

impl Outbound {
    /// Sends nothing until [`Self::run`].
    pub fn new(parts: OutboundParts) -> Self {
        Self(Arc::new(Inner {
            in_flight: Semaphore::new(parts.settings.in_flight.max(1)),
            rooms: parts.rooms,
            presence: parts.presence,
            clock: parts.clock,
            random: parts.random,
            server_name: parts.server_name,
            deliver: parts.deliver,
            settings: parts.settings,
            shutdown: parts.shutdown,
            destinations: Mutex::default(),
            touched: Mutex::default(),
            reached: watch::Sender::new(Pos::ZERO),
            inspector: Inspector::default(),
            tasks: TaskTracker::new(),
        }))
    }

    /// The consumer that fills the queues.
    pub fn consumer(&self) -> ToServers {
        ToServers::new(self.clone())
    }

    /// Sends until shutdown: first what earlier runs have left. `heard` are servers that have shown that they live.
    pub async fn run(self, heard: broadcast::Receiver<OwnedServerName>) {
        let shutdown = self.0.shutdown.clone();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = self.resume_in_the_end() => {}
        }
        // Side by side: events do not wait until everybody has been told who is there.
        tokio::join!(self.run_queues(heard), Ephemeral::new(self.clone()).run(), self.run_sweeps());
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    async fn run_queues(&self, mut heard: broadcast::Receiver<OwnedServerName>) {
        let mut ticks = hearth_base::ticks(LET_GO);
        let mut hearing = true;
        let mut reached = self.0.reached.subscribe();
        // What was touched before somebody listened.
        reached.mark_changed();
        loop {
            tokio::select! {
                () = self.0.shutdown.cancelled() => return,
                Ok(()) = reached.changed() => {
                    let reached = *reached.borrow_and_update();
                    self.flush(reached);
                }
                server = heard.recv(), if hearing => match server {
                    Ok(server) => self.heard_from(&server),
                    // Who of all it was is not known.
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.0.destinations.lock().values().for_each(|any| any.heard(&self.0.settings));
                    }
                    Err(broadcast::error::RecvError::Closed) => hearing = false,
                },
                _ = ticks.tick() => self.let_go(),
            }
        }
    }

    /// Whoever waits for `server` tries again.
    pub fn heard_from(&self, server: &ServerName) {
        let known = self.0.destinations.lock().get(server).cloned();
        if let Some(destination) = known {
            destination.heard(&self.0.settings);
        }
    }

    async fn resume_in_the_end(&self) {
        while let Err(error) = self.resume().await {
            tracing::error!(%error, "cannot read what is to be sent to other servers, trying again");
            tokio::time::sleep(RESUME_RETRY).await;
        }
    }

    /// Every destination there is looks for what is left.
    async fn resume(&self) -> Result<(), StoreError> {
        let view = View::latest(&**self.store()).await?;
        for lane in Lane::all() {
            let mut names = Vec::new();
            view.scan::<Destinations, _>(&(lane,), Order::Ascending, PAGE, |_, row| {
                names.push(row.server_name);
                ControlFlow::Continue(())
            })
            .await?;
            for name in names {
                match OwnedServerName::try_from(name.as_str()) {
                    Ok(name) => self.send_to(&name, |destination| Some(destination.events(0))),
                    Err(error) => tracing::error!(name, %error, "a destination has no valid name"),
                }
            }
        }
        Ok(())
    }

    /// An event at `pos` is put into the queue of `server`.
    fn touch(&self, server: OwnedServerName, pos: Pos) {
        let mut touched = self.0.touched.lock();
        let entry = touched.entry(server).or_insert(Touched { first: pos, last: pos, events: 0 });
        entry.first = entry.first.min(pos);
        entry.last = entry.last.max(pos);
        entry.events += 1;
    }

    /// The consumer has committed everything up to `pos`.
    fn reached(&self, pos: Pos) {
        // Most commits are for nobody else.
        if !self.0.touched.lock().is_empty() {
            self.0.reached.send_replace(pos);
        }
    }

    /// Wakes the destinations of what the consumer has committed: everything up to `reached`.
    fn flush(&self, reached: Pos) {
        let mut due = Vec::new();
        self.0.touched.lock().retain(|server, touched| {
            if touched.first <= reached {
                due.push((server.clone(), std::mem::take(&mut touched.events)));
                touched.first = touched.last;
            }
            touched.last > reached
        });
        for (server, events) in due {
            self.send_to(&server, |destination| Some(destination.events(events)));
        }
    }

    /// Gives `server` something to send, and a task if it has none.
    fn send_to(&self, server: &ServerName, add: impl FnOnce(&Destination) -> Option<Task>) {
        let destination = self.destination(server);
        if add(&destination) == Some(Task::Start) {
            self.0.tasks.spawn(Sender::new(self.clone(), destination).run());
        }
    }

    fn destination(&self, server: &ServerName) -> Arc<Destination> {
        let mut destinations = self.0.destinations.lock();
        let known = destinations.entry(server.to_owned()).or_insert_with(|| {
            let nid = self.0.rooms.ids().destination(server);
            Arc::new(Destination::new(server.to_owned(), nid))
        });
        Arc::clone(known)
    }

    /// Forgets destinations that wait for nothing.
    fn let_go(&self) {
        let mut destinations = self.0.destinations.lock();
        if destinations.len() > MAX_IDLE {
            let now = self.now();
            destinations.retain(|_, destination| Arc::strong_count(destination) > 1 || !destination.is_idle(now));
        }
    }

    fn store(&self) -> &Arc<dyn Store> {
        self.0.rooms.store()
    }

    fn now(&self) -> Millis {
        self.0.clock.now()
    }
}
