//! Other servers, as rooms need them.

use bytes::Bytes;
use futures::future::BoxFuture;
use hearth_base::Millis;
use hearth_event::{JsonLimits, Pdu, PublicKeys, RoomVersion, parse_canonical_object};
use hearth_rooms::remote::{
    Answer, ExchangeOut, Handshake, InviteOut, JoinParts, KeyWish, MissingEvents, PolicyAnswer, RawPdu, Remote,
    RemoteError, RemoteState, StateIds, Template,
};
use hearth_store::StoreError;
use http::Method;
use ruma_common::{EventId, OwnedEventId, OwnedUserId, RoomId, ServerName};
use serde::Deserialize;
use serde_json::json;

use crate::client::MAX_PAGE;
use crate::list::{EventIds, Pdus};
use crate::path::{federation_path as path, with_query};
use crate::{Look, Outgoing, Peers};

/// Bytes of the IDs of a state and its auth chains, and of the auth chain of one event.
const MAX_IDS: usize = 64 << 20;
/// Bytes and depth of a template.
const TEMPLATE: JsonLimits = JsonLimits { bytes: 128 << 10, depth: 64 };

impl Peers {
    /// For answers that are as large as a room.
    pub(crate) fn large(&self, request: Outgoing) -> Outgoing {
        let settings = &self.0.parts.settings;
        Outgoing { deadline: settings.join_timeout, max_bytes: settings.max_join_response, ..request }
    }

    /// `PUT <endpoint>/{roomId}/{eventId}` with the event.
    pub(crate) fn put_event(&self, via: &ServerName, endpoint: &str, event: &Pdu) -> Outgoing {
        let path = path(endpoint, &[event.room_id().as_str(), event.event_id().as_str()]);
        self.with_body(Method::PUT, via, path, event.json().clone())
    }

    async fn template(
        &self,
        via: &ServerName,
        what: Handshake,
        room: &RoomId,
        user: &OwnedUserId,
    ) -> Result<Template, RemoteError> {
        #[derive(Deserialize)]
        struct Made {
            room_version: Option<String>,
            event: RawPdu,
        }
        let (endpoint, versions) = match what {
            Handshake::Join => ("v1/make_join", true),
            Handshake::Knock => ("v1/make_knock", true),
            Handshake::Leave => ("v1/make_leave", false),
        };
        let known = RoomVersion::all().filter(|_| versions).map(|version| ("ver", version.as_str()));
        let path = with_query(path(endpoint, &[room.as_str(), user.as_str()]), known);
        let made: Made = self.json(self.get(via, path)).await?;
        let invalid = |why: String| RemoteError::Invalid { server: via.to_owned(), why };
        let named = made.room_version.as_deref().unwrap_or("1");
        let room_version = RoomVersion::parse(named);
        let room_version = room_version.ok_or_else(|| invalid("the room's version is not known here".to_owned()))?;
        let event = parse_canonical_object(made.event.get().as_bytes(), TEMPLATE);
        let event = event.map_err(|error| invalid(format!("the suggested event: {error}")))?;
        Ok(Template { room_version, event })
    }

    async fn send_invite(&self, to: &ServerName, invite: &InviteOut) -> Result<RawPdu, RemoteError> {
        #[derive(Deserialize)]
        struct Invited {
            event: RawPdu,
        }
        let event = std::str::from_utf8(invite.event.json());
        let event = event.map_err(|error| RemoteError::Invalid { server: to.to_owned(), why: error.to_string() })?;
        let body = serde_json::to_string(&json!({ "room_version": invite.version.as_str() })).unwrap_or_default();
        let state = serde_json::to_string(&invite.invite_room_state).unwrap_or_default();
        // Spelt out, so that not a byte of the signed event changes.
        let body = format!("{},\"event\":{event},\"invite_room_state\":{state}}}", body.trim_end_matches('}'));
        let request = Outgoing { body: Some(Bytes::from(body)), ..self.put_event(to, "v2/invite", &invite.event) };
        let answer: Result<Invited, RemoteError> = self.json(request).await;
        match answer {
            Err(refused) if is_unknown_endpoint(&refused) && is_old(invite.version) => {
                let body = Bytes::from(with_state(event, &state));
                let request = Outgoing { body: Some(body), ..self.put_event(to, "v1/invite", &invite.event) };
                let (_, invited): (u16, Invited) = self.json(request).await?;
                Ok(invited.event)
            }
            answer => answer.map(|invited| invited.event),
        }
    }
}

