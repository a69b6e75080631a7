//! `POST /rooms/{roomId}/upgrade`: a room of another version takes the place of one
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#room-upgrades)).
//!
//! The two rooms and the aliases live in different lanes, so this is no single commit. The order makes
//! up for it: the new room comes into being whole, bans included; then the tombstone in the old room
//! settles that it is replaced, and by what; then what points to the old room is moved, each piece by
//! itself. Whoever is told of a failure asks again: a tombstone that names such a room already is gone
//! on with instead of making another room.

mod carried;
mod succession;

use std::sync::Arc;

pub use succession::Succession;

use futures::{TryStreamExt, stream};
use hearth_event::RoomVersion;
use hearth_schema::{CurrentState, Membership, PublicRooms, RoomNid};
use hearth_store::{Batch, Order, Owner, View};
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, OwnedUserId};
use serde_json::{Value, json};

use crate::aliases::MAX_ALIASES;
use crate::canonical::{content_of, with_aliases};
use crate::command::{MemberProfile, MembershipChange, RoomVisibility, SendEvent, UpgradeRoom};
use crate::content::creators;
use crate::create::{NewRoom, object, privileged_creators, with_version};
use crate::gather::damaged;
use crate::intake::Rooms;
use crate::membership::member_content;
use crate::plan::Intent;
use crate::query::RoomEvent;
use crate::{CreateError, MembershipError, SendError};

/// State that goes along; all of it with an empty state key. Power levels come on top of it.
const CARRIED: [&str; 8] = [
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
];
/// Children of a space that go along at the most: a space has no more in its first commit.
const MAX_CHILDREN: usize = 500;
/// Bans that the new room begins with; more are made one by one before anybody hears of the room.
const FIRST_BANS: usize = 400;
/// Bans that wait for the room together.
const AT_ONCE: usize = 16;
/// What users see who still look at the old room.
const TOMBSTONE_BODY: &str = "This room has been replaced";

/// What is known of the room that is replaced.
struct OldRoom {
    room: RoomNid,
    version: RoomVersion,
    create: Arc<RoomEvent>,
    levels: Option<Arc<RoomEvent>>,
    aliases: Vec<OwnedRoomAliasId>,
    visibility: RoomVisibility,
    /// Events, oldest name first.
    bans: Vec<Arc<RoomEvent>>,
    last_event: String,
}

impl Rooms {
    /// Replaces a room by one of another version, which the sender creates and is in, and gives its ID.
    /// The same again, by the same user, gives the same room.
    ///
    /// # Errors
    /// [`SendError::Forbidden`] for who may not send `m.room.tombstone`.
    pub async fn upgrade(&self, upgrade: &UpgradeRoom) -> Result<OwnedRoomId, CreateError> {
        let view = self.view().await?;
        self.check_may_upgrade(&view, upgrade).await?;
        let old = self.old_room(&view, upgrade).await?;
        let new = match self.begun(&view, upgrade, &old).await? {
            Some(new) => new,
            None => self.replace(&view, upgrade, &old).await?,
        };
        self.move_to(&view, upgrade, &old, &new).await?;
        Ok(new)
    }

    async fn check_may_upgrade(&self, view: &View, upgrade: &UpgradeRoom) -> Result<(), CreateError> {
        let room = self.ids().room(&upgrade.room_id);
        self.room(view, room).await?.ok_or(SendError::UnknownRoom)?;
        let row = self.membership(view, self.ids().user(&upgrade.sender), room).await?;
        if row.is_none_or(|row| row.membership != Membership::Join) {
            return Err(SendError::Forbidden("you are not in this room".into()).into());
        }
        let levels = self.power_levels(view, room).await?;
        if levels.user(&upgrade.sender) < levels.state_event("m.room.tombstone") {
            return Err(SendError::Forbidden("you may not upgrade this room".into()).into());
        }
        Ok(())
    }

