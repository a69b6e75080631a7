//! Connections: what each has been sent, in memory.
//!
//! An answer is known to have arrived when its `pos` comes back. So a connection has what is known to have arrived,
//! and besides what the newest answer adds to that: the same `pos` may be asked again, and gets everything that the
//! lost answer had. A `pos` before that is of no use any more, nor is one from before a restart: the client is told
//! that it is unknown, and begins anew.
//!
//! Memory is bounded: by the connections of one device, and by what all connections remember together. Those that
//! were not used for longest are let go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_schema::{RoomNid, UserNid};
use hearth_store::Pos;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::required::{RequiredState, Rule};

/// Connections of one device.
const MAX_OF_DEVICE: usize = 10;
/// Rooms and members that all connections remember together, some 100 bytes each.
const MAX_WEIGHT: usize = 2_000_000;
/// What a connection weighs by itself.
const OWN_WEIGHT: usize = 8;
/// Of which no more than this may be one connection's: beyond it, members are sent again instead of remembered.
const MAX_OF_CONNECTION: usize = MAX_WEIGHT / 8;
/// Rules that one connection remembers its rooms by. A request has 200 at the most.
const MAX_RULES: usize = 400;
/// Members remembered of one room; with more, all are sent again.
const MAX_MEMBERS: usize = 10_000;

/// What a connection has of a room.
#[derive(Clone, Debug)]
pub(crate) struct SentRoom {
    /// Everything up to here has been sent, or left out as too much.
    pub upto: Pos,
    /// As many events as this, up to `upto`.
    pub limit: usize,
    /// The state that is kept up to date there.
    pub required: RequiredState,
    /// Members that were sent because a timeline needed them.
    pub members: Arc<HashSet<Box<str>>>,
    /// Whether the room was said to be a direct chat.
    pub is_dm: bool,
    /// The counts that were sent: notifications and highlights.
    pub counts: (u64, u64),
    /// Receipts up to here; `None`: none yet.
    pub receipts: Option<Pos>,
    /// The version of typing.
    pub typing: u64,
    /// Whether account data is kept up to date there.
    pub account_data: bool,
}

impl SentRoom {
    /// The members, and those who were sent now.
    pub(crate) fn members_with<'u>(&self, users: impl Iterator<Item = &'u str>) -> Arc<HashSet<Box<str>>> {
        let new: Vec<&str> = users.filter(|user| !self.members.contains(*user)).collect();
        if new.is_empty() {
            return Arc::clone(&self.members);
        }
        let mut members =
            if self.members.len() + new.len() > MAX_MEMBERS { HashSet::new() } else { HashSet::clone(&self.members) };
        members.extend(new.into_iter().map(Box::from));
        Arc::new(members)
    }

    fn weight(&self) -> usize {
        1 + self.members.len() + self.required.rules().len() / 8
    }
}

/// What a connection has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Where the answer ended.
    pub until: Pos,
    /// Of rooms.
    pub rooms: HashMap<RoomNid, SentRoom>,
    /// What requests have asked for: the rooms share it, however often it is asked again.
    pub rules: HashSet<Arc<Rule>>,
    /// Account data up to here; `None`: none yet.
    pub account_data: Option<Pos>,
    /// Decisions about threads, likewise.
    pub threads: Option<Pos>,
}

/// What an answer adds to that.
#[derive(Debug, Default)]
pub(crate) struct Added {
    pub until: Pos,
    pub rooms: HashMap<RoomNid, SentRoom>,
    /// Those that the connection does not have yet.
    pub rules: Vec<Arc<Rule>>,
    pub account_data: Option<Pos>,
    pub threads: Option<Pos>,
}

/// Which connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionKey {
    pub user: UserNid,
    pub device: String,
    /// `""`: the client has not named it.
    pub conn_id: String,
}

/// A request of a connection, which is its newest until another begins.
pub(crate) struct Turn {
    key: ConnectionKey,
    number: u64,
    /// What has arrived.
    pub sent: Arc<Sent>,
    newer: watch::Receiver<u64>,
}

impl Turn {
    /// Waits until another request of the connection begins, or the connection is let go.
    pub(crate) async fn superseded(&mut self) {
        let number = self.number;
        // An error is the end of the connection.
        let _ = self.newer.wait_for(|newest| *newest != number).await;
    }
}

