//! What a server may see of a room's history.
//!
//! The rules of history visibility are about users. A server sees what one of its users could have seen: of a time
//! when only members could read, it gets events as if they had been redacted, unless one of its users was a member
//! then. So it can follow the graph, and what was said stays with those it was said to.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::collections::HashMap;
use std::sync::Arc;

use hearth_schema::{CurrentState, Membership, StateId};
use hearth_store::{Order, StoreError};
use ruma_common::{OwnedUserId, ServerName, UserId};

use crate::erasure::pruned;
use crate::graph::{Graph, has_state};
use crate::plan::membership_of;
use crate::query::RoomEvent;
use crate::visibility::Visibility;

/// Members looked at in one page.
const PAGE: usize = 2048;
/// Users of one server whose membership at a time is looked up; a server whose others were there sees less.
const MAX_USERS: usize = 512;
/// Users looked up at once.
const STEP: usize = 32;

/// What one server may see of one room.
pub(crate) struct Sight<'g> {
    graph: &'g Graph,
    server: &'g ServerName,
    /// The server's users who are or were in the room, those who are first; `None`: not asked for yet.
    users: Option<Vec<OwnedUserId>>,
    visibilities: HashMap<StateId, Visibility>,
    presences: HashMap<StateId, Presence>,
}

/// What matters about one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    visibility: Visibility,
    presence: Presence,
}

/// The best membership that any user of the server had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Presence {
    None,
    Invited,
    Joined,
}

impl Presence {
    const fn of(membership: Option<Membership>) -> Self {
        match membership {
            Some(Membership::Join) => Self::Joined,
            Some(Membership::Invite) => Self::Invited,
            _ => Self::None,
        }
    }
}

impl Standing {
    const fn shows(self) -> bool {
        match (self.visibility, self.presence) {
            (Visibility::WorldReadable | Visibility::Shared, _)
            | (_, Presence::Joined)
            | (Visibility::Invited, Presence::Invited) => true,
            (Visibility::Invited | Visibility::Joined, _) => false,
        }
    }
}

impl<'g> Sight<'g> {
    /// What `server`, which is in the room, may see of it.
    pub(crate) fn of(graph: &'g Graph, server: &'g ServerName) -> Self {
        Self { graph, server, users: None, visibilities: HashMap::new(), presences: HashMap::new() }
    }

    /// `events` as the server is shown them: what it may not see is redacted.
    pub(crate) async fn show(&mut self, events: Vec<Arc<RoomEvent>>) -> Result<Vec<Arc<RoomEvent>>, StoreError> {
        let mut out = Vec::with_capacity(events.len());
        for event in events {
            out.push(if self.sees(&event).await? { event } else { Arc::new(pruned(&event)?) });
        }
        Ok(out)
    }

    /// Whether the server may see the whole of `event`.
    pub(crate) async fn sees(&mut self, event: &RoomEvent) -> Result<bool, StoreError> {
        // State that came with other state is what its server has too.
        if event.sender().server_name() == self.server || !has_state(event) {
            return Ok(true);
        }
        let erased = self.graph.rooms.erased_at(&self.graph.view, event.sender()).await?;
        if erased.is_some_and(|at| event.pos <= at) {
            return Ok(self.presence(event.state_before).await? == Presence::Joined);
        }
        let visibility = self.visibility(event.state_before).await?;
        // Who was there is a long question, and in most rooms it is not asked.
        if matches!(visibility, Visibility::WorldReadable | Visibility::Shared) {
            return Ok(true);
        }
        let before = Standing { visibility, presence: self.presence(event.state_before).await? };
        Ok(before.shows() || self.after(before, event).shows())
    }

    /// What `event` itself leads to: a change of visibility or membership is judged by both.
    fn after(&self, before: Standing, event: &RoomEvent) -> Standing {
        let sets_visibility = event.event_type() == "m.room.history_visibility" && event.state_key() == Some("");
        let target = event.state_key().filter(|_| event.event_type() == "m.room.member");
        // Member events with another state key do not pass the auth rules.
        let own =
            target.and_then(|user| <&UserId>::try_from(user).ok()).filter(|user| user.server_name() == self.server);
        Standing {
            visibility: if sets_visibility { Visibility::of(Some(event)) } else { before.visibility },
            presence: own.map_or(before.presence, |_| before.presence.max(Presence::of(membership_of(&event.pdu)))),
        }
    }

    async fn visibility(&mut self, state: StateId) -> Result<Visibility, StoreError> {
        if let Some(visibility) = self.visibilities.get(&state) {
            return Ok(*visibility);
        }
        let place = [("m.room.history_visibility".to_owned(), String::new())];
        let event = self.graph.at(state, &place).await?;
        let visibility = Visibility::of(event.first().and_then(Option::as_deref));
        self.visibilities.insert(state, visibility);
        Ok(visibility)
    }

    async fn presence(&mut self, state: StateId) -> Result<Presence, StoreError> {
        if let Some(presence) = self.presences.get(&state) {
            return Ok(*presence);
        }
        if self.users.is_none() {
            self.users = Some(self.load_users().await?);
        }
        let mut best = Presence::None;
        for users in self.users.iter().flatten().collect::<Vec<_>>().chunks(STEP) {
            let places: Vec<_> = users.iter().map(|user| ("m.room.member".to_owned(), user.to_string())).collect();
            for event in self.graph.at(state, &places).await?.into_iter().flatten() {
                best = best.max(Presence::of(membership_of(&event.pdu)));
            }
            if best == Presence::Joined {
                break;
            }
        }
        self.presences.insert(state, best);
        Ok(best)
    }

    async fn load_users(&self) -> Result<Vec<OwnedUserId>, StoreError> {
        let (mut inside, mut others) = (Vec::new(), Vec::new());
        let members = (self.graph.room, "m.room.member".to_owned());
        self.graph
            .view
            .scan::<CurrentState, _>(&members, Order::Ascending, PAGE, |(_, _, state_key), entry| {
                if let Ok(user) = <&UserId>::try_from(state_key.as_str())
                    && user.server_name() == self.server
                {
                    let joined = entry.membership == Some(Membership::Join);
                    let list = if joined { &mut inside } else { &mut others };
                    if list.len() < MAX_USERS {
                        list.push(user.to_owned());
                    }
                }
                std::ops::ControlFlow::Continue(())
            })
            .await?;
        inside.extend(others);
        inside.truncate(MAX_USERS);
        Ok(inside)
    }
}
