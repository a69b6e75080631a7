//! One verified event: what it stands on is fetched, the state before it found, and the rules asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{RoomNid, Source, StateId, UserNid};
use hearth_store::{Pos, StoreError};
use ruma_common::{EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, ServerName};
use tokio::time::Instant;

use super::asking::{PATIENCE, Whom};
use super::{Ends, Entered, Inbound, Prepared, SoftFail, Taken, WithoutSignature, judge};
use crate::SendError;
use crate::command::Transaction;
use crate::gather::damaged;
use crate::graph::{Graph, has_state};
use crate::intake::Rooms;
use crate::policy::Asker;
use crate::query::RoomEvent;

/// Policy servers that are asked about one event, if a room changes them all the time.
const MAX_POLICIES: usize = 3;

/// Takes events of one room that came from one server.
#[derive(Clone)]
pub(crate) struct Taker {
    pub rooms: Rooms,
    pub room: RoomNid,
    pub room_id: OwnedRoomId,
    pub version: RoomVersion,
    /// Who is asked for what is missing.
    pub origin: OwnedServerName,
    /// Nobody is asked for anything after this.
    pub deadline: Instant,
}

impl Taker {
    /// For a room that is here; `None`: it is not.
    pub(crate) async fn new(rooms: &Rooms, room_id: &RoomId, origin: &ServerName) -> Result<Option<Self>, StoreError> {
        let room = rooms.ids().room(room_id);
        let Some(meta) = rooms.room(&rooms.view().await?, room).await? else { return Ok(None) };
        let version = RoomVersion::parse(&meta.version)
            .ok_or_else(|| damaged("Rooms", format!("unknown room version {}", meta.version)))?;
        let (room_id, origin, deadline) = (room_id.to_owned(), origin.to_owned(), Instant::now() + PATIENCE);
        Ok(Some(Self { rooms: rooms.clone(), room, room_id, version, origin, deadline }))
    }

    pub(crate) async fn graph(&self) -> Result<Graph, StoreError> {
        Graph::latest(&self.rooms, self.room, self.version).await
    }

    /// Takes an event of a transaction: whatever is wrong with it, it is kept as far as its children need it.
    pub(super) async fn take(&self, pdu: Pdu, inbox: Option<Pos>) -> Result<Entered, SendError> {
        let unfounded = if self.has_gap(&pdu).await? { self.fill_gap(&pdu).await? } else { BTreeSet::new() };
        let prepared = self.prepare(pdu, Source::Remote, &unfounded).await?;
        self.check_founded(&prepared).await?;
        Ok(self.post(Prepared { inbox, ..prepared }).await?.1)
    }

    /// Takes an event for which its server waits: it is refused if any rule says no.
    /// Gives it as it is in the room.
    pub(crate) async fn take_strictly(&self, pdu: Pdu, source: Source) -> Result<(Pdu, Entered), SendError> {
        self.take_or_refuse(pdu, source, None).await
    }

    /// Takes an event of a local user, who waits for it.
    pub(crate) async fn take_own(
        &self,
        pdu: Pdu,
        transaction: Option<(UserNid, Transaction)>,
    ) -> Result<Entered, SendError> {
        Ok(self.take_or_refuse(pdu, Source::Local, transaction).await?.1)
    }

    async fn take_or_refuse(
        &self,
        pdu: Pdu,
        source: Source,
        transaction: Option<(UserNid, Transaction)>,
    ) -> Result<(Pdu, Entered), SendError> {
        let prepared = self.prepare(pdu, source, &BTreeSet::new()).await?;
        if let Some(why) = prepared.rejected {
            return Err(SendError::Forbidden(why));
        }
        self.post(Prepared { soft_fail: SoftFail::Refuse, transaction, ..prepared }).await
    }

    /// Takes an event whose predecessors are not fetched one by one; see [`Taker::fill_gap`] for `unfounded`.
    pub(super) async fn take_plainly(
        &self,
        pdu: Pdu,
        unfounded: &BTreeSet<OwnedEventId>,
    ) -> Result<Entered, SendError> {
        let prepared = self.prepare(pdu, Source::Remote, unfounded).await?;
        self.check_founded(&prepared).await?;
        Ok(self.post(prepared).await?.1)
    }

