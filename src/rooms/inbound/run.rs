//! Runs: events of which each follows the one before it, the first of them the room's only ends, and which the state
//! they follow allows. Most of what other servers say is like that. Nothing has to be fetched or resolved for it, so a run
//! is planned on the head as the events of local users are, and is one batch.
//!
//! Whatever does not fit ends the run, and goes the long way through [`super::Taker`].

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use hearth_event::Pdu;
use hearth_schema::{EventIds, EventNid, Inbox, PendingRedactions, PendingRelations, RoomNid, Source};
use hearth_store::{Batch, Order, Owner, Pos, StoreError, View};
use ruma_common::{EventId, OwnedServerName};
use tokio::sync::oneshot;

use super::enter::MAX_TRIES;
use super::extras::intent_of;
use super::judge::by_auth_events;
use crate::SendError;
use crate::early;
use crate::gather::gather;
use crate::intake::{Mail, Rooms};
use crate::persist::{Attached, Target, move_head, persist};
use crate::plan::{Context, Need, PlanError, Planned, Planner};
use crate::query::RoomEvent;
use crate::relation::{self, Bound, Relation};
use crate::task::RoomTask;

/// Bytes of events in one batch, about.
const MAX_BYTES: usize = 1 << 20;
/// Loads before an event is planned: places of the state once, then a node for each level of the trie.
const MAX_LOADS: u32 = 24;

/// A staged event: checked, verified, and not judged yet.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub pdu: Pdu,
    pub origin: OwnedServerName,
    /// Its row in the inbox.
    pub arrival: Pos,
}

/// Events that may be a run, for the room's task.
#[derive(Debug)]
pub(crate) struct RunRequest {
    events: Vec<Arrived>,
    /// How many of them, from the first on, are in the room now.
    reply: oneshot::Sender<Result<usize, SendError>>,
}

impl Rooms {
    /// Takes the run at the beginning of `arrived`, and says how many events it has; the rest is as it was.
    pub(super) async fn take_run(&self, room: RoomNid, arrived: &[Arrived]) -> Result<usize, SendError> {
        let (reply, answer) = oneshot::channel();
        let events = arrived[..chain(arrived)].to_vec();
        self.post(room, Mail::Run(RunRequest { events, reply })).await?;
        answer.await.map_err(|_| SendError::Stopping)?
    }
}

/// How many events of `arrived`, from the first on, follow only the one before.
fn chain(arrived: &[Arrived]) -> usize {
    let Some(first) = arrived.first() else { return 0 };
    let mut bytes = first.pdu.json().len();
    let follows = |pair: &[Arrived]| {
        let [before, Arrived { pdu, .. }] = pair else { return false };
        bytes += pdu.json().len();
        bytes <= MAX_BYTES && matches!(pdu.prev_events(), [only] if only == before.pdu.event_id())
    };
    1 + arrived.windows(2).map(follows).take_while(|follows| *follows).count()
}

impl RoomTask {
    pub(crate) async fn handle_run(&mut self, request: RunRequest) {
        self.drain().await;
        let RunRequest { events, reply } = request;
        let mut result = Err(SendError::Busy);
        for _ in 0..MAX_TRIES {
            result = self.run_of(&events).await;
            if !self.is_overtaken(&result) {
                break;
            }
        }
        // Whoever asked may be gone; it is done all the same.
        drop(reply.send(result));
    }

    async fn run_of(&mut self, events: &[Arrived]) -> Result<usize, SendError> {
        let view = View::latest(&*self.rooms.store).await?;
        let before = self.with_planner(&view).await?.head.clone();
        let mut run: Vec<(Planned, Attached)> = Vec::with_capacity(events.len());
        // Of what the run itself changes nothing is known before it is stored: such an event ends it.
        let policy = self.policy(&view).await?;
        for event in events {
            let is_settled = run.last().is_none_or(|(before, _)| !policy.may_change_after(&before.pdu));
            if !is_settled || policy.lacking(&event.pdu)?.is_some() {
                break;
            }
            match self.follow(&view, &event.pdu, &run).await? {
                Some(next) => run.push(next),
                None => break,
            }
        }
        let unheard_of = self.unheard_of(&view, &events[..run.len()]).await?;
        if unheard_of < run.len() {
            // The head has moved past events that are not new.
            self.planner = None;
            return if unheard_of == 0 { Ok(0) } else { Box::pin(self.run_of(&events[..unheard_of])).await };
        }
        if !run.is_empty() {
            self.commit_run(&before, &run, events).await?;
        }
        Ok(run.len())
    }

