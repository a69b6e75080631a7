//! The task of one room: takes commands, plans ahead of the disk, answers in order.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hearth_event::{Pdu, RoomVersion};
use hearth_schema::{EventKey, EventNid, RoomHeads, RoomMeta, RoomNid, StateId, UserNid};
use hearth_store::{Batch, CommitError, Committed, Owner, Pos, StoreError, View};
use ruma_common::{OwnedEventId, OwnedRoomId, UserId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::attach;
use crate::command::{Sent, Transaction};
use crate::content;
use crate::early::{Early, Reach};
use crate::gather::{damaged, gather};
use crate::intake::{Ask, Inner, Mail, Request, Rooms, Told};
use crate::membership::{self, Wanted};
use crate::persist::{Attached, Target, move_head, persist};
use crate::plan::{Context, Intent, PlanError, Planned, Planner};
use crate::policy::{Policy, Unsigned};
use crate::query::{RoomEvent, SentBy};
use crate::{MembershipError, SendError, relation};

/// Batches of one room that may wait for the disk together.
const MAX_IN_FLIGHT: usize = 64;
/// Places of the current state kept in memory while nothing is in flight.
const MAX_SLOTS: usize = 4096;
/// How often one command is planned again because something else changed.
const MAX_TRIES: u32 = 8;
/// Loads before a plan must succeed: slots once, then a node for each level of the trie.
const MAX_LOADS: u32 = 24;
/// A task without commands ends after this time.
const IDLE: Duration = Duration::from_secs(60);

pub(crate) struct RoomTask {
    pub(crate) rooms: Arc<Inner>,
    pub(crate) room: RoomNid,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) version: RoomVersion,
    mailbox: mpsc::Receiver<Mail>,
    /// `None`: to be loaded.
    pub(crate) planner: Option<Planner>,
    in_flight: Queue,
    /// Events and transactions that are planned but perhaps not durable.
    pending_events: HashMap<OwnedEventId, u32>,
    pending_transactions: HashSet<(UserNid, Transaction)>,
}

