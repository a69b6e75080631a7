//! What an event stands on and what is not here, fetched from one server. Who is asked, and how long it may take, is up to
//! [`super::asking`].

use std::collections::{BTreeSet, HashMap};

use hearth_event::Pdu;
use hearth_schema::{StateId, Verdict};
use hearth_store::StoreError;
use ruma_common::{EventId, OwnedEventId, OwnedServerName, ServerName};

use super::asking::is_silence;
use super::judge::{self, by_auth_events, sorted};
use super::take::Taker;
use super::{Inbound, Outlier, admit};
use crate::SendError;
use crate::gather::damaged;
use crate::graph::{Graph, judged};
use crate::remote::{RawPdu, RemoteError, StateIds};

/// Events of a state or an auth chain that are fetched one by one; if more are missing, all come at once.
const ONE_BY_ONE: usize = 50;
/// Requests for single events at a time.
const PARALLEL: usize = 8;
/// Events in a state that is believed in.
const MAX_STATE: usize = 200_000;

impl Taker {
    /// The events among `raw` that are what they say.
    pub(super) async fn admitted(&self, raw: Vec<RawPdu>) -> Result<Vec<Pdu>, StoreError> {
        let admitted = admit(&self.rooms, &self.room_id, self.version, raw).await?;
        let mut out = Vec::with_capacity(admitted.len());
        for one in admitted {
            match one.event {
                Ok(event) => out.push(event.into_pdu()),
                Err(why) => tracing::debug!(event_id = ?one.event_id, %why, "an event that was asked for is no good"),
            }
        }
        Ok(out)
    }

    /// Fetches the auth events of `pdu` that are not here, with what they stand on, from `server`.
    pub(super) async fn fetch_auth_events(&self, server: &ServerName, pdu: &Pdu) -> Result<(), SendError> {
        let graph = self.graph().await?;
        let known = graph.numbers(pdu.auth_events()).await?;
        // An event may name the same one twice, which gets it rejected and is nothing to ask for.
        if known.len() == pdu.auth_events().iter().collect::<BTreeSet<_>>().len() {
            return Ok(());
        }
        let asked = self.rooms.0.remote.event_auth(server, &self.room_id, pdu.event_id());
        let raw = match self.in_time(asked).await {
            Ok(raw) => raw,
            // Another time it may tell them.
            Err(error) if is_silence(&error) => return Err(SendError::Unanswered(error.to_string())),
            Err(error) => {
                tracing::debug!(%error, event_id = %pdu.event_id(), "auth events were not had");
                Vec::new()
            }
        };
        let events = self.admitted(raw).await?;
        self.keep(events).await
    }

    /// Judges events that others stand on by their auth events, and stores them. Of one that lacks auth events nothing is
    /// known, unless one of them is rejected.
    pub(crate) async fn keep(&self, events: Vec<Pdu>) -> Result<(), SendError> {
        let graph = self.graph().await?;
        let known = graph.numbers(&events.iter().map(|event| event.event_id().to_owned()).collect::<Vec<_>>()).await?;
        let known: HashMap<_, _> = known.into_iter().collect();
        let fresh: HashMap<OwnedEventId, Pdu> = events
            .into_iter()
            .filter(|event| !known.contains_key(event.event_id()))
            .map(|event| (event.event_id().to_owned(), event))
            .collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let create = graph.create().await?;
        let mut done: HashMap<OwnedEventId, Pdu> = HashMap::new();
        let mut outliers = Vec::with_capacity(fresh.len());
        for pdu in sorted(&fresh) {
            let missing: Vec<_> = pdu.auth_events().iter().filter(|id| !done.contains_key(*id)).cloned().collect();
            let stored = graph.find(&missing).await?;
            done.extend(stored.into_iter().map(|(id, event)| (id, judged(&event))));
            let auth_events: Vec<Pdu> = pdu.auth_events().iter().filter_map(|id| done.get(id).cloned()).collect();
            let rejected =
                by_auth_events(self.version, &pdu, &auth_events, create.as_ref()).err().map(|error| error.rule);
            let lacking = pdu.auth_events().iter().any(|id| !done.contains_key(id));
            if rejected.is_some() && lacking && !auth_events.iter().any(Pdu::rejected) {
                tracing::debug!(event_id = %pdu.event_id(), "an event whose auth events were not told is left out");
                continue;
            }
            let verdict = if rejected.is_some() { pdu.with_rejected() } else { pdu.clone() };
            done.insert(pdu.event_id().to_owned(), verdict);
            outliers.push(Outlier { pdu, rejected, state_before: StateId::EMPTY });
        }
        if outliers.is_empty() {
            return Ok(());
        }
        self.rooms.post_inbound(self.room, Inbound::Outliers(outliers)).await.map(drop)
    }

