//! The newest stretch of a room's timeline, for the many who are shown it.

use hearth_rooms::TimelinePage;
use hearth_store::Pos;

/// Events that are remembered of a room.
const MAX_EVENTS: usize = 64;

/// All timeline events at positions in `(after, newest]`.
#[derive(Debug)]
pub(crate) struct Recent {
    after: Pos,
    pub(super) newest: Pos,
    /// There is an event in `(older, after]`.
    older: Option<Pos>,
    /// Position and number, oldest first.
    events: Vec<(Pos, u32)>,
}

/// Events of a stretch of the timeline.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Oldest first.
    pub numbers: Vec<u32>,
    /// There are more, before these.
    pub limited: bool,
    /// Position of the oldest.
    pub first: Option<Pos>,
}

impl Recent {
    /// From the newest events after `after`; the room's newest event is at `newest`.
    pub(crate) fn read(page: &TimelinePage, after: Pos, newest: Pos) -> Self {
        let events = page.events.iter().map(|event| (event.pos, event.n)).collect();
        let (after, older) = if page.limited { (page.prev, Some(after)) } else { (after, None) };
        Self { after, newest, older, events }.above_floor()
    }

    /// Goes on from `known`, or begins anew, with `new` events, oldest first: all that there are after the one at `last`.
    /// `None`: some of them have been seen already.
    pub(super) fn following(known: Option<Self>, last: Pos, new: &[(Pos, u32)]) -> Option<Self> {
        let ((first, _), (newest, _)) = (new.first()?, new.last()?);
        if *first <= last {
            return None;
        }
        let begin = || Self { after: last, newest: last, older: None, events: Vec::new() }.above_floor();
        let mut recent = known.filter(|known| known.newest == last).unwrap_or_else(begin);
        recent.events.extend_from_slice(new);
        recent.newest = *newest;
        if recent.events.len() > MAX_EVENTS {
            let gone = recent.events.len() - MAX_EVENTS / 2;
            if let Some((last, _)) = recent.events.drain(..gone).next_back() {
                (recent.after, recent.older) = (last, Some(Pos::new(last.get().saturating_sub(1))));
            }
        }
        Some(recent)
    }

    /// What is below may grow: other servers tell of what was before.
    fn above_floor(mut self) -> Self {
        if self.after < Pos::FLOOR {
            self.events.retain(|(pos, _)| *pos > Pos::FLOOR);
            (self.after, self.older) = (Pos::FLOOR, None);
        }
        self
    }

    pub(super) fn is_small(&self) -> bool {
        self.events.len() <= MAX_EVENTS
    }

    /// Whether this is newer than `known`, or goes further back.
    pub(super) fn adds_to(&self, known: &Self) -> bool {
        self.newest > known.newest || (self.newest == known.newest && self.after < known.after)
    }

