//! `required_state`: which state of a room a client wants.
//!
//! A room that matches several rules keeps them apart, because what one rule leaves out another may want. Rules are
//! shared by all rooms that match them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::member::MEMBER;

const ANY: &str = "*";
const ME: &str = "$ME";
const LAZY: &str = "$LAZY";
/// Bytes of a rule's names that weigh as much as a room that is remembered.
const BYTES_OF_WEIGHT: usize = 100;

/// A `RequiredStateRequest`, in either form.
#[derive(Clone, Debug)]
pub(crate) enum RequiredAsk {
    /// Types and state keys, either of which may be `*`; `$ME` is the reader, `$LAZY` the members that a timeline needs.
    /// The form of what clients speak since before the proposal was changed.
    Pairs(Vec<(String, String)>),
    /// The form that the proposal has now.
    Places(PlacesAsk),
}

/// What is wanted, and what of that is not.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PlacesAsk {
    include: Vec<PlaceAsk>,
    exclude: Vec<PlaceAsk>,
    lazy_members: bool,
}

/// A `RequiredStateElement`: what is not said may be anything.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PlaceAsk {
    #[serde(rename = "type")]
    kind: Option<String>,
    state_key: Option<String>,
}

impl Default for RequiredAsk {
    fn default() -> Self {
        Self::Pairs(Vec::new())
    }
}

impl RequiredAsk {
    /// How many places it names.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Pairs(pairs) => pairs.len(),
            Self::Places(places) => places.include.len() + places.exclude.len(),
        }
    }
}

impl<'de> Deserialize<'de> for RequiredAsk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Forms)
    }
}

struct Forms;

impl<'de> Visitor<'de> for Forms {
    type Value = RequiredAsk;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of pairs, or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<RequiredAsk, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(RequiredAsk::Pairs)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RequiredAsk, A::Error> {
        PlacesAsk::deserialize(MapAccessDeserializer::new(map)).map(RequiredAsk::Places)
    }
}

/// State keys of one type, or of any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Keys {
    all: bool,
    named: BTreeSet<String>,
}

/// Places of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Places {
    of_any_type: Keys,
    by_type: BTreeMap<String, Keys>,
}

impl Places {
    /// `None`: any.
    fn add(&mut self, kind: Option<&str>, key: Option<&str>) {
        let keys = match kind {
            None => &mut self.of_any_type,
            Some(kind) => self.by_type.entry(kind.to_owned()).or_default(),
        };
        match key {
            None => keys.all = true,
            Some(key) => drop(keys.named.insert(key.to_owned())),
        }
    }

    /// What is said of a type, and of all.
    fn about(&self, kind: &str) -> impl Iterator<Item = &Keys> + use<'_> {
        self.by_type.get(kind).into_iter().chain([&self.of_any_type])
    }

    fn names(&self, kind: &str, key: &str) -> bool {
        self.about(kind).any(|keys| keys.named.contains(key))
    }

    fn has_all(&self, kind: &str) -> bool {
        self.about(kind).any(|keys| keys.all)
    }

    fn has(&self, kind: &str, key: &str) -> bool {
        self.has_all(kind) || self.names(kind, key)
    }

    /// Whether each of these places is said by one of `others` in the same words.
    fn are_within(&self, others: &[&Self]) -> bool {
        let within = |keys: &Keys, others: &[&Keys]| {
            (!keys.all || others.iter().any(|other| other.all))
                && keys.named.iter().all(|key| others.iter().any(|other| other.named.contains(key)))
        };
        let of_any_type: Vec<&Keys> = others.iter().map(|other| &other.of_any_type).collect();
        within(&self.of_any_type, &of_any_type)
            && self.by_type.iter().all(|(kind, keys)| {
                let of_type: Vec<&Keys> = others.iter().filter_map(|other| other.by_type.get(kind)).collect();
                within(keys, &of_type)
            })
    }

    /// Bytes of all names, and a bit for each.
    fn size(&self) -> usize {
        let of = |keys: &Keys| keys.named.iter().map(|key| key.len() + BYTES_OF_WEIGHT).sum::<usize>();
        let by_type = self.by_type.iter().map(|(kind, keys)| kind.len() + BYTES_OF_WEIGHT + of(keys));
        of(&self.of_any_type) + by_type.sum::<usize>()
    }
}

fn unless_any(name: &str) -> Option<&str> {
    (name != ANY).then_some(name)
}

