//! The newest facts of each lane, in memory.
//!
//! The problem: after each commit everybody who follows the change log asks for the one fact that has come, and each
//! answer costs an iterator over all files of the database. Here are those facts, until there are too many.

use std::collections::VecDeque;

use hearth_store::{LANES, Lane, LoggedFact, Pos};
use parking_lot::Mutex;

/// Facts of a lane that are kept.
const MAX_FACTS: usize = 128;
/// Bytes of what they say.
const MAX_BYTES: usize = 16 << 10;

/// The newest facts, by lane.
#[derive(Debug)]
pub(crate) struct RecentFacts([Mutex<Recent>; LANES as usize]);

/// The newest facts of a lane.
#[derive(Debug)]
struct Recent {
    /// Every fact of the lane after this position is here.
    after: Pos,
    /// The newest of all.
    newest: Pos,
    facts: VecDeque<LoggedFact>,
    bytes: usize,
}

impl RecentFacts {
    /// Nothing is kept yet; `newest[n]` is the position of the newest fact of lane `n`.
    pub(crate) fn new(newest: [Pos; LANES as usize]) -> Self {
        Self(newest.map(|newest| Mutex::new(Recent { after: newest, newest, facts: VecDeque::new(), bytes: 0 })))
    }

    fn of(&self, lane: Lane) -> &Mutex<Recent> {
        &self.0[usize::from(lane.number())]
    }

    /// Position of the newest fact of `lane`.
    pub(crate) fn newest(&self, lane: Lane) -> Pos {
        self.of(lane).lock().newest
    }

    /// Adds a fact, newer than those before. It must be in the database, and in no view yet.
    pub(crate) fn add(&self, lane: Lane, fact: LoggedFact) {
        self.of(lane).lock().add(fact);
    }

    /// At most `limit` facts of `lane` after `from` up to `upto`, oldest first; `None`: some of them are not here.
    pub(crate) fn between(&self, lane: Lane, (from, upto): (Pos, Pos), limit: usize) -> Option<Vec<LoggedFact>> {
        let recent = self.of(lane).lock();
        if from < recent.after {
            return None;
        }
        let begin = recent.facts.partition_point(|fact| fact.pos <= from);
        let found = recent.facts.range(begin..).take_while(|fact| fact.pos <= upto).take(limit);
        Some(found.cloned().collect())
    }
}

impl Recent {
    fn add(&mut self, fact: LoggedFact) {
        self.newest = fact.pos;
        self.bytes += fact.body.len();
        self.facts.push_back(fact);
        while self.facts.len() > MAX_FACTS || self.bytes > MAX_BYTES {
            let Some(oldest) = self.facts.pop_front() else { return };
            self.bytes -= oldest.body.len();
            self.after = oldest.pos;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const LANE: Lane = Lane::of(3);

    fn fact(pos: u64, bytes: usize) -> LoggedFact {
        LoggedFact { pos: Pos::new(pos), body: Bytes::from(vec![0; bytes]) }
    }

    fn facts(count: usize, bytes: usize) -> RecentFacts {
        let recent = RecentFacts::new([Pos::new(10); LANES as usize]);
        for n in 1..=count {
            recent.add(LANE, fact(10 + 2 * n as u64, bytes));
        }
        recent
    }

    /// Positions.
    fn asked(recent: &RecentFacts, from: u64, upto: u64, limit: usize) -> Option<Vec<u64>> {
        let found = recent.between(LANE, (Pos::new(from), Pos::new(upto)), limit)?;
        Some(found.iter().map(|fact| fact.pos.get()).collect())
    }

    #[test]
    fn what_came_since_the_start_is_here() {
        let recent = facts(3, 8);
        assert_eq!(recent.newest(LANE), Pos::new(16));
        assert_eq!(recent.newest(Lane::of(4)), Pos::new(10));
        assert_eq!(asked(&recent, 10, 99, 9), Some(vec![12, 14, 16]));
        assert_eq!(asked(&recent, 12, 99, 9), Some(vec![14, 16]));
        assert_eq!(asked(&recent, 10, 99, 2), Some(vec![12, 14]));
        assert_eq!(asked(&recent, 16, 99, 9), Some(vec![]));
        assert_eq!(asked(&recent, 9, 99, 9), None, "there may be one at 10");
    }

    #[test]
    fn what_the_view_does_not_have_is_not_shown() {
        let recent = facts(3, 8);
        assert_eq!(asked(&recent, 10, 15, 9), Some(vec![12, 14]));
        assert_eq!(asked(&recent, 10, 10, 9), Some(vec![]));
    }

    #[test]
    fn the_oldest_go() {
        let recent = facts(MAX_FACTS + 2, 8);
        assert_eq!(asked(&recent, 10, 999, 1), None);
        assert_eq!(asked(&recent, 13, 999, 1), None);
        assert_eq!(asked(&recent, 14, 999, 1), Some(vec![16]));
        assert_eq!(asked(&recent, 14, 999, 999).map(|found| found.len()), Some(MAX_FACTS));
    }

    #[test]
    fn large_ones_do_not_fill_the_memory() {
        let recent = facts(5, MAX_BYTES / 2);
        assert_eq!(asked(&recent, 14, 99, 9), None);
        assert_eq!(asked(&recent, 16, 99, 9), Some(vec![18, 20]));
        recent.add(LANE, fact(22, MAX_BYTES + 1));
        assert_eq!(recent.newest(LANE), Pos::new(22));
        assert_eq!(asked(&recent, 20, 99, 9), None);
        assert_eq!(asked(&recent, 22, 99, 9), Some(vec![]));
    }
}
