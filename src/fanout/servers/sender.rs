//! The task of one destination: one transaction at a time, again and again until it is taken.

use std::sync::Arc;
use std::time::Duration;

use hearth_base::Millis;
use hearth_rooms::remote::RemoteError;
use hearth_schema::{BackOff, Transaction};

use super::destination::Destination;
use super::edus::{OutReceipt, ReceiptOf};
use super::queue::{Queue, transaction};
use super::{MAX_PDUS, MAX_QUEUED, Outbound, back_off, body};
use crate::ConsumeError;

/// The clock is looked at so often while something is due later: clocks are set, and machines sleep.
const LOOK: Duration = Duration::from_secs(30);
/// After the store has failed.
const STORE_RETRY: Duration = Duration::from_secs(5);
/// Between two transactions without events.
const EDU_PAUSE: Duration = Duration::from_millis(50);
/// Characters of a transaction id: 143 bits of chance.
const ID_CHARS: usize = 24;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More.
    Again,
    /// Nothing before this time, unless something comes.
    Wait(Millis),
    /// Nothing.
    Idle,
}

/// A transaction that was not taken yet.
struct Current {
    transaction: Transaction,
    /// The receipts in it.
    receipts: Vec<(ReceiptOf, OutReceipt)>,
    /// It was taken, but the store does not know.
    taken: bool,
}

/// Sends to one destination.
pub(super) struct Sender {
    outbound: Outbound,
    to: Arc<Destination>,
    queue: Queue,
    loaded: bool,
    current: Option<Current>,
    /// Events of the next transaction at the most.
    limit: usize,
    edus_after: Millis,
}

/// Sees to it that a destination whose task has died gets another one.
struct Alive(Option<Arc<Destination>>);

impl Drop for Alive {
    fn drop(&mut self) {
        if let Some(destination) = self.0.take() {
            destination.stopped();
        }
    }
}

impl Sender {
    pub(super) fn new(outbound: Outbound, to: Arc<Destination>) -> Self {
        let queue = Queue::new(Arc::clone(outbound.store()), to.nid);
        Self { outbound, to, queue, loaded: false, current: None, limit: MAX_PDUS, edus_after: Millis(0) }
    }

