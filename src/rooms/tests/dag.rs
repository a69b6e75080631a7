//! Whole random rooms through the inbound pipeline, held against what the specification says of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use hearth_event::{Pdu, PublicKeys, StateMap};
use hearth_schema::{StateId, Verdict};
use hearth_store::StoreError;
use hearth_store::memory::MemoryStore;
use hearth_test_dag::{Dag, OBSERVER_SEED, Observer, Standing, public_keys, recipe, rooms, share};
use proptest::collection::vec;
use proptest::prelude::*;
use ruma_common::{EventId, OwnedEventId, OwnedUserId, RoomId, ServerName};

use super::fixture::Fixture;
use super::neighbour::raw;
use crate::RoomEvent;
use crate::graph::Graph;
use crate::remote::*;

/// A server that has all of a room and tells what it is asked, except for what it withholds.
struct Library {
    dag: Arc<Dag>,
    withheld: Mutex<HashSet<OwnedEventId>>,
    /// How often it was asked for anything but keys.
    asked: Mutex<usize>,
}

/// A server that takes the room's events.
struct Reader {
    server: Fixture,
    dag: Arc<Dag>,
    others: Arc<Library>,
}

impl Reader {
    /// A server whose user has just joined.
    async fn new(dag: &Arc<Dag>) -> Self {
        let others = Library { dag: Arc::clone(dag), withheld: Mutex::default(), asked: Mutex::default() };
        let others = Arc::new(others);
        let store = Arc::new(MemoryStore::new());
        let server = Fixture::named("hearth.test", OBSERVER_SEED, store, Arc::clone(&others) as _);
        let join = &dag.events[dag.founded];
        let of =
            |ids: &HashSet<OwnedEventId>| ids.iter().map(|id| raw(&dag.pdu(id).expect("an event"))).collect::<Vec<_>>();
        let state = JoinPart::State(of(&join.before.values().cloned().collect()));
        let answer = join_parts(vec![state, JoinPart::AuthChain(of(&dag.auth_chain(join.before.values())))]);
        server.rooms.import(via(), join.pdu.clone(), answer).await.expect("an import");
        Self { server, dag: Arc::clone(dag), others }
    }

    /// Takes the events in transactions of these sizes.
    async fn take(&self, order: &[usize], cuts: &[usize]) {
        let mut rest = order;
        for cut in cuts.iter().copied().chain(std::iter::repeat(1)) {
            if rest.is_empty() {
                return;
            }
            let (now, later) = rest.split_at(cut.clamp(1, rest.len()));
            let pdus = now.iter().map(|index| raw(&self.dag.events[*index].pdu)).collect();
            let received = self.server.rooms.receive(via(), pdus).await.expect("received");
            assert!(received.iter().all(|one| one.result.is_ok()), "{received:?}\n{}", self.dag);
            self.server.settled(self.dag.room_id()).await;
            rest = later;
        }
    }

    async fn graph(&self) -> Graph {
        let room = self.server.rooms.ids().room(self.dag.room_id());
        Graph::latest(&self.server.rooms, room, self.dag.version).await.expect("a view")
    }

    /// Everything that is stored of the room, by its place in the room.
    async fn stored(&self) -> BTreeMap<usize, Arc<RoomEvent>> {
        let ids: Vec<OwnedEventId> = self.dag.events.iter().map(|event| event.pdu.event_id().to_owned()).collect();
        let found = self.graph().await.find(&ids).await.expect("readable");
        found.into_iter().map(|(id, event)| (self.dag.position(&id).expect("an event"), event)).collect()
    }

    async fn map(&self, state: StateId) -> StateMap {
        let graph = self.graph().await;
        let numbers = self.server.rooms.state_at(&graph.view, graph.room, state).await.expect("a state");
        let events = graph.events(&numbers).await.expect("events");
        let place = |event: &RoomEvent| (event.event_type().to_owned(), event.state_key().expect("state").to_owned());
        events.iter().map(|event| (place(event), event.event_id().to_owned())).collect()
    }

    /// The ends of the room and its current state.
    async fn head(&self) -> (BTreeSet<usize>, StateMap) {
        let graph = self.graph().await;
        let head = self.server.rooms.head(&graph.view, graph.room).await.expect("a head");
        let end = |id: &str| self.dag.position(<&EventId>::try_from(id).expect("an ID")).expect("an event");
        (head.extremities.iter().map(|end_| end(&end_.event_id)).collect(), self.map(head.state).await)
    }
}

