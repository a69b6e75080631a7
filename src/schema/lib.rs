//! Every keyspace and every stored value: what exists, never when it is written.
//!
//! Ids are numbers derived from names by a keyed hash ([`Ids`]): no allocation, no look-up and no
//! race between two writers that meet a name for the first time. The key belongs to the store, so
//! that nobody outside can choose names that collide or that crowd one lane.

mod account;
mod delayed;
mod event;
mod ids;
mod ignored;
mod outbound;
mod outside;
mod peer;
mod received;
mod relation;
mod room;
mod social;
#[cfg(test)]
mod tests;
mod user_data;

use hearth_store::{DecodeError, KeyBuf, Keyspace, KeyspaceDef, KeyspaceId, Profile, Value};

pub use account::{
    AccessToken, AccountKind, AliasRow, Device, Filter, LoginToken, Moderation, NoticeRoom, Profile as ProfileRow,
    Pusher, Refresh, RefreshFamily, RegistrationToken, SpentRefresh, User,
};
pub use delayed::{DelayedEntry, DelayedEvent, DelayedFailure, DelayedList, DelayedOutcome, Finalised};
pub use event::{Source, StagedEvent, StagedWait, StoredEvent, Verdict};
pub use ids::{
    AliasKey, DestinationNid, EventKey, EventNid, Ids, NidHasher, NidMap, NidSet, RelationKey, RoomNid, StateKeyNid,
    TokenKey, UserNid,
};
pub use ignored::{IGNORED_USERS, ignored_users};
pub use outbound::{BackOff, Destination, QueuedPdu, Transaction};
pub use outside::{Outside, OutsideState};
pub use peer::{PeerKey, PeerKeyAnswer, PeerKeys as PeerKeysRow};
pub use received::ReceivedTransaction;
pub use relation::{Aggregate, Edit, ThreadSummary};
pub use room::{
    Change, Extremity, GAP_ROOM, Gap, Membership, NodeId, RawNode, RoomHead, RoomMeta, RoomTally, StateEntry, StateId,
    StateLogEntry, Tally,
};
pub use social::{PresenceRow, Report, ReportSubject};
pub use user_data::{
    AccountDataEntry, Mention, ReadPoint, Receipt, ReceiptKind, ReceiptName, Subscription, ThreadRead,
    ThreadSubscription, UserRoom,
};