struct Connection {
    /// The `pos` that has arrived; `None`: none was sent.
    arrived: Option<u64>,
    sent: Arc<Sent>,
    /// The newest answer: its `pos`, and what it adds.
    newest: Option<(u64, Added)>,
    turns: watch::Sender<u64>,
    /// Of all that is remembered, and of the newest answer alone.
    weight: usize,
    newest_weight: usize,
    used: u64,
}

/// All connections.
pub(crate) struct Connections(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    all: HashMap<ConnectionKey, Connection>,
    /// The names of each device's connections.
    names: HashMap<(UserNid, String), Vec<String>>,
    weight: usize,
    /// Counts requests and answers.
    next: u64,
}

impl Connections {
    /// `first` is larger than every number that was given out before the last restart.
    pub(crate) fn new(first: u64) -> Self {
        Self(Mutex::new(Inner { next: first, ..Inner::default() }))
    }

    /// Rules that all connections remember.
    #[cfg(test)]
    pub(crate) fn rules(&self) -> usize {
        self.0.lock().all.values().map(|connection| connection.sent.rules.len()).sum()
    }

    /// A number for an answer, larger than all before.
    pub(crate) fn number(&self) -> u64 {
        self.0.lock().number()
    }

    /// A request begins: after the answer `pos`, or from nothing. `None`: that is no `pos` to go on from.
    pub(crate) fn begin(&self, key: ConnectionKey, pos: Option<u64>) -> Option<Turn> {
        let mut inner = self.0.lock();
        let number = inner.number();
        match pos {
            None => inner.open(&key, number),
            Some(pos) => inner.go_on(&key, pos)?,
        }
        let connection = inner.all.get_mut(&key)?;
        connection.used = number;
        connection.turns.send_replace(number);
        Some(Turn { sent: Arc::clone(&connection.sent), newer: connection.turns.subscribe(), key, number })
    }

    /// The request is answered; `false`: another one has begun, and the answer is of no use.
    pub(crate) fn finish(&self, turn: &Turn, (pos, mut added): (u64, Added)) -> bool {
        let mut inner = self.0.lock();
        let inner = &mut *inner;
        let Some(connection) = inner.all.get_mut(&turn.key) else { return false };
        if *connection.turns.borrow() != turn.number {
            return false;
        }
        if connection.weight.saturating_add(added.weight()) > MAX_OF_CONNECTION {
            added.rooms.values_mut().for_each(|room| room.members = Arc::default());
        }
        let weight = added.weight();
        connection.newest = Some((pos, added));
        let lost = std::mem::replace(&mut connection.newest_weight, weight);
        connection.weight = connection.weight + weight - lost;
        inner.weight = inner.weight + weight - lost;
        inner.make_room(&turn.key);
        true
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn open(&mut self, key: &ConnectionKey, used: u64) {
        self.remove(key);
        self.make_place(key);
        self.names.entry((key.user, key.device.clone())).or_default().push(key.conn_id.clone());
        let connection = Connection {
            arrived: None,
            sent: Arc::default(),
            newest: None,
            turns: watch::Sender::new(0),
            weight: OWN_WEIGHT,
            newest_weight: 0,
            used,
        };
        self.weight += OWN_WEIGHT;
        self.all.insert(key.clone(), connection);
        self.make_room(key);
    }

    /// Lets go of the device's connections that were not used for longest, so that there is a place for another.
    fn make_place(&mut self, key: &ConnectionKey) {
        let Some(names) = self.names.get(&(key.user, key.device.clone())) else { return };
        let keys = names.iter().map(|conn_id| ConnectionKey { conn_id: conn_id.clone(), ..key.clone() });
        let mut keys: Vec<_> = keys.map(|key| (self.all.get(&key).map_or(0, |known| known.used), key)).collect();
        keys.sort_unstable_by_key(|(used, _)| *used);
        let surplus = (keys.len() + 1).saturating_sub(MAX_OF_DEVICE);
        for (_, key) in keys.into_iter().take(surplus) {
            self.remove(&key);
        }
    }

    fn go_on(&mut self, key: &ConnectionKey, pos: u64) -> Option<()> {
        let connection = self.all.get_mut(key)?;
        if connection.sent.rules.len() > MAX_RULES {
            // No client has use for so many: it begins anew.
            self.remove(key);
            return None;
        }
        let is_newest = connection.newest.as_ref().is_some_and(|(newest, _)| *newest == pos);
        if !is_newest && connection.arrived != Some(pos) {
            return None;
        }
        let (mut gained, mut lost) = (0, std::mem::take(&mut connection.newest_weight));
        // Unless it is this one the newest answer was lost; what it had comes again.
        if let Some((_, added)) = connection.newest.take().filter(|_| is_newest) {
            let (new, old) = Arc::make_mut(&mut connection.sent).add(added);
            (gained, lost) = (gained + new, lost + old);
            connection.arrived = Some(pos);
        }
        connection.weight = connection.weight + gained - lost;
        self.weight = self.weight + gained - lost;
        Some(())
    }

    fn remove(&mut self, key: &ConnectionKey) {
        if let Some(connection) = self.all.remove(key) {
            self.weight = self.weight.saturating_sub(connection.weight);
        }
        let device = (key.user, key.device.clone());
        if let Some(names) = self.names.get_mut(&device) {
            names.retain(|conn_id| *conn_id != key.conn_id);
            if names.is_empty() {
                self.names.remove(&device);
            }
        }
    }

    /// Lets go of those that were not used for longest, but never of `key`.
    fn make_room(&mut self, key: &ConnectionKey) {
        if self.weight <= MAX_WEIGHT {
            return;
        }
        let mut others: Vec<_> = self.all.iter().filter(|(known, _)| *known != key).collect();
        others.sort_unstable_by_key(|(_, connection)| connection.used);
        let mut spare = self.weight - MAX_WEIGHT / 16 * 15;
        let mut gone = Vec::new();
        for (known, connection) in others {
            if spare == 0 {
                break;
            }
            spare = spare.saturating_sub(connection.weight);
            gone.push(known.clone());
        }
        for known in gone {
            self.remove(&known);
        }
    }
}

impl Added {
    fn weight(&self) -> usize {
        let rooms: usize = self.rooms.values().map(SentRoom::weight).sum();
        rooms + self.rules.iter().map(|rule| rule.weight()).sum::<usize>()
    }
}

impl Sent {
    /// Takes in what has arrived, and gives the weight of what is new and of what that replaces.
    fn add(&mut self, added: Added) -> (usize, usize) {
        self.until = added.until;
        self.account_data = added.account_data;
        self.threads = added.threads;
        let (mut gained, mut lost) = (0, 0);
        for (room, sent) in added.rooms {
            gained += sent.weight();
            lost += self.rooms.insert(room, sent).map_or(0, |before| before.weight());
        }
        for rule in added.rules {
            let weight = rule.weight();
            gained += if self.rules.insert(rule) { weight } else { 0 };
        }
        (gained, lost + self.forget_rules())
    }

