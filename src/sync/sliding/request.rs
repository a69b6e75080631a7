//! What a client asks for, and how much of it it may ask for.

use std::collections::BTreeMap;

use ruma_common::OwnedRoomId;
use serde::Deserialize;

use super::SlidingError;
use super::required::{RequiredAsk, Rule};

/// Lists, and rooms subscribed to.
const MAX_RULES: usize = 100;
/// Bytes of the name of a list.
const MAX_NAME: usize = 255;
/// Bytes of the name of a connection.
const MAX_CONN_ID: usize = 16;
/// Bytes of what a client calls its request.
const MAX_TXN_ID: usize = 255;
/// Windows of one list.
const MAX_RANGES: usize = 20;
/// Elements of `required_state`, and of each list within a filter.
const MAX_ELEMENTS: usize = 500;
/// Events of a room in one answer.
const MAX_TIMELINE: u64 = 100;
/// Spaces of one filter, each of which may have many rooms.
const MAX_SPACES: usize = 20;
/// Rooms that an extension names.
const MAX_NAMED: usize = 1_000;

/// The body of a request.
///
/// See [MSC4186](https://github.com/matrix-org/matrix-spec-proposals/pull/4186).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SlidingBody {
    /// Which of the device's connections this is.
    pub conn_id: Option<String>,
    /// `pos` of the answer before; the parameter of the query with the same name goes before it.
    pub pos: Option<String>,
    /// Milliseconds, likewise.
    pub timeout: Option<u64>,
    /// What the client says of its user's presence, likewise.
    pub set_presence: Option<String>,
    /// What the client calls the request: the answer says it again.
    pub txn_id: Option<String>,
    pub(crate) lists: BTreeMap<String, ListAsk>,
    pub(crate) room_subscriptions: BTreeMap<OwnedRoomId, RoomAsk>,
    pub(crate) extensions: ExtensionsAsk,
}

/// A `SyncListConfig`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ListAsk {
    #[serde(flatten)]
    pub room: RoomAsk,
    pub ranges: Option<Vec<(u64, u64)>>,
    /// The same for one, as the proposal has it now.
    pub range: Option<(u64, u64)>,
    pub filters: Option<ListFilters>,
}

/// What members of an answer are called that the proposal has renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    Current,
    Older,
}

/// How much of a room is wanted.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RoomAsk {
    #[serde(default)]
    pub required_state: RequiredAsk,
    pub timeline_limit: u64,
}

/// A `SlidingRoomFilter`: what is not said lets all pass.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListFilters {
    pub is_dm: Option<bool>,
    pub spaces: Option<Vec<String>>,
    pub is_encrypted: Option<bool>,
    #[serde(alias = "is_invited")]
    pub is_invite: Option<bool>,
    pub room_types: Option<Vec<Option<String>>>,
    pub not_room_types: Option<Vec<Option<String>>>,
    pub tags: Option<Vec<String>>,
    pub not_tags: Option<Vec<String>>,
}

/// What is wanted besides rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ExtensionsAsk {
    pub to_device: Plain,
    pub e2ee: Plain,
    pub account_data: ByRoom,
    pub receipts: ByRoom,
    pub typing: ByRoom,
    #[serde(rename = "io.element.msc4308.thread_subscriptions")]
    pub thread_subscriptions: Plain,
}

/// An extension that is not about rooms.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Plain {
    enabled: Option<bool>,
    pub limit: Option<u64>,
}

/// An extension that is: about all that the lists and subscriptions show, unless it names them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ByRoom {
    enabled: Option<bool>,
    lists: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
}

impl Plain {
    pub(crate) fn is_on(&self) -> bool {
        self.enabled == Some(true)
    }
}

impl ByRoom {
    pub(crate) fn is_on(&self) -> bool {
        self.enabled == Some(true)
    }

    /// Whether it is about a room that is shown so.
    pub(crate) fn covers(&self, shown: &Shown<'_>) -> bool {
        let named = |names: Option<&Vec<String>>, name: &str| {
            names.is_none_or(|names| names.iter().any(|known| known == "*" || known == name))
        };
        shown.lists.iter().any(|list| named(self.lists.as_ref(), list))
            || (shown.subscribed && named(self.rooms.as_ref(), shown.room_id))
    }

    fn check(&self, name: &'static str) -> Result<(), SlidingError> {
        let lists = [&self.lists, &self.rooms];
        lists.into_iter().flatten().try_for_each(|list| within(list.len(), MAX_NAMED, name))
    }
}

