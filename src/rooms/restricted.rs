//! Who may join, where the auth rules alone do not tell: restricted rooms, and guests.
//!
//! A restricted room lets in members of other rooms. That they are members is this server's to check,
//! and it is the word of a member who may invite that lets them pass the auth rules everywhere
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms)).

use std::ops::ControlFlow;

use hearth_schema::{CurrentState, Membership, RoomNid};
use hearth_store::{Order, StoreError, View};
use ruma_common::{CanonicalJsonValue, OwnedUserId, RoomId, UserId};

use crate::command::{RequesterKind, SendEvent};
use crate::content::creators;
use crate::gather::damaged;
use crate::intake::Rooms;
use crate::membership::AUTHORISED_BY;
use crate::{MembershipError, SendError};

/// Members looked at in one page.
const PAGE: usize = 512;

impl Rooms {
    /// The local member on whose word `user` joins; `None` where nobody's word is needed: the room is
    /// not restricted, or the user is in it, invited or banned.
    pub(crate) async fn authoriser(
        &self,
        room_id: &RoomId,
        user: &UserId,
    ) -> Result<Option<OwnedUserId>, MembershipError> {
        let view = self.view().await?;
        let (nid, room) = (self.ids().user(user), self.ids().room(room_id));
        let Some(overview) = self.overview(&view, room).await? else { return Ok(None) };
        let rules = &self.version(&view, room).await?.rules().authorization;
        let restricted = match overview.join_rule.as_str() {
            "restricted" => rules.restricted_join_rule,
            "knock_restricted" => rules.knock_restricted_join_rule,
            _ => false,
        };
        let row = self.membership(&view, nid, room).await?;
        let settled =
            row.is_some_and(|row| matches!(row.membership, Membership::Join | Membership::Invite | Membership::Ban));
        if !restricted || settled {
            return Ok(None);
        }
        let mut all_known = true;
        for allowed in &overview.allowed_room_ids {
            let allowed = self.ids().room(allowed);
            let there = self.membership(&view, nid, allowed).await?;
            if there.is_some_and(|row| row.membership == Membership::Join) {
                return self.who_may_invite(&view, room).await?.map(Some).ok_or(MembershipError::CannotGrant);
            }
            all_known &= self.room(&view, allowed).await?.is_some();
        }
        if all_known {
            let why = "you are neither invited nor in a room whose members may join";
            return Err(SendError::Forbidden(why.into()).into());
        }
        Err(MembershipError::CannotAuthorise)
    }

    /// A joined local member who may invite, one with much power before others.
    pub(crate) async fn who_may_invite(&self, view: &View, room: RoomNid) -> Result<Option<OwnedUserId>, StoreError> {
        let levels = self.power_levels(view, room).await?;
        let mut named = self.users_with_levels(view, room).await?;
        named.retain(|user| user.server_name() == self.0.signer.server_name && levels.user(user) >= levels.invite());
        named.sort_by(|a, b| levels.user(b).cmp(&levels.user(a)).then_with(|| a.cmp(b)));
        for user in named {
            let row = self.membership(view, self.ids().user(&user), room).await?;
            if row.is_some_and(|row| row.membership == Membership::Join) {
                return Ok(Some(user));
            }
        }
        let mut found = None;
        let members = (room, "m.room.member".to_owned());
        view.scan::<CurrentState, _>(&members, Order::Ascending, PAGE, |(_, _, state_key), entry| {
            let joined = entry.membership == Some(Membership::Join);
            // Member events with another state key do not pass the auth rules.
            let user = <&UserId>::try_from(state_key.as_str()).ok();
            let local = user.filter(|user| joined && user.server_name() == self.0.signer.server_name);
            found = local.filter(|user| levels.user(user) >= levels.invite()).map(ToOwned::to_owned);
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .await?;
        Ok(found)
    }

    /// Creators and users with a power level of their own.
    async fn users_with_levels(&self, view: &View, room: RoomNid) -> Result<Vec<OwnedUserId>, StoreError> {
        let version = self.version(view, room).await?;
        let create = self.current_event(view, room, "m.room.create", "").await?;
        let create = create.ok_or_else(|| damaged("CurrentState", "a room has no create event"))?;
        let mut names = creators(version, &create.pdu)?;
        if let Some(levels) = self.current_event(view, room, "m.room.power_levels", "").await? {
            let content: serde_json::Value = serde_json::from_str(levels.pdu.content().get())
                .map_err(|error| damaged("Events", error.to_string()))?;
            let users = content.get("users").and_then(serde_json::Value::as_object);
            names.extend(users.into_iter().flatten().map(|(user, _)| user.clone()));
        }
        // In old rooms, names that are no user IDs may have levels; they are nobody's.
        Ok(names.into_iter().filter_map(|name| OwnedUserId::try_from(name).ok()).collect())
    }

    /// A guest gets only into rooms that let guests in
    /// ([spec](https://spec.matrix.org/v1.19/client-server-api/#guest-access)).
    ///
    /// # Errors
    /// [`SendError::Forbidden`]
    pub(crate) async fn check_guest(&self, requester: RequesterKind, room_id: &RoomId) -> Result<(), SendError> {
        if requester == RequesterKind::User {
            return Ok(());
        }
        let view = self.view().await?;
        let overview = self.overview(&view, self.ids().room(room_id)).await?.ok_or(SendError::UnknownRoom)?;
        if overview.guest_can_join {
            return Ok(());
        }
        Err(SendError::Forbidden("guests may not join this room".into()))
    }

    /// A member event that comes as a state event is held to what the endpoints of memberships see to:
    /// who is invited can be reached, and who joins a restricted room has a word for it.
    pub(crate) async fn complete_member_event(&self, event: &mut SendEvent) -> Result<(), MembershipError> {
        let Some(state_key) = event.state_key.as_deref().filter(|_| event.event_type == "m.room.member") else {
            return Ok(());
        };
        // What is no user ID fails by the auth rules.
        let Ok(target) = <&UserId>::try_from(state_key) else { return Ok(()) };
        match event.content.get("membership") {
            Some(CanonicalJsonValue::String(membership)) if membership == "join" && target == event.sender => {
                match self.authoriser(&event.room_id, target).await? {
                    Some(member) => {
                        event.content.insert(AUTHORISED_BY.into(), CanonicalJsonValue::String(member.to_string()));
                    }
                    None => drop(event.content.remove(AUTHORISED_BY)),
                }
            }
            _ => {}
        }
        Ok(())
    }
}
