//! Filters: what a client wants to see.

use hearth_rooms::{EventFilter, LazyLoad, RelatedBy};
use ruma_common::{RoomId, UserId};
use serde::Deserialize;

use crate::fields::{EventFields, MAX_FIELDS};

/// Bytes of an inline filter.
const MAX_BYTES: usize = 64 * 1024;
/// Events of one room in one answer: when the filter says nothing, and at the most.
const LIMIT: (usize, usize) = (20, 1000);

/// Relation types, and senders, of children that a filter may ask for: each is a look-up for each event.
const MAX_RELATED_BY: usize = 20;

/// A filter, ready to be applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Events as they went over federation instead of the client format.
    pub format: EventFormat,
    /// Which parts of events in timelines and state; `None`: all.
    pub fields: Option<EventFields>,
    /// Presence.
    pub presence: EventFilter,
    /// Global account data.
    pub account_data: EventFilter,
    /// Which rooms.
    pub rooms: RoomChoice,
    /// Timelines.
    pub timeline: RoomSection,
    /// State.
    pub state: RoomSection,
    /// Typing and receipts.
    pub ephemeral: RoomSection,
    /// Account data of rooms.
    pub room_account_data: RoomSection,
    /// Rooms that the user has left are shown in a first sync.
    pub include_leave: bool,
}

/// `event_format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventFormat {
    /// As clients expect it.
    #[default]
    Client,
    /// The PDU.
    Federation,
}

/// `rooms` and `not_rooms`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomChoice {
    only: Option<Vec<String>>,
    not: Vec<String>,
}

impl RoomChoice {
    /// Whether the room is wanted.
    pub fn contains(&self, room_id: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|id| id == room_id))
            && !self.not.iter().any(|id| id == room_id)
    }
}

/// A `RoomEventFilter`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RoomSection {
    /// Events at the most; `None`: not said.
    pub limit: Option<usize>,
    /// In which rooms.
    pub rooms: RoomChoice,
    /// Which events.
    pub events: EventFilter,
    /// How much of the members.
    pub members: Members,
    /// How unread events in threads are counted.
    pub thread_counts: ThreadCounts,
}

impl RoomSection {
    /// Events at the most. Zero is no limit that the specification knows, but what it asks for is plain.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(LIMIT.0).min(LIMIT.1)
    }

    /// Whether every event passes.
    pub fn lets_all_pass(&self) -> bool {
        self.events == EventFilter { lazy_load_members: self.events.lazy_load_members, ..EventFilter::default() }
    }
}

/// Which member events belong to the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Members {
    /// All.
    #[default]
    All,
    /// Those of the senders of the timeline, unless the client has them.
    Lazy,
    /// Those of the senders of the timeline.
    LazyAndRedundant,
}

/// `unread_thread_notifications`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThreadCounts {
    /// In the counts of the room.
    #[default]
    Together,
    /// Each thread by itself; the counts of the room are those of the main timeline.
    Apart,
}

