//! `required_state`: which state of a room a client wants.

use std::collections::BTreeSet;

use crate::member::MEMBER;

/// Which state is wanted, of one rule or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequiredState {
    /// Types and state keys, either of which may be `*`; `$ME` is the reader.
    pairs: BTreeSet<(String, String)>,
    /// Every member, not only those whom the pairs name.
    all_members: bool,
    /// The members that a timeline needs.
    lazy: bool,
}

const ANY: &str = "*";
const ME: &str = "$ME";
const LAZY: &str = "$LAZY";

impl RequiredState {
    pub(crate) fn new(elements: &[(String, String)]) -> Self {
        let is_lazy = |(kind, key): &(String, String)| kind == MEMBER && key == LAZY;
        let lazy = elements.iter().any(is_lazy);
        let pairs: BTreeSet<_> = elements.iter().filter(|element| !is_lazy(element)).cloned().collect();
        let everybody = |(kind, key): &(String, String)| (kind == MEMBER || kind == ANY) && key == ANY;
        let all_members = !lazy && pairs.iter().any(everybody);
        Self { pairs, all_members, lazy }
    }

    /// What either wants.
    pub(crate) fn or(&self, other: &Self) -> Self {
        let all_members = self.all_members || other.all_members;
        Self {
            pairs: self.pairs.union(&other.pairs).cloned().collect(),
            all_members,
            lazy: (self.lazy || other.lazy) && !all_members,
        }
    }

    /// Whether the members that a timeline needs are wanted.
    pub(crate) const fn is_lazy(&self) -> bool {
        self.lazy
    }

    /// Whether all members are wanted.
    pub(crate) const fn has_all_members(&self) -> bool {
        self.all_members
    }

    /// Whether this wants anything that `known` does not.
    pub(crate) fn exceeds(&self, known: &Self) -> bool {
        (self.all_members && !known.all_members) || !self.pairs.is_subset(&known.pairs)
    }

    /// Users whose member events are wanted by name.
    pub(crate) fn members<'s>(&'s self, me: &'s str) -> impl Iterator<Item = &'s str> {
        let named = self.pairs.iter().filter(|(kind, key)| (kind == MEMBER || kind == ANY) && key != ANY);
        named.map(move |(_, key)| if key == ME { me } else { key.as_str() }).filter(|key| key.starts_with('@'))
    }

    /// Whether the entry of the state is wanted, apart from what a timeline needs.
    pub(crate) fn matches(&self, kind: &str, key: &str, me: &str) -> bool {
        if kind == MEMBER && self.all_members {
            return true;
        }
        self.pairs.iter().any(|(wanted_kind, wanted_key)| {
            (wanted_kind == kind || wanted_kind == ANY)
                && match wanted_key.as_str() {
                    // Who wants all members has been answered.
                    ANY => kind != MEMBER,
                    ME => key == me,
                    exact => exact == key,
                }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "@ann:x";

    fn required(elements: &[(&str, &str)]) -> RequiredState {
        let owned: Vec<_> = elements.iter().map(|(kind, key)| ((*kind).to_owned(), (*key).to_owned())).collect();
        RequiredState::new(&owned)
    }

    #[test]
    fn wildcards_mean_all_but_lazy_members() {
        let name = required(&[("m.room.name", "")]);
        assert!(name.matches("m.room.name", "", ANN));
        assert!(!name.matches("m.room.name", "x", ANN) && !name.matches("m.room.topic", "", ANN));
        let all = required(&[("*", "*")]);
        assert!(all.matches("x", "y", ANN) && all.matches(MEMBER, "@bob:x", ANN) && !all.is_lazy());
        let lazy = required(&[("*", "*"), (MEMBER, LAZY), (MEMBER, ME)]);
        assert!(lazy.matches("x", "y", ANN) && lazy.is_lazy());
        assert!(lazy.matches(MEMBER, ANN, ANN) && !lazy.matches(MEMBER, "@bob:x", ANN));
        assert_eq!(lazy.members(ANN).collect::<Vec<_>>(), [ANN]);
        let mine = required(&[("*", ME)]);
        assert!(mine.matches("x", ANN, ANN) && !mine.matches("x", "", ANN));
    }

    #[test]
    fn together_they_want_what_either_wants() {
        let (lazy, all) = (required(&[(MEMBER, LAZY)]), required(&[(MEMBER, "*")]));
        let both = lazy.or(&all);
        assert!(both.has_all_members() && !both.is_lazy());
        let names = lazy.or(&required(&[("m.room.name", "")]));
        assert!(names.is_lazy() && names.matches("m.room.name", "", ANN));
    }

    #[test]
    fn more_is_told_from_less() {
        let (name, all) = (required(&[("m.room.name", "")]), required(&[("*", "*")]));
        assert!(name.or(&all).exceeds(&name) && !name.exceeds(&name.or(&all)));
        assert!(!name.exceeds(&name) && all.exceeds(&required(&[("*", "*"), (MEMBER, LAZY)])));
    }
}
