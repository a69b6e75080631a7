//! What transactions of other servers came to, so that one that is sent again is answered as it was.
//!
//! A server sends one transaction until it is answered, and only then another. So it is enough to know the last few of
//! each server in the order they came, for a day; whatever is sent again after that finds its events known.

use std::time::Duration;

use hearth_base::Millis;
use hearth_schema::{ReceivedTransaction, ReceivedTransactions};
use hearth_store::{Batch, Lane, Order, StoreError};
use ruma_common::{OwnedEventId, ServerName};
use tokio_util::sync::CancellationToken;

use crate::SendError;
use crate::gather::damaged;
use crate::inbound::Received;
use crate::intake::Rooms;

/// Transactions of one server that are remembered.
const REMEMBERED: usize = 16;
/// How long one is remembered at least.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How often those that are older are looked for.
const CLEANING: Duration = Duration::from_secs(3600);
/// Rows looked at and deleted at once.
const PAGE: usize = 256;
/// Bytes of a reason that are kept.
const MAX_REASON: usize = 200;

/// What is known of a transaction that has come.
#[derive(Debug)]
pub enum EarlierTransaction {
    /// It has been here: what its events came to.
    Known(Vec<Received>),
    /// It is new, and is remembered in this place.
    New(TransactionPlace),
}

/// Where a transaction is remembered: after the last of its server, and instead of the oldest.
#[derive(Debug)]
pub struct TransactionPlace {
    key: (Lane, String, u32),
    instead_of: Vec<u32>,
}

impl Rooms {
    /// What the transaction `txn_id` of `origin` came to, if it has been here lately.
    ///
    /// A place is good until something else is remembered of `origin`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn received_before(&self, origin: &ServerName, txn_id: &str) -> Result<EarlierTransaction, StoreError> {
        let prefix = (self.ids().server_lane(origin), origin.to_string());
        let rows = self.view().await?.page::<ReceivedTransactions, _>(&prefix, Order::Descending, PAGE).await?;
        if let Some((_, row)) = rows.iter().find(|(_, row)| row.txn_id == txn_id) {
            return row.results.iter().map(read).collect::<Result<_, _>>().map(EarlierTransaction::Known);
        }
        let numbers = rows.iter().map(|((_, _, number), _)| *number);
        let next = numbers.clone().next().map_or(Some(0), |newest| newest.checked_add(1));
        // After the last number there is the first, and nothing that was remembered before.
        let kept = if next.is_some() { REMEMBERED - 1 } else { 0 };
        let instead_of = numbers.skip(kept).collect();
        Ok(EarlierTransaction::New(TransactionPlace { key: (prefix.0, prefix.1, next.unwrap_or(0)), instead_of }))
    }

    /// Remembers what a transaction came to.
    ///
    /// # Errors
    /// If the store fails or is full.
    pub async fn remember_received(
        &self,
        place: TransactionPlace,
        txn_id: &str,
        results: &[Received],
    ) -> Result<(), SendError> {
        let TransactionPlace { key, instead_of } = place;
        let row = ReceivedTransaction {
            txn_id: txn_id.to_owned(),
            at: self.0.clock.now().0,
            results: results
                .iter()
                .map(|received| (received.event_id.to_string(), received.result.clone().err().map(shortened)))
                .collect(),
        };
        let mut batch = Batch::new(key.0);
        for number in instead_of {
            batch.delete::<ReceivedTransactions>(&(key.0, key.1.clone(), number));
        }
        batch.put::<ReceivedTransactions>(&key, &row);
        self.0.store.commit(batch).await?;
        Ok(())
    }

    /// Forgets old transactions now and then, until `stopping`.
    pub async fn run_forgetting(self, stopping: CancellationToken) {
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(CLEANING) => {}
            }
            if let Err(error) = self.forget_received().await {
                tracing::warn!(%error, "old transactions of other servers could not be forgotten");
            }
        }
    }

    /// Forgets transactions that are older than a day.
    pub(crate) async fn forget_received(&self) -> Result<(), SendError> {
        let oldest =
            Millis(self.0.clock.now().0.saturating_sub(u64::try_from(LIFETIME.as_millis()).unwrap_or(u64::MAX)));
        for lane in Lane::all() {
            let view = self.view().await?;
            let mut old = Vec::new();
            view.scan::<ReceivedTransactions, _>(&(lane,), Order::Ascending, PAGE, |(_, origin, slot), row| {
                if row.at < oldest.0 {
                    // A key that was read does not know its lane.
                    old.push((lane, origin, slot));
                }
                std::ops::ControlFlow::Continue(())
            })
            .await?;
            for keys in old.chunks(PAGE) {
                let mut batch = Batch::new(lane);
                for key in keys {
                    batch.delete::<ReceivedTransactions>(key);
                }
                self.0.store.commit(batch).await?;
            }
        }
        Ok(())
    }
}

fn read((event_id, refused): &(String, Option<String>)) -> Result<Received, StoreError> {
    let event_id = OwnedEventId::try_from(event_id.as_str());
    let event_id = event_id.map_err(|error| damaged("ReceivedTransactions", error.to_string()))?;
    Ok(Received { event_id, result: refused.clone().map_or(Ok(()), Err) })
}

/// As much of `reason` as is kept.
fn shortened(mut reason: String) -> String {
    let end = reason.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_REASON).last().unwrap_or(0);
    if reason.len() > MAX_REASON {
        reason.truncate(end);
    }
    reason
}