/// Why a room is in an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown<'a> {
    pub room_id: &'a str,
    /// By these lists.
    pub lists: &'a [&'a str],
    /// By a subscription.
    pub subscribed: bool,
}

fn within(found: usize, limit: usize, name: &'static str) -> Result<(), SlidingError> {
    if found <= limit { Ok(()) } else { Err(SlidingError::Invalid(name)) }
}

impl SlidingBody {
    /// Refuses what is too much, or means nothing.
    pub(crate) fn check(&self) -> Result<(), SlidingError> {
        within(self.conn_id.as_ref().map_or(0, String::len), MAX_CONN_ID, "conn_id")?;
        within(self.txn_id.as_ref().map_or(0, String::len), MAX_TXN_ID, "txn_id")?;
        within(self.lists.len(), MAX_RULES, "lists")?;
        self.lists.keys().try_for_each(|name| within(name.len(), MAX_NAME, "lists"))?;
        within(self.room_subscriptions.len(), MAX_RULES, "room_subscriptions")?;
        self.room_subscriptions.values().try_for_each(RoomAsk::check)?;
        self.lists.values().try_for_each(ListAsk::check)?;
        self.extensions.account_data.check("extensions")?;
        self.extensions.receipts.check("extensions")?;
        self.extensions.typing.check("extensions")
    }

    /// Which names the client knows. Only who has read the proposal as it is now asks for state in its form.
    pub(crate) fn names(&self) -> Names {
        let mut rules = self.lists.values().map(|list| &list.room).chain(self.room_subscriptions.values());
        let is_new = rules.any(|rule| matches!(rule.required_state, RequiredAsk::Places(_)));
        if is_new { Names::Current } else { Names::Older }
    }

    /// Rooms that the lists show at the most; `None`: any number.
    pub(crate) fn reach(&self) -> Option<u64> {
        self.lists.values().try_fold(0, |most: u64, list| Some(most.max(list.last()?)))
    }
}

impl RoomAsk {
    fn check(&self) -> Result<(), SlidingError> {
        within(self.required_state.len(), MAX_ELEMENTS, "required_state")
    }

    /// Events at the most.
    pub(crate) fn limit(&self) -> usize {
        usize::try_from(self.timeline_limit.min(MAX_TIMELINE)).unwrap_or(0)
    }

    /// Which state is wanted, by the user `me`.
    pub(crate) fn rule(&self, me: &str) -> Rule {
        Rule::new(&self.required_state, me)
    }
}

impl ListAsk {
    fn check(&self) -> Result<(), SlidingError> {
        self.room.check()?;
        within(self.ranges.as_ref().map_or(0, Vec::len), MAX_RANGES, "ranges")?;
        if self.windows().any(|(first, last)| first > last) {
            return Err(SlidingError::Invalid("ranges"));
        }
        self.filters.as_ref().map_or(Ok(()), ListFilters::check)
    }

    fn windows(&self) -> impl Iterator<Item = (u64, u64)> {
        self.ranges.iter().flatten().chain(&self.range).copied()
    }

    /// How far into the list its windows go; `None`: to its end.
    fn last(&self) -> Option<u64> {
        let everything = self.ranges.is_none() && self.range.is_none();
        (!everything).then(|| self.windows().map(|(_, last)| last.saturating_add(1)).max().unwrap_or(0))
    }

    /// Whether the room at `index` of the list is wanted.
    pub(crate) fn shows(&self, index: usize) -> bool {
        let index = u64::try_from(index).unwrap_or(u64::MAX);
        let everything = self.ranges.is_none() && self.range.is_none();
        everything || self.windows().any(|(first, last)| (first..=last).contains(&index))
    }
}