    /// How many of `events`, from the first on, nothing here knows of or waits for.
    async fn unheard_of(&mut self, view: &View, events: &[Arrived]) -> Result<usize, StoreError> {
        let keys: Vec<_> = events.iter().map(|event| self.rooms.signer.ids.event(event.pdu.event_id())).collect();
        let by_lane: Vec<_> = keys.iter().map(|key| (self.room.lane(), *key)).collect();
        let ids = &self.rooms.signer.ids;
        let early: Vec<_> = events.iter().map(|event| early::keys_for(ids, self.room, &event.pdu)).collect();
        let numbers = view.get_many::<EventIds>(&by_lane).await?;
        let redactions = view.get_many::<PendingRedactions>(early.as_flattened()).await?;
        let both = numbers.iter().zip(redactions.chunks(early::KEYS));
        let new = both.take_while(|(number, by)| number.is_none() && by.iter().all(Option::is_none));
        let new = new.count();
        if view.page::<PendingRelations, _>(&(self.room,), Order::Ascending, 1).await?.is_empty() {
            return Ok(new);
        }
        for (i, key) in keys[..new].iter().enumerate() {
            if !view.page::<PendingRelations, _>(&(self.room, *key), Order::Ascending, 1).await?.is_empty() {
                return Ok(i);
            }
        }
        Ok(new)
    }

    /// Moves the planned head past `pdu`; `None`: it has to go the long way, and nothing has changed.
    async fn follow(
        &mut self,
        view: &View,
        pdu: &Pdu,
        run: &[(Planned, Attached)],
    ) -> Result<Option<(Planned, Attached)>, SendError> {
        // A redaction changes another event, perhaps one of the same run.
        if pdu.event_type() == "m.room.redaction" {
            return Ok(None);
        }
        let bound = match self.bind(view, pdu, run).await? {
            Bound::Drain => return Ok(None),
            bound => bound,
        };
        let inner = Arc::clone(&self.rooms);
        let nodes = |id| inner.caches.node(self.room, id);
        let context = Context { signer: &inner.signer, now: inner.clock.now(), nodes: &nodes };
        for _ in 0..MAX_LOADS {
            let future = self.planner.as_mut().ok_or_else(|| SendError::Internal("no planner".into()))?;
            match future.follow(pdu, &context) {
                Ok(None) => return Ok(None),
                Ok(Some(planned)) => {
                    let relation = match bound {
                        Bound::To(parent) => Some(parent.change(&planned)),
                        Bound::No | Bound::Drain => None,
                    };
                    if let Some(change) = &relation {
                        future.relations.apply(change);
                    }
                    return Ok(Some((planned, Attached { source: Source::Remote, relation, ..Attached::default() })));
                }
                Err(PlanError::Need(need)) => gather(view, future, need).await?,
                Err(PlanError::Refused(error)) => return Err(error),
            }
        }
        Err(SendError::Internal("the plan needs ever more".into()))
    }

    /// What `pdu` relates to.
    async fn bind(&mut self, view: &View, pdu: &Pdu, run: &[(Planned, Attached)]) -> Result<Bound, SendError> {
        let Some(target) = Relation::of(pdu) else { return Ok(Bound::No) };
        let Some(intent) = intent_of(pdu) else { return Ok(Bound::No) };
        let Some(planner) = &self.planner else { return Err(SendError::Internal("no planner".into())) };
        if run.iter().any(|(planned, _)| planned.pdu.event_id() == target.event_id) {
            // Not stored yet: the next run finds it.
            return Ok(Bound::Drain);
        }
        let (ids, caches) = (&self.rooms.signer.ids, &self.rooms.caches);
        let relations = relation::Source { view, ids, caches, room: self.room, version: self.version };
        match relations.bind(&intent, &HashMap::new(), &planner.relations).await {
            // Rules for local clients; an event of another server is there all the same.
            Err(SendError::BadRelation(_) | SendError::DuplicateAnnotation) => Ok(Bound::No),
            // Its parent is not here: that has to be remembered.
            Ok(Bound::No) => Ok(Bound::Drain),
            other => other,
        }
    }