    /// An event is not rejected because auth events of it could not be had just now.
    async fn check_founded(&self, prepared: &Prepared) -> Result<(), SendError> {
        let Prepared { pdu, rejected: Some(why), .. } = prepared else { return Ok(()) };
        if judge::is_unfounded(&self.graph().await?, pdu).await? {
            return Err(SendError::BadContent(format!("auth events could not be had, and without them: {why}")));
        }
        Ok(())
    }

    /// Has the room's task take the event, with the signature of the room's policy server if it takes one.
    async fn post(&self, mut prepared: Prepared) -> Result<(Pdu, Entered), SendError> {
        if let Some(why) = &prepared.rejected {
            tracing::debug!(event_id = %prepared.pdu.event_id(), %why, "rejected");
        }
        // Once more than policy servers are asked; another one may be named meanwhile.
        for _ in 0..=MAX_POLICIES {
            let policy = match self.rooms.post_new(self.room, Inbound::Event(Box::new(prepared.clone()))).await? {
                Taken::In(entered) => return Ok((prepared.pdu, entered)),
                Taken::Unsigned(policy) => policy,
            };
            let asker = if prepared.soft_fail == SoftFail::Keep { Asker::Inbox } else { Asker::Somebody };
            match self.rooms.policy_signed(&policy, &prepared.pdu, asker).await {
                Ok(signed) => prepared.pdu = signed,
                Err(error) if asker == Asker::Somebody => return Err(error.into()),
                Err(error) => {
                    let (event_id, via) = (prepared.pdu.event_id(), policy.via());
                    tracing::debug!(%event_id, %via, %error, "a policy server does not sign");
                    prepared.unsigned = WithoutSignature::Settle;
                }
            }
        }
        Err(SendError::Busy)
    }

    /// Whether some `prev_events` are not here.
    pub(super) async fn has_gap(&self, pdu: &Pdu) -> Result<bool, StoreError> {
        let graph = self.graph().await?;
        let found = graph.find(pdu.prev_events()).await?;
        Ok(pdu.prev_events().iter().any(|id| !found.get(id).is_some_and(|event| has_state(event))))
    }

    /// Whether the origin has shown that the event builds on nothing.
    fn is_baseless(&self, event_id: &EventId) -> bool {
        self.rooms.0.baseless.contains(&self.origin, event_id, self.rooms.0.clock.now())
    }

    async fn prepare(
        &self,
        pdu: Pdu,
        source: Source,
        unfounded: &BTreeSet<OwnedEventId>,
    ) -> Result<Prepared, SendError> {
        let (state_before, bridged) = self.state_before(&pdu, unfounded).await?;
        let source = if bridged && source == Source::Remote { Source::AfterGap } else { source };
        self.fetch_auth_events(&self.origin, &pdu).await?;
        let graph = self.graph().await?;
        let rejected = judge::why_rejected(&graph, &pdu, state_before).await?;
        Ok(Prepared {
            pdu,
            source,
            state_before,
            rejected,
            inbox: None,
            soft_fail: SoftFail::Keep,
            ends: Ends::Follow,
            unsigned: WithoutSignature::Ask,
            transaction: None,
        })
    }

    /// The state before `pdu`, stored; where predecessors are missing, as the origin tells it, and whether that was so.
    async fn state_before(&self, pdu: &Pdu, unfounded: &BTreeSet<OwnedEventId>) -> Result<(StateId, bool), SendError> {
        if pdu.prev_events().is_empty() {
            let why = "the event has no previous events";
            return Err(SendError::BadContent(why.to_owned()));
        }
        let mut graph = self.graph().await?;
        let mut found = graph.find(pdu.prev_events()).await?;
        let missing: BTreeSet<&OwnedEventId> =
            pdu.prev_events().iter().filter(|id| !found.get(*id).is_some_and(|event| has_state(event))).collect();
        let bridged = !missing.is_empty();
        if bridged {
            for event_id in missing {
                let told = unfounded.contains(event_id) || self.is_baseless(event_id);
                self.fetch_with_state(event_id, if told { Whom::Others } else { Whom::All }).await?;
            }
            graph = self.graph().await?;
            found = graph.find(pdu.prev_events()).await?;
        }
        let events: Vec<Arc<RoomEvent>> = found.into_values().filter(|event| has_state(event)).collect();
        if events.len() < pdu.prev_events().iter().collect::<BTreeSet<_>>().len() {
            return Err(SendError::Internal("a previous event is missing after it was fetched".into()));
        }
        Ok((graph.state_of(&events).await?, bridged))
    }
}
