//! `state`, `state_ids` and `event_auth`: states before events, and what they stand on.
//!
//! The state of a large room is a hundred thousand events, and whoever asks for it may ask again, and many may ask at
//! once. So what is worked out is a list of numbers, once for all who ask for the same state, and kept for a while; the
//! events themselves are loaded a page at a time while the answer is on its way.

use std::sync::Arc;

use bytes::Bytes;
use hearth_schema::{RoomNid, StateId};
use hearth_store::StoreError;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use ruma_common::{EventId, RoomId, ServerName};

use super::event::find;
use super::{ServeError, event};
use crate::graph::{Graph, has_state};
use crate::intake::Rooms;

/// Events loaded at once.
const PAGE: usize = 256;
/// Bytes of numbers kept.
const KEPT_BYTES: u64 = 8 << 20;
/// States that there is room for at first.
const EXPECTED: usize = 64;

/// States that were asked for, and those that are being worked out.
pub(crate) struct StateAnswers(Cache<(RoomNid, StateId), Arc<Answer>, Numbers>);

/// A state and its auth chains, by number.
#[derive(Debug)]
struct Answer {
    state: Vec<u32>,
    auth_chain: Vec<u32>,
}

#[derive(Clone)]
struct Numbers;

impl Weighter<(RoomNid, StateId), Arc<Answer>> for Numbers {
    fn weight(&self, _: &(RoomNid, StateId), answer: &Arc<Answer>) -> u64 {
        let numbers = answer.state.len().saturating_add(answer.auth_chain.len());
        u64::try_from(numbers).unwrap_or(u64::MAX).saturating_mul(4).saturating_add(128)
    }
}

impl Default for StateAnswers {
    fn default() -> Self {
        Self(Cache::with_weighter(EXPECTED, KEPT_BYTES, Numbers))
    }
}

/// Events of a room that are loaded as they are wanted.
#[derive(Clone)]
pub struct ServedEvents {
    rooms: Rooms,
    room: RoomNid,
    numbers: Arc<[u32]>,
    next: usize,
}

/// A state, and everything that it stands on.
#[derive(Clone)]
pub struct ServedState {
    /// The state.
    pub state: ServedEvents,
    /// Its auth chains.
    pub auth_chain: ServedEvents,
}

/// An event of an answer.
#[derive(Clone, Debug)]
pub struct ServedEvent {
    /// Its ID.
    pub event_id: Box<str>,
    /// The PDU in canonical JSON.
    pub json: Bytes,
}

impl ServedEvents {
    pub(super) fn new(graph: &Graph, numbers: impl Into<Arc<[u32]>>) -> Self {
        Self { rooms: graph.rooms.clone(), room: graph.room, numbers: numbers.into(), next: 0 }
    }

    /// The next some hundred events; nothing: that was all.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn next_page(&mut self) -> Result<Vec<ServedEvent>, StoreError> {
        let end = self.next.saturating_add(PAGE).min(self.numbers.len());
        let numbers = &self.numbers[self.next..end];
        if numbers.is_empty() {
            return Ok(Vec::new());
        }
        // A view of its own for each page: whoever reads slowly holds no old one.
        let view = self.rooms.view().await?;
        let events = self.rooms.events(&view, self.room, numbers).await?;
        self.next = end;
        let served = events.iter().map(|event| ServedEvent {
            event_id: event.event_id().as_str().into(),
            json: Bytes::clone(event.pdu.json()),
        });
        Ok(served.collect())
    }

    /// How many there are, those that were given already included.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

impl Rooms {
    /// The room's state before an event, with its auth chains.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1stateroomid>
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn state_for_server(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<ServedState, ServeError> {
        let graph = self.admit_reader(origin, room_id).await?;
        let event = find(&graph, event_id).await?.filter(|event| has_state(event));
        let event = event.ok_or(ServeError::UnknownEvent)?;
        let answer = answer(&graph, event.state_before).await?;
        Ok(ServedState {
            state: ServedEvents::new(&graph, answer.state.as_slice()),
            auth_chain: ServedEvents::new(&graph, answer.auth_chain.as_slice()),
        })
    }

    /// What an event stands on.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1event_authroomideventid>
    ///
    /// # Errors
    /// See [`ServeError`].
    pub async fn event_auth_for_server(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
    ) -> Result<ServedEvents, ServeError> {
        let graph = self.admit_reader(origin, room_id).await?;
        let event = event::find(&graph, event_id).await?.ok_or(ServeError::UnknownEvent)?;
        let chain = sorted(graph.auth_chain(vec![event.n]).await?);
        Ok(ServedEvents::new(&graph, chain))
    }
}

/// The numbers of a state and of its auth chains.
pub(super) async fn numbers(graph: &Graph, state: StateId) -> Result<(Vec<u32>, Vec<u32>), StoreError> {
    let answer = answer(graph, state).await?;
    Ok((answer.state.clone(), answer.auth_chain.clone()))
}

async fn answer(graph: &Graph, state: StateId) -> Result<Arc<Answer>, StoreError> {
    let work = async {
        let mut numbers = graph.rooms.state_at(&graph.view, graph.room, state).await?;
        numbers.sort_unstable();
        let auth_chain = sorted(graph.auth_chain(numbers.clone()).await?);
        Ok(Arc::new(Answer { state: numbers, auth_chain }))
    };
    graph.rooms.0.state_answers.0.get_or_insert_async(&(graph.room, state), work).await
}

fn sorted(numbers: impl IntoIterator<Item = u32>) -> Vec<u32> {
    let mut numbers: Vec<u32> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers
}