    async fn commit_run(
        &mut self,
        before: &hearth_schema::RoomHead,
        run: &[(Planned, Attached)],
        events: &[Arrived],
    ) -> Result<(), SendError> {
        let Some(planner) = &self.planner else { return Err(SendError::Internal("no planner".into())) };
        let mut batch = Batch::new(self.room.lane());
        move_head(&mut batch, self.room, Some(before), &planner.head);
        let signer = &self.rooms.signer;
        let target = Target { room: self.room, ids: &signer.ids, server_name: &signer.server_name };
        let mut places = Vec::with_capacity(run.len());
        for ((planned, attached), event) in run.iter().zip(events) {
            places.push(persist(&mut batch, &target, planned, attached));
            batch.delete::<Inbox>(&(self.room.lane(), self.room, event.arrival));
        }
        let committed = self.rooms.store.commit(batch).await?;
        for ((planned, _), pos) in run.iter().zip(places) {
            let pos = committed.resolve(pos);
            let event = RoomEvent { source: Source::Remote, ..RoomEvent::planned(self.room, pos, planned, None) };
            self.rooms.caches.keep_event(EventNid { room: self.room, n: planned.n }, &Arc::new(event), pos);
        }
        self.trim();
        Ok(())
    }
}

impl Planner {
    /// Moves the head past an event of another server that follows all its ends and only those, stands on the state there,
    /// and is allowed by it; `None`: it is not like that, and nothing has changed.
    fn follow(&mut self, pdu: &Pdu, context: &Context<'_>) -> Result<Option<Planned>, PlanError> {
        let ends: BTreeSet<&str> = self.head.extremities.iter().map(|end| end.event_id.as_str()).collect();
        let followed: BTreeSet<&str> = pdu.prev_events().iter().map(|id| id.as_str()).collect();
        if ends != followed {
            return Ok(None);
        }
        let Ok(places) = hearth_event::auth_types_of(self.version, pdu) else { return Ok(None) };
        let own = pdu.state_key().map(|key| (pdu.event_type().to_owned(), key.to_owned()));
        let create = ("m.room.create".to_owned(), String::new());
        let missing = places.iter().chain(&own).chain([&create]).filter(|place| !self.slots.contains_key(*place));
        let missing: Vec<_> = missing.cloned().collect();
        if !missing.is_empty() {
            return Err(PlanError::Need(Need::Slots(missing)));
        }
        let selected: Vec<&Pdu> = places.iter().filter_map(|place| self.slots.get(place)?.pdu.as_ref()).collect();
        if !self.stands_on(pdu, &selected) {
            return Ok(None);
        }
        let (head_before, state_before, n) = (self.head.clone(), self.head.state, self.head.next_event);
        let state = match own {
            None => None,
            Some((_, state_key)) => Some(self.plan_state(pdu, state_key, n, context)?),
        };
        self.advance(pdu, n, state.as_ref());
        Ok(Some(Planned { head_before, pdu: pdu.clone(), n, state_before, state }))
    }

    /// Whether the auth events of `pdu` are among those that the planned state has for it, and they and that state allow it.
    fn stands_on(&self, pdu: &Pdu, selected: &[&Pdu]) -> bool {
        let by_id: HashMap<&EventId, &Pdu> = selected.iter().map(|event| (event.event_id(), *event)).collect();
        let named: Vec<Pdu> = pdu.auth_events().iter().filter_map(|id| by_id.get(&**id).copied().cloned()).collect();
        if named.len() != pdu.auth_events().len() {
            return false;
        }
        let create = self.slots.get(&("m.room.create".to_owned(), String::new())).and_then(|slot| slot.pdu.as_ref());
        // Where it names all that the state has, the state can say nothing else.
        by_auth_events(self.version, pdu, &named, create).is_ok()
            && (named.len() == selected.len() || self.judge(pdu).is_ok())
    }
}