/// Which state one rule wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rule {
    include: Places,
    exclude: Places,
    /// The members that a timeline needs, instead of all where all keys are wanted.
    lazy: bool,
}

impl Rule {
    /// `me` is the reader.
    pub(crate) fn new(ask: &RequiredAsk, me: &str) -> Self {
        let mut rule = Self::default();
        match ask {
            RequiredAsk::Pairs(pairs) => {
                for (kind, key) in pairs {
                    if kind == MEMBER && key == LAZY {
                        rule.lazy = true;
                        continue;
                    }
                    let key = if key == ME { me } else { key.as_str() };
                    rule.include.add(unless_any(kind), unless_any(key));
                }
            }
            RequiredAsk::Places(places) => {
                rule.lazy = places.lazy_members;
                for (asked, said) in [(&places.include, &mut rule.include), (&places.exclude, &mut rule.exclude)] {
                    for place in asked {
                        said.add(place.kind.as_deref(), place.state_key.as_deref());
                    }
                }
            }
        }
        rule
    }

    fn matches(&self, kind: &str, key: &str) -> bool {
        let is_lazy = self.lazy && kind == MEMBER;
        (self.include.names(kind, key) || (!is_lazy && self.include.has_all(kind))) && !self.exclude.has(kind, key)
    }

    /// Whether it wants all members, but for some by name.
    fn has_all_members(&self) -> bool {
        !self.lazy && self.include.has_all(MEMBER) && !self.exclude.has_all(MEMBER)
    }

    /// Whether it wants every single member.
    fn has_every_member(&self) -> bool {
        self.has_all_members() && self.exclude.about(MEMBER).all(|keys| keys.named.is_empty())
    }

    /// What it costs to remember, as a number of rooms.
    pub(crate) fn weight(&self) -> usize {
        1 + (self.include.size() + self.exclude.size()) / BYTES_OF_WEIGHT
    }
}

/// Which state of a room is wanted: what any of the rules wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequiredState {
    rules: Vec<Arc<Rule>>,
}

impl RequiredState {
    /// Wants besides what `rule` does. Rules that are equal are the same one for all rooms of a connection.
    pub(crate) fn add(&mut self, rule: &Arc<Rule>) {
        if !self.rules.iter().any(|known| Arc::ptr_eq(known, rule)) {
            self.rules.push(Arc::clone(rule));
        }
    }

    pub(crate) fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Whether the members that a timeline needs are wanted.
    pub(crate) fn is_lazy(&self) -> bool {
        self.rules.iter().any(|rule| rule.lazy) && !self.rules.iter().any(|rule| rule.has_every_member())
    }

    /// Whether all members are wanted, but perhaps some.
    pub(crate) fn has_all_members(&self) -> bool {
        self.rules.iter().any(|rule| rule.has_all_members())
    }

    /// Whether this may want anything that `known` does not.
    pub(crate) fn exceeds(&self, known: &Self) -> bool {
        !self.rules.iter().all(|rule| known.covers(rule))
    }

    fn covers(&self, rule: &Arc<Rule>) -> bool {
        if self.rules.iter().any(|known| Arc::ptr_eq(known, rule) || known == rule) {
            return true;
        }
        let wider: Vec<&Arc<Rule>> =
            self.rules.iter().filter(|known| known.exclude.are_within(&[&rule.exclude])).collect();
        let included: Vec<&Places> = wider.iter().map(|known| &known.include).collect();
        let has_members = !rule.has_all_members() || wider.iter().any(|known| known.has_all_members());
        has_members && rule.include.are_within(&included)
    }

    /// Users whose member events are wanted by name.
    pub(crate) fn members(&self) -> impl Iterator<Item = &str> {
        let named = self.rules.iter().flat_map(|rule| rule.include.about(MEMBER)).flat_map(|keys| &keys.named);
        named.map(String::as_str).filter(|key| key.starts_with('@'))
    }

