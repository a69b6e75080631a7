//! Forgetting servers that nothing waits for.
//!
//! A row names each server that something was sent to, so that a start finds what is left for it. Servers come and go,
//! and anybody can give a thousand names to one; so the row goes when the queue behind it has been empty for a while.
//! The consumer may fill that queue at any moment: a row is deleted only if it still says what it said when the queue
//! was empty, and the consumer writes another position into it with each event.

use std::ops::ControlFlow;
use std::time::Duration;

use hearth_schema::{BackOffs, Destination, DestinationNid, Destinations, Outbox, Transactions};
use hearth_store::{Batch, CommitError, Durability, Lane, Order, StoreError, View};

use super::{Outbound, PAGE};

/// How often it is looked for them; first when everything that was replayed after a crash has been sent.
const EVERY: Duration = Duration::from_secs(60 * 60);

impl Outbound {
    /// Forgets them now and then, until shutdown.
    pub(super) async fn run_sweeps(&self) {
        loop {
            tokio::select! {
                () = self.0.shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            match self.sweep().await {
                Ok(0) => {}
                Ok(forgotten) => tracing::debug!(forgotten, "servers that nothing waits for are forgotten"),
                Err(error) => tracing::warn!(%error, "servers that nothing waits for could not be forgotten"),
            }
        }
    }

    /// Forgets those that nothing waits for now; gives how many there were.
    pub(super) async fn sweep(&self) -> Result<usize, StoreError> {
        let mut forgotten = 0;
        for lane in Lane::all() {
            let view = View::latest(&**self.store()).await?;
            let mut rows: Vec<(DestinationNid, Destination)> = Vec::new();
            view.scan::<Destinations, _>(&(lane,), Order::Ascending, PAGE, |(_, nid), row| {
                rows.push((nid, row));
                ControlFlow::Continue(())
            })
            .await?;
            for (nid, row) in rows {
                if self.nothing_waits(&view, nid).await? && self.forget(lane, nid, &row).await? {
                    forgotten += 1;
                }
            }
        }
        Ok(forgotten)
    }

    async fn nothing_waits(&self, view: &View, nid: DestinationNid) -> Result<bool, StoreError> {
        let mut reads = view.reads();
        let (transaction, back_off) = (reads.get::<Transactions>(&(nid,)), reads.get::<BackOffs>(&(nid,)));
        let mut found = reads.run().await?;
        // Who does not answer is remembered until it is time to try again.
        let rests = found.take(back_off)?.is_some_and(|back_off| back_off.retry_at > self.now().0);
        if found.take(transaction)?.is_some() || rests {
            return Ok(false);
        }
        Ok(view.page::<Outbox, _>(&(nid,), Order::Ascending, 1).await?.is_empty())
    }

    /// `false`: meanwhile there is something for it.
    pub(super) async fn forget(&self, lane: Lane, nid: DestinationNid, row: &Destination) -> Result<bool, StoreError> {
        let mut batch = Batch::new(lane);
        batch.durability = Durability::Relaxed;
        batch.check::<Destinations>(&(lane, nid), Some(row));
        batch.delete::<Destinations>(&(lane, nid));
        batch.delete::<BackOffs>(&(nid,));
        match self.store().commit(batch).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_)) => Ok(false),
            Err(error) => Err(StoreError::Unavailable(error.to_string().into())),
        }
    }
}