    /// The newest `limit` events after `after`; `None`: it takes a look at the store.
    pub(super) fn newest_after(&self, after: Pos, limit: usize) -> Option<Stretch> {
        let begin = self.events.partition_point(|(pos, _)| *pos <= after);
        let found = self.events.len() - begin;
        let limited = if found > limit {
            true
        } else if self.after <= after {
            false
        } else if found == limit && self.older.is_some_and(|older| after <= older) {
            true
        } else {
            return None;
        };
        let shown = &self.events[self.events.len() - found.min(limit)..];
        let numbers = shown.iter().map(|(_, n)| *n).collect();
        Some(Stretch { numbers, limited, first: shown.first().map(|(pos, _)| *pos) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recent(after: u64, older: Option<u64>, positions: &[u64]) -> Recent {
        let events = positions.iter().map(|pos| (Pos::new(*pos), u32::try_from(*pos).expect("small"))).collect();
        let newest = positions.last().map_or(Pos::ZERO, |pos| Pos::new(*pos));
        Recent { after: Pos::new(after), newest, older: older.map(Pos::new), events }
    }

    /// Numbers, and whether there are more.
    fn asked(recent: &Recent, after: u64, limit: usize) -> Option<(Vec<u32>, bool)> {
        recent.newest_after(Pos::new(after), limit).map(|stretch| (stretch.numbers, stretch.limited))
    }

    #[test]
    fn a_complete_stretch_answers_whatever_begins_in_it() {
        let recent = recent(10, None, &[12, 14, 16]);
        assert_eq!(asked(&recent, 10, 5), Some((vec![12, 14, 16], false)));
        assert_eq!(asked(&recent, 12, 5), Some((vec![14, 16], false)));
        assert_eq!(asked(&recent, 16, 5), Some((vec![], false)));
        assert_eq!(asked(&recent, 10, 2), Some((vec![14, 16], true)));
        assert_eq!(asked(&recent, 14, 1), Some((vec![16], false)));
        assert_eq!(asked(&recent, 10, 0), Some((vec![], true)));
        assert_eq!(asked(&recent, 9, 5), None, "there may be one at 10");
        assert_eq!(asked(&recent, 9, 3), None, "nobody knows whether it is limited");
        assert_eq!(asked(&recent, 9, 2), Some((vec![14, 16], true)));
        let first = recent.newest_after(Pos::new(10), 2).and_then(|stretch| stretch.first);
        assert_eq!(first, Some(Pos::new(14)));
    }

    #[test]
    fn a_limited_stretch_answers_those_who_would_have_seen_more() {
        // Read for what comes after 3: there is something from 4 to 11.
        let recent = recent(11, Some(3), &[12, 14, 16]);
        assert_eq!(asked(&recent, 0, 3), Some((vec![12, 14, 16], true)));
        assert_eq!(asked(&recent, 3, 3), Some((vec![12, 14, 16], true)));
        assert_eq!(asked(&recent, 5, 3), None, "what there is may be at 4 or 5");
        assert_eq!(asked(&recent, 3, 4), None);
        assert_eq!(asked(&recent, 11, 4), Some((vec![12, 14, 16], false)));
    }

    #[test]
    fn what_other_servers_may_fill_is_not_taken_for_complete() {
        let floor = Pos::FLOOR.get();
        let events = vec![(Pos::new(floor - 1), 8), (Pos::new(floor + 1), 9), (Pos::new(floor + 2), 10)];
        let newest = Pos::new(floor + 2);
        let read = Recent { after: Pos::ZERO, newest, older: None, events }.above_floor();
        assert_eq!(asked(&read, 0, 5), None);
        assert_eq!(asked(&read, 0, 2), None, "nobody knows whether it is limited");
        assert_eq!(asked(&read, 0, 1), Some((vec![10], true)));
        assert_eq!(asked(&read, floor, 5), Some((vec![9, 10], false)));
    }

    fn above(n: u64) -> Pos {
        Pos::new(Pos::FLOOR.get() + n)
    }

    /// Events that are numbered as far as they are above the floor.
    fn numbered(numbers: &[u32]) -> Vec<(Pos, u32)> {
        numbers.iter().map(|n| (above(u64::from(*n)), *n)).collect()
    }

    #[test]
    fn what_comes_goes_on_from_what_is_known() {
        let asked = |recent: &Recent, after, limit| {
            recent.newest_after(above(after), limit).map(|stretch| (stretch.numbers, stretch.limited))
        };
        let known =
            || Some(Recent { after: above(10), newest: above(14), older: Some(above(3)), events: numbered(&[12, 14]) });
        let longer = Recent::following(known(), above(14), &numbered(&[16, 18])).expect("all new");
        assert_eq!(longer.newest, above(18));
        assert_eq!(asked(&longer, 10, 9), Some((vec![12, 14, 16, 18], false)));
        assert_eq!(asked(&longer, 3, 4), Some((vec![12, 14, 16, 18], true)));
        let anew = Recent::following(known(), above(15), &numbered(&[16, 18])).expect("all new");
        assert_eq!(asked(&anew, 15, 9), Some((vec![16, 18], false)));
        assert_eq!(asked(&anew, 14, 9), None, "there is one at 15");
        assert!(Recent::following(known(), above(16), &numbered(&[16, 18])).is_none());
        assert!(Recent::following(known(), above(14), &[]).is_none());
    }

    #[test]
    fn of_many_events_the_newest_stay() {
        let mut known = None;
        for n in 1..=100 {
            known = Recent::following(known, above(2 * u64::from(n)), &numbered(&[2 * n + 2]));
        }
        let recent = known.expect("all new");
        assert!(recent.is_small() && recent.events.len() >= MAX_EVENTS / 2);
        let oldest = recent.events[0].0.get();
        let limited = |after, limit| recent.newest_after(Pos::new(after), limit).map(|stretch| stretch.limited);
        assert_eq!(limited(oldest - 2, 100), Some(false));
        assert_eq!(limited(oldest - 3, recent.events.len()), Some(true));
        assert_eq!(limited(oldest - 3, 100), None, "one more, or more than that");
    }

    #[test]
    fn the_newer_and_the_longer_stretch_is_kept() {
        let known = recent(10, None, &[12, 14]);
        assert!(recent(13, None, &[16]).adds_to(&known));
        assert!(recent(5, None, &[6, 12, 14]).adds_to(&known));
        assert!(!recent(12, None, &[14]).adds_to(&known));
        assert!(!recent(1, None, &[12]).adds_to(&known));
    }
}
