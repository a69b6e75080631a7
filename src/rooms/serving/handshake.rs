//! `send_join`, `send_leave` and `send_knock`: taking the event that a template of ours led to.
//!
//! The template is forgotten by now: the event is judged for what it is. It is a member event by which a user of the
//! asking server changes their own membership in the room of the path, signed by that server, and no other event gets
//! in here. In a restricted room it may name one of our users, on whose word the user joins: then our signature is put
//! to it, but only if that user could invite and the joining user is where members may join from.

use std::collections::BTreeSet;

use bytes::Bytes;
use hearth_event::{Pdu, Unvouched, Verified, VerifyError, check};
use hearth_schema::{CurrentState, Membership, StateKeys};
use hearth_store::{Order, StoreError};
use ruma_common::{EventId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId};

use super::state::{ServedEvents, ServedState, numbers};
use super::template::{HandshakeRefusal, current, in_allowed_room, is_restricted};
use crate::graph::Graph;
use crate::inbound::Entered;
use crate::intake::Rooms;
use crate::membership::AUTHORISED_BY;
use crate::plan::membership_of;
use crate::remote::{Handshake, KeyWish};

/// State keys asked for in one page.
const PAGE: usize = 512;
/// Members who stand for the name of a room without one.
const HEROES: usize = 5;
const MEMBER: &str = "m.room.member";
/// Sorts behind every place of a member.
const BEHIND_MEMBERS: &str = "m.room.member\0";
/// What somebody who knocks is shown of a room.
const SHOWN_TO_KNOCKERS: [&str; 7] = [
    "m.room.create",
    "m.room.join_rules",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// Whether a joining server wants all members at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Members {
    /// It does.
    All,
    /// Those who stand for the room's name are enough.
    Omit,
}

/// A join that has been taken.
pub struct Accepted {
    /// The join as it is in the room, with our signature where it needed one.
    pub event: Bytes,
    /// The room's state before it, and what that and the join stand on.
    pub state: ServedState,
    /// Whether members are left out.
    pub members: Members,
    /// The servers that were in the room before.
    pub servers: Vec<OwnedServerName>,
}

/// An event on its way in.
struct Arriving<'a> {
    origin: &'a ServerName,
    what: Handshake,
    room_id: &'a RoomId,
    event_id: &'a EventId,
    body: &'a [u8],
}

impl Rooms {
    /// Takes a join of a user of `origin`; gives what the server needs to take part.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_joinroomideventid>
    ///
    /// # Errors
    /// See [`HandshakeRefusal`].
    pub async fn accept_join(
        &self,
        origin: &ServerName,
        (room_id, event_id): (&RoomId, &EventId),
        body: &[u8],
        members: Members,
    ) -> Result<Accepted, HandshakeRefusal> {
        let arriving = Arriving { origin, what: Handshake::Join, room_id, event_id, body };
        let graph = self.admit(origin, room_id).await?;
        let servers = self.servers(&graph.view, graph.room).await?.keys().cloned().collect();
        let (event, entered) = self.take(&graph, &arriving).await?;
        let graph = Graph { view: self.view().await?, ..graph };
        let state = match members {
            Members::All => whole_state(&graph, event_id, &entered).await?,
            Members::Omit => state_without_members(&graph, &event, &entered).await?,
        };
        Ok(Accepted { event: event.json().clone(), state, members, servers })
    }

    /// Takes a leave of a user of `origin`, who may have been invited or have knocked.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2send_leaveroomideventid>
    ///
    /// # Errors
    /// See [`HandshakeRefusal`].
    pub async fn accept_leave(
        &self,
        origin: &ServerName,
        (room_id, event_id): (&RoomId, &EventId),
        body: &[u8],
    ) -> Result<(), HandshakeRefusal> {
        let graph = self.admit(origin, room_id).await?;
        self.take(&graph, &Arriving { origin, what: Handshake::Leave, room_id, event_id, body }).await.map(drop)
    }

    /// Takes a knock of a user of `origin`; gives the events that the user is shown of the room.
    ///
    /// Spec: <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv1send_knockroomideventid>
    ///
    /// # Errors
    /// See [`HandshakeRefusal`].
    pub async fn accept_knock(
        &self,
        origin: &ServerName,
        (room_id, event_id): (&RoomId, &EventId),
        body: &[u8],
    ) -> Result<Vec<Bytes>, HandshakeRefusal> {
        let graph = self.admit(origin, room_id).await?;
        self.take(&graph, &Arriving { origin, what: Handshake::Knock, room_id, event_id, body }).await?;
        let places = SHOWN_TO_KNOCKERS.map(|kind| (kind.to_owned(), String::new()));
        let shown = current(&graph, &places).await?;
        Ok(places.iter().filter_map(|place| Some(shown.get(place)?.json().clone())).collect())
    }

