//! Other servers, as rooms need them: a trait that `peers` implements, so that no decision about a room knows HTTP.
//!
//! What comes back is not trusted: events are raw JSON until [`hearth_event::check`] and
//! [`hearth_event::Checked::verify`] have let them in, and of a template only named fields are read.

mod joined;

use std::time::Duration;

use futures::future::BoxFuture;
use hearth_base::Millis;
use hearth_event::{Pdu, PublicKeys, RoomVersion};
use hearth_store::StoreError;
use ruma_common::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName,
};
use serde_json::value::RawValue;

pub use joined::{JoinPart, JoinParts, join_parts};

/// An event as another server sent it: unchecked.
pub type RawPdu = Box<RawValue>;

/// Why another server did not help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RemoteError {
    /// No answer: no address, no connection, no certificate, no time left, or the server is being left alone after failures.
    #[error("{server} cannot be reached: {why}")]
    Unreachable {
        /// Which server.
        server: OwnedServerName,
        /// What happened.
        why: String,
    },
    /// It said no.
    #[error("{server} refused: {errcode} {error}")]
    Refused {
        /// Which server.
        server: OwnedServerName,
        /// HTTP status.
        status: u16,
        /// `errcode`, `M_UNKNOWN` if it gave none.
        errcode: String,
        /// `error`, cut to a sane length and without control characters.
        error: String,
    },
    /// It answered something that is no answer, or too much of it.
    #[error("{server} gave an answer that cannot be used: {why}")]
    Invalid {
        /// Which server.
        server: OwnedServerName,
        /// What is wrong with it.
        why: String,
    },
    /// This server talks to no others.
    #[error("federation is off")]
    Off,
}

/// The answer of another server.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;

/// Whose keys are wanted, to verify what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyWish {
    /// The server that should have signed.
    pub server: OwnedServerName,
    /// The key IDs of its signatures.
    pub key_ids: Vec<String>,
    /// `origin_server_ts` of the newest event signed with them, in milliseconds.
    pub at: u64,
}

/// A membership that needs another server's help to begin or to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// `make_join`, `send_join`
    Join,
    /// `make_leave`, `send_leave`
    Leave,
    /// `make_knock`, `send_knock`
    Knock,
}

/// What `make_join`, `make_leave` or `make_knock` suggests. Nothing in it is signed as it is.
#[derive(Clone, Debug)]
pub struct Template {
    /// The room's version; a server that does not say means version 1.
    pub room_version: RoomVersion,
    /// The suggested event.
    pub event: CanonicalJsonObject,
}

/// The state before an event and the auth chains of that state, by event ID.
#[derive(Clone, Debug, Default)]
pub struct StateIds {
    /// The state.
    pub state: Vec<OwnedEventId>,
    /// Its auth chains.
    pub auth_chain: Vec<OwnedEventId>,
}

/// The state before an event and the auth chains of that state.
#[derive(Clone, Debug, Default)]
pub struct RemoteState {
    /// The state.
    pub state: Vec<RawPdu>,
    /// Its auth chains.
    pub auth_chain: Vec<RawPdu>,
}

/// What is asked of `get_missing_events`.
#[derive(Clone, Debug)]
pub struct MissingEvents {
    /// Go back from these, which are not in the answer.
    pub latest: Vec<OwnedEventId>,
    /// Go no further than to these.
    pub earliest: Vec<OwnedEventId>,
    /// Events at the most.
    pub limit: usize,
    /// Nothing less deep than this.
    pub min_depth: u64,
}

/// An invitation on its way to the server of who is invited.
#[derive(Clone, Debug)]
pub struct InviteOut {
    /// Of which room.
    pub version: RoomVersion,
    /// The event, signed by us.
    pub event: Pdu,
    /// What the invited user is shown of the room.
    pub invite_room_state: Vec<RawPdu>,
}

/// A third-party invitation that was bound, on its way to the server of who has invited.
#[derive(Clone, Debug)]
pub struct ExchangeOut {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The membership that is asked for.
    pub event: CanonicalJsonObject,
}

/// What a room's policy server says of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAnswer {
    /// Its signature in base64, which has not been verified.
    Signed(String),
    /// It does not recommend the event.
    Refused(PolicyRefusal),
}