    async fn old_room(&self, view: &View, upgrade: &UpgradeRoom) -> Result<OldRoom, CreateError> {
        let room = self.ids().room(&upgrade.room_id);
        let create = self.current_event(view, room, "m.room.create", "").await?;
        let members = self.current_state_of_type(view, room, "m.room.member").await?;
        let banned = members.iter().filter(|(_, entry)| entry.membership == Some(Membership::Ban));
        let banned: Vec<u32> = banned.map(|(_, entry)| entry.n).collect();
        let listed = view.get::<PublicRooms>(&(room.lane(), room)).await?.is_some();
        let head = self.head(view, room).await?;
        let last = head.extremities.last().ok_or_else(|| damaged("RoomHeads", "a room without extremities"))?;
        Ok(OldRoom {
            room,
            version: self.version(view, room).await?,
            create: create.ok_or_else(|| damaged("CurrentState", "a room has no create event"))?,
            levels: self.current_event(view, room, "m.room.power_levels", "").await?,
            aliases: self.aliases_of(view, room).await?,
            visibility: if listed { RoomVisibility::Public } else { RoomVisibility::Private },
            bans: self.events(view, room, &banned).await?,
            last_event: last.event_id.clone(),
        })
    }

    /// The room that an earlier request of this kind has made, if its tombstone stands.
    async fn begun(
        &self,
        view: &View,
        upgrade: &UpgradeRoom,
        old: &OldRoom,
    ) -> Result<Option<OwnedRoomId>, CreateError> {
        let Some(tombstone) = self.current_event(view, old.room, "m.room.tombstone", "").await? else {
            return Ok(None);
        };
        let replacement = parse(&tombstone)?.get("replacement_room").and_then(Value::as_str).map(str::to_owned);
        // Members write tombstones, so anything may be in them.
        let Some(Ok(id)) = replacement.map(OwnedRoomId::try_from) else { return Ok(None) };
        let new = self.ids().room(&id);
        let Some(meta) = self.room(view, new).await? else { return Ok(None) };
        let Some(create) = self.current_event(view, new, "m.room.create", "").await? else { return Ok(None) };
        let content = parse(&create)?;
        let row = self.membership(view, self.ids().user(&upgrade.sender), new).await?;
        let same = meta.version == upgrade.version.as_str()
            && tombstone.sender() == upgrade.sender
            && create.sender() == upgrade.sender
            && content["predecessor"]["room_id"] == upgrade.room_id.as_str()
            && creators(upgrade.version, &create.pdu)? == new_creators(upgrade)
            && row.is_some_and(|row| row.membership == Membership::Join)
            && self.current_entry(view, new, "m.room.tombstone", "").await?.is_none();
        Ok(same.then_some(id))
    }

    /// Makes the new room and puts the tombstone on the old one.
    async fn replace(&self, view: &View, upgrade: &UpgradeRoom, old: &OldRoom) -> Result<OwnedRoomId, CreateError> {
        let intents = self.intents(view, upgrade, old).await?;
        let new = NewRoom { version: upgrade.version, intents, visibility: old.visibility, alias: None };
        let (new, _) = self.make_room(new).await?;
        let mut more = Vec::new();
        for ban in old.bans.iter().skip(FIRST_BANS) {
            more.push(Ok(self.ban_too(&new, upgrade, ban)));
        }
        stream::iter(more).try_buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await?;
        let content = object(json!({ "body": TOMBSTONE_BODY, "replacement_room": new }));
        self.send(state_event(upgrade, "m.room.tombstone", content)).await?;
        Ok(new)
    }

