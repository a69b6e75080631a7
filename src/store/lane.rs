//! Lanes: the unit of ownership and of atomic commits.

use crate::Pos;

/// How many lanes there are. Part of the stored format: never changed for an existing store.
pub const LANES: u8 = 32;

/// One of [`LANES`] slices of the key space. Every key belongs to the lane of its owner (a room, a
/// user, an alias, …); a batch checks and writes one lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane(u8);

impl Lane {
    /// The lane whose number is `byte` modulo [`LANES`].
    pub const fn of(byte: u8) -> Self {
        Self(byte % LANES)
    }

    /// The lane's number, below [`LANES`].
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Every lane, in order.
    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..LANES).map(Self)
    }
}

/// How far each lane has been committed.
///
/// Stored as one base and the lanes that are ahead of it, because the embedded engines draw all
/// lanes from one counter and then nothing is ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    base: Pos,
    ahead: Vec<(Lane, Pos)>,
}

impl Frontier {
    /// Every lane is at `pos`.
    pub const fn uniform(pos: Pos) -> Self {
        Self { base: pos, ahead: Vec::new() }
    }

    /// The position that every lane has reached.
    pub const fn base(&self) -> Pos {
        self.base
    }

    /// Whether every lane has come as far as in `min`.
    pub fn reaches(&self, min: &Self) -> bool {
        // All lanes side by side are what there mostly is.
        if self.ahead.is_empty() && min.ahead.is_empty() {
            return min.base <= self.base;
        }
        Lane::all().all(|lane| min.of(lane) <= self.of(lane))
    }

    /// The position that `lane` has reached.
    pub fn of(&self, lane: Lane) -> Pos {
        self.ahead.iter().find(|(l, _)| *l == lane).map_or(self.base, |(_, pos)| *pos)
    }
}