    /// Fetches `event_id` and the state before it from `server`, which is the one that is asked here, and stores both.
    pub(super) async fn fetch_from(&self, server: &OwnedServerName, event_id: &EventId) -> Result<(), FetchError> {
        let remote = &self.rooms.0.remote;
        let ids = self.in_time(remote.state_ids(server, &self.room_id, event_id)).await?;
        if ids.state.len() + ids.auth_chain.len() > MAX_STATE {
            return Err(FetchError::Useless("the state is too large".to_owned()));
        }
        self.fetch_state_events(server, event_id, &ids).await?;
        let raw = self.in_time(remote.event(server, event_id)).await?;
        let pdu = self.admitted(vec![raw]).await?.into_iter().find(|pdu| pdu.event_id() == event_id);
        let pdu = pdu.ok_or_else(|| FetchError::Useless("the event is not what was asked for".to_owned()))?;
        self.fetch_auth_events(server, &pdu).await?;
        let graph = self.graph().await?;
        let state_before = self.as_state(&graph, &ids.state).await?;
        let rejected = judge::why_rejected(&graph, &pdu, state_before).await?;
        if rejected.is_some() && judge::is_unfounded(&graph, &pdu).await? {
            return Err(FetchError::Useless("auth events of the event could not be had".to_owned()));
        }
        let outlier = Outlier { pdu, rejected, state_before };
        self.rooms.post_inbound(self.room, Inbound::Outliers(vec![outlier])).await?;
        Ok(())
    }

    /// Fetches what is missing of a state and its auth chains.
    pub(super) async fn fetch_state_events(
        &self,
        server: &OwnedServerName,
        event_id: &EventId,
        ids: &StateIds,
    ) -> Result<(), FetchError> {
        let graph = self.graph().await?;
        let mut missing: BTreeSet<OwnedEventId> = ids.state.iter().chain(&ids.auth_chain).cloned().collect();
        let all: Vec<OwnedEventId> = missing.iter().cloned().collect();
        for (known, _) in graph.numbers(&all).await? {
            missing.remove(&known);
        }
        if missing.is_empty() {
            return Ok(());
        }
        let remote = &self.rooms.0.remote;
        let raw = if missing.len() > ONE_BY_ONE {
            let all = self.in_time(remote.state(server, &self.room_id, event_id)).await?;
            all.state.into_iter().chain(all.auth_chain).collect()
        } else {
            self.fetch_one_by_one(server, missing.into_iter().collect()).await?
        };
        let events = self.admitted(raw).await?;
        Ok(self.keep(events).await?)
    }

    /// What `server` tells of `missing`; an error if it falls silent.
    async fn fetch_one_by_one(
        &self,
        server: &OwnedServerName,
        missing: Vec<OwnedEventId>,
    ) -> Result<Vec<RawPdu>, RemoteError> {
        let remote = &self.rooms.0.remote;
        let mut told = Vec::with_capacity(missing.len());
        for some in missing.chunks(PARALLEL) {
            for answer in futures::future::join_all(some.iter().map(|id| self.in_time(remote.event(server, id)))).await
            {
                match answer {
                    Ok(raw) => told.push(raw),
                    // A state without what nobody could tell at the moment is another state.
                    Err(error) if is_silence(&error) => return Err(error),
                    // A server that lacks one of them may still tell the rest.
                    Err(error) => {
                        tracing::debug!(%error, "an event of a state is left out");
                    }
                }
            }
        }
        Ok(told)
    }

    /// The state made of those of `ids` that are here and were not rejected.
    pub(crate) async fn as_state(&self, graph: &Graph, ids: &[OwnedEventId]) -> Result<StateId, FetchError> {
        let found = graph.find(ids).await?;
        let mut places = Vec::with_capacity(found.len());
        let mut numbers = Vec::with_capacity(found.len());
        for event in found.values().filter(|event| event.verdict != Verdict::Rejected) {
            if let Some(state_key) = event.state_key() {
                places.push((event.event_type().to_owned(), state_key.to_owned()));
                numbers.push(event.n);
            }
        }
        if !places.iter().any(|(kind, key)| kind == "m.room.create" && key.is_empty()) {
            return Err(FetchError::Useless("the state has no create event".to_owned()));
        }
        let nids = graph.state_keys(&places).await?;
        let mut changes = Vec::with_capacity(numbers.len());
        for (nid, n) in nids.into_iter().zip(numbers) {
            let nid = nid.ok_or_else(|| damaged("StateKeys", "a stored state event's place has no number"))?;
            changes.push((nid.0, Some(n)));
        }
        let (root, nodes) = graph.changed(StateId::EMPTY, &changes).await?;
        graph.save(nodes).await?;
        Ok(root)
    }
}

/// Why something was not fetched.
pub(crate) enum FetchError {
    Remote(RemoteError),
    Useless(String),
    Here(SendError),
}

impl From<RemoteError> for FetchError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl From<SendError> for FetchError {
    fn from(error: SendError) -> Self {
        Self::Here(error)
    }
}

impl From<StoreError> for FetchError {
    fn from(error: StoreError) -> Self {
        Self::Here(error.into())
    }
}
