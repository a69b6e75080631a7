//! From an EDU as it came to one whose users belong to the server that sent it.

use std::collections::BTreeMap;

use hearth_accounts::{MAX_STATUS_BYTES, PresenceState};
use hearth_rooms::{ForeignReceipt, Ignored, ReceiptThread};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId, ServerName};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Bytes of an EDU.
const MAX_BYTES: usize = 64 * 1024;
/// Receipts, or users' presences, of one EDU; more are not read.
const MAX_ITEMS: usize = 1_000;
/// Events of one receipt; more are not read.
const MAX_READ: usize = 20;

/// Why an EDU, or the last bad part of it, came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It is too large, or its content is not what its type asks for.
    Malformed,
    /// Nobody knows its type.
    UnknownType,
    /// It is of a kind that this server does not take yet.
    NotYet,
    /// It speaks for the users of another server.
    ForeignSender,
    /// It says what servers do not tell each other.
    Private,
    /// The server says too much.
    Flood,
    /// The room or its members have nothing to do with it.
    Ignored(Ignored),
    /// This server failed.
    Failed,
}

impl Dropped {
    /// For a metric.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::UnknownType => "unknown_type",
            Self::NotYet => "not_yet",
            Self::ForeignSender => "foreign_sender",
            Self::Private => "private",
            Self::Flood => "flood",
            Self::Ignored(Ignored::UnknownRoom) => "unknown_room",
            Self::Ignored(Ignored::NotInRoom) => "server_not_in_room",
            Self::Ignored(Ignored::KeptOut) => "server_acl",
            Self::Ignored(Ignored::NotJoined) => "user_not_in_room",
            Self::Ignored(Ignored::UnknownEvent) => "unknown_event",
            Self::Ignored(Ignored::NotInThread) => "not_in_thread",
            Self::Failed => "failed",
        }
    }
}

impl From<Ignored> for Dropped {
    fn from(ignored: Ignored) -> Self {
        Self::Ignored(ignored)
    }
}

/// An EDU in which everybody belongs to the server that sent it. Only [`bind`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundEdu(Kind);

/// What it says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Typing { room_id: OwnedRoomId, user_id: OwnedUserId, typing: bool },
    Receipts(Vec<SaidReceipt>),
    Presence(Vec<SaidPresence>),
}

/// A receipt, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SaidReceipt {
    pub room_id: OwnedRoomId,
    pub receipt: ForeignReceipt,
}

/// A user's presence.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SaidPresence {
    pub user_id: OwnedUserId,
    pub state: PresenceState,
    pub currently_active: bool,
    /// Milliseconds.
    pub last_active_ago: Option<u64>,
    pub status_msg: Option<String>,
}

impl BoundEdu {
    /// How many things it says: users, or events that they have read.
    pub fn items(&self) -> usize {
        match &self.0 {
            Kind::Typing { .. } => 1,
            Kind::Receipts(receipts) => receipts.iter().map(|said| said.receipt.event_ids.len()).sum(),
            Kind::Presence(said) => said.len(),
        }
    }

    pub(super) fn into_kind(self) -> Kind {
        self.0
    }
}

/// Reads an EDU that `origin` sent. What it says of users of other servers is left out; if nothing is left, it is
/// dropped.
///
/// # Errors
/// Why it is dropped.
pub fn bind(origin: &ServerName, edu_type: &str, content: &RawValue) -> Result<BoundEdu, Dropped> {
    if content.get().len() > MAX_BYTES {
        return Err(Dropped::Malformed);
    }
    match edu_type {
        "m.typing" => typing(origin, content),
        "m.receipt" => receipts(origin, content),
        "m.presence" => presence(origin, content),
        // End-to-end encryption and devices come with their own stores.
        "m.direct_to_device" | "m.device_list_update" | "m.signing_key_update" => Err(Dropped::NotYet),
        _ => Err(Dropped::UnknownType),
    }
}

fn read<'a, T: Deserialize<'a>>(content: &'a RawValue) -> Result<T, Dropped> {
    serde_json::from_str(content.get()).map_err(|_| Dropped::Malformed)
}

fn typing(origin: &ServerName, content: &RawValue) -> Result<BoundEdu, Dropped> {
    #[derive(Deserialize)]
    struct Content {
        room_id: OwnedRoomId,
        user_id: OwnedUserId,
        typing: bool,
    }
    let Content { room_id, user_id, typing } = read(content)?;
    if user_id.server_name() != origin {
        return Err(Dropped::ForeignSender);
    }
    Ok(BoundEdu(Kind::Typing { room_id, user_id, typing }))
}