impl ListFilters {
    fn check(&self) -> Result<(), SlidingError> {
        let lists = [&self.spaces, &self.tags, &self.not_tags].into_iter().flatten().map(Vec::len);
        let types = [&self.room_types, &self.not_room_types].into_iter().flatten().map(Vec::len);
        lists.chain(types).try_for_each(|found| within(found, MAX_ELEMENTS, "filters"))?;
        within(self.spaces.as_ref().map_or(0, Vec::len), MAX_SPACES, "filters")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn checked(body: Value) -> Result<(), String> {
        let body: SlidingBody = serde_json::from_value(body).map_err(|_| "json".to_owned())?;
        body.check().map_err(|error| match error {
            SlidingError::Invalid(name) => name.to_owned(),
            other => other.to_string(),
        })
    }

    fn many(count: usize, one: &Value) -> Value {
        (0..count).map(|n| (format!("!{n}:x"), one.clone())).collect::<serde_json::Map<_, _>>().into()
    }

    #[test]
    fn what_is_too_much_is_refused_by_name() {
        let list = json!({"timeline_limit": 1});
        for (body, verdict) in [
            (json!({}), Ok(())),
            (json!({"lists": many(100, &list), "room_subscriptions": many(100, &list)}), Ok(())),
            (json!({"lists": many(101, &list)}), Err("lists")),
            (json!({"lists": {"x".repeat(256): list}}), Err("lists")),
            (json!({"room_subscriptions": many(101, &list)}), Err("room_subscriptions")),
            (json!({"conn_id": "x".repeat(16)}), Ok(())),
            (json!({"conn_id": "x".repeat(17)}), Err("conn_id")),
            (json!({"lists": {"a": {"timeline_limit": 1, "ranges": [[3, 2]]}}}), Err("ranges")),
            (json!({"lists": {"a": {"timeline_limit": 1, "range": [3, 2]}}}), Err("ranges")),
            (json!({"lists": {"a": {"timeline_limit": 1, "ranges": [[-1, 2]]}}}), Err("json")),
            (json!({"lists": {"a": {"ranges": [[0, 2]]}}}), Err("json")),
            (json!({"lists": {"a": {"timeline_limit": 1, "required_state": [["m.room.name"]]}}}), Err("json")),
            (json!({"room_subscriptions": {"room": list}}), Err("json")),
            (
                json!({"lists": {"a": {"timeline_limit": 1, "required_state": vec![["a", "b"]; 501]}}}),
                Err("required_state"),
            ),
            (
                json!({"lists": {"a": {"timeline_limit": 1, "required_state": {"include": vec![json!({}); 500]}}}}),
                Ok(()),
            ),
            (
                json!({"room_subscriptions": {"!a:x": {"timeline_limit": 1, "required_state": {
                    "include": vec![json!({}); 250], "exclude": vec![json!({"type": "a"}); 251],
                }}}}),
                Err("required_state"),
            ),
            (json!({"lists": {"a": {"timeline_limit": 1, "required_state": {"include": [7]}}}}), Err("json")),
            (json!({"lists": {"a": {"timeline_limit": 1, "required_state": {"include": {}}}}}), Err("json")),
            (json!({"lists": {"a": {"timeline_limit": 1, "required_state": "all"}}}), Err("json")),
            (json!({"lists": {"a": {"timeline_limit": 1, "filters": {"tags": vec!["a"; 501]}}}}), Err("filters")),
            (json!({"extensions": {"typing": {"enabled": "yes"}}}), Err("json")),
            (json!({"extensions": {"typing": {"rooms": vec!["a"; 1_001]}}}), Err("extensions")),
        ] {
            assert_eq!(checked(body.clone()), verdict.map_err(str::to_owned), "{body}");
        }
    }

    #[test]
    fn a_list_without_ranges_shows_all() {
        let list = |value: Value| -> ListAsk { serde_json::from_value(value).expect("a list") };
        let shown = |list: &ListAsk| (0..8).filter(|index| list.shows(*index)).collect::<Vec<_>>();
        assert_eq!(shown(&list(json!({"timeline_limit": 1}))).len(), 8);
        assert_eq!(shown(&list(json!({"timeline_limit": 1, "ranges": [[0, 1], [5, 5]]}))), [0, 1, 5]);
        assert_eq!(shown(&list(json!({"timeline_limit": 1, "range": [2, 3]}))), [2, 3]);
        assert!(shown(&list(json!({"timeline_limit": 1, "ranges": []}))).is_empty());
    }

    #[test]
    fn an_extension_covers_what_it_names() {
        let ask = |value: Value| -> ByRoom { serde_json::from_value(value).expect("an extension") };
        let by = |room_id, lists, subscribed| Shown { room_id, lists, subscribed };
        let all = ask(json!({"enabled": true}));
        assert!(all.covers(&by("!a:x", &["l"], false)) && all.covers(&by("!a:x", &[], true)));
        let named = ask(json!({"enabled": true, "lists": ["l"], "rooms": ["!a:x"]}));
        assert!(named.covers(&by("!b:x", &["k", "l"], false)) && named.covers(&by("!a:x", &[], true)));
        assert!(!named.covers(&by("!b:x", &["k"], true)) && !named.covers(&by("!a:x", &["k"], false)));
        assert!(ask(json!({"lists": [], "rooms": ["*"]})).covers(&by("!b:x", &[], true)));
    }
}