    /// The events of the new room. Its creator has every right until there are power levels, so those
    /// come last.
    async fn intents(&self, view: &View, upgrade: &UpgradeRoom, old: &OldRoom) -> Result<Vec<Intent>, CreateError> {
        let state = |event_type: &str, state_key: &str, content: CanonicalJsonObject| Intent {
            sender: upgrade.sender.clone(),
            event_type: event_type.to_owned(),
            state_key: Some(state_key.to_owned()),
            content,
            redacts: None,
            origin_server_ts: None,
        };
        let mut out = vec![
            state("m.room.create", "", create_content(upgrade, old)?),
            state("m.room.member", upgrade.sender.as_str(), member_content(Membership::Join, &upgrade.profile)),
        ];
        let keys = CARRIED.map(|event_type| (old.room, event_type.to_owned(), String::new()));
        let entries = view.get_many::<CurrentState>(&keys).await?;
        let mut numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
        numbers.extend(self.children_of_space(view, old).await?);
        for event in self.events(view, old.room, &numbers).await? {
            let mut content = content_of(&event)?;
            if event.event_type() == "m.room.join_rules" {
                content = carried::join_rules(content, upgrade.version);
            }
            let empty_child = event.event_type() == "m.space.child" && !content.contains_key("via");
            if !empty_child {
                out.push(state(event.event_type(), event.state_key().unwrap_or_default(), content));
            }
        }
        if let Some(event) = self.current_event(view, old.room, "m.room.canonical_alias", "").await? {
            let moves = |alias: &str| old.aliases.iter().any(|local| local == alias);
            let content = content_of(&event)?;
            let content = with_aliases(content.clone(), moves).unwrap_or(content);
            if !content.is_empty() {
                out.push(state("m.room.canonical_alias", "", content));
            }
        }
        let stand_above = new_creators(upgrade);
        for ban in old.bans.iter().take(FIRST_BANS) {
            let target = ban.state_key().unwrap_or_default();
            if target != upgrade.sender && !stand_above.iter().any(|creator| creator == target) {
                out.push(state("m.room.member", target, ban_content(ban)?));
            }
        }
        if let Some(levels) = &old.levels {
            let old_creators = creators(old.version, &old.create.pdu)?;
            let content = carried::power_levels(content_of(levels)?, &old_creators, (upgrade.version, &stand_above));
            out.push(state("m.room.power_levels", "", content));
        }
        Ok(out)
    }

    /// Numbers of the events that name the children of a space.
    async fn children_of_space(&self, view: &View, old: &OldRoom) -> Result<Vec<u32>, CreateError> {
        if parse(&old.create)?["type"] != "m.space" {
            return Ok(Vec::new());
        }
        let children = self.current_state_of_type(view, old.room, "m.space.child").await?;
        if children.len() > MAX_CHILDREN {
            let why = format!("a space with more than {MAX_CHILDREN} rooms cannot be upgraded");
            return Err(CreateError::InvalidRoomState(why));
        }
        Ok(children.into_iter().map(|(_, entry)| entry.n).collect())
    }

    async fn ban_too(&self, new: &OwnedRoomId, upgrade: &UpgradeRoom, ban: &RoomEvent) -> Result<(), SendError> {
        let target = OwnedUserId::try_from(ban.state_key().unwrap_or_default())
            .map_err(|error| damaged("Events", error.to_string()))?;
        let reason = parse(ban)?.get("reason").and_then(Value::as_str).map(str::to_owned);
        let change = MembershipChange {
            room_id: new.clone(),
            sender: upgrade.sender.clone(),
            target,
            membership: Membership::Ban,
            only_from: None,
            reason,
            profile: MemberProfile::default(),
            is_direct: None,
        };
        match self.change_membership(change).await {
            // The sender may not ban, or it is a creator of the new room.
            Ok(_) | Err(MembershipError::Send(SendError::Forbidden(_))) => Ok(()),
            Err(MembershipError::Send(error)) => Err(error),
            Err(other) => Err(SendError::Internal(other.to_string())),
        }
    }

