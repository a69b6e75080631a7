//! A room that another server has let us into: what it says of the room is verified, judged and stored.
//!
//! ```text
//! parts ─verify─▶ Fresh ─sort─▶ ready ─judge─▶ Judged ─write─▶ outliers │ all told ─check─▶ Told ─▶ the room
//!   all cores, keys      what each stands on      auth rules    chunks    │    our join      state, one last batch
//! ```
//!
//! Neither the answer nor the state of a large room fits into one piece. The answer is taken as it comes, and of an event
//! that is stored only its place in the state is remembered. What never changes (events, names, trie nodes) goes first,
//! in chunks; it does no harm if nothing follows. One last batch makes the room exist. A join that was cut off leaves
//! rows that the next one finds and uses: what is stored has been verified and judged.

mod importer;
mod judging;
mod rows;
mod sorter;
mod told;
mod verify;
mod write;

use std::time::Duration;

use hearth_event::Pdu;
use hearth_schema::Source;
use hearth_store::{Pos, StoreError};
use ruma_common::{OwnedServerName, ServerName};

use crate::SendError;
use crate::command::Sent;
use crate::inbound::{Ends, Inbound, Prepared, SoftFail, Taker, WithoutSignature};
use crate::intake::Rooms;
use crate::remote::{JoinParts, RemoteError};
use importer::Importer;
pub(crate) use rows::Joins;
use rows::Writer;
use told::Told;

/// How often a room that was told is tried to be entered, because something else changed meanwhile.
const MAX_TRIES: u32 = 8;
/// How long it is waited after the first of these; longer after each.
const PAUSE: Duration = Duration::from_millis(10);

/// Why what another server told of a room was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// It cannot be so.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Something failed here.
    #[error(transparent)]
    Here(#[from] SendError),
}

impl From<hearth_store::StoreError> for ImportError {
    fn from(error: hearth_store::StoreError) -> Self {
        Self::Here(error.into())
    }
}

impl From<hearth_store::CommitError> for ImportError {
    fn from(error: hearth_store::CommitError) -> Self {
        Self::Here(error.into())
    }
}

impl Rooms {
    /// Stores the room that `via` describes in its answer to `join`, an event of ours. Durable when it returns.
    ///
    /// # Errors
    /// [`RemoteError::Invalid`] if the answer contradicts itself or the room version; no room is there then.
    pub(crate) async fn import(&self, via: &ServerName, join: Pdu, parts: JoinParts) -> Result<Sent, ImportError> {
        let via: OwnedServerName = via.to_owned();
        let writer = Writer::new(self, &join);
        let told = match Importer::new(self, &via, join, &writer).told(parts).await {
            Err(ImportError::Remote(error @ RemoteError::Invalid { .. })) => {
                writer.remove().await?;
                return Err(error.into());
            }
            told => told?,
        };
        let event_id = told.join.event_id().to_owned();
        let mut tries = 1;
        loop {
            match self.let_in(&via, &writer, &told).await {
                // All of the room has been told and is stored: only the end of it is done again.
                Err(ImportError::Here(SendError::Busy | SendError::Store(StoreError::SnapshotExpired)))
                    if tries < MAX_TRIES =>
                {
                    tokio::time::sleep(PAUSE * tries).await;
                    tries += 1;
                }
                entered => return Ok(Sent { event_id, pos: entered? }),
            }
        }
    }

    /// Makes the room exist, with our join in it, or puts our join into the room that is there.
    async fn let_in(&self, via: &ServerName, writer: &Writer, told: &Told) -> Result<Pos, ImportError> {
        let mut numbers = writer.alone().await;
        let graph = writer.graph().await?;
        if self.room(&graph.view, writer.room).await?.is_some() {
            drop(numbers);
            return self.come_back(via, writer, told).await;
        }
        let head = writer.head(&graph.view, &mut numbers).await?.clone();
        let written = self.write_room(&graph, told, head).await;
        // Whatever became of it, the store knows what is free now.
        *numbers = None;
        written
    }

    /// Joins a room that was known before.
    async fn come_back(&self, via: &ServerName, writer: &Writer, told: &Told) -> Result<Pos, ImportError> {
        let taker = Taker::new(self, told.join.room_id(), via).await?.ok_or(SendError::UnknownRoom)?;
        let own = self.0.signer.server_name.clone();
        let graph = writer.graph().await?;
        if self.server_in_room(&graph.view, writer.room, &own).await? {
            return Ok(taker.take_strictly(told.join.clone(), Source::Remote).await?.1.pos);
        }
        let (state_before, _) = self.write_trie(&graph, told).await?;
        let prepared = Prepared {
            pdu: told.join.clone(),
            source: Source::AfterGap,
            state_before,
            rejected: None,
            inbox: None,
            soft_fail: SoftFail::Refuse,
            ends: Ends::Replace,
            // The room's state is not known here before it.
            unsigned: WithoutSignature::Ask,
            transaction: None,
        };
        Ok(self.post_inbound(writer.room, Inbound::Event(Box::new(prepared))).await?.pos)
    }
}