    /// Lets go of rules that no room is remembered by, once there are many; gives their weight.
    fn forget_rules(&mut self) -> usize {
        if self.rules.len() <= MAX_RULES / 2 {
            return 0;
        }
        let used: HashSet<*const Rule> =
            self.rooms.values().flat_map(|room| room.required.rules()).map(Arc::as_ptr).collect();
        let gone = self.rules.extract_if(|rule| !used.contains(&Arc::as_ptr(rule)));
        gone.map(|rule| rule.weight()).sum()
    }
}

#[cfg(test)]
mod tests {
    use hearth_schema::Ids;
    use ruma_common::{RoomId, UserId};

    use super::*;

    fn key(conn_id: &str) -> ConnectionKey {
        let user = Ids::new([0; 32]).user(<&UserId>::try_from("@a:x").expect("a user ID"));
        ConnectionKey { user, device: "D".to_owned(), conn_id: conn_id.to_owned() }
    }

    fn room(n: usize) -> RoomNid {
        Ids::new([0; 32]).room(<&RoomId>::try_from(format!("!{n}:x").as_str()).expect("a room ID"))
    }

    fn sent_room(members: usize) -> SentRoom {
        SentRoom {
            upto: Pos::new(1),
            limit: 1,
            required: RequiredState::default(),
            members: Arc::new((0..members).map(|n| format!("@{n}:x").into()).collect()),
            is_dm: false,
            counts: (0, 0),
            receipts: None,
            typing: 0,
            account_data: false,
        }
    }

    /// An answer with these rooms.
    fn answer(connections: &Connections, turn: &Turn, rooms: impl Iterator<Item = usize>) -> u64 {
        let pos = connections.number();
        let rooms = rooms.map(|n| (room(n), sent_room(0))).collect();
        assert!(connections.finish(turn, (pos, Added { rooms, ..Added::default() })));
        pos
    }

