//! Who is online: decided here, from what devices say and when they were last seen. Pure: the time is
//! an argument.
//!
//! A device speaks for its user while it waits in `/sync` and for [`GRACE`] after; of several the
//! most present one counts. Each change that others can see gets a version of its own, and the log has
//! one entry a user: whoever has seen a version needs what is above it, however long ago that was.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use hearth_base::Millis;
use hearth_schema::{NidMap, NidSet, PresenceRow, UserNid};
use ruma_common::{DeviceId, OwnedDeviceId, OwnedServerName, OwnedUserId, UserId};

/// How long a device counts as connected after it was last seen.
pub(super) const GRACE: Duration = Duration::from_secs(30);
/// How long after its last activity a user who says nothing else counts as idle.
pub(super) const IDLE: Duration = Duration::from_secs(5 * 60);
/// How long after its last activity a user counts as active at this moment.
pub(super) const ACTIVE: Duration = Duration::from_secs(60);
/// How long another server's word on its user counts.
pub(super) const FOREIGN_LASTS: Duration = Duration::from_secs(30 * 60);
/// Users of other servers that are remembered.
const MAX_FOREIGN: usize = 50_000;
/// Users of one other server that are remembered.
const MAX_FOREIGN_OF_ONE: usize = 10_000;
/// Devices of one user that count at the same time.
const MAX_DEVICES: usize = 16;

/// `presence`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PresenceState {
    /// Not connected, or does not want to be seen.
    Offline,
    /// Idle.
    Unavailable,
    /// Connected: what a client means that says nothing.
    #[default]
    Online,
}

impl PresenceState {
    /// The specification's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
        }
    }
}

/// A user's presence as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Whose.
    pub user: UserNid,
    /// Its ID.
    pub user_id: OwnedUserId,
    /// The state.
    pub state: PresenceState,
    /// Whether the user is doing something at this moment: then `last_active` is not followed.
    pub currently_active: bool,
    /// When the user last did something.
    pub last_active: Option<Millis>,
    /// The status message.
    pub status_msg: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Look {
    state: PresenceState,
    currently_active: bool,
}

const AWAY: Look = Look { state: PresenceState::Offline, currently_active: false };

struct Device {
    id: OwnedDeviceId,
    says: PresenceState,
    /// Polls that wait.
    polls: u32,
    seen: Millis,
}

/// What another server says of its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignPresence {
    /// The state.
    pub state: PresenceState,
    /// Whether the user is doing something at this moment.
    pub currently_active: bool,
    /// When the user last did something.
    pub last_active: Option<Millis>,
    /// The status message.
    pub status_msg: Option<Arc<str>>,
}

struct Person {
    user_id: OwnedUserId,
    /// Of another server: what it says, and when it said so.
    foreign: Option<(Look, Millis)>,
    status_msg: Option<Arc<str>>,
    last_active: Option<Millis>,
    devices: Vec<Device>,
    /// As others were told.
    shown: Look,
    version: u64,
}

impl Person {
    fn look(&self, now: Millis) -> Look {
        if let Some((look, heard)) = self.foreign {
            return if is_within(heard, FOREIGN_LASTS, now) { look } else { AWAY };
        }
        let connected = self.devices.iter().filter(|device| device.polls > 0 || is_within(device.seen, GRACE, now));
        let state = connected.map(|device| device.says).max().unwrap_or(PresenceState::Offline);
        let acted_within = |time| self.last_active.is_some_and(|at| is_within(at, time, now));
        match state {
            PresenceState::Online if !acted_within(IDLE) => {
                Look { state: PresenceState::Unavailable, currently_active: false }
            }
            _ => Look { state, currently_active: state == PresenceState::Online && acted_within(ACTIVE) },
        }
    }

    fn sight(&self, user: UserNid, look: Look) -> Sight {
        Sight {
            user,
            user_id: self.user_id.clone(),
            state: look.state,
            currently_active: look.currently_active,
            last_active: self.last_active,
            status_msg: self.status_msg.clone(),
        }
    }

    /// The device says `state`; coming online is an activity.
    fn hear(&mut self, id: &DeviceId, state: PresenceState, now: Millis) -> &mut Device {
        let known = self.devices.iter().position(|device| device.id == id);
        let at = known.unwrap_or_else(|| {
            if self.devices.len() >= MAX_DEVICES {
                self.devices.sort_by_key(|device| (device.polls > 0, device.seen));
                self.devices.remove(0);
            }
            self.devices.push(Device { id: id.to_owned(), says: PresenceState::Offline, polls: 0, seen: now });
            self.devices.len() - 1
        });
        let device = &mut self.devices[at];
        let gone = device.polls == 0 && !is_within(device.seen, GRACE, now);
        if state == PresenceState::Online && (gone || device.says != PresenceState::Online) {
            self.last_active = Some(now);
        }
        device.says = state;
        device.seen = now;
        device
    }
}