fn via() -> &'static ServerName {
    <&ServerName>::try_from("s0.test").expect("a valid name")
}

fn standing(event: &RoomEvent) -> Standing {
    match event.verdict {
        Verdict::Accepted => Standing::Accepted,
        Verdict::SoftFailed => Standing::SoftFailed,
        Verdict::Rejected => Standing::Rejected,
        Verdict::Outlier => panic!("{} is an outlier", event.event_id()),
    }
}

/// Runs a test on a runtime of its own.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// Where transactions are cut, and which events come early.
fn arrival() -> impl Strategy<Value = (Vec<u16>, Vec<usize>)> {
    (vec(any::<u16>(), 1..24), vec(1..6_usize, 0..12))
}

/// P8: what the pipeline stores event by event is what the whole room says.
async fn check_stream(dag: &Arc<Dag>, (priorities, cuts): &(Vec<u16>, Vec<usize>)) -> Result<Reader, TestCaseError> {
    let reader = Reader::new(dag).await;
    let order = dag.order(priorities);
    let order = &order[dag.founded + 1..];
    reader.take(order, cuts).await;
    let mut expected = Observer::new(dag);
    for index in order {
        expected.take(*index);
    }
    let stored = reader.stored().await;
    for (index, should_be) in &expected.taken {
        let event = stored.get(index);
        prop_assert!(event.is_some(), "{} was not taken\n{}", index, dag);
        let event = event.expect("asserted");
        let before = reader.map(event.state_before).await;
        prop_assert_eq!(&before, &dag.events[*index].before, "the state before {}\n{}", index, dag);
        prop_assert_eq!(standing(event), *should_be, "{} as {:?}\n{}", index, order, dag);
    }
    let (ends, state) = reader.head().await;
    prop_assert_eq!(ends, expected.ends(), "the ends after {:?}\n{}", order, dag);
    prop_assert_eq!(state, expected.state(), "the state after {:?}\n{}", order, dag);
    prop_assert_eq!(*reader.others.asked.lock().expect("not poisoned"), 0, "nothing was missing\n{}", dag);
    Ok(reader)
}

/// P9: two servers come to the same verdicts; and to the same state, once both have taken an event after all others.
async fn check_convergence(dag: &Arc<Dag>, arrivals: [&(Vec<u16>, Vec<usize>); 2]) -> Result<(), TestCaseError> {
    let mut readers = Vec::new();
    for (priorities, cuts) in arrivals {
        let reader = Reader::new(dag).await;
        reader.take(&dag.order(priorities)[dag.founded + 1..], cuts).await;
        readers.push(reader);
    }
    let (one, two) = (readers[0].stored().await, readers[1].stored().await);
    prop_assert_eq!(one.len(), two.len());
    for (index, event) in one.range(dag.founded + 1..) {
        let other = &two[index];
        let rejected = [event, other].map(|event| standing(event) == Standing::Rejected);
        prop_assert_eq!(rejected[0], rejected[1], "the verdict on {}\n{}", index, dag);
        let [before, theirs] = [readers[0].map(event.state_before).await, readers[1].map(other.state_before).await];
        prop_assert_eq!(before, theirs, "the state before {}\n{}", index, dag);
    }
    let last = dag.events.len() - 1;
    if dag.leaves() == [last] && [&one, &two].iter().all(|all| standing(&all[&last]) == Standing::Accepted) {
        let (heads, theirs) = (readers[0].head().await, readers[1].head().await);
        prop_assert_eq!(&heads.0, &BTreeSet::from([last]), "one end\n{}", dag);
        prop_assert_eq!(heads, theirs, "{}", dag);
    }
    Ok(())
}

/// P11: what is remembered of auth chains is what the stored events say.
async fn check_chains(reader: &Reader) -> Result<(), TestCaseError> {
    let stored = reader.stored().await;
    let graph = reader.graph().await;
    let by_id: HashMap<&EventId, &RoomEvent> = stored.values().map(|event| (event.event_id(), &**event)).collect();
    for (index, event) in &stored {
        let (mut chain, mut todo) = (HashSet::new(), vec![&**event]);
        while let Some(next) = todo.pop() {
            for edge in next.pdu.auth_events().iter().filter_map(|id| by_id.get(&**id)) {
                if chain.insert(edge.n) {
                    todo.push(edge);
                }
            }
        }
        let remembered = graph.auth_chain(vec![event.n]).await.expect("readable");
        prop_assert_eq!(remembered, chain, "what {} stands on\n{}", index, reader.dag);
    }
    Ok(())
}

