//! Batches that were committed a moment ago, by id.

use std::collections::{HashMap, VecDeque};

use crate::{BatchId, Committed};

/// Finds the first answer again when a batch is repeated.
///
/// A bounded memory of the process is enough for an embedded engine: an answer can only get lost
/// together with the process, and what must not be repeated after a restart has a row of its own
/// (transaction ids, the room's head).
#[derive(Debug)]
pub struct RecentIds {
    answers: HashMap<BatchId, Committed>,
    order: VecDeque<BatchId>,
    capacity: usize,
}

impl RecentIds {
    /// Remembers the last `capacity` batches.
    pub fn new(capacity: usize) -> Self {
        Self { answers: HashMap::new(), order: VecDeque::new(), capacity }
    }

    /// What the batch was given, if it has been committed lately.
    pub fn find(&self, id: Option<BatchId>) -> Option<Committed> {
        self.answers.get(&id?).copied()
    }

    /// Keeps `answer`, and forgets the oldest if there are too many.
    pub fn remember(&mut self, id: Option<BatchId>, answer: Committed) {
        let Some(id) = id else { return };
        if self.answers.insert(id, answer).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
    }

    /// Takes back what was remembered of a batch whose write failed.
    pub fn forget(&mut self, id: BatchId) {
        if self.answers.remove(&id).is_some() {
            self.order.retain(|known| *known != id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pos;

    #[test]
    fn forgets_the_oldest_first() {
        let mut recent = RecentIds::new(2);
        let id = |n| Some(BatchId([n; 16]));
        for n in 1..=3 {
            recent.remember(id(n), Committed { first: Pos::new(n.into()), count: 1 });
        }
        assert_eq!(recent.find(id(1)), None);
        assert_eq!(recent.find(id(3)).map(|found| found.first), Some(Pos::new(3)));
        assert_eq!(recent.find(None), None);
    }
}
