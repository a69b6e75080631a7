//! Power levels.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use ruma_common::UserId;
use serde_json::value::RawValue;

use super::facts::{Create, Facts};
use super::plain::plain;
use super::{Rejection, Room, reject};
use crate::json::{Json, Object};
use crate::{Pdu, RoomVersion};

/// A power level. In rooms from version 12 on, the room's creators stand above every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PowerLevel {
    /// A number; what old rooms have beyond 64 bits is held at the end of the range.
    Finite(i64),
    /// Above every number.
    Infinite,
}

impl PowerLevel {
    /// The number, if it is one.
    pub fn finite(self) -> Option<i64> {
        if let Self::Finite(level) = self { Some(level) } else { None }
    }
}

/// Levels within the rules: wide enough for what old rooms hold, and for something above it.
type Level = i128;

/// The level of creators from version 12 on, where no number goes beyond 2^53.
const CREATOR: Level = Level::MAX;

/// The highest number: what is beyond it is held there, below the creators.
const HIGHEST: Level = Level::MAX - 1;

/// A level, or what is in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Absent,
    /// `null`: as if absent where a level is looked up, but not as part of a change. Only before version 10.
    Null,
    Level(Level),
    Malformed,
}

impl Entry {
    fn or(self, default: Level, name: &str) -> Result<Level, Rejection> {
        match self {
            Self::Absent | Self::Null => Ok(default),
            Self::Level(level) => Ok(level),
            Self::Malformed => not_a_number(name),
        }
    }
}

fn not_a_number<T>(name: &str) -> Result<T, Rejection> {
    reject(format!("the power level of {name} is not a number"))
}

/// The properties of `m.room.power_levels` that are one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    UsersDefault,
    EventsDefault,
    StateDefault,
    Ban,
    Redact,
    Kick,
    Invite,
}

impl Field {
    pub(super) const ALL: [Self; 7] = [
        Self::UsersDefault,
        Self::EventsDefault,
        Self::StateDefault,
        Self::Ban,
        Self::Redact,
        Self::Kick,
        Self::Invite,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::UsersDefault => "users_default",
            Self::EventsDefault => "events_default",
            Self::StateDefault => "state_default",
            Self::Ban => "ban",
            Self::Redact => "redact",
            Self::Kick => "kick",
            Self::Invite => "invite",
        }
    }

    fn default(self) -> Level {
        match self {
            Self::UsersDefault | Self::EventsDefault | Self::Invite => 0,
            Self::StateDefault | Self::Ban | Self::Redact | Self::Kick => 50,
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|field| *field == self).unwrap_or(0)
    }
}

/// The properties that are maps of levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Map {
    Users,
    Events,
    Notifications,
}

impl Map {
    pub(super) const ALL: [Self; 3] = [Self::Users, Self::Events, Self::Notifications];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Events => "events",
            Self::Notifications => "notifications",
        }
    }
}

/// The content of `m.room.power_levels`.
pub(crate) struct PowerContent {
    fields: [Entry; 7],
    maps: [BTreeMap<Box<str>, Entry>; 3],
    /// Maps that are there and no objects.
    broken: [bool; 3],
    /// What `ruma-state-res` reads instead of the content, once it was asked for.
    plain: OnceLock<Option<Box<RawValue>>>,
}

impl PowerContent {
    pub(super) fn of(content: &Object, version: RoomVersion) -> Self {
        let entry = |value: Option<&Json>| value.map_or(Entry::Absent, |value| level(value, version));
        let map = |map: Map| match content.get(map.name()) {
            Some(Json::Object(levels)) => {
                levels.iter().map(|(key, value)| (key.into(), level(value, version))).collect()
            }
            _ => BTreeMap::new(),
        };
        Self {
            fields: Field::ALL.map(|field| entry(content.get(field.name()))),
            maps: Map::ALL.map(map),
            broken: Map::ALL.map(|map| content.get(map.name()).is_some_and(|value| value.as_object().is_none())),
            plain: OnceLock::new(),
        }
    }

    /// The content as `ruma-state-res` has to see it to read the same levels; `None` if that is as it is.
    pub(crate) fn plain(&self, pdu: &Pdu) -> Option<&RawValue> {
        self.plain.get_or_init(|| plain(self, pdu)).as_deref()
    }

    pub(super) fn entry(&self, field: Field) -> Entry {
        self.fields[field.index()]
    }

    pub(super) fn map(&self, map: Map) -> &BTreeMap<Box<str>, Entry> {
        &self.maps[map as usize]
    }

    pub(super) fn is_broken(&self, map: Map) -> bool {
        self.broken[map as usize]
    }
}