/// Takes the events in any order from a server that keeps back some of them at first.
async fn check_gaps(dag: &Arc<Dag>, order: &[usize], withheld: &[u16]) -> Result<(), TestCaseError> {
    let reader = Reader::new(dag).await;
    let new = dag.events.len() - dag.founded - 1;
    if new == 0 {
        return Ok(());
    }
    let kept_back: BTreeSet<usize> = withheld.iter().map(|n| dag.founded + 1 + usize::from(*n) % new).collect();
    let ids = kept_back.iter().map(|index| dag.events[*index].pdu.event_id().to_owned());
    *reader.others.withheld.lock().expect("not poisoned") = ids.collect();
    let first: Vec<usize> = order.iter().copied().filter(|index| !kept_back.contains(index)).collect();
    let (early, late) = first.split_at(first.len() / 2);
    let mut seen = Seen::default();
    for part in [early, late] {
        take_and_check(&reader, part, &mut seen).await?;
        check_chains(&reader).await?;
    }
    reader.others.withheld.lock().expect("not poisoned").clear();
    take_and_check(&reader, &kept_back.into_iter().collect::<Vec<_>>(), &mut seen).await?;
    take_and_check(&reader, order, &mut seen).await?;
    check_chains(&reader).await
}

/// Takes the events one by one, and looks at the ends after each.
async fn take_and_check(reader: &Reader, order: &[usize], seen: &mut Seen) -> Result<(), TestCaseError> {
    for index in order {
        reader.take(&[*index], &[]).await;
        check_ends(reader, seen).await?;
    }
    Ok(())
}

/// Whether the depth of an event is another one than its parents ask for.
fn has_lies(dag: &Dag) -> bool {
    let depth = |index: usize| dag.events[index].pdu.depth();
    let lies = |index: usize| depth(index) != 1 + dag.parents(index).map(depth).max().unwrap_or(0);
    (0..dag.events.len()).any(lies)
}

/// Accepted events that an accepted event comes after, refused ones between them or not.
fn followed(dag: &Dag, stored: &BTreeMap<usize, Arc<RoomEvent>>) -> BTreeSet<usize> {
    let mut followed = BTreeSet::new();
    for (index, _) in stored.iter().filter(|(_, event)| event.verdict == Verdict::Accepted) {
        let (mut todo, mut refused) = (vec![*index], BTreeSet::new());
        while let Some(index) = todo.pop() {
            for parent in dag.parents(index) {
                match stored.get(&parent).map(|event| event.verdict) {
                    Some(Verdict::Accepted) => drop(followed.insert(parent)),
                    Some(Verdict::SoftFailed | Verdict::Rejected) if refused.insert(parent) => todo.push(parent),
                    Some(_) | None => {}
                }
            }
        }
    }
    followed
}

/// What was so of the ends before.
#[derive(Default)]
struct Seen {
    followed: BTreeSet<usize>,
    /// Ends although they are followed.
    kept: BTreeSet<usize>,
}

/// P12: the ends are the accepted events that no accepted event comes after, whatever came last; unless somebody lies
/// about depths. An end may be kept although it is followed by way of something refused, if the current state would be
/// another one without it. What is followed once stays so, even if what was rejected turns out to be good.
async fn check_ends(reader: &Reader, seen: &mut Seen) -> Result<(), TestCaseError> {
    if has_lies(&reader.dag) {
        return Ok(());
    }
    let stored = reader.stored().await;
    let accepted: BTreeSet<usize> =
        stored.iter().filter(|(_, event)| event.verdict == Verdict::Accepted).map(|(index, _)| *index).collect();
    seen.followed.append(&mut followed(&reader.dag, &stored));
    let due: BTreeSet<usize> = accepted.difference(&seen.followed).copied().collect();
    let (ends, _) = reader.head().await;
    prop_assert!(ends.is_superset(&due), "the ends are {:?} and not {:?}\n{}", ends, due, reader.dag);
    let late: BTreeSet<usize> = ends.difference(&due).copied().collect();
    let parents: BTreeSet<usize> = accepted.iter().flat_map(|index| reader.dag.parents(*index)).collect();
    prop_assert!(late.is_disjoint(&parents), "of the ends {:?} some are followed at once\n{}", ends, reader.dag);
    let graph = reader.graph().await;
    let now = reader.server.rooms.head(&graph.view, graph.room).await.expect("a head").state;
    for new in late.difference(&seen.kept) {
        let others = ends.iter().filter(|index| *index != new).map(|index| Arc::clone(&stored[index]));
        let without = graph.state_of(&others.collect::<Vec<_>>()).await.expect("a state");
        prop_assert!(without != now, "of the ends {:?}, {} is followed\n{}", ends, new, reader.dag);
    }
    seen.kept = late;
    Ok(())
}