/// Before v2 of the invitation there were two room versions.
fn is_old(version: RoomVersion) -> bool {
    matches!(version.as_str(), "1" | "2")
}

pub(crate) fn is_unknown_endpoint(error: &RemoteError) -> bool {
    match error {
        // Servers from before there was an errcode for it say nothing but 404.
        RemoteError::Refused { status: 404, errcode, .. } => errcode == "M_UNRECOGNIZED" || errcode == "M_UNKNOWN",
        RemoteError::Refused { status: 400 | 405, errcode, .. } => errcode == "M_UNRECOGNIZED",
        _ => false,
    }
}

/// `event`, an object without `unsigned`, with `state` as its `unsigned.invite_room_state`.
fn with_state(event: &str, state: &str) -> String {
    format!("{},\"unsigned\":{{\"invite_room_state\":{state}}}}}", event.strip_suffix('}').unwrap_or(event))
}

impl Remote for Peers {
    fn gave_up(&self, server: &ServerName, began: Millis) {
        self.0.back_off.failed(server, began);
    }

    fn keys<'a>(&'a self, wanted: &'a [KeyWish]) -> BoxFuture<'a, Result<PublicKeys, StoreError>> {
        Box::pin(self.all_keys(wanted))
    }

    fn make<'a>(
        &'a self,
        via: &'a ServerName,
        what: Handshake,
        room: &'a RoomId,
        user: &'a OwnedUserId,
    ) -> Answer<'a, Template> {
        Box::pin(self.template(via, what, room, user))
    }

    fn send_join<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, JoinParts> {
        Box::pin(self.send_join_to(via, event))
    }

    fn send_leave<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, ()> {
        Box::pin(async move {
            match self.request(self.put_event(via, "v2/send_leave", event)).await {
                Err(refused) if is_unknown_endpoint(&refused) => {
                    self.request(self.put_event(via, "v1/send_leave", event)).await.map(drop)
                }
                answer => answer.map(drop),
            }
        })
    }

    fn send_knock<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, Vec<RawPdu>> {
        #[derive(Deserialize)]
        struct Knocked {
            knock_room_state: Pdus,
        }
        Box::pin(async move {
            let knocked: Knocked = self.json(self.put_event(via, "v1/send_knock", event)).await?;
            Ok(knocked.knock_room_state.0)
        })
    }

    fn invite<'a>(&'a self, to: &'a ServerName, invite: &'a InviteOut) -> Answer<'a, RawPdu> {
        Box::pin(self.send_invite(to, invite))
    }

    fn exchange_third_party_invite<'a>(&'a self, to: &'a ServerName, wanted: &'a ExchangeOut) -> Answer<'a, ()> {
        Box::pin(async move {
            let body = serde_json::to_vec(&wanted.event);
            let body = body.map_err(|error| RemoteError::Invalid { server: to.to_owned(), why: error.to_string() })?;
            let path = path("v1/exchange_third_party_invite", &[wanted.room_id.as_str()]);
            self.request(self.with_body(Method::PUT, to, path, Bytes::from(body))).await.map(drop)
        })
    }

    fn policy_sign<'a>(&'a self, via: &'a ServerName, event: &'a Pdu) -> Answer<'a, PolicyAnswer> {
        Box::pin(self.ask_policy_server(via, event))
    }

    fn event<'a>(&'a self, via: &'a ServerName, event: &'a EventId) -> Answer<'a, RawPdu> {
        #[derive(Deserialize)]
        struct Single {
            pdus: (RawPdu,),
        }
        Box::pin(async move {
            let single: Single = self.json(self.get(via, path("v1/event", &[event.as_str()]))).await?;
            Ok(single.pdus.0)
        })
    }

    fn missing_events<'a>(
        &'a self,
        via: &'a ServerName,
        room: &'a RoomId,
        ask: &'a MissingEvents,
    ) -> Answer<'a, Vec<RawPdu>> {
        #[derive(Deserialize)]
        struct Missing {
            #[serde(default)]
            events: Pdus,
        }
        Box::pin(async move {
            let body = json!({
                "latest_events": ask.latest,
                "earliest_events": ask.earliest,
                "limit": ask.limit,
                "min_depth": ask.min_depth,
            });
            let path = path("v1/get_missing_events", &[room.as_str()]);
            let request = self.with_body(Method::POST, via, path, Bytes::from(body.to_string()));
            let missing: Missing = self.json(Outgoing { max_bytes: MAX_PAGE, ..request }).await?;
            Ok(at_most(missing.events, ask.limit))
        })
    }

    fn state_ids<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, event: &'a EventId) -> Answer<'a, StateIds> {
        #[derive(Deserialize)]
        struct Ids {
            pdu_ids: EventIds,
            auth_chain_ids: EventIds,
        }
        Box::pin(async move {
            let path = with_query(path("v1/state_ids", &[room.as_str()]), [("event_id", event.as_str())]);
            let ids: Ids = self.json(capped(self.large(self.get(via, path)), MAX_IDS)).await?;
            Ok(StateIds { state: ids.pdu_ids.0, auth_chain: ids.auth_chain_ids.0 })
        })
    }

    fn state<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, event: &'a EventId) -> Answer<'a, RemoteState> {
        #[derive(Deserialize)]
        struct State {
            pdus: Pdus,
            auth_chain: Pdus,
        }
        Box::pin(async move {
            let path = with_query(path("v1/state", &[room.as_str()]), [("event_id", event.as_str())]);
            let state: State = self.json(self.large(self.get(via, path))).await?;
            Ok(RemoteState { state: state.pdus.0, auth_chain: state.auth_chain.0 })
        })
    }

    fn event_auth<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, event: &'a EventId) -> Answer<'a, Vec<RawPdu>> {
        #[derive(Deserialize)]
        struct Chain {
            auth_chain: Pdus,
        }
        Box::pin(async move {
            let path = path("v1/event_auth", &[room.as_str(), event.as_str()]);
            let chain: Chain = self.json(capped(self.large(self.get(via, path)), MAX_IDS)).await?;
            Ok(chain.auth_chain.0)
        })
    }

    fn backfill<'a>(
        &'a self,
        via: &'a ServerName,
        room: &'a RoomId,
        from: &'a [OwnedEventId],
        limit: usize,
    ) -> Answer<'a, Vec<RawPdu>> {
        #[derive(Deserialize)]
        struct Page {
            pdus: Pdus,
        }
        Box::pin(async move {
            let number = limit.to_string();
            let from = from.iter().map(|event| ("v", event.as_str()));
            let path = path("v1/backfill", &[room.as_str()]);
            let path = with_query(path, from.chain([("limit", number.as_str())]));
            let page: Page = self.json(Outgoing { max_bytes: MAX_PAGE, ..self.get(via, path) }).await?;
            Ok(at_most(page.pdus, limit))
        })
    }

    fn event_before<'a>(&'a self, via: &'a ServerName, room: &'a RoomId, time: Millis) -> Answer<'a, OwnedEventId> {
        Box::pin(async move { Ok(self.timestamp_to_event(via, room, time.0, Look::Backward).await?.event_id) })
    }
}

/// `request`, whose answer has no more than `bytes`.
fn capped(request: Outgoing, bytes: usize) -> Outgoing {
    Outgoing { max_bytes: request.max_bytes.min(bytes), ..request }
}

/// Nobody has to read more than was asked for.
fn at_most(pdus: Pdus, limit: usize) -> Vec<RawPdu> {
    let mut pdus = pdus.0;
    pdus.truncate(limit);
    pdus
}