/// A level. Before version 10 floats are cut to integers, and text that is an integer counts.
fn level(value: &Json, version: RoomVersion) -> Entry {
    let strict = version.rules().authorization.integer_power_levels;
    let found = match value {
        Json::Int(level) => Some(Level::from(*level)),
        _ if strict => None,
        Json::Number(text) => number(text),
        Json::Str(text) => integer(text.trim()),
        Json::Bool(flag) => Some(Level::from(*flag)),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    };
    match (found, value) {
        (Some(level), _) => Entry::Level(level),
        (None, Json::Null) if !strict => Entry::Null,
        (None, _) => Entry::Malformed,
    }
}

/// `+7`, `-007`; beyond 128 bits it is held at the end of the range.
fn integer(text: &str) -> Option<Level> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let end = if text.starts_with('-') { Level::MIN } else { HIGHEST };
    Some(text.parse().unwrap_or(end))
}

/// A number as JSON has it, cut at the point.
fn number(text: &str) -> Option<Level> {
    if let Some(integer) = integer(text) {
        return Some(integer);
    }
    let value: f64 = text.parse().ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "cutting at the point is what the rule says; the cast saturates"
    )]
    Some((value.trunc() as Level).min(HIGHEST))
}

/// The levels of a room, as the rules read them.
pub(crate) struct Levels<'a> {
    version: RoomVersion,
    create: &'a Pdu,
    content: Option<&'a PowerContent>,
}

impl<'a> Levels<'a> {
    pub(super) fn of(version: RoomVersion, create: &'a Pdu, power_levels: Option<&'a Pdu>) -> Self {
        let content = power_levels.and_then(|event| match event.facts() {
            Facts::Power(content) => Some(content.as_ref()),
            _ => None,
        });
        Self { version, create, content }
    }

    fn create(&self) -> Option<&Create> {
        if let Facts::Create(create) = self.create.facts() { Some(create) } else { None }
    }

    /// The level of `user`.
    pub(super) fn user(&self, user: &str) -> Result<Level, Rejection> {
        if self.version.rules().authorization.explicitly_privilege_room_creators && self.is_creator(user) {
            return Ok(CREATOR);
        }
        let Some(content) = self.content else {
            return Ok(if creator_of(self.version, self.create) == Some(user) { 100 } else { 0 });
        };
        if content.is_broken(Map::Users) {
            return reject("the power levels of users are not an object");
        }
        match content.map(Map::Users).get(user) {
            Some(entry) if *entry != Entry::Null => entry.or(0, user),
            _ => self.field(Field::UsersDefault),
        }
    }

    /// Whether `user` made the room or is one of its additional creators.
    fn is_creator(&self, user: &str) -> bool {
        self.create.sender() == user
            || self.create().is_some_and(|create| {
                create.additional_creators.as_ref().is_ok_and(|more| more.iter().any(|creator| creator == user))
            })
    }

    /// The level of `field`.
    pub(super) fn field(&self, field: Field) -> Result<Level, Rejection> {
        let entry = self.content.map_or(Entry::Absent, |content| content.entry(field));
        entry.or(field.default(), field.name())
    }

    /// The level needed to send an event of type `event_type`, where `default` is the field for those without a level of
    /// their own.
    pub(super) fn event(&self, event_type: &str, default: Field) -> Result<Level, Rejection> {
        let Some(content) = self.content else {
            return Ok(default.default());
        };
        if content.is_broken(Map::Events) {
            return reject("the power levels of events are not an object");
        }
        match content.map(Map::Events).get(event_type) {
            Some(entry) if *entry != Entry::Null => entry.or(0, event_type),
            _ => {
                if content.entry(default) == Entry::Null {
                    return not_a_number(default.name());
                }
                self.field(default)
            }
        }
    }
}

/// Who made the room: `creator` in its content, from version 11 on its sender.
fn creator_of(version: RoomVersion, create: &Pdu) -> Option<&str> {
    if version.rules().authorization.use_room_create_sender {
        return Some(create.sender().as_str());
    }
    match create.facts() {
        Facts::Create(facts) => facts.creator.as_deref(),
        _ => None,
    }
}

impl Room<'_> {
    pub(super) fn creator(&self) -> Option<&str> {
        creator_of(self.version, self.create)
    }
}

/// The rules for a new `m.room.power_levels` by a sender of level `own`.
pub(super) fn check_change(levels: &Levels<'_>, pdu: &Pdu, own: Level) -> Result<(), Rejection> {
    let Facts::Power(new) = pdu.facts() else { return reject("power levels have content") };
    check_shape(levels, new)?;
    let Some(old) = levels.content else { return Ok(()) };
    for field in Field::ALL {
        let (before, after) = (old.entry(field), new.entry(field));
        check_entry(field.name(), before, after, own)?;
    }
    let limits_notifications = levels.version.rules().authorization.limit_notifications_power_levels;
    for map in Map::ALL {
        if map == Map::Notifications && !limits_notifications {
            continue;
        }
        if old.is_broken(map) || new.is_broken(map) {
            return reject(format!("the power levels of {} are not an object", map.name()));
        }
        let (before, after) = (old.map(map), new.map(map));
        for key in before.keys().chain(after.keys().filter(|key| !before.contains_key(*key))) {
            let entry = |levels: &BTreeMap<_, _>| levels.get(key).copied().unwrap_or(Entry::Absent);
            let (before, after) = (entry(before), entry(after));
            let same_level = map == Map::Users
                && before != after
                && before == Entry::Level(own)
                && key.as_ref() != pdu.sender().as_str();
            if same_level {
                return reject("the sender may not change a user of the same power level");
            }
            check_entry(key, before, after, own)?;
        }
    }
    Ok(())
}