fn receipts(origin: &ServerName, content: &RawValue) -> Result<BoundEdu, Dropped> {
    let rooms: BTreeMap<String, Value> = read(content)?;
    let (mut receipts, mut dropped) = (Vec::new(), Dropped::Malformed);
    for (room_id, kinds) in rooms {
        let Ok(room_id) = OwnedRoomId::try_from(room_id) else { continue };
        // A room of which it says nonsense is no reason not to believe it of others.
        for (kind, users) in kinds.as_object().into_iter().flatten() {
            if kind != "m.read" {
                dropped = Dropped::Private;
                continue;
            }
            for (user_id, said) in users.as_object().into_iter().flatten() {
                match receipt(origin, user_id, said) {
                    Ok(receipt) if receipts.len() < MAX_ITEMS => {
                        receipts.push(SaidReceipt { room_id: room_id.clone(), receipt });
                    }
                    Ok(_) => {}
                    Err(why) => dropped = why,
                }
            }
        }
    }
    if receipts.is_empty() { Err(dropped) } else { Ok(BoundEdu(Kind::Receipts(receipts))) }
}

fn receipt(origin: &ServerName, user_id: &str, said: &Value) -> Result<ForeignReceipt, Dropped> {
    let user_id = OwnedUserId::try_from(user_id).map_err(|_| Dropped::Malformed)?;
    if user_id.server_name() != origin {
        return Err(Dropped::ForeignSender);
    }
    let event_ids = said["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let event_ids = event_ids.filter_map(|event_id| OwnedEventId::try_from(event_id).ok());
    let event_ids: Vec<OwnedEventId> = event_ids.take(MAX_READ).collect();
    if event_ids.is_empty() {
        return Err(Dropped::Malformed);
    }
    let ts = said["data"]["ts"].as_u64().ok_or(Dropped::Malformed)?;
    let thread = match &said["data"]["thread_id"] {
        Value::Null => None,
        Value::String(thread) if thread == "main" => Some(ReceiptThread::Main),
        Value::String(thread) => {
            let thread = OwnedEventId::try_from(thread.as_str()).map_err(|_| Dropped::Malformed)?;
            Some(ReceiptThread::Root(thread))
        }
        _ => return Err(Dropped::Malformed),
    };
    Ok(ForeignReceipt { user_id, thread, event_ids, ts })
}

fn presence(origin: &ServerName, content: &RawValue) -> Result<BoundEdu, Dropped> {
    #[derive(Deserialize)]
    struct Content {
        push: Vec<Value>,
    }
    let Content { push } = read(content)?;
    let (mut users, mut dropped) = (BTreeMap::new(), Dropped::Malformed);
    for said in push.iter().take(MAX_ITEMS) {
        match one_presence(origin, said) {
            // The last word counts.
            Ok(said) => drop(users.insert(said.user_id.clone(), said)),
            Err(why) => dropped = why,
        }
    }
    if users.is_empty() { Err(dropped) } else { Ok(BoundEdu(Kind::Presence(users.into_values().collect()))) }
}

fn one_presence(origin: &ServerName, said: &Value) -> Result<SaidPresence, Dropped> {
    let user_id = said["user_id"].as_str().and_then(|user| OwnedUserId::try_from(user).ok());
    let user_id = user_id.ok_or(Dropped::Malformed)?;
    if user_id.server_name() != origin {
        return Err(Dropped::ForeignSender);
    }
    let state = match said["presence"].as_str() {
        Some("online") => PresenceState::Online,
        Some("unavailable") => PresenceState::Unavailable,
        Some("offline") => PresenceState::Offline,
        _ => return Err(Dropped::Malformed),
    };
    let status_msg = match &said["status_msg"] {
        Value::Null => None,
        Value::String(text) => Some(shortened(text)).filter(|text| !text.is_empty()),
        _ => return Err(Dropped::Malformed),
    };
    let currently_active = said["currently_active"] == Value::Bool(true) && state == PresenceState::Online;
    let last_active_ago = said["last_active_ago"].as_u64();
    Ok(SaidPresence { user_id, state, currently_active, last_active_ago, status_msg })
}

/// What users of this server could have said.
fn shortened(text: &str) -> String {
    let mut end = text.len().min(MAX_STATUS_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
