//! What is known of those who read most: who speaks moves a read point with each message.

use std::collections::{HashMap, HashSet};

use hearth_schema::ReadPoint;

use super::page::InRoom;

/// Users in rooms of whom something is kept in memory.
const MAX_READERS: usize = 8192;

/// Rows as they are in the store. Nobody else writes them; they are erased with a user, who does not come back.
#[derive(Default)]
pub(super) struct Readers {
    points: HashMap<InRoom, ReadPoint>,
    /// Who has no mention in the store.
    unmentioned: HashSet<InRoom>,
    /// Who is mentioned in the batch in the making, which its view does not have.
    mentioned: HashSet<InRoom>,
}

impl Readers {
    /// A new batch begins.
    pub(super) fn begin(&mut self) {
        self.mentioned.clear();
        if self.points.len() > MAX_READERS {
            self.points.clear();
        }
        if self.unmentioned.len() > MAX_READERS {
            self.unmentioned.clear();
        }
    }

    /// How far `reader` has read, if that is known here.
    pub(super) fn point(&self, reader: InRoom) -> Option<ReadPoint> {
        self.points.get(&reader).copied()
    }

    /// How far `reader` has read now, or after this batch.
    pub(super) fn keep_point(&mut self, reader: InRoom, point: ReadPoint) {
        self.points.insert(reader, point);
    }

    /// A mention of `reader` is added.
    pub(super) fn mention(&mut self, reader: InRoom) {
        self.unmentioned.remove(&reader);
        self.mentioned.insert(reader);
    }

    /// The store has no mention of `reader`.
    pub(super) fn found_unmentioned(&mut self, reader: InRoom) {
        if !self.mentioned.contains(&reader) {
            self.unmentioned.insert(reader);
        }
    }

    /// Whether there can be no mention of `reader`.
    pub(super) fn is_unmentioned(&self, reader: InRoom) -> bool {
        self.unmentioned.contains(&reader)
    }
}