    /// Whether the entry of the state is wanted, apart from what a timeline needs.
    pub(crate) fn matches(&self, kind: &str, key: &str) -> bool {
        self.rules.iter().any(|rule| rule.matches(kind, key))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ANN: &str = "@ann:x";
    const BOB: &str = "@bob:x";

    fn required(asks: &[Value]) -> RequiredState {
        let mut required = RequiredState::default();
        for ask in asks {
            let ask: RequiredAsk = serde_json::from_value(ask.clone()).expect("a form");
            required.add(&Arc::new(Rule::new(&ask, ANN)));
        }
        required
    }

    fn one(ask: Value) -> RequiredState {
        required(&[ask])
    }

    #[test]
    fn wildcards_mean_all_but_lazy_members() {
        let name = one(json!([["m.room.name", ""]]));
        assert!(name.matches("m.room.name", ""));
        assert!(!name.matches("m.room.name", "x") && !name.matches("m.room.topic", ""));
        for all in [json!([["*", "*"]]), json!({"include": [{}]})] {
            let all = one(all);
            assert!(all.matches("x", "y") && all.matches(MEMBER, BOB) && !all.is_lazy() && all.has_all_members());
        }
        for lazy in [
            json!([["*", "*"], [MEMBER, LAZY], [MEMBER, ME]]),
            json!({"include": [{}, {"type": MEMBER, "state_key": ANN}], "lazy_members": true}),
        ] {
            let lazy = one(lazy);
            assert!(lazy.matches("x", "y") && lazy.is_lazy() && !lazy.has_all_members());
            assert!(lazy.matches(MEMBER, ANN) && !lazy.matches(MEMBER, BOB));
            assert_eq!(lazy.members().collect::<Vec<_>>(), [ANN]);
        }
        for mine in [json!([["*", ME]]), json!({"include": [{"state_key": ANN}]})] {
            let mine = one(mine);
            assert!(mine.matches("x", ANN) && !mine.matches("x", ""));
        }
        let literal = one(json!({"include": [{"type": "*", "state_key": "$ME"}]}));
        assert!(literal.matches("*", "$ME") && !literal.matches("x", ANN), "the proposal's form has no wildcards");
        assert!(!one(json!({})).matches("x", "") && !one(json!([])).matches("x", ""));
    }

    #[test]
    fn what_is_excluded_is_left_out_by_that_rule_only() {
        let most =
            json!({"include": [{}], "exclude": [{"type": "m.room.create", "state_key": ""}, {"state_key": "x"}]});
        let all_but = one(most.clone());
        assert!(all_but.matches("m.room.name", "") && all_but.matches("m.room.create", "y"));
        assert!(!all_but.matches("m.room.create", "") && !all_but.matches("y", "x"));
        let both = required(&[most, json!({"include": [{"type": "m.room.create"}]})]);
        assert!(both.matches("m.room.create", "") && !both.matches("y", "x"));
        let nobody = one(json!({"include": [{}], "exclude": [{"type": MEMBER}]}));
        assert!(!nobody.has_all_members() && !nobody.matches(MEMBER, ANN) && nobody.matches("x", ""));
        let without = one(json!({"include": [{}], "exclude": [{"type": MEMBER, "state_key": BOB}]}));
        assert!(without.has_all_members() && !without.matches(MEMBER, BOB) && without.matches(MEMBER, ANN));
    }

    #[test]
    fn together_they_want_what_either_wants() {
        let (lazy, all) = (json!([[MEMBER, LAZY]]), json!([[MEMBER, "*"]]));
        let both = required(&[lazy.clone(), all]);
        assert!(both.has_all_members() && !both.is_lazy());
        let names = required(&[lazy.clone(), json!([["m.room.name", ""]])]);
        assert!(names.is_lazy() && names.matches("m.room.name", ""));
        let most = json!({"include": [{"type": MEMBER}], "exclude": [{"type": MEMBER, "state_key": BOB}]});
        assert!(required(&[lazy, most]).is_lazy(), "who is left out may be needed by a timeline");
    }

    #[test]
    fn more_is_told_from_less() {
        let (name, all) = (json!([["m.room.name", ""]]), json!([["*", "*"]]));
        let both = required(&[name.clone(), all.clone()]);
        assert!(both.exceeds(&one(name.clone())) && !one(name.clone()).exceeds(&both));
        assert!(!one(name.clone()).exceeds(&one(name)));
        assert!(one(all).exceeds(&one(json!([["*", "*"], [MEMBER, LAZY]]))));
        let some = |exclude: Value| one(json!({"include": [{"type": "x"}], "exclude": exclude}));
        let (more, less) = (some(json!([{"state_key": "a"}])), some(json!([{"state_key": "a"}, {"state_key": "b"}])));
        assert!(more.exceeds(&less) && !less.exceeds(&more), "what excludes less wants more");
        let apart = required(&[json!([["x", ""]]), json!([["y", ""]])]);
        assert!(!one(json!([["x", ""], ["y", ""]])).exceeds(&apart));
    }
}
