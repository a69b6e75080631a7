//! Keyspaces that mean nothing.

use crate::{
    Batch, CommitError, Committed, DecodeError, Element, KeyBuf, KeyReader, Keyspace, KeyspaceDef, KeyspaceId, Lane,
    Owner, Pos, Profile, Store, Value,
};

/// An owner: the first byte is its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owned(pub [u8; 4]);

impl Owned {
    /// The `number`-th owner in `lane`.
    pub const fn new(lane: u8, number: u8) -> Self {
        Self([lane, 0, 0, number])
    }
}

impl Element for Owned {
    fn encode(&self, out: &mut KeyBuf) {
        self.0.encode(out);
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self(input.take()?))
    }
}

impl Owner for Owned {
    fn lane(&self) -> Lane {
        Lane::of(self.0[0])
    }
}

/// A value that holds the position of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(pub Pos);

impl Value for Stamp {
    fn encode(&self, out: &mut KeyBuf) {
        out.bytes.push(1);
        self.0.encode(out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((1, rest)) => Pos::decode(&mut KeyReader(rest)).map(Self),
            _ => Err(DecodeError("stamp")),
        }
    }
}

/// A value that is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(pub i64);

impl Value for Counter {
    fn encode(&self, out: &mut KeyBuf) {
        out.bytes.extend(self.0.to_be_bytes());
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        bytes.try_into().map(|bytes| Self(i64::from_be_bytes(bytes))).map_err(|_| DecodeError("counter"))
    }
}

macro_rules! keyspaces {
    ($($(#[$meta:meta])* $name:ident($id:literal, $profile:ident, $guarded:literal): $key:ty => $value:ty;)+) => {
        $(
            $(#[$meta])*
            #[derive(Debug)]
            pub struct $name;
            impl Keyspace for $name {
                const DEF: KeyspaceDef = KeyspaceDef {
                    id: KeyspaceId($id), name: stringify!($name), profile: Profile::$profile, guarded: $guarded,
                };
                type Key = $key;
                type Value = $value;
            }
        )+
        /// What a store for these tests has to be opened with.
        pub const KEYSPACES: &[KeyspaceDef] = &[$($name::DEF),+];
    };
}
keyspaces! {
    /// One guarded row for each owner.
    Heads(0x10, Point, true): (Owned,) => String;
    /// Rows by position.
    Log(0x11, Scan, false): (Owned, Pos) => String;
    /// Guarded rows that hold their position.
    Stamps(0x12, Scan, true): (Owned, u32) => Stamp;
    /// Sums.
    Counters(0x13, Scan, false): (Owned,) => Counter;
    /// What others leave for an owner.
    Mailbox(0x14, Point, false): (Owned, String) => String;
}

/// A batch that sets the head of `owner` to `value` if it still is `expected`.
pub(super) fn set_head(owner: Owned, expected: Option<&str>, value: &str) -> Batch {
    let mut batch = Batch::new(owner.lane());
    batch.check::<Heads>(&(owner,), expected.map(str::to_owned).as_ref());
    batch.put::<Heads>(&(owner,), &value.to_owned());
    batch
}

/// Adds a row to the log of `owner`, and a fact with `body`.
pub(super) fn append(batch: &mut Batch, owner: Owned, body: &str) -> Pos {
    let pos = batch.next_pos();
    batch.put::<Log>(&(owner, pos), &body.to_owned());
    batch.fact(pos, body.to_owned().into_bytes());
    pos
}

/// Commits `count` rows to the log of `owner`, one a batch.
pub(super) async fn fill(store: &dyn Store, owner: Owned, count: usize) -> Result<Vec<Committed>, CommitError> {
    let mut commits = Vec::new();
    for number in 0..count {
        let mut batch = Batch::new(owner.lane());
        append(&mut batch, owner, &format!("row {number}"));
        commits.push(store.commit(batch));
    }
    futures::future::try_join_all(commits).await
}