    /// Verifies the event and puts it into the room.
    async fn take(&self, graph: &Graph, arriving: &Arriving<'_>) -> Result<(Pdu, Entered), HandshakeRefusal> {
        let unvouched = self.verified_but_for_us(graph, arriving).await?;
        check_shape(unvouched.pdu(), arriving)?;
        let verified = self.vouched(graph, unvouched).await?;
        self.enter_for(arriving.origin, verified).await.map_err(|error| match error {
            crate::SendError::Forbidden(why) => HandshakeRefusal::Forbidden(why),
            other => other.into(),
        })
    }

    async fn verified_but_for_us(&self, graph: &Graph, arriving: &Arriving<'_>) -> Result<Unvouched, HandshakeRefusal> {
        let invalid = |why: String| HandshakeRefusal::Invalid(why);
        let checked = check(arriving.body, graph.version).map_err(|error| invalid(error.to_string()))?;
        if checked.event_id() != arriving.event_id {
            return Err(invalid("the event has another ID than the path says".into()));
        }
        // Before anybody's keys are looked for: the sender's server is always among them.
        if !checked.signers().iter().any(|signer| signer == arriving.origin) {
            return Err(invalid("the sender is not of your server".into()));
        }
        let own = self.server_name();
        let wishes: Vec<KeyWish> = checked
            .signers()
            .iter()
            .filter(|server| *server != own)
            .map(|server| KeyWish {
                server: server.clone(),
                key_ids: checked.key_ids(server.as_str()).map(str::to_owned).collect(),
                at: checked.time(),
            })
            .collect();
        let keys = self.0.remote.keys(&wishes).await?;
        let verified = checked.verify_for(&keys, own);
        verified.map_err(|error| match error {
            VerifyError::UnknownKeys { server } => invalid(format!("no key of {server} could be had")),
            bad @ VerifyError::BadSignature { .. } => invalid(bad.to_string()),
        })
    }

    /// The event with our signature, if it needs it and if one of our users may give their word.
    async fn vouched(&self, graph: &Graph, unvouched: Unvouched) -> Result<Verified, HandshakeRefusal> {
        if !unvouched.is_wanting() {
            let complete = unvouched.complete();
            return complete.ok_or_else(|| HandshakeRefusal::Invalid("a signature is missing".into()));
        }
        let event = unvouched.pdu();
        let member = authorised_by(event).ok_or(HandshakeRefusal::CannotGrant)?;
        if !self.may_let_in(graph, event.sender(), &member).await? {
            return Err(HandshakeRefusal::CannotGrant);
        }
        let signer = &self.0.signer;
        unvouched.vouch(&signer.server_name, &signer.key).map_err(|error| HandshakeRefusal::Invalid(error.to_string()))
    }

    /// Whether `member`, one of ours, may give the word on which `user` joins.
    async fn may_let_in(&self, graph: &Graph, user: &UserId, member: &UserId) -> Result<bool, HandshakeRefusal> {
        let view = &graph.view;
        let overview = self.overview(view, graph.room).await?.ok_or(super::ServeError::UnknownRoom)?;
        if member.server_name() != self.server_name() || !is_restricted(graph.version, &overview) {
            return Ok(false);
        }
        let now = self.current_entry(view, graph.room, MEMBER, user.as_str()).await?;
        let settled = now.is_some_and(|entry| matches!(entry.membership, Some(Membership::Join | Membership::Invite)));
        if !settled {
            in_allowed_room(graph, &overview, user).await?;
        }
        let there = self.current_entry(view, graph.room, MEMBER, member.as_str()).await?;
        let levels = self.power_levels(view, graph.room).await?;
        let joined = there.is_some_and(|entry| entry.membership == Some(Membership::Join));
        Ok(joined && levels.user(member) >= levels.invite())
    }
}

