//! What callers ask of a room.

use hearth_base::Millis;
use hearth_schema::{Membership, RoomNid, UserNid};
use hearth_store::Pos;
use ruma_common::{CanonicalJsonObject, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId};

/// A client's event.
#[derive(Clone, Debug)]
pub struct SendEvent {
    /// Where to.
    pub room_id: OwnedRoomId,
    /// A local user.
    pub sender: OwnedUserId,
    /// `m.room.message`, …
    pub event_type: String,
    /// Present in state events.
    pub state_key: Option<String>,
    /// Already checked to be canonical JSON (integers in range, depth bounded).
    pub content: CanonicalJsonObject,
    /// The event that an `m.room.redaction` redacts.
    pub redacts: Option<OwnedEventId>,
    /// When it says that it was sent; `None`: now. Its place in the room is the end in any case.
    pub origin_server_ts: Option<Millis>,
    /// Makes a repetition harmless.
    pub transaction: Option<Transaction>,
}

/// A client's transaction id: the same one again gives the same event id again, also after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// Whose id it is.
    pub device_id: String,
    /// What it is an id of: endpoint and what its path names beside room and id. The same id for
    /// something else is another transaction (§"Transaction identifiers").
    pub scope: String,
    /// The id, as the client chose it.
    pub id: String,
}

impl Transaction {
    /// Where its event is remembered.
    pub(crate) fn key(&self, room: RoomNid, user: UserNid) -> (RoomNid, UserNid, String, String, String) {
        (room, user, self.device_id.clone(), self.scope.clone(), self.id.clone())
    }
}

/// An event that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its ID.
    pub event_id: OwnedEventId,
    /// Its position; `Pos::ZERO` for a repeated transaction.
    pub pos: Pos,
}

/// What a member event says of its user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberProfile {
    /// Display name.
    pub displayname: Option<String>,
    /// `mxc:` URI.
    pub avatar_url: Option<String>,
}

/// A change of somebody's membership. The event's content is built from this alone.
#[derive(Clone, Debug)]
pub struct MembershipChange {
    /// In which room.
    pub room_id: OwnedRoomId,
    /// Who asks: a local user.
    pub sender: OwnedUserId,
    /// Whose membership.
    pub target: OwnedUserId,
    /// What it shall be. `Leave` by another than the target is a kick, or an unban with
    /// `only_from: Some(Ban)`.
    pub membership: Membership,
    /// The change only makes sense from this membership (unban: `Ban`); otherwise
    /// [`crate::MembershipError::NotInState`].
    pub only_from: Option<Membership>,
    /// `reason` of the member event.
    pub reason: Option<String>,
    /// For `Join`, `Invite` and `Knock`: the target's profile.
    pub profile: MemberProfile,
    /// For `Invite`: marks a direct chat.
    pub is_direct: Option<IsDirect>,
}

/// Who asks, as far as rooms make a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequesterKind {
    /// A user with an account.
    #[default]
    User,
    /// A guest: gets only into rooms whose `m.room.guest_access` is `can_join`.
    Guest,
}

/// Joining or knocking as a client asks for it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What shall change: membership `Join` or `Knock`, of the sender.
    pub change: MembershipChange,
    /// What else the client wants in the content of the member event; what the server says of the
    /// membership itself goes before it.
    pub content: CanonicalJsonObject,
    /// Who asks.
    pub requester: RequesterKind,
    /// Servers that the client says are in the room.
    pub via: Vec<OwnedServerName>,
}

/// `POST /rooms/{roomId}/upgrade`.
#[derive(Clone, Debug)]
pub struct UpgradeRoom {
    /// The room to replace.
    pub room_id: OwnedRoomId,
    /// Who asks: a local user, who creates the new room.
    pub sender: OwnedUserId,
    /// The sender's profile, for the join event.
    pub profile: MemberProfile,
    /// The new room's version.
    pub version: hearth_event::RoomVersion,
    /// Creators besides the sender, where the new version knows such.
    pub additional_creators: Vec<OwnedUserId>,
}

/// Which relations of a redacted event go with it (MSC3912).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RelTypes {
    /// All.
    All,
    /// Those of these types.
    Only(Vec<String>),
}

/// The events related to a redacted one, to be redacted too.
#[derive(Clone, Debug)]
pub struct RedactRelated {
    /// Where.
    pub room_id: OwnedRoomId,
    /// Who asks: a local user.
    pub sender: OwnedUserId,
    /// What they relate to.
    pub event_id: OwnedEventId,
    /// How they relate to it.
    pub rel_types: RelTypes,
    /// Content of each redaction.
    pub content: CanonicalJsonObject,
}

/// Marks an invitation to a direct chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsDirect;

/// `visibility` of `createRoom`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoomVisibility {
    /// Listed in the directory.
    Public,
    /// Not listed.
    #[default]
    Private,
}

/// `preset` of `createRoom`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Invite only, shared history, guests may join.
    PrivateChat,
    /// The same, and everybody invited gets the creator's power.
    TrustedPrivateChat,
    /// Anybody may join.
    PublicChat,
}

/// An event of `initial_state`.
#[derive(Clone, Debug)]
pub struct InitialState {
    /// Its type.
    pub event_type: String,
    /// Its state key.
    pub state_key: String,
    /// Its content.
    pub content: CanonicalJsonObject,
}

/// What the server decides about new rooms.
#[derive(Clone, Debug)]
pub struct RoomSettings {
    /// `m.room_versions` default: "12".
    pub default_version: hearth_event::RoomVersion,
}

/// `POST /createRoom`.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// A local user.
    pub creator: OwnedUserId,
    /// The creator's profile, for the join event.
    pub profile: MemberProfile,
    /// `None`: the server's default.
    pub version: Option<hearth_event::RoomVersion>,
    /// `None`: by `visibility`.
    pub preset: Option<Preset>,
    /// Whether the directory lists it.
    pub visibility: RoomVisibility,
    /// `m.room.name`
    pub name: Option<String>,
    /// `m.room.topic`
    pub topic: Option<String>,
    /// A local alias to create and to make canonical.
    pub alias: Option<OwnedRoomAliasId>,
    /// Users to invite, with the profiles of local ones.
    pub invite: Vec<(OwnedUserId, MemberProfile)>,
    /// Marks the invitations as direct chats.
    pub is_direct: Option<IsDirect>,
    /// Merged into the create event.
    pub creation_content: CanonicalJsonObject,
    /// State events to set.
    pub initial_state: Vec<InitialState>,
    /// Overrides keys of the power levels event.
    pub power_level_content_override: Option<CanonicalJsonObject>,
}
