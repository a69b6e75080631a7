//! Batches: conditions and changes as plain data.

use bytes::Bytes;

use crate::key::Prefix;
use crate::keyspace::{raw_range, successor};
use crate::{CommitError, Hole, KeyBuf, Keyspace, Lane, Limits, Pos, RawKey, TupleKey, Value, raw_key};

/// Names one attempt to commit, so that repeating it is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId(pub [u8; 16]);

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the log has been synced to disk. What anybody is told about must be this.
    #[default]
    Synced,
    /// After it has been written. For what is derived from synced rows and replayed after a crash
    /// (consumers and their cursors); such a batch carries no facts.
    Relaxed,
}

/// A condition on the lane of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// No row has this key.
    Absent(RawKey),
    /// The row with this key has exactly this value. Values that take part carry a generation, so
    /// equal bytes mean that nothing happened in between.
    Is(RawKey, Bytes),
}

/// A change of one row or range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a row; `*_holes` say where the committer puts positions.
    Put { key: RawKey, key_holes: Vec<Hole>, value: Vec<u8>, value_holes: Vec<Hole> },
    /// Removes a row, if there is one.
    Delete { key: RawKey },
    /// Removes all rows with `start <= key < end`.
    DeleteRange { start: RawKey, end: RawKey },
    /// Adds to an 8-byte big-endian counter without reading it; an absent one counts as 0.
    Add { key: RawKey, by: i64 },
}

impl Op {
    /// The key it writes, or the first one.
    pub const fn first_key(&self) -> &RawKey {
        match self {
            Self::Put { key, .. }
            | Self::Delete { key }
            | Self::DeleteRange { start: key, .. }
            | Self::Add { key, .. } => key,
        }
    }

    /// Bytes of its keys and values.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.0.len() + value.len(),
            Self::Delete { key } => key.0.len(),
            Self::DeleteRange { start, end } => start.0.len() + end.0.len(),
            Self::Add { key, .. } => key.0.len() + 8,
        }
    }

    fn assert_well_formed(&self, slots: u32) {
        match self {
            Self::Put { key, key_holes, value, value_holes } => {
                assert_holes(&key.0, key_holes, slots);
                assert_holes(value, value_holes, slots);
            }
            Self::DeleteRange { start, end } => {
                // The end may be the first key of the next keyspace, never one inside it.
                let inside = start.0.get(..RawKey::HEADER) == end.0.get(..RawKey::HEADER);
                let closes = end.0 == successor(start.0.get(..RawKey::HEADER).unwrap_or_default());
                assert!(start <= end && (inside || closes), "a range from {start:?} leaves its keyspace");
            }
            Self::Delete { .. } | Self::Add { .. } => {}
        }
        assert!(self.first_key().0.len() >= RawKey::HEADER, "a key without header");
    }
}

fn assert_holes(bytes: &[u8], holes: &[Hole], slots: u32) {
    for hole in holes {
        assert!(hole.slot < slots && hole.offset as usize + 8 <= bytes.len(), "{hole:?} does not fit");
    }
}

fn fill(bytes: &mut [u8], holes: &[Hole], first: Pos) {
    for hole in holes {
        let at = hole.offset as usize;
        let pos = first.get() + u64::from(hole.slot);
        bytes[at..at + 8].copy_from_slice(&pos.to_be_bytes());
    }
}

/// A row of the change log, before it has a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Which of the batch's positions is its own.
    pub slot: u32,
    /// What happened; the meaning is the schema's.
    pub body: Bytes,
}

/// A row of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedFact {
    /// Where it stands.
    pub pos: Pos,
    /// What happened.
    pub body: Bytes,
}

/// One use-case's writes: all of it happens, or none.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The lane that all checks and ops belong to.
    pub lane: Lane,
    /// Set by whoever may have to repeat it.
    pub id: Option<BatchId>,
    /// When the commit is answered.
    pub durability: Durability,
    /// Conditions; all must hold.
    pub checks: Vec<Check>,
    /// Changes in `lane`, applied in order.
    pub ops: Vec<Op>,
    /// Rows of `lane`'s change log.
    pub facts: Vec<Fact>,
    /// Changes in other lanes: idempotent, and right if applied late.
    pub outbox: Vec<Op>,
    /// How many positions the committer assigns.
    pub slots: u32,
}

impl Batch {
    /// An empty batch for `lane`.
    pub const fn new(lane: Lane) -> Self {
        Self {
            lane,
            id: None,
            durability: Durability::Synced,
            checks: Vec::new(),
            ops: Vec::new(),
            facts: Vec::new(),
            outbox: Vec::new(),
            slots: 0,
        }
    }

    /// A new position of this batch: `Committed::first` plus its slot once committed.
    pub fn next_pos(&mut self) -> Pos {
        self.slots += 1;
        Pos::pending(self.slots - 1)
    }

    /// Draws `count` positions that stay free: whoever gets the next one has so many right before it for what comes to
    /// light later.
    ///
    /// # Panics
    /// If the batch has more than 2^32 positions.
    pub fn skip_positions(&mut self, count: u32) {
        self.slots = self.slots.checked_add(count).expect("a batch does not draw so many positions");
    }

    /// Adds a change-log row at `pos`, which must come from this batch's [`Self::next_pos`].
    ///
    /// # Panics
    /// If `pos` has been committed already.
    pub fn fact(&mut self, pos: Pos, body: impl Into<Bytes>) {
        let slot = pos.slot().expect("a fact takes a position of its own batch");
        self.facts.push(Fact { slot, body: body.into() });
    }