    /// Moves what points to the old room, and closes it.
    async fn move_to(
        &self,
        view: &View,
        upgrade: &UpgradeRoom,
        old: &OldRoom,
        new: &OwnedRoomId,
    ) -> Result<(), CreateError> {
        for alias in &old.aliases {
            self.move_alias(alias, old.room, new).await?;
        }
        if old.visibility == RoomVisibility::Public {
            let mut batch = Batch::new(old.room.lane());
            batch.delete::<PublicRooms>(&(old.room.lane(), old.room));
            self.0.store.commit(batch).await.map_err(SendError::from)?;
        }
        let stays = |alias: &str| !old.aliases.iter().any(|local| local == alias);
        self.drop_from_canonical(view, (old.room, &upgrade.room_id), &upgrade.sender, stays).await?;
        if let Some(levels) = &old.levels
            && let Some(content) = carried::closed(content_of(levels)?)
        {
            match self.send(state_event(upgrade, "m.room.power_levels", content)).await {
                // "If possible": the sender may not be allowed to.
                Ok(_) | Err(SendError::Forbidden(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn aliases_of(&self, view: &View, room: RoomNid) -> Result<Vec<OwnedRoomAliasId>, CreateError> {
        let rows = view.page::<hearth_schema::RoomAliases, _>(&(room,), Order::Ascending, MAX_ALIASES).await?;
        let parse = |alias: &str| {
            OwnedRoomAliasId::try_from(alias).map_err(|error| damaged("RoomAliases", error.to_string()).into())
        };
        rows.iter().map(|((_, alias), _)| parse(alias)).collect()
    }
}

/// What stands above power levels in the new room, if its version knows such: the sender first.
fn new_creators(upgrade: &UpgradeRoom) -> Vec<String> {
    if !privileged_creators(upgrade.version) {
        return Vec::new();
    }
    let mut out = vec![upgrade.sender.to_string()];
    for creator in &upgrade.additional_creators {
        if !out.iter().any(|known| known == creator) {
            out.push(creator.to_string());
        }
    }
    out
}

fn create_content(upgrade: &UpgradeRoom, old: &OldRoom) -> Result<CanonicalJsonObject, SendError> {
    let before = content_of(&old.create)?;
    let mut content: CanonicalJsonObject =
        before.into_iter().filter(|(key, _)| matches!(key.as_str(), "type" | "m.federate")).collect();
    let mut predecessor = object(json!({ "room_id": upgrade.room_id }));
    if !upgrade.version.rules().authorization.room_create_event_id_as_room_id {
        predecessor.insert("event_id".into(), CanonicalJsonValue::String(old.last_event.clone()));
    }
    content.insert("predecessor".into(), CanonicalJsonValue::Object(predecessor));
    let additional: Vec<_> = new_creators(upgrade).into_iter().skip(1).map(CanonicalJsonValue::String).collect();
    if !additional.is_empty() {
        content.insert("additional_creators".into(), CanonicalJsonValue::Array(additional));
    }
    Ok(with_version(content, &upgrade.sender, upgrade.version))
}

fn ban_content(ban: &RoomEvent) -> Result<CanonicalJsonObject, SendError> {
    let mut content = member_content(Membership::Ban, &MemberProfile::default());
    if let Some(reason) = content_of(ban)?.remove("reason") {
        content.insert("reason".into(), reason);
    }
    Ok(content)
}

/// A state event of the sender in the old room.
fn state_event(upgrade: &UpgradeRoom, event_type: &str, content: CanonicalJsonObject) -> SendEvent {
    SendEvent {
        room_id: upgrade.room_id.clone(),
        sender: upgrade.sender.clone(),
        event_type: event_type.to_owned(),
        state_key: Some(String::new()),
        content,
        redacts: None,
        origin_server_ts: None,
        transaction: None,
    }
}

fn parse(event: &RoomEvent) -> Result<Value, hearth_store::StoreError> {
    serde_json::from_str(event.pdu.content().get()).map_err(|error| damaged("Events", error.to_string()))
}
