//! What a server comes to that takes a room's events one by one.
//!
//! Rejection depends on the room alone, soft failure on what the server knows when the event comes
//! ([spec](https://spec.matrix.org/v1.19/server-server-api/#soft-failure)): so a server has a current state, and two servers
//! may differ in it until an event that follows everything brings them together.

use std::collections::BTreeSet;

use hearth_event::StateMap;

use crate::Dag;

/// What a server holds of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is part of the room.
    Accepted,
    /// The current state did not allow it.
    SoftFailed,
    /// Its auth events or the state before it did not allow it.
    Rejected,
}

/// A server that has taken some events.
pub struct Observer<'a> {
    dag: &'a Dag,
    /// In the order in which they came.
    pub taken: Vec<(usize, Standing)>,
    /// The last state that was asked for, and of which ends.
    last: (BTreeSet<usize>, StateMap),
}

impl<'a> Observer<'a> {
    /// A server that has just joined.
    pub fn new(dag: &'a Dag) -> Self {
        Self { dag, taken: vec![(dag.founded, Standing::Accepted)], last: (BTreeSet::new(), StateMap::new()) }
    }

    /// Takes an event whose parents have been taken.
    pub fn take(&mut self, index: usize) -> Standing {
        let dag = self.dag;
        let event = &dag.events[index];
        let standing = if event.rejected.is_some() {
            Standing::Rejected
        } else if dag.check_on(&event.pdu, &self.state()).is_err() {
            Standing::SoftFailed
        } else {
            Standing::Accepted
        };
        self.taken.push((index, standing));
        standing
    }

    /// The ends of the room: accepted events that no accepted event comes after.
    pub fn ends(&self) -> BTreeSet<usize> {
        let accepted = self.taken.iter().filter(|(_, standing)| *standing == Standing::Accepted);
        let accepted: Vec<usize> = accepted.map(|(index, _)| *index).collect();
        let before = self.dag.ancestors(&accepted);
        accepted.into_iter().filter(|index| !before.contains(index)).collect()
    }

    /// The current state.
    pub fn state(&mut self) -> StateMap {
        let ends = self.ends();
        if self.last.0 != ends {
            let state = self.dag.state_after(&ends.iter().copied().collect::<Vec<_>>());
            self.last = (ends, state);
        }
        self.last.1.clone()
    }
}