fn check_shape(levels: &Levels<'_>, new: &PowerContent) -> Result<(), Rejection> {
    let rules = &levels.version.rules().authorization;
    let is_level = |entry: &Entry| matches!(entry, Entry::Level(_));
    if rules.integer_power_levels {
        if new.fields.contains(&Entry::Malformed) {
            return reject("power levels are integers");
        }
        if Map::ALL.into_iter().any(|map| new.is_broken(map) || !new.map(map).values().all(is_level)) {
            return reject("power levels of users, events and notifications are integers");
        }
    }
    let users = new.map(Map::Users);
    if new.is_broken(Map::Users) || !users.values().all(is_level) {
        return reject("power levels of users are integers");
    }
    // The rule says "valid user ID"; rooms have entries with impossible server names, which other servers let in.
    if users.keys().any(|user| !user.starts_with('@') || !user.contains(':')) {
        return reject("power levels of users are under their user IDs");
    }
    if rules.explicitly_privilege_room_creators && users.keys().any(|user| levels.is_creator(user)) {
        return reject("the creators of the room have no other power level");
    }
    Ok(())
}

/// A level that is added, changed or removed was not, and is not, above the sender's. One that is no number is refused even if
/// it was there before: whether it changes cannot be said.
fn check_entry(name: &str, before: Entry, after: Entry, own: Level) -> Result<(), Rejection> {
    for entry in [before, after] {
        match entry {
            Entry::Malformed | Entry::Null => return not_a_number(name),
            Entry::Level(level) if level > own && before != after => {
                return reject(format!("the sender's power level is too low to change that of {name}"));
            }
            Entry::Absent | Entry::Level(_) => {}
        }
    }
    Ok(())
}

/// The power levels of a room, to be asked.
#[derive(Clone, Debug)]
pub struct PowerLevels {
    version: RoomVersion,
    create: Pdu,
    current: Option<Pdu>,
}

impl PowerLevels {
    /// Those of the room made by `create`, by its current `m.room.power_levels`.
    pub fn of(version: RoomVersion, create: &Pdu, power_levels: Option<&Pdu>) -> Self {
        Self { version, create: create.clone(), current: power_levels.cloned() }
    }

    /// The level of `user`.
    pub fn user(&self, user: &UserId) -> PowerLevel {
        self.level(|levels| levels.user(user.as_str()), 0)
    }

    /// The level needed to send an event of type `event_type` that is no state event.
    pub fn message_event(&self, event_type: &str) -> PowerLevel {
        self.level(|levels| levels.event(event_type, Field::EventsDefault), 0)
    }

    /// The level needed to send a state event of type `event_type`.
    pub fn state_event(&self, event_type: &str) -> PowerLevel {
        self.level(|levels| levels.event(event_type, Field::StateDefault), 50)
    }

    /// The level needed to invite.
    pub fn invite(&self) -> PowerLevel {
        self.level(|levels| levels.field(Field::Invite), 0)
    }

    /// The level needed to kick.
    pub fn kick(&self) -> PowerLevel {
        self.level(|levels| levels.field(Field::Kick), 50)
    }

    /// The level needed to ban.
    pub fn ban(&self) -> PowerLevel {
        self.level(|levels| levels.field(Field::Ban), 50)
    }

    /// The level needed to redact other users' events.
    pub fn redact(&self) -> PowerLevel {
        self.level(|levels| levels.field(Field::Redact), 50)
    }

    /// The level needed to notify the whole room (`notifications.room`).
    pub fn notify_room(&self) -> PowerLevel {
        self.level(
            |levels| {
                let notifications = levels.content.map(|content| content.map(Map::Notifications));
                notifications.and_then(|map| map.get("room").copied()).unwrap_or(Entry::Absent).or(50, "room")
            },
            50,
        )
    }

    /// What the rules would reject as no number is shown as the default: a query has to answer something.
    fn level(&self, read: impl FnOnce(&Levels<'_>) -> Result<Level, Rejection>, default: Level) -> PowerLevel {
        let level = read(&Levels::of(self.version, &self.create, self.current.as_ref())).unwrap_or(default);
        if level == CREATOR {
            return PowerLevel::Infinite;
        }
        PowerLevel::Finite(i64::try_from(level).unwrap_or(if level < 0 { i64::MIN } else { i64::MAX }))
    }
}