    /// The batch applies only if `key` has no row.
    ///
    /// # Panics
    /// If the keyspace is not guarded.
    pub fn check_absent<K: Keyspace>(&mut self, key: &K::Key) {
        assert!(K::DEF.guarded, "{} is not guarded", K::DEF.name);
        self.checks.push(Check::Absent(raw_key::<K>(key).0));
    }

    /// The batch applies only if `key` still holds `expected` (`None`: nothing).
    ///
    /// # Panics
    /// If the keyspace is not guarded.
    pub fn check<K: Keyspace>(&mut self, key: &K::Key, expected: Option<&K::Value>) {
        assert!(K::DEF.guarded, "{} is not guarded", K::DEF.name);
        let key = raw_key::<K>(key).0;
        self.checks.push(match expected {
            None => Check::Absent(key),
            Some(value) => Check::Is(key, encoded(value).bytes.into()),
        });
    }

    /// Writes a row of this batch's lane.
    ///
    /// # Panics
    /// If `key` is of another lane.
    pub fn put<K: Keyspace>(&mut self, key: &K::Key, value: &K::Value) {
        self.assert_own_lane::<K>(key.lane());
        self.ops.push(put::<K>(key, value));
    }

    /// Removes a row of this batch's lane.
    ///
    /// # Panics
    /// If `key` is of another lane.
    pub fn delete<K: Keyspace>(&mut self, key: &K::Key) {
        self.assert_own_lane::<K>(key.lane());
        self.ops.push(Op::Delete { key: raw_key::<K>(key).0 });
    }

    /// Removes all rows of this batch's lane whose keys begin with `prefix`.
    ///
    /// # Panics
    /// If `prefix` is of another lane.
    pub fn delete_prefix<K: Keyspace, P: Prefix<K::Key>>(&mut self, prefix: &P) {
        self.assert_own_lane::<K>(prefix.lane());
        let (start, end) = raw_range::<K, P>(prefix);
        self.ops.push(Op::DeleteRange { start: RawKey(start), end: RawKey(end) });
    }

    /// Writes a row of any lane, at once or a little later.
    pub fn put_elsewhere<K: Keyspace>(&mut self, key: &K::Key, value: &K::Value) {
        self.outbox.push(put::<K>(key, value));
    }

    /// Removes a row of any lane, at once or a little later.
    pub fn delete_elsewhere<K: Keyspace>(&mut self, key: &K::Key) {
        self.outbox.push(Op::Delete { key: raw_key::<K>(key).0 });
    }

    /// Bytes of keys and values, for limits.
    pub fn bytes(&self) -> usize {
        self.ops.iter().chain(&self.outbox).map(Op::bytes).sum::<usize>()
            + self.facts.iter().map(|fact| fact.body.len() + 16).sum::<usize>()
    }

    /// What every engine refuses before it queues a batch. It costs a few comparisons an op and runs
    /// in every build, because a batch that touches two lanes works on one machine and is lost on two.
    ///
    /// # Panics
    /// If checks or ops leave the batch's lane, a slot was never taken, or a relaxed batch has facts.
    pub fn assert_well_formed(&self) {
        for check in &self.checks {
            let (Check::Absent(key) | Check::Is(key, _)) = check;
            assert!(key.lane() == self.lane, "a batch of {:?} checks {key:?}", self.lane);
        }
        for op in &self.ops {
            let key = op.first_key();
            assert!(key.lane() == self.lane, "a batch of {:?} writes {key:?}", self.lane);
            op.assert_well_formed(self.slots);
        }
        self.outbox.iter().for_each(|op| op.assert_well_formed(self.slots));
        assert!(self.facts.iter().all(|fact| fact.slot < self.slots), "a fact has a slot of another batch");
        assert!(
            self.facts.is_empty() || self.durability == Durability::Synced,
            "facts are told to others, so they must be synced"
        );
    }

    /// # Errors
    /// [`CommitError::TooLarge`] if the batch or one of its values is over `limits`.
    pub fn fits(&self, limits: Limits) -> Result<(), CommitError> {
        let mut bytes = self.facts.iter().map(|fact| fact.body.len() + 16).sum::<usize>();
        for op in self.ops.iter().chain(&self.outbox) {
            bytes += op.bytes();
            if let Op::Put { value, .. } = op
                && value.len() > limits.value_bytes
            {
                return Err(CommitError::TooLarge { bytes: value.len(), limit: limits.value_bytes });
            }
        }
        if bytes > limits.batch_bytes {
            return Err(CommitError::TooLarge { bytes, limit: limits.batch_bytes });
        }
        Ok(())
    }

    /// What watchers are told when it is committed: its lane as one bit, if it takes positions.
    pub const fn moved_lanes(&self) -> u32 {
        if self.slots == 0 { 0 } else { 1 << self.lane.number() }
    }

    /// Writes the positions `first`, `first + 1`, … into the holes of every op. Engines call it once,
    /// when the batch's place in the order of commits is known.
    pub fn fill_holes(&mut self, first: Pos) {
        for op in self.ops.iter_mut().chain(&mut self.outbox) {
            if let Op::Put { key, key_holes, value, value_holes } = op {
                fill(&mut key.0, key_holes, first);
                fill(value, value_holes, first);
            }
        }
    }

    fn assert_own_lane<K: Keyspace>(&self, lane: Lane) {
        assert!(lane == self.lane, "{}: a batch of lane {:?} writes lane {lane:?}", K::DEF.name, self.lane);
    }
}

fn encoded<V: Value>(value: &V) -> KeyBuf {
    let mut out = KeyBuf::default();
    value.encode(&mut out);
    out
}

fn put<K: Keyspace>(key: &K::Key, value: &K::Value) -> Op {
    let (key, key_holes) = raw_key::<K>(key);
    let value = encoded(value);
    Op::Put { key, key_holes, value: value.bytes, value_holes: value.holes }
}
