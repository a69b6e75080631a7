//! Batches: conditions and changes as plain data.

use bytes::Bytes;

use crate::key::Prefix;
use crate::keyspace::raw_range;
use crate::{Hole, KeyBuf, Keyspace, Lane, Pos, RawKey, TupleKey, Value, raw_key};

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
    #[expect(clippy::should_implement_trait, reason = "no iterator: the name says what it gives")]
    pub fn next_pos(&mut self) -> Pos {
        self.slots += 1;
        Pos::pending(self.slots - 1)
    }

    /// Adds a change-log row at `pos`, which must come from this batch's [`Self::next_pos`].
    pub fn fact(&mut self, pos: Pos, body: impl Into<Bytes>) {
        let slot = pos.slot().expect("a fact takes a position of its own batch");
        self.facts.push(Fact { slot, body: body.into() });
    }

    /// The batch applies only if `key` has no row.
    pub fn check_absent<K: Keyspace>(&mut self, key: &K::Key) {
        debug_assert!(K::DEF.guarded, "{} is not guarded", K::DEF.name);
        self.checks.push(Check::Absent(raw_key::<K>(key).0));
    }

    /// The batch applies only if `key` still holds `expected` (`None`: nothing).
    pub fn check<K: Keyspace>(&mut self, key: &K::Key, expected: Option<&K::Value>) {
        debug_assert!(K::DEF.guarded, "{} is not guarded", K::DEF.name);
        let key = raw_key::<K>(key).0;
        self.checks.push(match expected {
            None => Check::Absent(key),
            Some(value) => Check::Is(key, encoded(value).bytes.into()),
        });
    }

    /// Writes a row of this batch's lane.
    pub fn put<K: Keyspace>(&mut self, key: &K::Key, value: &K::Value) {
        self.assert_own_lane::<K>(key.lane());
        self.ops.push(put::<K>(key, value));
    }

    /// Removes a row of this batch's lane.
    pub fn delete<K: Keyspace>(&mut self, key: &K::Key) {
        self.assert_own_lane::<K>(key.lane());
        self.ops.push(Op::Delete { key: raw_key::<K>(key).0 });
    }

    /// Removes all rows of this batch's lane whose keys begin with `prefix`.
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
        let op = |op: &Op| match op {
            Op::Put { key, value, .. } => key.0.len() + value.len(),
            Op::Delete { key } => key.0.len(),
            Op::DeleteRange { start, end } => start.0.len() + end.0.len(),
            Op::Add { key, .. } => key.0.len() + 8,
        };
        self.ops.iter().chain(&self.outbox).map(op).sum::<usize>()
            + self.facts.iter().map(|fact| fact.body.len() + 16).sum::<usize>()
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
