//! A room that another server has let us into: what it says of the room is verified, judged and stored.
//!
//! The state of a large room does not fit one batch. What never changes (events, names, trie nodes) goes first, in
//! chunks; it does no harm if nothing follows. One last batch makes the room exist. A join that was cut off leaves rows
//! that the next one finds and uses.

mod told;
mod write;

use hearth_event::Pdu;
use hearth_schema::{RoomNid, Source};
use ruma_common::{OwnedServerName, ServerName};

use crate::SendError;
use crate::command::Sent;
use crate::inbound::{Ends, FetchError, Inbound, Prepared, SoftFail, Taker};
use crate::intake::Rooms;
use crate::remote::{JoinAnswer, RemoteError};
use told::Told;

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

/// Rooms that are being joined.
#[derive(Default)]
pub(crate) struct Joins(parking_lot::Mutex<std::collections::HashMap<RoomNid, std::sync::Arc<tokio::sync::Mutex<()>>>>);

impl Joins {
    pub(crate) fn of(&self, room: RoomNid) -> std::sync::Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock();
        all.retain(|_, lock| std::sync::Arc::strong_count(lock) > 1);
        std::sync::Arc::clone(all.entry(room).or_default())
    }
}

impl Rooms {
    /// Stores the room that `via` describes in its answer to `join`, an event of ours. Durable when it returns.
    ///
    /// # Errors
    /// [`RemoteError::Invalid`] if the answer contradicts itself or the room version; no room is there then.
    pub(crate) async fn import(&self, via: &ServerName, join: Pdu, answer: JoinAnswer) -> Result<Sent, ImportError> {
        let via: OwnedServerName = via.to_owned();
        let told = Told::check(self, &via, join, answer).await?;
        let room = self.ids().room(told.join.room_id());
        let lock = self.0.joins.of(room);
        let _one_at_a_time = lock.lock().await;
        let event_id = told.join.event_id().to_owned();
        let view = self.view().await?;
        let pos = match self.room(&view, room).await? {
            None => self.write_room(room, &told).await?,
            Some(_) => self.come_back(&via, room, told).await?,
        };
        Ok(Sent { event_id, pos })
    }

    /// Joins a room that was known before.
    async fn come_back(&self, via: &ServerName, room: RoomNid, told: Told) -> Result<hearth_store::Pos, ImportError> {
        let taker = Taker::new(self, told.join.room_id(), via).await?.ok_or(SendError::UnknownRoom)?;
        let own = self.0.signer.server_name.clone();
        let resident = self.server_in_room(&self.view().await?, room, &own).await?;
        let (join, state) = (told.join.clone(), told.state.clone());
        taker.keep(told.events().cloned().collect()).await?;
        if resident {
            return Ok(taker.take_strictly(join, Source::Remote).await?.pos);
        }
        let graph = taker.graph().await?;
        let state: Vec<_> = state.into_values().collect();
        let state_before = taker.as_state(&graph, &state).await.map_err(|error| match error {
            FetchError::Remote(error) => ImportError::Remote(error),
            FetchError::Useless(why) => RemoteError::Invalid { server: via.to_owned(), why }.into(),
            FetchError::Here(error) => ImportError::Here(error),
        })?;
        let prepared = Prepared {
            pdu: join,
            source: Source::AfterGap,
            state_before,
            rejected: None,
            inbox: None,
            soft_fail: SoftFail::Refuse,
            ends: Ends::Replace,
        };
        Ok(self.post_inbound(room, Inbound::Event(Box::new(prepared))).await?.pos)
    }
}