fn is_within(at: Millis, time: Duration, now: Millis) -> bool {
    now.since(at) < time
}

/// Whether others can see a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Changed,
    Same,
}

/// Everybody's presence.
pub(super) struct Book {
    people: NidMap<UserNid, Person>,
    /// Version of the newest change to the user, one entry a user.
    log: BTreeMap<u64, UserNid>,
    version: u64,
    /// Those who may look different without anybody doing anything.
    awake: NidSet<UserNid>,
    unsaved: NidSet<UserNid>,
    /// How many users of other servers are among `people`, by server.
    foreign: HashMap<OwnedServerName, usize>,
    /// All of them.
    foreign_users: usize,
}

impl Book {
    /// `version` is below all that will be given, and above all that were given before a restart.
    pub(super) fn new(version: u64) -> Self {
        Self {
            people: NidMap::default(),
            log: BTreeMap::new(),
            version,
            awake: NidSet::default(),
            unsaved: NidSet::default(),
            foreign: HashMap::new(),
            foreign_users: 0,
        }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// A client says what its user's presence is.
    pub(super) fn set(
        &mut self,
        (user, user_id, device): (UserNid, &UserId, &DeviceId),
        state: PresenceState,
        status_msg: Option<Arc<str>>,
        now: Millis,
    ) -> Outcome {
        let person = self.person(user, user_id);
        person.hear(device, state, now);
        if state == PresenceState::Online {
            person.last_active = Some(now);
        }
        let told = person.status_msg != status_msg;
        person.status_msg = status_msg;
        self.awake.insert(user);
        if told { self.announce(user, now) } else { self.look_again(user, now) }
    }

    /// A poll begins.
    pub(super) fn poll_begins(
        &mut self,
        (user, user_id, device): (UserNid, &UserId, &DeviceId),
        state: PresenceState,
        now: Millis,
    ) -> Outcome {
        self.person(user, user_id).hear(device, state, now).polls += 1;
        self.awake.insert(user);
        self.look_again(user, now)
    }

    /// A poll ends. The user may look different only after [`GRACE`].
    pub(super) fn poll_ends(&mut self, user: UserNid, device: &DeviceId, now: Millis) {
        let Some(person) = self.people.get_mut(&user) else { return };
        if let Some(device) = person.devices.iter_mut().find(|known| known.id == device) {
            device.polls = device.polls.saturating_sub(1);
            device.seen = now;
        }
    }

    /// The user has done something.
    pub(super) fn acted(&mut self, user: UserNid, now: Millis) -> Outcome {
        let Some(person) = self.people.get_mut(&user) else { return Outcome::Same };
        person.last_active = Some(now);
        self.look_again(user, now)
    }

    /// Somebody new can see the user, who has not changed.
    pub(super) fn show_again(&mut self, user: UserNid, now: Millis) -> Outcome {
        if self.people.contains_key(&user) { self.announce(user, now) } else { Outcome::Same }
    }

    /// Nothing is remembered of a local user but that others have to see it away. That is not to be stored.
    pub(super) fn forget(&mut self, user: UserNid) -> Outcome {
        let Some(person) = self.people.get_mut(&user) else { return Outcome::Same };
        person.status_msg = None;
        person.last_active = None;
        person.devices.clear();
        self.append(user, AWAY);
        self.unsaved.remove(&user);
        Outcome::Changed
    }

    /// Another server says what its user's presence is.
    pub(super) fn hear_foreign(
        &mut self,
        (user, user_id): (UserNid, &UserId),
        said: ForeignPresence,
        now: Millis,
    ) -> Outcome {
        let known = self.people.contains_key(&user);
        if !known {
            let of_server = self.foreign.get(user_id.server_name()).copied().unwrap_or(0);
            if self.foreign_users >= MAX_FOREIGN || of_server >= MAX_FOREIGN_OF_ONE {
                return Outcome::Same;
            }
            *self.foreign.entry(user_id.server_name().to_owned()).or_default() += 1;
            self.foreign_users += 1;
        }
        let person = self.person(user, user_id);
        let told = person.status_msg != said.status_msg;
        person.status_msg = said.status_msg;
        person.last_active = said.last_active;
        person.foreign = Some((Look { state: said.state, currently_active: said.currently_active }, now));
        self.awake.insert(user);
        if told { self.announce(user, now) } else { self.look_again(user, now) }
    }

    /// Nothing was heard of the user for so long that nobody remembers that it was here.
    fn forget_foreign(&mut self, user: UserNid) {
        let Some(person) = self.people.remove(&user) else { return };
        self.log.remove(&person.version);
        self.foreign_users -= 1;
        if let Some(users) = self.foreign.get_mut(person.user_id.server_name()) {
            *users -= 1;
            if *users == 0 {
                self.foreign.remove(person.user_id.server_name());
            }
        }
    }

    /// What has run out.
    pub(super) fn sweep(&mut self, now: Millis) -> Outcome {
        let mut outcome = Outcome::Same;
        let awake: Vec<UserNid> = self.awake.iter().copied().collect();
        for user in awake {
            let Some(person) = self.people.get_mut(&user) else { continue };
            person.devices.retain(|device| device.polls > 0 || is_within(device.seen, GRACE, now));
            let heard = person.foreign.map(|(_, heard)| heard);
            let asleep = person.devices.is_empty() && heard.is_none();
            if self.look_again(user, now) == Outcome::Changed {
                outcome = Outcome::Changed;
            }
            let long_ago = heard.is_some_and(|heard| !is_within(heard, 2 * FOREIGN_LASTS, now));
            if long_ago {
                self.forget_foreign(user);
            }
            if asleep || long_ago {
                self.awake.remove(&user);
            }
        }
        outcome
    }

    /// As the user looks now.
    pub(super) fn sight(&self, user: UserNid, now: Millis) -> Option<Sight> {
        self.people.get(&user).map(|person| person.sight(user, person.look(now)))
    }

    /// Changes after `version` to a state that `wanted` wants, in their order, `limit` at the most.
    pub(super) fn since(
        &self,
        version: u64,
        limit: usize,
        now: Millis,
        wanted: impl Fn(PresenceState) -> bool,
    ) -> Vec<(u64, Sight)> {
        let log = self.log.range(version.saturating_add(1)..);
        let looks = log.filter_map(|(version, user)| {
            let person = self.people.get(user)?;
            let look = person.look(now);
            wanted(look.state).then(|| (*version, person.sight(*user, look)))
        });
        looks.take(limit).collect()
    }

    /// Whoever is in the log above `version`.
    pub(super) fn users_since(&self, version: u64) -> Vec<UserNid> {
        self.log.range(version.saturating_add(1)..).map(|(_, user)| *user).collect()
    }

    /// What was stored by an earlier run; nobody is connected yet. Those who have come back since know
    /// better.
    pub(super) fn load(&mut self, user: UserNid, user_id: &OwnedUserId, row: PresenceRow) {
        let last_active = row.last_active.map(Millis);
        let person = self.person(user, user_id);
        if person.status_msg.is_none() {
            person.status_msg = row.status_msg.map(Into::into);
        }
        if person.last_active.is_none() {
            person.last_active = last_active;
        }
        let shown = person.shown;
        self.append(user, shown);
    }

    /// Up to `limit` rows to store. What cannot be stored is given back with [`Self::not_saved`].
    pub(super) fn take_unsaved(&mut self, limit: usize) -> Vec<(UserNid, PresenceRow)> {
        let users: Vec<UserNid> = self.unsaved.iter().copied().take(limit).collect();
        let mut rows = Vec::with_capacity(users.len());
        for user in users {
            self.unsaved.remove(&user);
            let Some(person) = self.people.get(&user) else { continue };
            let row = PresenceRow {
                user_id: person.user_id.to_string(),
                status_msg: person.status_msg.as_deref().map(str::to_owned),
                last_active: person.last_active.map(|at| at.0),
            };
            rows.push((user, row));
        }
        rows
    }

    pub(super) fn not_saved(&mut self, users: impl Iterator<Item = UserNid>) {
        self.unsaved.extend(users);
    }

    fn person(&mut self, user: UserNid, user_id: &UserId) -> &mut Person {
        self.people.entry(user).or_insert_with(|| Person {
            user_id: user_id.to_owned(),
            foreign: None,
            status_msg: None,
            last_active: None,
            devices: Vec::new(),
            shown: AWAY,
            version: 0,
        })
    }

    fn look_again(&mut self, user: UserNid, now: Millis) -> Outcome {
        let same = self.people.get(&user).is_none_or(|person| person.look(now) == person.shown);
        if same { Outcome::Same } else { self.announce(user, now) }
    }

    fn announce(&mut self, user: UserNid, now: Millis) -> Outcome {
        let Some(look) = self.people.get(&user).map(|person| person.look(now)) else { return Outcome::Same };
        self.append(user, look);
        if self.people.get(&user).is_some_and(|person| person.foreign.is_none()) {
            self.unsaved.insert(user);
        }
        Outcome::Changed
    }

    fn append(&mut self, user: UserNid, look: Look) {
        let Some(person) = self.people.get_mut(&user) else { return };
        self.version += 1;
        self.log.remove(&person.version);
        self.log.insert(self.version, user);
        person.version = self.version;
        person.shown = look;
    }
}
