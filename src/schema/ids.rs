//! Numbers for names.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use hearth_store::{DecodeError, Element, KeyBuf, KeyReader, Lane, Owner};
use ruma_common::{EventId, RoomAliasId, RoomId, ServerName, UserId};
use serde::{Deserialize, Serialize};

/// Derives ids from names with the store's own key (BLAKE3, 128 bits).
///
/// At a billion names the chance of any collision is about 10⁻²¹, and nobody without the key can
/// look for one.
#[derive(Clone)]
pub struct Ids(Arc<[u8; 32]>);

impl std::fmt::Debug for Ids {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ids")
    }
}

impl Ids {
    /// From the key that the store made when it was created.
    pub fn new(store_key: [u8; 32]) -> Self {
        Self(Arc::new(store_key))
    }

    /// The number of a room.
    pub fn room(&self, room: &RoomId) -> RoomNid {
        RoomNid(self.owner("room", room.as_str()))
    }

    /// The number of a user, local or not.
    pub fn user(&self, user: &UserId) -> UserNid {
        UserNid(self.owner("user", user.as_str()))
    }

    /// The number of an alias.
    pub fn alias(&self, alias: &RoomAliasId) -> AliasKey {
        AliasKey(self.owner("alias", alias.as_str()))
    }

    /// Where rows about another server lie.
    pub fn server_lane(&self, server: &ServerName) -> Lane {
        Lane::of(self.owner("server", server.as_str())[0])
    }

    /// The number of another server.
    pub fn destination(&self, server: &ServerName) -> DestinationNid {
        DestinationNid(self.owner("destination", server.as_str()))
    }

    /// The number of a token; the token itself is never stored.
    pub fn token(&self, token: &str) -> TokenKey {
        TokenKey(self.owner("token", token))
    }

    /// A seal on `text` that only this store can make and know again, as hexadecimal digits.
    pub fn seal(&self, text: &str) -> String {
        format!("{:032x}", u128::from_be_bytes(self.hash("seal", text.as_bytes())))
    }

    /// The number of an event ID.
    pub fn event(&self, event: &EventId) -> EventKey {
        EventKey(self.hash("event", event.as_str().as_bytes()))
    }

    /// The number of what a child says to its parent: its relation type, and more where there is more
    /// to tell children apart by.
    pub fn relation(&self, parts: &[&str]) -> RelationKey {
        let mut name = Vec::new();
        for part in parts {
            // The lengths keep ["a", "b"] and ["ab"] apart.
            name.extend_from_slice(&(part.len() as u64).to_be_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        RelationKey(self.hash("relation", &name))
    }

    /// The name of a state trie's node, from its contents.
    pub fn node(&self, node: &[u8]) -> [u8; 16] {
        self.hash("node", node)
    }

    /// The first byte is the lane, so that the number carries it.
    fn owner(&self, kind: &str, name: &str) -> [u8; 16] {
        let mut hash = self.hash(kind, name.as_bytes());
        hash[0] = Lane::of(hash[0]).number();
        hash
    }

    fn hash(&self, kind: &str, name: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(kind.as_bytes());
        hasher.update(&[0]);
        hasher.update(name);
        let mut out = [0; 16];
        out.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        out
    }
}

/// A map by the ids of this module, which are hashes already.
pub type NidMap<K, V> = HashMap<K, V, BuildHasherDefault<NidHasher>>;
/// A set of ids of this module.
pub type NidSet<K> = HashSet<K, BuildHasherDefault<NidHasher>>;

/// Takes an id of this module as its own hash: nobody without the store's key can choose its bits.
#[derive(Clone, Copy, Debug, Default)]
pub struct NidHasher(u64);

impl Hasher for NidHasher {
    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    /// Of anything else, which has no business here: right, if slow.
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0.rotate_left(5) ^ u64::from(*byte)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

macro_rules! hashed_id {
    ($($(#[$meta:meta])* $name:ident $(: $owner:ident)?;)+) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub struct $name([u8; 16]);
        impl std::hash::Hash for $name {
            /// By its second half, all of whose bits are like drawn by lot: the first begins with the lane.
            fn hash<H: Hasher>(&self, state: &mut H) {
                let [_, _, _, _, _, _, _, _, half @ ..] = self.0;
                state.write_u64(u64::from_ne_bytes(half));
            }
        }
        impl Element for $name {
            fn encode(&self, out: &mut KeyBuf) { self.0.encode(out) }
            fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> { Ok(Self(input.take()?)) }
        }
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), u128::from_be_bytes(self.0))
            }
        }
        $(impl $owner for $name {
            fn lane(&self) -> Lane { Lane::of(self.0[0]) }
        })?
    )+ };
}
hashed_id! {
    /// A room.
    RoomNid: Owner;
    /// A user.
    UserNid: Owner;
    /// A room alias.
    AliasKey: Owner;
    /// A token.
    TokenKey: Owner;
    /// Another server, as what is sent to it.
    DestinationNid: Owner;
    /// An event ID. Belongs to the lane of its room, which it does not know.
    EventKey;
    /// What a child says to its parent.
    RelationKey;
}

/// An event: its room, and its number within the room (from 0, in order of arrival).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EventNid {
    /// The room it belongs to.
    pub room: RoomNid,
    /// Its number within the room.
    pub n: u32,
}

/// The number of an (event type, state key) pair within its room, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StateKeyNid(pub u32);

impl Element for StateKeyNid {
    fn encode(&self, out: &mut KeyBuf) {
        self.0.encode(out);
    }
    fn decode(input: &mut KeyReader<'_>) -> Result<Self, DecodeError> {
        u32::decode(input).map(Self)
    }
}

crate::stored! {
    EventNid = 1;
    StateKeyNid = 1;
    RoomNid = 1;
}