/// A filter that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is no JSON, or a member has a wrong type.
    #[error("the filter is not valid: {0}")]
    Malformed(String),
    /// It is too long.
    #[error("the filter is too long")]
    TooLong,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct RawFilter {
    event_fields: Option<Vec<String>>,
    event_format: Option<EventFormat>,
    presence: Option<RawSection>,
    account_data: Option<RawSection>,
    room: Option<RawRoom>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRoom {
    rooms: Option<Vec<String>>,
    not_rooms: Option<Vec<String>>,
    ephemeral: Option<RawSection>,
    include_leave: Option<bool>,
    state: Option<RawSection>,
    timeline: Option<RawSection>,
    account_data: Option<RawSection>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSection {
    limit: Option<u64>,
    types: Option<Vec<String>>,
    not_types: Option<Vec<String>>,
    senders: Option<Vec<String>>,
    not_senders: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
    not_rooms: Option<Vec<String>>,
    contains_url: Option<bool>,
    lazy_load_members: Option<bool>,
    include_redundant_members: Option<bool>,
    #[serde(rename = "org.matrix.msc3874.rel_types")]
    rel_types: Option<Vec<String>>,
    #[serde(rename = "org.matrix.msc3874.not_rel_types")]
    not_rel_types: Option<Vec<String>>,
    related_by_rel_types: Option<Vec<String>>,
    related_by_senders: Option<Vec<String>>,
    unread_thread_notifications: Option<bool>,
}

impl Filter {
    /// Reads a filter.
    ///
    /// See <https://spec.matrix.org/v1.19/client-server-api/#filtering>.
    ///
    /// # Errors
    /// If it is no filter.
    pub fn parse(json: &str) -> Result<Self, FilterError> {
        let raw: RawFilter = read(json)?;
        let room = raw.room.unwrap_or_default();
        // No field at all is nothing that anybody could want: it counts as not said.
        let fields = raw.event_fields.filter(|fields| !fields.is_empty());
        if fields.as_ref().is_some_and(|fields| fields.len() > MAX_FIELDS) {
            return Err(FilterError::Malformed(format!("more than {MAX_FIELDS} event fields")));
        }
        check_ids::<RoomId>([&room.rooms, &room.not_rooms])?;
        let sections =
            [&room.ephemeral, &room.state, &room.timeline, &room.account_data, &raw.account_data, &raw.presence];
        sections.into_iter().flatten().try_for_each(RawSection::check)?;
        Ok(Self {
            format: raw.event_format.unwrap_or_default(),
            fields: fields.as_deref().map(EventFields::parse),
            presence: raw.presence.unwrap_or_default().into_section().events,
            account_data: raw.account_data.unwrap_or_default().into_section().events,
            rooms: RoomChoice { only: room.rooms, not: room.not_rooms.unwrap_or_default() },
            timeline: room.timeline.unwrap_or_default().into_section(),
            state: room.state.unwrap_or_default().into_section(),
            ephemeral: room.ephemeral.unwrap_or_default().into_section(),
            room_account_data: room.account_data.unwrap_or_default().into_section(),
            include_leave: room.include_leave.unwrap_or(false),
        })
    }
}

impl RoomSection {
    /// Reads a `RoomEventFilter`, as `/messages` takes it.
    ///
    /// # Errors
    /// If it is no filter.
    pub fn parse(json: &str) -> Result<Self, FilterError> {
        let raw: RawSection = read(json)?;
        raw.check()?;
        Ok(raw.into_section())
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, FilterError> {
    if json.len() > MAX_BYTES {
        return Err(FilterError::TooLong);
    }
    // Serde also reads structs from arrays.
    if !json.trim_start().starts_with('{') {
        return Err(FilterError::Malformed("not a JSON object".to_owned()));
    }
    serde_json::from_str(json).map_err(|error| FilterError::Malformed(error.to_string()))
}

/// Refuses what can never match, because it is a mistake.
fn check_ids<T: ?Sized>(lists: [&Option<Vec<String>>; 2]) -> Result<(), FilterError>
where
    for<'a> &'a T: TryFrom<&'a str>,
{
    let mut ids = lists.into_iter().flatten().flatten();
    match ids.find(|id| <&T>::try_from(id.as_str()).is_err()) {
        None => Ok(()),
        Some(wrong) => Err(FilterError::Malformed(format!("\"{wrong}\" is no ID of the kind that belongs here"))),
    }
}

impl RawSection {
    fn check(&self) -> Result<(), FilterError> {
        check_ids::<RoomId>([&self.rooms, &self.not_rooms])?;
        check_ids::<UserId>([&self.senders, &self.not_senders])?;
        check_ids::<UserId>([&self.related_by_senders, &None])?;
        let related_by = [&self.related_by_rel_types, &self.related_by_senders];
        if related_by.into_iter().flatten().any(|list| list.len() > MAX_RELATED_BY) {
            return Err(FilterError::Malformed(format!("\"related_by_…\" may list {MAX_RELATED_BY} at the most")));
        }
        Ok(())
    }

    fn into_section(self) -> RoomSection {
        let lazy = self.lazy_load_members == Some(true);
        let members = match (lazy, self.include_redundant_members) {
            (false, _) => Members::All,
            (true, Some(true)) => Members::LazyAndRedundant,
            (true, _) => Members::Lazy,
        };
        RoomSection {
            limit: self.limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            rooms: RoomChoice { only: self.rooms, not: self.not_rooms.unwrap_or_default() },
            events: EventFilter {
                types: self.types,
                not_types: self.not_types.unwrap_or_default(),
                senders: self.senders,
                not_senders: self.not_senders.unwrap_or_default(),
                contains_url: self.contains_url,
                rel_types: self.rel_types,
                not_rel_types: self.not_rel_types.unwrap_or_default(),
                related_by: RelatedBy { rel_types: self.related_by_rel_types, senders: self.related_by_senders },
                lazy_load_members: lazy.then_some(LazyLoad),
            },
            members,
            thread_counts: match self.unread_thread_notifications {
                Some(true) => ThreadCounts::Apart,
                _ => ThreadCounts::Together,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_filter_lets_everything_pass() {
        let filter = Filter::parse("{}").expect("a filter");
        assert_eq!(filter, Filter::default());
        assert!(filter.timeline.lets_all_pass());
        assert_eq!(filter.timeline.limit(), 20);
        assert!(filter.rooms.contains("!any"));
    }

    #[test]
    fn sections_are_read() {
        let filter = Filter::parse(
            r#"{"event_format":"federation","event_fields":["type"],"unknown":1,"room":{"include_leave":true,
            "rooms":["!a","!b"],"not_rooms":["!b"],"timeline":{"limit":5,"types":["m.*"],"unread_thread_notifications":true},
            "state":{"lazy_load_members":true},"ephemeral":{"not_types":["*"]}}}"#,
        )
        .expect("a filter");
        assert_eq!(filter.format, EventFormat::Federation);
        assert_eq!(filter.fields, Some(EventFields::parse(&["type".to_owned()])));
        assert!(filter.include_leave);
        assert_eq!(["!a", "!b", "!c"].map(|id| filter.rooms.contains(id)), [true, false, false]);
        assert_eq!(filter.timeline.limit(), 5);
        assert_eq!(filter.timeline.thread_counts, ThreadCounts::Apart);
        assert!(filter.timeline.events.matches_parts("m.room.message", "@a:x"));
        assert!(!filter.timeline.events.matches_parts("org.m", "@a:x"));
        assert!(!filter.ephemeral.events.matches_parts("m.typing", ""));
        assert_eq!(filter.state.members, Members::Lazy);
        assert!(filter.state.lets_all_pass(), "lazy loading is not a choice of events");
    }

    #[test]
    fn limits_stay_in_their_range() {
        for (json, limit) in [("0", 0), ("1", 1), ("1000", 1000), ("1001", 1000), ("18446744073709551615", 1000)] {
            let section = RoomSection::parse(&format!(r#"{{"limit":{json}}}"#)).expect("a filter");
            assert_eq!(section.limit(), limit, "{json}");
        }
    }

    #[test]
    fn wrong_types_are_refused() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_BYTES));
        let many = serde_json::json!({ "event_fields": vec!["a"; MAX_FIELDS + 1] }).to_string();
        for wrong in [
            "",
            "[]",
            "7",
            "null",
            "{",
            r#"{"room":[]}x"#,
            r#"{"room":7}"#,
            r#"{"event_format":"xml"}"#,
            r#"{"event_fields":"type"}"#,
            r#"{"event_fields":[1]}"#,
            r#"{"room":{"timeline":{"limit":-1}}}"#,
            r#"{"room":{"timeline":{"limit":"10"}}}"#,
            r#"{"room":{"timeline":{"limit":1.5}}}"#,
            r#"{"room":{"timeline":{"unread_thread_notifications":"true"}}}"#,
            r#"{"room":{"timeline":{"types":"m.room.message"}}}"#,
            r#"{"room":{"state":{"lazy_load_members":"true"}}}"#,
            r#"{"room":{"rooms":{"a":1}}}"#,
            r#"{"room":{"rooms":["not_a_room_id"]}}"#,
            r#"{"room":{"timeline":{"rooms":["not_a_room_id"]}}}"#,
            r#"{"room":{"timeline":{"not_senders":["not_a_user_id"]}}}"#,
            r#"{"presence":{"senders":["not_a_user_id"]}}"#,
            &long,
            &many,
        ] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,200}") {
            drop(Filter::parse(&text));
        }
    }
}