/// What is on its way to the disk, oldest first. It gets there in this order, so only the first is waited for: a set of
/// futures would wake the task again each time that it has looked at all of them.
#[derive(Default)]
struct Queue(VecDeque<(InFlight, BoxFuture<'static, Result<Committed, CommitError>>)>);

impl Queue {
    /// Takes out the first, once it is known what has become of it; `None`: there is none.
    async fn next(&mut self) -> Option<(InFlight, Result<Committed, CommitError>)> {
        let (_, commit) = self.0.front_mut()?;
        let result = commit.await;
        self.0.pop_front().map(|(item, _)| (item, result))
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A submitted batch, with all that is needed to answer or to plan it again.
struct InFlight {
    request: Request,
    tries: u32,
    planned: Planned,
    attached: Attached,
    pos: Pos,
}

/// What became of trying to plan a request.
enum Step {
    Submit(Box<(Planned, Attached)>),
    /// It has been done before.
    Already(OwnedEventId),
    /// Something in flight decides: wait for it and look again.
    Drain,
    /// It may be sent, once the room's policy server has signed it.
    Unsigned(Pdu),
}

impl RoomTask {
    pub(crate) fn new(
        rooms: Arc<Inner>,
        room: RoomNid,
        meta: &RoomMeta,
        mailbox: mpsc::Receiver<Mail>,
    ) -> Result<Self, SendError> {
        let version = RoomVersion::parse(&meta.version)
            .ok_or_else(|| damaged("Rooms", format!("unknown room version {}", meta.version)))?;
        let room_id =
            OwnedRoomId::try_from(meta.room_id.as_str()).map_err(|error| damaged("Rooms", error.to_string()))?;
        Ok(Self {
            rooms,
            room,
            room_id,
            version,
            mailbox,
            planner: None,
            in_flight: Queue::default(),
            pending_events: HashMap::new(),
            pending_transactions: HashSet::new(),
        })
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                Some((item, result)) = self.in_flight.next() => self.settle(item, result).await,
                () = shutdown.cancelled(), if !self.mailbox.is_closed() => self.mailbox.close(),
                request = self.mailbox.recv(), if self.in_flight.len() < MAX_IN_FLIGHT => match request {
                    Some(Mail::Command(request)) => self.handle(request, 0).await,
                    Some(Mail::Inbound(request)) => self.handle_inbound(request).await,
                    Some(Mail::Run(request)) => self.handle_run(request).await,
                    None => break,
                },
                () = tokio::time::sleep(IDLE), if self.in_flight.is_empty() => self.mailbox.close(),
            }
        }
        self.drain().await;
    }

    /// Whether everything that is planned is stored.
    pub(crate) fn is_settled(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Waits until nothing is in flight.
    pub(crate) async fn drain(&mut self) {
        while let Some((item, result)) = self.in_flight.next().await {
            Box::pin(self.settle(item, result)).await;
        }
    }

    /// Answers a batch that is durable; plans again what did not happen.
    async fn settle(&mut self, item: InFlight, result: Result<Committed, CommitError>) {
        self.forget_pending(&item);
        match result {
            Ok(committed) => self.acknowledge(item, committed),
            Err(error) => {
                // Everything planned behind it stood on its head and fails too.
                let mut failed = vec![(item, error)];
                while let Some((item, result)) = self.in_flight.next().await {
                    self.forget_pending(&item);
                    match result {
                        Ok(committed) => self.acknowledge(item, committed),
                        Err(error) => failed.push((item, error)),
                    }
                }
                self.planner = None;
                for (item, error) in failed {
                    match error {
                        CommitError::Conflict(_) if item.tries < MAX_TRIES => {
                            Box::pin(self.handle(item.request, item.tries + 1)).await;
                        }
                        error => answer(item.request, Err(SendError::from(error).into())),
                    }
                }
            }
        }
        if self.in_flight.is_empty() {
            self.trim();
        }
    }

    fn forget_pending(&mut self, item: &InFlight) {
        self.pending_events.remove(item.planned.pdu.event_id());
        if let Some(transaction) = &item.attached.transaction {
            self.pending_transactions.remove(transaction);
        }
    }

    fn acknowledge(&self, item: InFlight, committed: Committed) {
        let pos = committed.resolve(item.pos);
        let event_id = item.planned.pdu.event_id().to_owned();
        let id = EventNid { room: self.room, n: item.planned.n };
        let transaction = item.attached.transaction;
        let sent_by = transaction.map(|(_, txn)| SentBy { device_id: txn.device_id, transaction_id: txn.id });
        let event = RoomEvent::planned(self.room, pos, &item.planned, sent_by);
        self.rooms.caches.keep_event(id, &Arc::new(event), pos);
        if let Some((n, _)) = item.attached.redaction {
            self.rooms.caches.forget_redacted(EventNid { room: self.room, n }, pos);
        }
        answer(item.request, Ok(Sent { event_id, pos }));
    }

    /// Nothing is in flight: what is durable need not be kept.
    pub(crate) fn trim(&mut self) {
        if let Some(planner) = &mut self.planner {
            for (id, node) in planner.fresh_nodes.drain() {
                self.rooms.caches.keep_node(self.room, id, node);
            }
            planner.relations.clear();
            if planner.slots.len() > MAX_SLOTS {
                planner.slots.clear();
            }
        }
    }

    async fn handle(&mut self, request: Request, tries: u32) {
        let mut left = MAX_TRIES;
        loop {
            match self.step(&request.ask).await {
                Ok(Step::Submit(plan)) => {
                    let (planned, attached) = *plan;
                    return self.submit(request, tries, planned, attached);
                }
                Ok(Step::Already(event_id)) => return answer(request, Ok(Sent { event_id, pos: Pos::ZERO })),
                Ok(Step::Drain) => Box::pin(self.drain()).await,
                Ok(Step::Unsigned(event)) => {
                    let Request { ask, reply } = request;
                    // As in `answer`; only that nothing is sent if nobody waits.
                    return drop(reply.send(Ok(Told::Unsigned(Box::new(Unsigned { ask, event })))));
                }
                Err(MembershipError::Send(SendError::Store(StoreError::SnapshotExpired))) if left > 0 => left -= 1,
                Err(error) => return answer(request, Err(error)),
            }
        }
    }

    async fn step(&mut self, ask: &Ask) -> Result<Step, MembershipError> {
        let view = View::latest(&*self.rooms.store).await?;
        let transaction = self.transaction_of(ask);
        if let Some(transaction) = &transaction {
            if self.pending_transactions.contains(transaction) {
                return Ok(Step::Drain);
            }
            if let Some(event_id) = attach::sent_before(&view, self.room, transaction).await? {
                return Ok(Step::Already(event_id));
            }
        }
        match self.loaded(&view, |planner, context| wanted(planner, ask, context)).await? {
            // Not durable yet: who asks again must not be told before the first is.
            Wanted::Already(event_id) if self.pending_events.contains_key(&event_id) => Ok(Step::Drain),
            Wanted::Already(event_id) => Ok(Step::Already(event_id)),
            Wanted::Refuse(error) => Err(error),
            Wanted::Event(intent) => self.step_event(&view, *intent, transaction).await,
        }
    }

    /// What `step` comes to, with everything loaded that it takes.
    async fn loaded<T>(
        &mut self,
        view: &View,
        step: impl Fn(&mut Planner, &Context<'_>) -> Result<T, PlanError>,
    ) -> Result<T, SendError> {
        let (inner, room) = (Arc::clone(&self.rooms), self.room);
        let nodes = |id| inner.caches.node(room, id);
        let context = Context { signer: &inner.signer, now: inner.clock.now(), nodes: &nodes };
        let planner = self.with_planner(view).await?;
        for _ in 0..MAX_LOADS {
            match step(planner, &context) {
                Ok(done) => return Ok(done),
                Err(PlanError::Need(need)) => gather(view, planner, need).await?,
                Err(PlanError::Refused(error)) => return Err(error),
            }
        }
        Err(SendError::Internal("the plan needs ever more".into()))
    }

    async fn step_event(
        &mut self,
        view: &View,
        intent: Intent,
        transaction: Option<(UserNid, Transaction)>,
    ) -> Result<Step, MembershipError> {
        // Judged before anything else is looked at: only who may send it learns of the events that it names.
        let draft = self.loaded(view, |planner, context| planner.draft(intent.clone(), context)).await?;
        let policy = self.policy(view).await?;
        if matches!(policy, Policy::Unsettled) {
            return Ok(Step::Drain);
        }
        let inner = Arc::clone(&self.rooms);
        let (ids, caches) = (&inner.signer.ids, &inner.caches);
        let relations = relation::Source { view, ids, caches, room: self.room, version: self.version };
        let bound = match &self.planner {
            Some(planner) => relations.bind(&intent, &self.pending_events, &planner.relations).await?,
            None => return Err(SendError::Internal("no planner".into()).into()),
        };
        let (redacted, early) = match &intent.redacts {
            None => (None, None),
            Some(_) if !self.in_flight.is_empty() => return Ok(Step::Drain),
            Some(target) => match attach::redaction_target(view, ids, self.room, self.version, target).await {
                Ok(target) => (Some(target), None),
                // Other servers may have it: whoever gets it later knows that it is redacted.
                Err(SendError::UnknownEvent) if is_shared(&inner, view, self.room).await? => {
                    (None, Some(ids.event(target)))
                }
                Err(error) => return Err(error.into()),
            },
        };
        let unbound = match &redacted {
            None => None,
            Some(target) => relations.unbind(target).await?,
        };
        if policy.lacking(draft.pdu())?.is_some() {
            if let (Some(target), Some(planner)) = (&redacted, &self.planner) {
                attach::check_redaction(planner, &intent.sender, target)?;
            }
            return Ok(if matches!(bound, relation::Bound::Drain) {
                Step::Drain
            } else {
                Step::Unsigned(draft.into_pdu())
            });
        }
        let relation = match bound {
            relation::Bound::Drain => return Ok(Step::Drain),
            relation::Bound::To(relation) => Some(relation),
            relation::Bound::No => None,
        };
        let planned = self.loaded(view, |planner, context| planner.place(&draft, context)).await?;
        let relation = relation.map(|relation| relation.change(&planned));
        let early = early.map(|target| self.early(target, planned.pdu.sender())).transpose()?;
        let mut attached = Attached { transaction, relation, early, ..Attached::default() };
        if let (Some(redacted), Some(planner)) = (redacted, &mut self.planner) {
            match attach::redaction(planner, &planned, redacted) {
                Ok(redaction) => {
                    attached.relation = unbound.filter(|_| redaction.is_some());
                    attached.redaction = redaction;
                }
                Err(error) => {
                    // The head has moved past an event that will not be sent.
                    self.planner = None;
                    return Err(error.into());
                }
            }
        }
        if let (Some(change), Some(planner)) = (&attached.relation, &mut self.planner) {
            planner.relations.apply(change);
        }
        Ok(Step::Submit(Box::new((planned, attached))))
    }

    /// The redaction of `target`, which has not come yet, that was just planned for `sender`.
    fn early(&mut self, target: EventKey, sender: &UserId) -> Result<Early, SendError> {
        let levels = match &self.planner {
            Some(planner) => attach::levels(planner),
            None => Err(SendError::Internal("no planner".into())),
        };
        if levels.is_err() {
            // The head has moved past an event that will not be sent.
            self.planner = None;
        }
        Ok(Early::new(target, sender, Reach::of(&levels?, sender)))
    }

    fn submit(&mut self, request: Request, tries: u32, planned: Planned, attached: Attached) {
        let Some(future) = &self.planner else {
            return answer(request, Err(SendError::Internal("no planner".into()).into()));
        };
        let mut batch = Batch::new(self.room.lane());
        let before = planned.head_before.clone();
        move_head(&mut batch, self.room, Some(&before), &future.head);
        let signer = &self.rooms.signer;
        let target = Target { room: self.room, ids: &signer.ids, server_name: &signer.server_name };
        let pos = persist(&mut batch, &target, &planned, &attached);
        self.pending_events.insert(planned.pdu.event_id().to_owned(), planned.n);
        if let Some(transaction) = &attached.transaction {
            self.pending_transactions.insert(transaction.clone());
        }
        let commit = self.rooms.store.commit(batch);
        let item = InFlight { request, tries, planned, attached, pos };
        self.in_flight.0.push_back((item, commit));
    }

    pub(crate) async fn load(&mut self, view: &View) -> Result<Planner, StoreError> {
        let head = view.get::<RoomHeads>(&(self.room,)).await?;
        let head = head.ok_or_else(|| damaged("RoomHeads", "a room has no head"))?;
        let mut planner = Planner::new_room(self.room, Some(self.room_id.clone()), self.version);
        planner.new_room = false;
        planner.head = head;
        debug_assert_ne!(planner.head.state, StateId::EMPTY);
        Ok(planner)
    }

    fn transaction_of(&self, ask: &Ask) -> Option<(UserNid, Transaction)> {
        match ask {
            Ask::Event(event) => event.transaction.clone().map(|txn| (self.rooms.signer.ids.user(&event.sender), txn)),
            Ask::Membership(..) => None,
        }
    }
}

/// Whether other servers are in the room.
async fn is_shared(rooms: &Arc<Inner>, view: &View, room: RoomNid) -> Result<bool, StoreError> {
    let servers = Rooms(Arc::clone(rooms)).servers(view, room).await?;
    Ok(servers.keys().any(|server| *server != rooms.signer.server_name))
}

/// What `ask` comes to on the planned state.
pub(crate) fn wanted(planner: &Planner, ask: &Ask, context: &Context<'_>) -> Result<Wanted, PlanError> {
    match ask {
        Ask::Membership(change, additions) => membership::wanted(planner, (change, additions), context),
        Ask::Event(event) => {
            if let Some(error) = content::refused(planner, event)? {
                return Ok(Wanted::Refuse(error.into()));
            }
            let intent = Intent {
                sender: event.sender.clone(),
                event_type: event.event_type.clone(),
                state_key: event.state_key.clone(),
                content: event.content.clone(),
                redacts: event.redacts.clone(),
                origin_server_ts: event.origin_server_ts,
            };
            match planner.same_state(&intent)? {
                Some(event_id) => membership::told(planner, intent, Wanted::Already(event_id), context),
                None => Ok(Wanted::Event(Box::new(intent))),
            }
        }
    }
}

/// Nobody may be waiting any more; the event is sent all the same.
fn answer(request: Request, result: Result<Sent, MembershipError>) {
    drop(request.reply.send(result.map(Told::Sent)));
}