    /// Sends until there is nothing left, or until shutdown.
    pub(super) async fn run(mut self) {
        let shutdown = self.outbound.0.shutdown.clone();
        let mut alive = Alive(Some(Arc::clone(&self.to)));
        loop {
            // Dropping a step loses nothing: what is being sent is stored.
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                step = self.step() => step,
            };
            match step {
                Step::Idle if self.to.rests(self.outbound.now()) => {
                    alive.0 = None;
                    return;
                }
                Step::Again | Step::Idle => {}
                Step::Wait(at) => {
                    let pause = at.since(self.outbound.now()).min(LOOK);
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = self.to.wake.notified() => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// One attempt at the most.
    pub(super) async fn step(&mut self) -> Step {
        let now = self.outbound.now();
        match self.attempt(now).await {
            Ok(step) => step,
            Err(error) => {
                tracing::warn!(destination = %self.to.name, %error, "cannot send to another server now, trying again");
                self.to.has_more();
                Step::Wait(now.plus(STORE_RETRY))
            }
        }
    }

    async fn attempt(&mut self, now: Millis) -> Result<Step, ConsumeError> {
        if !self.loaded {
            let left = self.queue.left().await?;
            self.to.load(left.back_off, left.queued);
            self.current =
                left.transaction.map(|transaction| Current { transaction, receipts: Vec::new(), taken: false });
            self.loaded = true;
        }
        let back_off = self.to.back_off();
        if let Some(BackOff { retry_at, .. }) = back_off.filter(|back_off| back_off.retry_at > now.0) {
            self.thin_out(back_off, None).await?;
            return Ok(Step::Wait(Millis(retry_at)));
        }
        let outbound = self.outbound.clone();
        // The semaphore is never closed.
        let _permit = outbound.0.in_flight.acquire().await;
        self.thin_out(back_off, Some(now)).await?;
        if self.current.is_none()
            && let Some(step) = self.begin(now).await?
        {
            return Ok(step);
        }
        self.send(now).await
    }

    /// Thins out a queue that has grown while the destination did not answer: beyond a number of events, or, when it
    /// is tried again after a long time, at all.
    async fn thin_out(&self, back_off: Option<BackOff>, trying: Option<Millis>) -> Result<(), ConsumeError> {
        let settings = &self.outbound.0.settings;
        let (queued, kept) = self.to.queued();
        let long_ago = back_off
            .zip(trying)
            .is_some_and(|(back_off, now)| now.since(Millis(back_off.since)) >= settings.catch_up_after);
        let limit = match back_off {
            Some(_) if long_ago => kept,
            Some(_) => settings.catch_up_events.max(2 * kept),
            None => MAX_QUEUED.max(2 * kept),
        };
        if queued > limit {
            let kept = self.queue.thin_out().await?;
            tracing::info!(destination = %self.to.name, queued, kept, "only the latest events are kept for a server");
            self.to.thinned_out(kept);
        }
        Ok(())
    }

    /// Makes a transaction of what waits; a step, if there is nothing to send.
    async fn begin(&mut self, now: Millis) -> Result<Option<Step>, ConsumeError> {
        self.to.reads_queue();
        let mut pdus = self.queue.first(self.limit).await?;
        if pdus.len() == self.limit {
            self.to.has_more();
        }
        if pdus.is_empty() {
            match self.to.edus_ready_at(now) {
                None => return Ok(Some(Step::Idle)),
                Some(at) if at.max(self.edus_after) > now => return Ok(Some(Step::Wait(at.max(self.edus_after)))),
                Some(_) => {}
            }
        } else {
            let fits = self.fitting(&pdus).await?;
            if fits < pdus.len() {
                pdus.truncate(fits);
                self.to.has_more();
            }
        }
        self.edus_after = now.plus(EDU_PAUSE);
        let taken = self.to.take_edus(now);
        let transaction = transaction(self.outbound.0.random.alphanumeric(ID_CHARS), now, pdus, taken.edus);
        if !transaction.pdus.is_empty()
            && let Err(error) = self.queue.begin(&transaction).await
        {
            self.to.put_back(taken.receipts);
            return Err(error);
        }
        self.current = Some(Current { transaction, receipts: taken.receipts, taken: false });
        Ok(None)
    }

    /// How many of `pdus` have place in one transaction.
    async fn fitting(&self, pdus: &[hearth_schema::QueuedPdu]) -> Result<usize, ConsumeError> {
        let view = self.queue.view().await?;
        let events = self.outbound.0.inspector.fit(&self.outbound.0.rooms, &view, pdus).await?;
        let Some((last, _)) = events.get(body::that_fit(&events).saturating_sub(1)) else { return Ok(pdus.len()) };
        if events.last().is_some_and(|(pdu, _)| pdu.pos == last.pos) {
            return Ok(pdus.len());
        }
        Ok(pdus.iter().take_while(|pdu| pdu.pos <= last.pos).count())
    }

    async fn send(&mut self, now: Millis) -> Result<Step, ConsumeError> {
        let Some(current) = &mut self.current else { return Ok(Step::Idle) };
        if !current.taken {
            let inner = &self.outbound.0;
            let view = self.queue.view().await?;
            let events = inner.inspector.fit(&inner.rooms, &view, &current.transaction.pdus).await?;
            if !events.is_empty() || !current.transaction.edus.is_empty() {
                let body = body::body(&inner.server_name, &current.transaction, &events);
                drop(events);
                self.to.attempt_at(now);
                match inner.deliver.transaction(&self.to.name, &current.transaction.id, body).await {
                    Ok(refused) => {
                        for (event_id, why) in refused {
                            tracing::info!(destination = %self.to.name, %event_id, why, "a server did not take an event");
                        }
                    }
                    Err(error) => return self.not_taken(&error).await,
                }
            }
            current.taken = true;
        }
        self.taken().await
    }

    async fn taken(&mut self) -> Result<Step, ConsumeError> {
        let Some(current) = &self.current else { return Ok(Step::Again) };
        let pdus = current.transaction.pdus.len();
        if pdus > 0 {
            self.queue.end(&current.transaction).await?;
        }
        self.current = None;
        self.to.sent(pdus);
        self.limit = (2 * self.limit).min(MAX_PDUS);
        if self.to.back_off().is_some() {
            self.to.set_back_off(None);
            self.queue.set_back_off(None).await?;
        }
        Ok(Step::Again)
    }

    async fn not_taken(&mut self, error: &RemoteError) -> Result<Step, ConsumeError> {
        let now = self.outbound.now();
        if let RemoteError::Refused { status: 400 | 413 | 422, .. } = error {
            tracing::warn!(destination = %self.to.name, %error, "a server refuses a whole transaction");
            if self.make_smaller(now).await? {
                return Ok(Step::Again);
            }
        }
        self.failed(now, error).await
    }

    /// Leaves out what a server may not like. `false`: there is nothing left to try at once.
    ///
    /// First goes what is no event: most of that is soon over, and receipts wait for the next one. Then the transaction is halved, until the event is found that it stumbles over,
    /// and that one is given up.
    async fn make_smaller(&mut self, now: Millis) -> Result<bool, ConsumeError> {
        let Some(current) = self.current.take() else { return Ok(false) };
        let Transaction { mut pdus, edus, .. } = current.transaction.clone();
        if pdus.is_empty() {
            return Ok(false);
        }
        // They may be no part of what the server does not like. By themselves they are refused once.
        self.to.put_back(current.receipts);
        if edus.is_empty() {
            if pdus.len() == 1 {
                let event = pdus[0].event;
                tracing::error!(destination = %self.to.name, ?event, "a server refuses an event, which it will not get");
                metrics::counter!("hearth_federation_events_given_up_total").increment(1);
                self.queue.end(&current.transaction).await?;
                self.to.sent(1);
                self.to.has_more();
                return Ok(false);
            }
            pdus.truncate(pdus.len() / 2);
            self.limit = pdus.len();
            self.to.has_more();
        }
        let id = self.outbound.0.random.alphanumeric(ID_CHARS);
        let transaction = transaction(id, now, pdus, Vec::new());
        self.queue.begin(&transaction).await?;
        self.current = Some(Current { transaction, receipts: Vec::new(), taken: false });
        Ok(true)
    }

    async fn failed(&mut self, now: Millis, error: &RemoteError) -> Result<Step, ConsumeError> {
        let inner = &self.outbound.0;
        let back_off = back_off::after_failure(self.to.back_off(), now, &inner.settings, &*inner.random);
        if back_off.failures == 1 {
            tracing::info!(destination = %self.to.name, %error, "a server does not take a transaction, it is tried again");
        }
        self.to.set_back_off(Some(back_off));
        // Without events it was not stored, and most of it is soon out of date.
        if let Some(current) = self.current.take_if(|current| current.transaction.pdus.is_empty()) {
            self.to.put_back(current.receipts);
        }
        self.queue.set_back_off(Some(&back_off)).await?;
        Ok(Step::Wait(Millis(back_off.retry_at)))
    }
}
