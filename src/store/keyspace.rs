//! Keyspaces: typed families of rows.

use crate::{DecodeError, KeyBuf, Prefix, RawKey, TupleKey};

/// Permanent number of a keyspace. Never reused, never renumbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyspaceId(pub u16);

/// How a keyspace is used, so that an engine can tune itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Looked up by whole keys; many look-ups miss.
    Point,
    /// Read in ranges.
    Scan,
    /// Written at one end, deleted at the other.
    Queue,
}

/// What an engine knows of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyspaceDef {
    /// Its number.
    pub id: KeyspaceId,
    /// Its name, for error messages and documentation.
    pub name: &'static str,
    /// How it is used.
    pub profile: Profile,
    /// Whether a [`crate::Check`] may name its keys. The committer remembers what a group of batches
    /// does to guarded keyspaces only, which is why the flag exists.
    pub guarded: bool,
}

/// A stored value: first byte is the version of its format, the rest is deterministic.
pub trait Value: Sized {
    /// Appends the encoding.
    fn encode(&self, out: &mut KeyBuf);
    /// Reads a whole value.
    ///
    /// # Errors
    /// If the bytes are no encoding of any version of `Self`.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError>;
}

/// A family of rows with one type of key and one of value.
pub trait Keyspace: 'static {
    /// What an engine knows of it.
    const DEF: KeyspaceDef;
    /// The type of its keys.
    type Key: TupleKey;
    /// The type of its values.
    type Value: Value;
}

/// The stored form of `key`, and its holes.
pub fn raw_key<K: Keyspace>(key: &K::Key) -> (RawKey, Vec<crate::Hole>) {
    let mut out = header::<K>(key.lane());
    key.encode(&mut out);
    (RawKey(out.bytes), out.holes)
}

/// The stored form of all keys that begin with `prefix`: first key, and first key after them.
pub(crate) fn raw_range<K: Keyspace, P: Prefix<K::Key>>(prefix: &P) -> (Vec<u8>, Vec<u8>) {
    let mut out = header::<K>(prefix.lane());
    prefix.encode(&mut out);
    let end = successor(&out.bytes);
    (out.bytes, end)
}

fn header<K: Keyspace>(lane: crate::Lane) -> KeyBuf {
    let [high, low] = K::DEF.id.0.to_be_bytes();
    let mut bytes = Vec::with_capacity(64);
    bytes.extend([lane.number(), high, low]);
    KeyBuf { bytes, holes: Vec::new() }
}

/// Smallest byte string above every string that begins with `prefix`.
pub(crate) fn successor(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xFF {
            end.push(last + 1);
            break;
        }
    }
    end
}
