//! Stored events.

use bytes::Bytes;
use hearth_store::{DecodeError, Element, KeyBuf, KeyReader, Pos, Value, decode_body, encode_body};

use serde::{Deserialize, Serialize};

use crate::StateId;

/// What was decided about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// In the timeline.
    Accepted,
    /// Allowed by the state before it, not by the current state: kept, not shown, not built upon.
    SoftFailed,
    /// Not allowed: kept so that its children can be judged.
    Rejected,
    /// Known through an auth chain or a state snapshot only.
    Outlier,
}

/// How an event came to this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Made here: other servers get it from this one.
    #[default]
    Local,
    /// Made elsewhere by the handshake of a join, leave or knock with this server, which passes it on to the others.
    Relayed,
    /// From other servers, which see to it that everybody gets it.
    Remote,
    /// The same, and what came right before it is not here.
    AfterGap,
}

/// An event as it is stored: fixed fields first, then the ID, then the canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Position of the commit that stored it.
    pub pos: Pos,
    /// What was decided.
    pub verdict: Verdict,
    /// How it came.
    pub source: Source,
    /// The room's state before it.
    pub state_before: StateId,
    /// The event that redacts it, by number; `json` is the redacted form then.
    pub redacted_by: Option<u32>,
    /// `m.replace`-style previous event in the same state slot, by number.
    pub replaces_state: Option<u32>,
    /// The device and transaction id of the local client that sent it, for that client's echo. For a
    /// delayed event the device is `""`, which no device is named, and the id is the delay id.
    pub transaction: Option<(String, String)>,
    /// Its ID.
    pub event_id: Box<str>,
    /// The PDU in canonical JSON.
    pub json: Bytes,
}

/// A verified event of another server that waits to be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedEvent {
    /// The server that sent it, which is asked for what is missing.
    pub origin: String,
    /// Its ID.
    pub event_id: String,
    /// The PDU in canonical JSON.
    pub json: Vec<u8>,
    /// What it stands on could not be asked for, so it is tried again; `None`: it was not tried yet.
    pub wait: Option<StagedWait>,
}

/// How a staged event waits for servers that do not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedWait {
    /// When it was first not answered, in milliseconds since the epoch.
    pub since: u64,
    /// Attempts that were not answered.
    pub tries: u32,
    /// When the last of them ended, in milliseconds since the epoch.
    pub tried_at: u64,
}

/// What was staged before there was [`StagedEvent::wait`].
#[derive(Deserialize)]
struct StagedV1 {
    origin: String,
    event_id: String,
    json: Vec<u8>,
}

impl Value for StagedEvent {
    fn encode(&self, out: &mut KeyBuf) {
        encode_body(2, self, out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.first() != Some(&1) {
            return decode_body(2, bytes);
        }
        let StagedV1 { origin, event_id, json } = decode_body(1, bytes)?;
        Ok(Self { origin, event_id, json, wait: None })
    }
}

const VERSION: u8 = 2;

impl Value for StoredEvent {
    fn encode(&self, out: &mut KeyBuf) {
        out.bytes.reserve(64 + self.event_id.len() + self.json.len());
        self.pos.encode(out);
        out.bytes.push(VERSION);
        out.bytes.push(match self.verdict {
            Verdict::Accepted => 0,
            Verdict::SoftFailed => 1,
            Verdict::Rejected => 2,
            Verdict::Outlier => 3,
        });
        out.bytes.push(match self.source {
            Source::Local => 0,
            Source::Relayed => 1,
            Source::Remote => 2,
            Source::AfterGap => 3,
        });
        out.bytes.extend(self.state_before.0);
        for number in [self.redacted_by, self.replaces_state] {
            Element::encode(&number.map_or(0, |n| n.wrapping_add(1)), out);
        }
        out.bytes.push(u8::from(self.transaction.is_some()));
        if let Some((device, id)) = &self.transaction {
            Element::encode(device, out);
            Element::encode(id, out);
        }
        Element::encode(&self.event_id.to_string(), out);
        out.bytes.extend(&self.json);
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = KeyReader(bytes);
        let pos = Pos::decode(&mut input)?;
        if u8::decode(&mut input)? != VERSION {
            return Err(DecodeError("unknown version"));
        }
        let verdict = match u8::decode(&mut input)? {
            0 => Verdict::Accepted,
            1 => Verdict::SoftFailed,
            2 => Verdict::Rejected,
            3 => Verdict::Outlier,
            _ => return Err(DecodeError("verdict")),
        };
        let source = match u8::decode(&mut input)? {
            0 => Source::Local,
            1 => Source::Relayed,
            2 => Source::Remote,
            3 => Source::AfterGap,
            _ => return Err(DecodeError("source")),
        };
        let state_before = StateId(input.take()?);
        let redacted_by = <u32 as Element>::decode(&mut input)?.checked_sub(1);
        let replaces_state = <u32 as Element>::decode(&mut input)?.checked_sub(1);
        let transaction = match <u8 as Element>::decode(&mut input)? {
            0 => None,
            1 => Some((<String as Element>::decode(&mut input)?, <String as Element>::decode(&mut input)?)),
            _ => return Err(DecodeError("transaction")),
        };
        let event_id = <String as Element>::decode(&mut input)?.into_boxed_str();
        let json = Bytes::copy_from_slice(input.rest());
        Ok(Self { pos, verdict, source, state_before, redacted_by, replaces_state, transaction, event_id, json })
    }
}
