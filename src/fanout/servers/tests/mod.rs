//! What leaves, to other servers that do as they are told.

mod ephemeral;
mod queues;
mod recipients;
mod refusals;
mod sweep;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hearth_rooms::remote::RemoteError;
use hearth_schema::{BackOffs, Outbox, Transactions};
use hearth_store::{Order, View};
use parking_lot::Mutex;
use ruma_common::{OwnedEventId, OwnedServerName, ServerName};
use serde_json::Value;

use super::sender::{Sender, Step};
use super::*;
use crate::Follower;
use crate::testing::{World, server, server_name};

/// What another server does with a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// Takes it.
    #[default]
    Well,
    /// Does not answer.
    Down,
    /// Refuses every transaction that has this word in it.
    Picky(&'static str),
    /// Takes it but for events that have this word in them.
    Choosy(&'static str),
}

/// A transaction as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Arrived {
    pub server: OwnedServerName,
    pub id: String,
    pub body: Value,
}

impl Arrived {
    /// The texts of its messages, or the types of its other events.
    pub(super) fn words(&self) -> Vec<String> {
        let pdus = self.body["pdus"].as_array().expect("a list");
        let word = |pdu: &Value| pdu["content"]["body"].as_str().or(pdu["type"].as_str()).expect("a word").to_owned();
        pdus.iter().map(word).collect()
    }

    pub(super) fn edus(&self) -> Vec<Value> {
        self.body["edus"].as_array().expect("a list").clone()
    }
}

/// Other servers.
#[derive(Default)]
pub(super) struct Script {
    pub mood: Mutex<Mood>,
    arrived: Mutex<Vec<Arrived>>,
    /// Words of the transactions that were taken.
    pub accepted: Mutex<Vec<String>>,
}

impl Script {
    /// What has arrived since this was asked last.
    pub(super) fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.arrived.lock())
    }

    pub(super) fn words(&self) -> Vec<String> {
        self.take().iter().flat_map(Arrived::words).collect()
    }
}

impl Deliver for Script {
    fn transaction<'a>(
        &'a self,
        destination: &'a ServerName,
        id: &'a str,
        body: Bytes,
    ) -> BoxFuture<'a, Result<BTreeMap<OwnedEventId, String>, RemoteError>> {
        let body: Value = serde_json::from_slice(&body).expect("a transaction is JSON");
        let text = body.to_string();
        let mood = *self.mood.lock();
        let arrived = Arrived { server: destination.to_owned(), id: id.to_owned(), body };
        let refused = matches!(mood, Mood::Picky(word) if text.contains(word));
        if mood != Mood::Down && !refused {
            self.accepted.lock().extend(arrived.words());
        }
        self.arrived.lock().push(arrived);
        async move {
            let server = destination.to_owned();
            match mood {
                Mood::Down => Err(RemoteError::Unreachable { server, why: "down".to_owned() }),
                Mood::Picky(_) if refused => {
                    let (errcode, error) = ("M_BAD_JSON".to_owned(), "no".to_owned());
                    Err(RemoteError::Refused { server, status: 400, errcode, error })
                }
                Mood::Choosy(word) if text.contains(word) => {
                    let event_id = OwnedEventId::try_from("$refused").expect("an ID");
                    Ok(BTreeMap::from([(event_id, "no".to_owned())]))
                }
                _ => Ok(BTreeMap::new()),
            }
        }
        .boxed()
    }
}

/// A server and what leaves it; nothing runs by itself.
pub(super) struct Desk {
    pub world: World,
    pub script: Arc<Script>,
    pub outbound: Outbound,
    follower: Follower<ToServers>,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self::at(World::new(), OutboundSettings::default())
    }

    pub(super) fn at(world: World, settings: OutboundSettings) -> Self {
        let script = Arc::new(Script::default());
        let outbound = Outbound::new(OutboundParts {
            rooms: world.rooms.clone(),
            presence: world.accounts.presence().clone(),
            clock: world.clock.clone(),
            random: Arc::clone(&world.random),
            server_name: server_name(),
            deliver: script.clone(),
            settings,
            shutdown: world.shutdown.clone(),
        });
        let follower = Follower::new(Arc::clone(&world.store), outbound.consumer());
        Self { world, script, outbound, follower }
    }

    /// The same store, with everything that was in memory gone. The time goes on.
    pub(super) fn restarted(self) -> Self {
        let next = Self::at(World::on(Arc::clone(&self.world.store)), self.outbound.0.settings.clone());
        next.world.clock.advance(self.world.now().since(next.world.now()));
        next
    }

    pub(super) async fn consume(&mut self) {
        self.follower.catch_up().await.expect("the consumer advances");
    }

    /// A sender without a task.
    pub(super) fn sender(&self, name: &str) -> Sender {
        Sender::new(self.outbound.clone(), self.outbound.destination(&server(name)))
    }

    /// Takes steps until there is nothing to do now.
    pub(super) async fn work(&self, sender: &mut Sender) -> Step {
        for _ in 0..10_000 {
            match sender.step().await {
                Step::Again => {}
                step => return step,
            }
        }
        panic!("it never ends");
    }

    /// Consumes and sends to `name` what can be sent now.
    pub(super) async fn deliver(&mut self, name: &str) -> Vec<Arrived> {
        self.consume().await;
        let mut sender = self.sender(name);
        self.work(&mut sender).await;
        self.script.take()
    }

    /// What the store has for `name`: queued events, whether there is a transaction, failures.
    pub(super) async fn rows(&self, name: &str) -> (usize, bool, Option<u32>) {
        let view = View::latest(&*self.world.store).await.expect("a view");
        let nid = self.world.rooms.ids().destination(&server(name));
        let queue = view.page::<Outbox, _>(&(nid,), Order::Ascending, 100_000).await.expect("rows");
        let transaction = view.get::<Transactions>(&(nid,)).await.expect("a row");
        let back_off = view.get::<BackOffs>(&(nid,)).await.expect("a row");
        (queue.len(), transaction.is_some(), back_off.map(|back_off| back_off.failures))
    }
}
