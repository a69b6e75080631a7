//! Events as they are shown.

use bytes::Bytes;
use hearth_base::Millis;
use hearth_event::Pdu;
use hearth_schema::{Membership, RoomNid, Source, StateId, StoredEvent, Verdict};
use hearth_store::Pos;
use ruma_common::{EventId, UserId};

use crate::plan::Planned;

/// A stored event, rendered once and shared by everybody who is shown it.
#[derive(Clone, Debug)]
pub struct RoomEvent {
    /// Its room.
    pub room: RoomNid,
    /// Its number within the room.
    pub n: u32,
    /// Its position.
    pub pos: Pos,
    /// What was decided about it.
    pub verdict: Verdict,
    /// How it came to this server.
    pub source: Source,
    /// The room's state before it.
    pub state_before: StateId,
    /// The event that redacts it.
    pub redacted_by: Option<u32>,
    /// The event that was in its place of the state before.
    pub replaces_state: Option<u32>,
    /// The local client that sent it.
    pub sent_by: Option<SentBy>,
    /// Whether the room's state has changed with it; `None`: the log of states has to be asked.
    pub moved_state: Option<bool>,
    /// The event.
    pub pdu: Pdu,
    /// The client format without `unsigned` and without the closing brace.
    pub head: Bytes,
}

/// The local client that sent an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentBy {
    /// Its device; `""` for a delayed event, which the server has sent.
    pub device_id: String,
    /// The id that it chose, or the delay id.
    pub transaction_id: String,
}

impl SentBy {
    /// Whether the server has sent it, at the time that its sender had chosen.
    pub const fn is_delayed(&self) -> bool {
        self.device_id.is_empty()
    }
}

/// What is shown of an event besides the event itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventExtras<'a> {
    /// For `age`; `None` leaves it out.
    pub now: Option<Millis>,
    /// For the client that sent it.
    pub transaction_id: Option<&'a str>,
    /// For the sender of a delayed event.
    pub delay_id: Option<&'a str>,
    /// The reader's membership when the event was sent.
    pub membership: Option<Membership>,
    /// The event that was in its place of the state before.
    pub previous: Option<&'a RoomEvent>,
    /// The redaction.
    pub redacted_because: Option<&'a RoomEvent>,
    /// `m.relations`: a JSON object.
    pub relations: Option<&'a [u8]>,
}

impl RoomEvent {
    /// From a stored row and the event parsed from it.
    pub(crate) fn stored(room: RoomNid, n: u32, stored: StoredEvent, pdu: Pdu) -> Self {
        let head = hearth_event::client_head(&pdu);
        let sent_by = stored.transaction.map(|(device_id, transaction_id)| SentBy { device_id, transaction_id });
        Self {
            room,
            n,
            pos: stored.pos,
            verdict: stored.verdict,
            source: stored.source,
            state_before: stored.state_before,
            redacted_by: stored.redacted_by,
            replaces_state: stored.replaces_state,
            sent_by,
            moved_state: None,
            pdu,
            head,
        }
    }

    /// The same from a plan that has become durable at `pos`.
    pub(crate) fn planned(room: RoomNid, pos: Pos, planned: &Planned, sent_by: Option<SentBy>) -> Self {
        Self {
            room,
            n: planned.n,
            pos,
            verdict: Verdict::Accepted,
            source: Source::Local,
            state_before: planned.state_before,
            redacted_by: None,
            replaces_state: planned.state.as_ref().and_then(|state| state.previous).map(|entry| entry.n),
            sent_by,
            moved_state: Some(planned.state.is_some()),
            pdu: planned.pdu.clone(),
            head: hearth_event::client_head(&planned.pdu),
        }
    }

    /// Its ID.
    pub fn event_id(&self) -> &EventId {
        self.pdu.event_id()
    }

    /// Its type.
    pub fn event_type(&self) -> &str {
        self.pdu.event_type()
    }

    /// Its state key, in state events.
    pub fn state_key(&self) -> Option<&str> {
        self.pdu.state_key()
    }

    /// Who sent it.
    pub fn sender(&self) -> &UserId {
        self.pdu.sender()
    }

    /// Bytes it takes in a cache, about.
    pub(crate) fn weight(&self) -> u32 {
        u32::try_from(600 + self.head.len() + self.pdu.json().len()).unwrap_or(u32::MAX)
    }

    /// Appends the whole event in client format.
    pub fn write_client(&self, extras: &EventExtras<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        let mut unsigned = Unsigned { out, empty: true };
        if let Some(now) = extras.now {
            let age = now.0.saturating_sub(self.pdu.origin_server_ts());
            json_number(age, unsigned.key("age"));
        }
        if let Some(relations) = extras.relations {
            unsigned.key("m.relations").extend_from_slice(relations);
        }
        if let Some(membership) = extras.membership {
            let out = unsigned.key("membership");
            out.push(b'"');
            out.extend_from_slice(membership.as_str().as_bytes());
            out.push(b'"');
        }
        if let Some(previous) = extras.previous {
            unsigned.key("prev_content").extend_from_slice(previous.pdu.content_json());
            json_string(previous.sender().as_str(), unsigned.key("prev_sender"));
            json_string(previous.event_id().as_str(), unsigned.key("replaces_state"));
        }
        if let Some(redaction) = extras.redacted_because {
            let now = extras.now;
            redaction.write_client(&EventExtras { now, ..EventExtras::default() }, unsigned.key("redacted_because"));
        }
        if let Some(id) = extras.transaction_id {
            json_string(id, unsigned.key("transaction_id"));
        }
        if let Some(id) = extras.delay_id {
            // The second name is what clients look for as long as the first is not in the specification.
            json_string(id, unsigned.key("delay_id"));
            json_string(id, unsigned.key("org.matrix.msc4140.delay_id"));
        }
        unsigned.finish();
    }

    /// Appends the stripped form that invited users are shown: type, state key, sender, content; of the room's
    /// creation also the time (MSC4311).
    pub fn write_stripped(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"content\":");
        out.extend_from_slice(self.pdu.content_json());
        if self.event_type() == "m.room.create" {
            out.extend_from_slice(format!(",\"origin_server_ts\":{}", self.pdu.origin_server_ts()).as_bytes());
        }
        out.extend_from_slice(b",\"sender\":");
        json_string(self.sender().as_str(), out);
        if let Some(state_key) = self.state_key() {
            out.extend_from_slice(b",\"state_key\":");
            json_string(state_key, out);
        }
        out.extend_from_slice(b",\"type\":");
        json_string(self.event_type(), out);
        out.push(b'}');
    }
}

/// Writes `,"unsigned":{…}}`, or only the brace that closes the event.
struct Unsigned<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl Unsigned<'_> {
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.empty { b",\"unsigned\":{\"" } else { b",\"" });
        self.empty = false;
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    fn finish(self) {
        self.out.extend_from_slice(if self.empty { b"}" } else { b"}}" });
    }
}

/// Appends `number`.
fn json_number(number: u64, out: &mut Vec<u8>) {
    serde_json::to_writer(out, &number).expect("a number can be written to memory");
}

/// Appends `text` as a JSON string.
pub(crate) fn json_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}