    fn rooms(turn: &Turn) -> usize {
        turn.sent.rooms.len()
    }

    #[test]
    fn what_did_not_arrive_comes_again() {
        let connections = Connections::new(7);
        let turn = connections.begin(key(""), None).expect("anew");
        let first = answer(&connections, &turn, 0..2);
        let turn = connections.begin(key(""), Some(first)).expect("the newest");
        assert_eq!(rooms(&turn), 2);
        let lost = answer(&connections, &turn, 2..5);
        let turn = connections.begin(key(""), Some(first)).expect("the same again");
        assert_eq!(rooms(&turn), 2);
        assert!(connections.begin(key(""), Some(lost)).is_none(), "taken back");
        let second = answer(&connections, &connections.begin(key(""), Some(first)).expect("again"), 2..3);
        assert_eq!(rooms(&connections.begin(key(""), Some(second)).expect("the newest")), 3);
        assert!(connections.begin(key(""), Some(first)).is_none(), "an old one");
        assert_eq!(rooms(&connections.begin(key(""), Some(second)).expect("an error changes nothing")), 3);
    }

    #[test]
    fn a_pos_is_good_for_its_own_connection_only() {
        let connections = Connections::new(7);
        let pos = answer(&connections, &connections.begin(key("a"), None).expect("anew"), 0..1);
        answer(&connections, &connections.begin(key("b"), None).expect("anew"), 0..1);
        assert!(connections.begin(key("b"), Some(pos)).is_none());
        let elsewhere = ConnectionKey { device: "E".to_owned(), ..key("a") };
        assert!(connections.begin(elsewhere, Some(pos)).is_none());
        connections.begin(key("a"), Some(pos)).expect("its own");
        connections.begin(key("a"), None).expect("anew");
        assert!(connections.begin(key("a"), Some(pos)).is_none(), "begun anew");
    }

    #[tokio::test]
    async fn the_newest_request_ends_the_one_before() {
        let connections = Connections::new(7);
        let mut old = connections.begin(key(""), None).expect("anew");
        let pos = answer(&connections, &old, 0..1);
        let new = connections.begin(key(""), Some(pos)).expect("the newest");
        old.superseded().await;
        assert!(!connections.finish(&old, (connections.number(), Added::default())));
        answer(&connections, &new, 0..1);
    }

    #[test]
    fn a_device_has_a_bounded_number_of_connections() {
        let connections = Connections::new(7);
        let mut first: Option<u64> = None;
        for n in 0..=MAX_OF_DEVICE {
            let turn = connections.begin(key(&n.to_string()), None).expect("anew");
            first.get_or_insert(answer(&connections, &turn, 0..1));
        }
        let inner = connections.0.lock();
        assert_eq!((inner.all.len(), inner.names.values().map(Vec::len).sum()), (MAX_OF_DEVICE, MAX_OF_DEVICE));
        drop(inner);
        assert!(connections.begin(key("0"), first).is_none(), "let go");
    }

    #[test]
    fn memory_is_bounded() {
        let connections = Connections::new(7);
        let heavy = || (0..240).map(|n| (room(n), sent_room(1_000))).collect::<HashMap<_, _>>();
        for n in 0..MAX_OF_DEVICE {
            let turn = connections.begin(key(&n.to_string()), None).expect("anew");
            let pos = connections.number();
            assert!(connections.finish(&turn, (pos, Added { rooms: heavy(), ..Added::default() })));
            connections.begin(key(&n.to_string()), Some(pos)).expect("the newest");
            let inner = connections.0.lock();
            assert!(inner.weight <= MAX_WEIGHT);
            assert_eq!(inner.weight, inner.all.values().map(|connection| connection.weight).sum::<usize>());
        }
        assert!(connections.0.lock().all.len() < MAX_OF_DEVICE);
        let turn = connections.begin(key("0"), None).expect("anew");
        let rooms = (0..300).map(|n| (room(n), sent_room(1_000))).collect();
        let pos = connections.number();
        assert!(connections.finish(&turn, (pos, Added { rooms, ..Added::default() })));
        let turn = connections.begin(key("0"), Some(pos)).expect("the newest");
        assert!(turn.sent.rooms.values().all(|room| room.members.is_empty()), "too many for one");
        assert_eq!(turn.sent.rooms.len(), 300);
        let members = sent_room(MAX_MEMBERS).members_with(["@new:x"].into_iter());
        assert_eq!(members.len(), 1);
    }
}