/// What a room's policy server says when it does not sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRefusal {
    /// HTTP status: 400, 403, 404 or 429.
    pub status: u16,
    /// `errcode`, `M_UNKNOWN` if it gave none.
    pub errcode: String,
    /// `error`, cut to a sane length and without control characters.
    pub error: String,
    /// With status 429: how long it wants to be left alone, an hour at the most.
    pub retry_after: Option<Duration>,
}

/// Other servers. Every function asks one of them, once. What is not implemented is answered with [`RemoteError::Off`], so
/// that whoever stands for them in a test says only what it is about.
pub trait Remote: Send + Sync + 'static {
    /// `server` has not answered in a time in which others do what it was asked at `began`, and nobody waits any more: it
    /// counts as one that cannot be reached.
    fn gave_up(&self, server: &ServerName, began: Millis) {
        let _ = (server, began);
    }

    /// The keys that are known, or can be found out, of `wanted`; what cannot be had is absent. That the store failed says
    /// nothing about a key, and is the error.
    fn keys<'a>(&'a self, wanted: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>>;

    /// `GET make_join`, `make_leave` or `make_knock`.
    fn make<'a>(
        &'a self,
        via: &'a ServerName,
        what: Handshake,
        room: &'a RoomId,
        user: &'a OwnedUserId,
    ) -> Answer<'a, Template> {
        let _ = (via, what, room, user);
        off()
    }

    /// `PUT /v2/send_join`: gives what is told as soon as the other server has begun to tell it.
    fn send_join<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, JoinParts> {
        let _ = (via, event);
        off()
    }

    /// `PUT /v2/send_leave`.
    fn send_leave<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, ()> {
        let _ = (via, event);
        off()
    }

    /// `PUT send_knock`: gives `knock_room_state`.
    fn send_knock<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, Vec<RawPdu>> {
        let _ = (via, event);
        off()
    }

    /// `PUT /v2/invite` (v1 where v2 is not known): the event with the signature of the user's server.
    fn invite<'a>(&'a self, to: &'a ServerName, invite: &'a InviteOut) -> Answer<'a, RawPdu> {
        let _ = (to, invite);
        off()
    }

    /// `PUT exchange_third_party_invite`.
    fn exchange_third_party_invite<'a>(&'a self, to: &'a ServerName, wanted: &'a ExchangeOut) -> Answer<'a, ()> {
        let _ = (to, wanted);
        off()
    }

    /// `POST /_matrix/policy/v1/sign`: has the policy server `via` sign the event.
    fn policy_sign<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, PolicyAnswer> {
        let _ = (via, event);
        off()
    }

    /// `GET event`.
    fn event<'a>(&'a self, via: &'a ServerName, event: &'a EventId) -> Answer<'a, RawPdu> {
        let _ = (via, event);
        off()
    }

    /// `POST get_missing_events`.
    fn missing_events<'a>(
        &'a self,
        via: &'a ServerName,
        room: &'a RoomId,
        ask: &'a MissingEvents,
    ) -> Answer<'a, Vec<RawPdu>> {
        let _ = (via, room, ask);
        off()
    }

    /// `GET state_ids`.
    fn state_ids<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, event: &'a EventId) -> Answer<'a, StateIds> {
        let _ = (via, room, event);
        off()
    }

    /// `GET state`.
    fn state<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, event: &'a EventId) -> Answer<'a, RemoteState> {
        let _ = (via, room, event);
        off()
    }

    /// `GET event_auth`.
    fn event_auth<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, event: &'a EventId) -> Answer<'a, Vec<RawPdu>> {
        let _ = (via, room, event);
        off()
    }

    /// `GET backfill`: `from` and what came before them, newest first.
    fn backfill<'a>(
        &'a self,
        via: &'a ServerName,
        room: &'a RoomId,
        from: &'a [OwnedEventId],
        limit: usize,
    ) -> Answer<'a, Vec<RawPdu>> {
        let _ = (via, room, from, limit);
        off()
    }

    /// `GET timestamp_to_event`, back from `time`: the ID of the newest event before it. Who does not know the endpoint
    /// knows of none.
    fn event_before<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, time: Millis) -> Answer<'a, OwnedEventId> {
        let _ = (via, room, time);
        off()
    }
}

/// Nobody: every question is answered with [`RemoteError::Off`].
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRemote;

fn off<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(async { Err(RemoteError::Off) })
}

impl Remote for NoRemote {
    fn keys<'a>(&'a self, _: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>> {
        Box::pin(async { Ok(PublicKeys::default()) })
    }
}