/// Declares keyspaces, and [`ALL`] of them.
macro_rules! keyspaces {
    ($($(#[$meta:meta])* $name:ident($id:literal, $profile:ident $(, $guarded:ident)?): $key:ty => $value:ty;)+) => {
        $(
            $(#[$meta])*
            #[derive(Debug)]
            pub struct $name;
            impl Keyspace for $name {
                const DEF: KeyspaceDef = KeyspaceDef {
                    id: KeyspaceId($id),
                    name: stringify!($name),
                    profile: Profile::$profile,
                    guarded: keyspaces!(@guarded $($guarded)?),
                };
                type Key = $key;
                type Value = $value;
            }
        )+
        /// Every keyspace, for engines to open, for `fsck` and for the schema page.
        pub const ALL: &[KeyspaceDef] = &[$($name::DEF),+];
        /// Decodes one row of any keyspace, which is how `fsck` finds damage.
        ///
        /// # Errors
        /// If the keyspace is unknown, or key or value do not decode.
        pub fn decode_row(keyspace: KeyspaceId, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
            $(if keyspace == $name::DEF.id { return decode::<$name>(key, value); })+
            Err(DecodeError("unknown keyspace"))
        }
    };
    (@guarded guarded) => { true };
    (@guarded) => { false };
}

keyspaces! {
    // ── rooms: owner RoomNid ──
    /// What never changes of a room.
    Rooms(0x10, Point, guarded): (RoomNid,) => RoomMeta;
    /// The only row of a room that two writers can fight over.
    RoomHeads(0x11, Point, guarded): (RoomNid,) => RoomHead;
    /// Position of the room's newest timeline event. The lane is the room's own; it is spelt out (and takes no
    /// bytes) so that a start can find all rooms lane by lane.
    RoomLast(0x12, Point): (hearth_store::Lane, RoomNid) => Position;
    /// Event ID to event number, in the room's lane. Write-once.
    EventIds(0x13, Point, guarded): (hearth_store::Lane, EventKey) => EventNid;
    /// The event, its verdict, the state before it and its position.
    Events(0x14, Scan): (RoomNid, u32) => StoredEvent;
    /// Accepted events of a room in the order this server accepted them.
    Timeline(0x15, Scan): (RoomNid, hearth_store::Pos) => u32;
    /// (event type, state key) to its number within the room. Write-once.
    StateKeys(0x16, Point, guarded): (RoomNid, String, String) => StateKeyNid;
    /// The other way round.
    StateKeyNames(0x17, Point): (RoomNid, StateKeyNid) => (String, String);
    /// Nodes of state tries: immutable, shared by snapshots.
    StateNodes(0x18, Point): (RoomNid, NodeId) => RawNode;
    /// The room's current state by event type and state key.
    CurrentState(0x19, Scan): (RoomNid, String, String) => StateEntry;
    /// Entries of the current state that changed, by the position of the change.
    StateLog(0x1a, Scan): (RoomNid, hearth_store::Pos, StateKeyNid) => StateLogEntry;
    /// Children of an event: (room, parent, relation type, position of the child) to the child.
    Relations(0x1b, Scan): (RoomNid, u32, String, hearth_store::Pos) => u32;
    /// Transaction ids: (room, user, device, scope, transaction) to the event's number.
    TxnIds(0x1c, Point, guarded): (RoomNid, UserNid, String, String, String) => u32;
    /// Latest receipts: (room, kind, thread or "", user ID).
    Receipts(0x1d, Scan, guarded): (RoomNid, ReceiptKind, String, String) => Receipt;
    /// The same by position, so that /sync finds what is new.
    ReceiptLog(0x1e, Scan): (RoomNid, hearth_store::Pos) => ReceiptName;
    /// Local aliases of a room.
    RoomAliases(0x1f, Scan): (RoomNid, String) => String;
    /// Running number of notifying messages, by timeline position (written by the unread consumer).
    RoomTallies(0x20, Scan): (RoomNid, hearth_store::Pos) => RoomTally;
    /// Rooms listed in the public directory. The lane is the room's own; it is spelt out (and takes no
    /// bytes) so that a list can ask lane by lane.
    PublicRooms(0x21, Point): (hearth_store::Lane, RoomNid) => String;
    /// What its children make of an event: (room, event). Absent where there is nothing to tell.
    Aggregates(0x22, Point): (RoomNid, u32) => Aggregate;
    /// Threads of a room by their newest reply: (room, reply) to the root.
    Threads(0x23, Scan): (RoomNid, u32) => u32;
    /// How many children a user has given an event: (room, parent, user, what they say).
    ChildTallies(0x24, Scan): (RoomNid, u32, UserNid, RelationKey) => u32;
    /// Running number of notifying messages of one thread: (room, root, timeline position).
    ThreadTallies(0x25, Scan): (RoomNid, u32, hearth_store::Pos) => Tally;
    /// Events of other servers that wait to be judged, in order of arrival. The lane is the room's own, spelt out
    /// (and taking no bytes) so that a start finds all of them lane by lane.
    Inbox(0x26, Scan): (hearth_store::Lane, RoomNid, hearth_store::Pos) => StagedEvent;
    /// Redactions of events that have not come yet: (room, redacted event, server whose users' events it takes effect on;
    /// "": everybody's) to the redaction.
    PendingRedactions(0x27, Point): (RoomNid, EventKey, String) => u32;
    /// Accepted events that relate to one that has not come yet: (room, parent, child).
    PendingRelations(0x70, Scan): (RoomNid, EventKey, u32) => ();
    /// Gaps of timelines that other servers may know how to fill, by the position of the event after the gap. The lane
    /// is the room's own, spelt out (and taking no bytes) so that a start finds all of them lane by lane.
    Gaps(0x71, Scan): (hearth_store::Lane, RoomNid, hearth_store::Pos) => Gap;

    // ── users: owner UserNid ──
    /// Local accounts.
    Users(0x30, Point, guarded): (UserNid,) => User;
    /// Display name and avatar of local users.
    Profiles(0x31, Point, guarded): (UserNid,) => ProfileRow;
    /// Devices of local users.
    Devices(0x32, Scan, guarded): (UserNid, String) => Device;
    /// Account data: (user, room ID or "", type).
    AccountData(0x33, Scan, guarded): (UserNid, String, String) => AccountDataEntry;
    /// The same by position.
    AccountDataLog(0x34, Scan): (UserNid, hearth_store::Pos) => (String, String);
    /// Stored filters.
    Filters(0x35, Scan, guarded): (UserNid, u32) => Filter;
    /// A user's rooms with the newest membership (comes through outboxes; set if newer).
    UserRooms(0x36, Scan, guarded): (UserNid, RoomNid) => UserRoom;
    /// Where the user has read to in a room, for counts (written by the unread consumer).
    ReadPoints(0x37, Scan): (UserNid, RoomNid) => ReadPoint;
    /// Events that mention the user: (user, room, position of the event).
    Highlights(0x38, Scan): (UserNid, RoomNid, hearth_store::Pos) => Mention;
    /// Every change of the user's membership in any room, for /sync.
    UserRoomLog(0x39, Scan): (UserNid, hearth_store::Pos) => RoomNid;
    /// Where the user has read to in threads: (user, room, root), by the unread consumer.
    ThreadReads(0x3a, Scan): (UserNid, RoomNid, u32) => ThreadRead;
    /// Threads that the user follows, or has ceased to follow: (user, room, root).
    ThreadSubscriptions(0x3b, Scan, guarded): (UserNid, RoomNid, u32) => ThreadSubscription;
    /// The same by position: the root of the thread that was decided about.
    ThreadSubscriptionLog(0x6c, Scan): (UserNid, hearth_store::Pos) => EventNid;

    /// What is remembered of local users' presence. The lane is the user's own, spelt out (and taking
    /// no bytes) so that all can be read lane by lane.
    Presence(0x3c, Point): (hearth_store::Lane, UserNid) => PresenceRow;
    /// What users have reported: (lane, who reported, when). The lane as above.
    Reports(0x3d, Scan): (hearth_store::Lane, UserNid, hearth_store::Pos) => Report;

    /// Invitations, knocks and their ends in rooms that this server is not in.
    Outsides(0x41, Scan): (UserNid, RoomNid) => Outside;
    /// What is shown of those rooms.
    OutsideStates(0x42, Scan): (UserNid, RoomNid) => OutsideState;

    /// Where a user's notifications are pushed: (user, app ID, push key).
    Pushers(0x40, Scan, guarded): (UserNid, String, String) => Pusher;

    // ── other owners ──
    /// Access tokens by hash.
    AccessTokens(0x50, Point): (TokenKey,) => AccessToken;
    /// Registration tokens by hash. The lane is the token's own; it is spelt out (and takes no bytes)
    /// so that a list can ask lane by lane.
    RegistrationTokens(0x51, Point, guarded): (hearth_store::Lane, TokenKey) => RegistrationToken;
    /// Local aliases.
    Aliases(0x52, Point, guarded): (AliasKey,) => AliasRow;
    /// How far each consumer of the change log has come, by lane.
    Cursors(0x53, Point, guarded): (hearth_store::Lane, String) => Position;
    /// Families of refresh tokens by hash: all that a device gets between two log-ins.
    RefreshFamilies(0x54, Point): (TokenKey,) => RefreshFamily;
    /// Tokens that log in once, by user and hash.
    LoginTokens(0x55, Scan, guarded): (UserNid, TokenKey) => LoginToken;
    /// Where users get the server's notices.
    NoticeRooms(0x56, Point, guarded): (UserNid,) => NoticeRoom;
    /// Local users who wanted to be forgotten, with the position of that. The lane is the user's own; it
    /// is spelt out (and takes no bytes) so that a list can ask lane by lane.
    ErasedUsers(0x57, Point): (hearth_store::Lane, UserNid) => Position;
    /// Who has a pusher with an app ID and push key, by the hash of both. A user may be named here
    /// whose pusher is gone.
    PushKeys(0x5f, Scan): (TokenKey, UserNid) => ();
    /// Events to be sent later, and for a while what became of them: (sender, the secret in the delay id).
    DelayedEvents(0x5b, Point): (UserNid, String) => DelayedEvent;
    /// The list of each user's delayed events. The lane is the user's own; it is spelt out (and takes no
    /// bytes) so that a start can read all of them lane by lane.
    DelayedLists(0x5c, Scan, guarded): (hearth_store::Lane, UserNid) => DelayedList;

    // ── other servers: the lane of the name, then the name ──
    /// Other servers' signing keys.
    PeerKeys(0x58, Point, guarded): (hearth_store::Lane, String) => PeerKeysRow;
    /// The newest answer of each server about its keys.
    PeerKeyAnswers(0x59, Point): (hearth_store::Lane, String) => PeerKeyAnswer;
    /// What the last transactions of other servers came to: a few of each, numbered as they came.
    ReceivedTransactions(0x5d, Scan): (hearth_store::Lane, String, u32) => ReceivedTransaction;
    // ── destinations: owner DestinationNid ──
    /// Servers that something was sent to, or will be. The lane is the destination's own; it is spelt out
    /// (and takes no bytes) so that a start can read all of them lane by lane.
    Destinations(0x61, Point, guarded): (hearth_store::Lane, DestinationNid) => Destination;
    /// Events that a destination has not taken yet, by their position (comes through outboxes).
    Outbox(0x62, Queue): (DestinationNid, hearth_store::Pos) => EventNid;
    /// The transaction that a destination is being sent.
    Transactions(0x63, Point): (DestinationNid,) => Transaction;
    /// Destinations that do not answer.
    BackOffs(0x64, Point): (DestinationNid,) => BackOff;
}

fn decode<K: Keyspace>(key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
    use hearth_store::TupleKey;
    let mut reader = hearth_store::KeyReader(key);
    K::Key::decode(&mut reader)?;
    reader.finish()?;
    K::Value::decode(value).map(drop)
}

/// A stored position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position(pub hearth_store::Pos);

impl Value for Position {
    fn encode(&self, out: &mut KeyBuf) {
        hearth_store::Element::encode(&self.0, out);
    }
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = hearth_store::KeyReader(bytes);
        let pos = hearth_store::Element::decode(&mut reader)?;
        reader.finish()?;
        Ok(Self(pos))
    }
}

/// Values whose body is postcard behind a version byte.
macro_rules! stored {
    ($($name:ty = $version:literal;)+) => { $(
        impl hearth_store::Value for $name {
            fn encode(&self, out: &mut hearth_store::KeyBuf) { hearth_store::encode_body($version, self, out); }
            fn decode(bytes: &[u8]) -> Result<Self, hearth_store::DecodeError> {
                hearth_store::decode_body($version, bytes)
            }
        }
    )+ };
}
/// The same for values that carry the position of their commit in a field `pos` (skipped by serde):
/// it comes first, in eight bytes that the committer fills in.
macro_rules! stamped {
    ($($name:ty = $version:literal;)+) => { $(
        impl hearth_store::Value for $name {
            fn encode(&self, out: &mut hearth_store::KeyBuf) {
                hearth_store::Element::encode(&self.pos, out);
                hearth_store::encode_body($version, self, out);
            }
            fn decode(bytes: &[u8]) -> Result<Self, hearth_store::DecodeError> {
                let mut reader = hearth_store::KeyReader(bytes);
                let pos = hearth_store::Element::decode(&mut reader)?;
                let body: Self = hearth_store::decode_body($version, reader.rest())?;
                Ok(Self { pos, ..body })
            }
        }
    )+ };
}
pub(crate) use {stamped, stored};
