//! A destination's rows.
//!
//! The consumer adds to the queue; only the destination's one task takes from it. A transaction is stored with its id
//! before it is sent, and goes in the same batch as its events: so after a crash it is sent again as it was. Nothing here
//! needs a sync. A deletion that is lost means that the transaction is repeated, and its receiver knows it; a transaction
//! that is lost means that its events, which are still queued, go in another one, and their receiver knows them.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use hearth_base::Millis;
use hearth_schema::{
    BackOff, BackOffs, DestinationNid, EventNid, Outbox, QueuedPdu, RoomNid, Transaction, Transactions,
};
use hearth_store::{Batch, Durability, Order, Owner, Pos, Store, StoreError, View};

use crate::ConsumeError;

/// Rows read at a time.
const PAGE: usize = 2048;
/// Rows deleted in one batch.
const DELETED: usize = 4096;

/// The rows of one destination.
pub(super) struct Queue {
    store: Arc<dyn Store>,
    nid: DestinationNid,
}

/// What the store has of a destination.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub transaction: Option<Transaction>,
    pub back_off: Option<BackOff>,
    pub queued: usize,
}

impl Queue {
    pub(super) fn new(store: Arc<dyn Store>, nid: DestinationNid) -> Self {
        Self { store, nid }
    }

    pub(super) async fn view(&self) -> Result<View, StoreError> {
        View::latest(&*self.store).await
    }

    /// What earlier tasks have left.
    pub(super) async fn left(&self) -> Result<Left, StoreError> {
        let view = self.view().await?;
        let mut reads = view.reads();
        let transaction = reads.get::<Transactions>(&(self.nid,));
        let back_off = reads.get::<BackOffs>(&(self.nid,));
        let mut found = reads.run().await?;
        let mut queued = 0;
        view.scan::<Outbox, _>(&(self.nid,), Order::Ascending, PAGE, |_, _| {
            queued += 1;
            ControlFlow::Continue(())
        })
        .await?;
        Ok(Left { transaction: found.take(transaction)?, back_off: found.take(back_off)?, queued })
    }

    /// The oldest events, `limit` at the most.
    pub(super) async fn first(&self, limit: usize) -> Result<Vec<QueuedPdu>, StoreError> {
        let rows = self.view().await?.page::<Outbox, _>(&(self.nid,), Order::Ascending, limit).await?;
        Ok(rows.into_iter().map(|((_, pos), event)| QueuedPdu { pos: pos.get(), event }).collect())
    }

    /// `transaction` is sent from now on, until it is taken.
    pub(super) async fn begin(&self, transaction: &Transaction) -> Result<(), ConsumeError> {
        let mut batch = self.relaxed();
        batch.put::<Transactions>(&(self.nid,), transaction);
        self.store.commit(batch).await?;
        Ok(())
    }

    /// `transaction` is over.
    pub(super) async fn end(&self, transaction: &Transaction) -> Result<(), ConsumeError> {
        let mut batch = self.relaxed();
        for pdu in &transaction.pdus {
            batch.delete::<Outbox>(&(self.nid, Pos::new(pdu.pos)));
        }
        batch.delete::<Transactions>(&(self.nid,));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// `None`: the destination answers.
    pub(super) async fn set_back_off(&self, back_off: Option<&BackOff>) -> Result<(), ConsumeError> {
        let mut batch = self.relaxed();
        match back_off {
            Some(back_off) => batch.put::<BackOffs>(&(self.nid,), back_off),
            None => batch.delete::<BackOffs>(&(self.nid,)),
        }
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Leaves the latest event of each room only: from there the other server finds what it has missed. Gives how many
    /// are left.
    pub(super) async fn thin_out(&self) -> Result<usize, ConsumeError> {
        let mut latest: HashMap<RoomNid, Pos> = HashMap::new();
        let mut older = Vec::new();
        let view = self.view().await?;
        view.scan::<Outbox, _>(&(self.nid,), Order::Ascending, PAGE, |(_, pos), EventNid { room, .. }| {
            older.extend(latest.insert(room, pos));
            ControlFlow::Continue(())
        })
        .await?;
        for positions in older.chunks(DELETED) {
            let mut batch = self.relaxed();
            for pos in positions {
                batch.delete::<Outbox>(&(self.nid, *pos));
            }
            self.store.commit(batch).await?;
        }
        Ok(latest.len())
    }

    fn relaxed(&self) -> Batch {
        let mut batch = Batch::new(self.nid.lane());
        batch.durability = Durability::Relaxed;
        batch
    }
}

/// A new transaction.
pub(super) fn transaction(id: String, at: Millis, pdus: Vec<QueuedPdu>, edus: Vec<String>) -> Transaction {
    Transaction { id, at: at.0, pdus, edus }
}