/// Events after the founding, by priority alone: an event may come before what it refers to.
fn any_order(dag: &Dag, priorities: &[u16]) -> Vec<usize> {
    let mut order: Vec<usize> = (dag.founded + 1..dag.events.len()).collect();
    order.sort_by_key(|index| (priorities[index % priorities.len()], *index));
    order
}

proptest! {
    #![proptest_config(share(15))]

    #[test]
    fn the_state_kept_event_by_event_is_the_state_of_the_whole_room(recipe in rooms(), arrival in arrival()) {
        let dag = Arc::new(recipe.room());
        run(async { check_stream(&dag, &arrival).await.map(drop) })?;
    }

    #[test]
    fn two_servers_agree_whatever_the_order(recipe in rooms(), one in arrival(), two in arrival()) {
        let dag = Arc::new(recipe.room());
        run(check_convergence(&dag, [&one, &two]))?;
    }
}

proptest! {
    #![proptest_config(share(10))]

    #[test]
    fn auth_chains_and_ends_are_right_whatever_comes_late(
        recipe in recipe(5..30),
        priorities in vec(any::<u16>(), 1..24),
        withheld in vec(any::<u16>(), 0..6),
    ) {
        let dag = Arc::new(recipe.room());
        run(check_gaps(&dag, &any_order(&dag, &priorities), &withheld))?;
    }
}

/// The rooms that these properties were first broken by.
mod found {
    use hearth_event::RoomVersion;
    use hearth_test_dag::{Act, Clock, Flaw, Parents, Recipe, Step};

    use super::*;

    fn step(act: Act, flaw: Option<Flaw>) -> Step {
        Step { act, who: 0, on: Parents::Newest, clock: Clock::Later(1), insist: false, flaw }
    }

    fn room(steps: Vec<Step>) -> Arc<Dag> {
        let version = RoomVersion::parse("11").expect("known");
        Arc::new(Recipe { version, servers: 2, users: 3, more_creators: false, steps }.room())
    }

    #[test]
    fn a_refused_event_that_others_follow_leaves_no_end_behind() {
        // Without the membership among its auth events nobody may say anything.
        let refused = step(Act::Say, Some(Flaw::LacksAuth(2)));
        let dag = room(vec![step(Act::Say, None), refused, step(Act::Say, None)]);
        assert!(dag.events[dag.founded + 2].rejected.is_some(), "{dag}");
        run(async { check_stream(&dag, &(vec![0], Vec::new())).await.map(drop) }).expect("held");
    }

    #[test]
    fn an_auth_event_named_twice_is_not_asked_for() {
        let twice = step(Act::Say, Some(Flaw::NeedlessAuth(1)));
        let dag = room(vec![step(Act::Levels(0, 0, 0), None), twice]);
        let flawed = &dag.events[dag.founded + 2];
        assert!(flawed.rejected.as_deref().is_some_and(|why| why.starts_with("two auth events")), "{dag}");
        run(async { check_stream(&dag, &(vec![0], Vec::new())).await.map(drop) }).expect("held");
    }

    #[test]
    fn an_auth_chain_is_whole_once_what_it_lacked_has_come() {
        let dag = room(vec![step(Act::Levels(0, 0, 0), None), step(Act::Say, None), step(Act::Say, None)]);
        let order: Vec<usize> = (dag.founded + 1..dag.events.len()).collect();
        run(check_gaps(&dag, &order, &[0])).expect("held");
    }

    #[test]
    fn what_fills_a_gap_is_no_end_and_ends_what_was_before_the_gap() {
        let dag = room((0..8).map(|_| step(Act::Say, None)).collect());
        let mut order: Vec<usize> = (dag.founded + 1..dag.events.len()).collect();
        for _ in 0..order.len() {
            order.rotate_left(3);
            order.swap(0, 4);
            run(check_gaps(&dag, &order, &[])).expect("held");
        }
        order.sort_unstable_by(|one, other| other.cmp(one));
        run(check_gaps(&dag, &order, &[])).expect("held");
    }