/// What the endpoint is for, and nothing else.
fn check_shape(event: &Pdu, arriving: &Arriving<'_>) -> Result<(), HandshakeRefusal> {
    let wanted = arriving.what.membership();
    let wrong = if event.room_id() != arriving.room_id {
        "the event is of another room"
    } else if event.event_type() != MEMBER || membership_of(event) != Some(wanted) {
        "the event does not give the membership that the endpoint is for"
    } else if event.sender().server_name() != arriving.origin {
        "the sender is not of your server"
    } else if event.state_key() != Some(event.sender().as_str()) {
        "the state key is not the sender"
    } else {
        return Ok(());
    };
    Err(HandshakeRefusal::Invalid(wrong.into()))
}

fn authorised_by(event: &Pdu) -> Option<OwnedUserId> {
    let content: serde_json::Value = serde_json::from_str(event.content().get()).ok()?;
    OwnedUserId::try_from(content.get(AUTHORISED_BY)?.as_str()?).ok()
}

/// The state before the join, and everything that it and the join stand on.
async fn whole_state(graph: &Graph, event_id: &EventId, entered: &Entered) -> Result<ServedState, StoreError> {
    let (state, chain) = numbers(graph, entered.state_before).await?;
    let mut chain: BTreeSet<u32> = chain.into_iter().collect();
    chain.extend(chain_of_join(graph, event_id).await?);
    Ok(served(graph, state, chain))
}

/// The same without members other than those who stand for the room's name.
async fn state_without_members(graph: &Graph, join: &Pdu, entered: &Entered) -> Result<ServedState, StoreError> {
    let mut places = places_but_of_members(graph).await?;
    let has_name = ["m.room.name", "m.room.canonical_alias"].map(|kind| (kind.to_owned(), String::new()));
    if graph.at(entered.state_before, &has_name).await?.iter().all(Option::is_none) {
        places.extend(heroes(graph, join.sender()).await?);
    }
    let events = graph.at(entered.state_before, &places).await?;
    let state: BTreeSet<u32> = events.into_iter().flatten().map(|event| event.n).collect();
    let mut chain: BTreeSet<u32> = graph.auth_chain(state.iter().copied().collect()).await?.into_iter().collect();
    chain.extend(chain_of_join(graph, join.event_id()).await?);
    let chain = chain.difference(&state).copied().collect();
    Ok(served(graph, state.into_iter().collect(), chain))
}

async fn chain_of_join(graph: &Graph, event_id: &EventId) -> Result<Vec<u32>, StoreError> {
    let join: Vec<u32> = graph.numbers(&[event_id.to_owned()]).await?.into_iter().map(|(_, n)| n).collect();
    Ok(graph.auth_chain(join).await?.into_iter().collect())
}

fn served(graph: &Graph, state: Vec<u32>, chain: BTreeSet<u32>) -> ServedState {
    let auth_chain: Vec<u32> = chain.into_iter().collect();
    ServedState { state: ServedEvents::new(graph, state), auth_chain: ServedEvents::new(graph, auth_chain) }
}

/// Every place that the room's state has ever had an event at, but for those of members.
async fn places_but_of_members(graph: &Graph) -> Result<Vec<(String, String)>, StoreError> {
    let mut out = Vec::new();
    let mut rows = graph.view.page::<StateKeys, _>(&(graph.room,), Order::Ascending, PAGE).await?;
    while let Some(((room, kind, key), _)) = rows.last() {
        let after = if kind == MEMBER {
            (*room, BEHIND_MEMBERS.to_owned(), String::new())
        } else {
            (*room, kind.clone(), key.clone())
        };
        out.extend(rows.into_iter().map(|((_, kind, key), _)| (kind, key)).filter(|(kind, _)| kind != MEMBER));
        rows = graph.view.page_after::<StateKeys, _>(&(graph.room,), &after, PAGE).await?;
    }
    Ok(out)
}

/// The places of the members who have been in the room, or invited, for longest.
async fn heroes(graph: &Graph, joining: &UserId) -> Result<Vec<(String, String)>, StoreError> {
    let members = (graph.room, MEMBER.to_owned());
    let mut rows = graph.view.page::<CurrentState, _>(&members, Order::Ascending, PAGE).await?;
    rows.retain(|((_, _, user), entry)| {
        user != joining.as_str() && matches!(entry.membership, Some(Membership::Join | Membership::Invite))
    });
    rows.sort_by_key(|(_, entry)| entry.n);
    Ok(rows.into_iter().take(HEROES).map(|((_, kind, user), _)| (kind, user)).collect())
}
