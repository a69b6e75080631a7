//! What was looked at, and what was wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use hearth_store::KeyspaceId;
use serde::Serialize;

/// Broken promises that are told one by one; the rest is a number.
const MAX_SHOWN: usize = 1000;

/// A promise of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Invariant {
    /// A forward extremity is a stored event that was not rejected.
    I1,
    /// A timeline row has its event, and that its state and its room.
    I2,
    /// Names and numbers belong to each other one to one.
    I3,
    /// Positions are what their rows say, and not beyond the newest.
    I4,
    /// A user's list of rooms says what the rooms' current state says.
    I6,
    /// The current state is what the room's head says it is.
    I7,
    /// A transaction id leads to an event.
    I9,
    /// A row decodes, and rows that come in pairs have each other.
    I13,
    /// No password or token is stored in a readable form.
    I14,
}

impl Invariant {
    const fn meaning(self) -> &'static str {
        match self {
            Self::I1 => "extremities are stored and not rejected",
            Self::I2 => "timeline rows have their event, state and room",
            Self::I3 => "names and numbers belong to each other",
            Self::I4 => "positions are in order",
            Self::I6 => "room lists equal the rooms' state",
            Self::I7 => "current state is the head's state",
            Self::I9 => "transaction ids lead to events",
            Self::I13 => "rows decode and have their counterparts",
            Self::I14 => "no readable passwords or tokens",
        }
    }
}

/// One broken promise.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    /// The keyspace of the row that shows it.
    pub(crate) keyspace: &'static str,
    /// Names of keys, never contents.
    pub(crate) detail: String,
}

/// What a run of fsck has seen.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: BTreeMap<KeyspaceId, u64>,
    shown: Vec<Violation>,
    violations: u64,
}

#[derive(Serialize)]
struct Json<'a> {
    ok: bool,
    rows: u64,
    keyspaces: BTreeMap<String, u64>,
    violations: u64,
    shown: &'a [Violation],
}

impl Report {
    pub(crate) fn count(&mut self, keyspace: KeyspaceId) {
        *self.rows.entry(keyspace).or_default() += 1;
    }

    pub(crate) fn add(&mut self, violation: Violation) {
        self.violations += 1;
        if self.shown.len() < MAX_SHOWN {
            self.shown.push(violation);
        }
    }

    /// Adds what `other` has seen.
    pub(crate) fn absorb(&mut self, other: Self) {
        for (keyspace, count) in other.rows {
            *self.rows.entry(keyspace).or_default() += count;
        }
        self.violations += other.violations;
        self.shown.extend(other.shown);
        self.shown.truncate(MAX_SHOWN);
    }

    /// How many promises are broken.
    pub(crate) const fn violations(&self) -> u64 {
        self.violations
    }

    fn total(&self) -> u64 {
        self.rows.values().sum()
    }

    fn keyspaces(&self) -> BTreeMap<String, u64> {
        self.rows.iter().map(|(id, count)| (keyspace_name(*id).to_owned(), *count)).collect()
    }

    pub(crate) fn to_json(&self) -> String {
        let json = Json {
            ok: self.violations == 0,
            rows: self.total(),
            keyspaces: self.keyspaces(),
            violations: self.violations,
            shown: &self.shown,
        };
        let mut text = serde_json::to_string_pretty(&json).expect("a report is plain data");
        text.push('\n');
        text
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{} rows in {} keyspaces\n", self.total(), self.rows.len());
        for (name, count) in self.keyspaces() {
            let _ = writeln!(text, "{count:>12}  {name}");
        }
        for violation in &self.shown {
            let Violation { invariant, keyspace, detail } = violation;
            let _ = writeln!(text, "{invariant:?} ({}): {keyspace}: {detail}", invariant.meaning());
        }
        if self.violations > self.shown.len() as u64 {
            let _ = writeln!(text, "… and {} more", self.violations - self.shown.len() as u64);
        }
        let _ = writeln!(text, "{}", if self.violations == 0 { "clean" } else { "NOT CLEAN" });
        text
    }
}

/// The name of a keyspace, also of those that are the engine's own or unknown.
pub(crate) fn keyspace_name(id: KeyspaceId) -> &'static str {
    if id == hearth_store_rocks::CHANGE_LOG {
        return "ChangeLog";
    }
    hearth_schema::ALL.iter().find(|def| def.id == id).map_or("unknown", |def| def.name)
}