    #[test]
    fn what_was_refused_and_comes_last_leaves_no_end_behind() {
        // Two in a row: of the first nothing is known when what follows both comes.
        let refused = || step(Act::Say, Some(Flaw::LacksAuth(2)));
        let dag = room(vec![step(Act::Say, None), refused(), refused(), step(Act::Say, None)]);
        let first = dag.founded + 1;
        assert!((1..3).all(|n| dag.events[first + n].rejected.is_some()), "{dag}");
        run(async {
            let reader = Reader::new(&dag).await;
            reader.take(&[first, first + 3], &[]).await;
            assert_eq!(reader.head().await.0, BTreeSet::from([first, first + 3]), "{dag}");
            reader.take(&[first + 1], &[]).await;
            assert_eq!(reader.head().await.0, BTreeSet::from([first + 3]), "{dag}");
        });
        run(check_gaps(&dag, &[first, first + 3, first + 1, first + 2], &[])).expect("held");
    }
}

impl Library {
    fn raw(&self, id: &EventId) -> Option<RawPdu> {
        *self.asked.lock().expect("not poisoned") += 1;
        let given = !self.withheld.lock().expect("not poisoned").contains(id);
        self.dag.pdu(id).filter(|_| given).map(|pdu| raw(&pdu))
    }

    fn raws(&self, ids: &HashSet<OwnedEventId>) -> Vec<RawPdu> {
        ids.iter().filter_map(|id| self.raw(id)).collect()
    }

    fn chain(&self, ids: &HashSet<OwnedEventId>) -> HashSet<OwnedEventId> {
        self.dag.auth_chain(ids.iter())
    }

    fn before(&self, id: &EventId) -> Option<HashSet<OwnedEventId>> {
        Some(self.dag.events[self.dag.position(id)?].before.values().cloned().collect())
    }
}

fn refused<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(no()) })
}

fn no() -> RemoteError {
    RemoteError::Refused { server: via().to_owned(), status: 404, errcode: "M_NOT_FOUND".into(), error: "no".into() }
}

fn answered<'a, T: Send + 'a>(answer: Option<T>) -> Answer<'a, T> {
    Box::pin(async { answer.ok_or_else(no) })
}

impl Remote for Library {
    fn keys<'a>(&'a self, _: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>> {
        Box::pin(async { Ok(public_keys()) })
    }
    fn make<'a>(&'a self, _: &'a ServerName, _: Handshake, _: &'a RoomId, _: &'a OwnedUserId) -> Answer<'a, Template> {
        refused()
    }
    fn send_join<'a>(&'a self, _: &'a ServerName, _: &'a Pdu) -> Answer<'a, JoinParts> {
        refused()
    }
    fn send_leave<'a>(&'a self, _: &'a ServerName, _: &'a Pdu) -> Answer<'a, ()> {
        refused()
    }
    fn send_knock<'a>(&'a self, _: &'a ServerName, _: &'a Pdu) -> Answer<'a, Vec<RawPdu>> {
        refused()
    }
    fn invite<'a>(&'a self, _: &'a ServerName, _: &'a InviteOut) -> Answer<'a, RawPdu> {
        refused()
    }
    fn event<'a>(&'a self, _: &'a ServerName, id: &'a EventId) -> Answer<'a, RawPdu> {
        answered(self.raw(id))
    }
    fn missing_events<'a>(&'a self, _: &'a ServerName, _: &'a RoomId, _: &'a MissingEvents) -> Answer<'a, Vec<RawPdu>> {
        refused()
    }
    fn state_ids<'a>(&'a self, _: &'a ServerName, _: &'a RoomId, id: &'a EventId) -> Answer<'a, StateIds> {
        answered(self.before(id).map(|state| StateIds {
            auth_chain: self.chain(&state).into_iter().collect(),
            state: state.into_iter().collect(),
        }))
    }
    fn state<'a>(&'a self, _: &'a ServerName, _: &'a RoomId, id: &'a EventId) -> Answer<'a, RemoteState> {
        answered(
            self.before(id)
                .map(|state| RemoteState { state: self.raws(&state), auth_chain: self.raws(&self.chain(&state)) }),
        )
    }
    fn event_auth<'a>(&'a self, _: &'a ServerName, _: &'a RoomId, id: &'a EventId) -> Answer<'a, Vec<RawPdu>> {
        let mut chain = self.chain(&HashSet::from([id.to_owned()]));
        chain.remove(id);
        answered(Some(self.raws(&chain)))
    }
    fn backfill<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a [OwnedEventId],
        _: usize,
    ) -> Answer<'a, Vec<RawPdu>> {
        refused()
    }
}
