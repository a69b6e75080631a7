//! Which rooms a request wants: the user's rooms by activity, the windows of its lists, its subscriptions.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hearth_accounts::InviteVerdict;
use hearth_schema::{AccountData, CurrentState, Membership, RoomNid};
use hearth_store::{Order, Pos, StoreError};
use ruma_common::RoomId;
use serde_json::Value;

use super::compose::Slide;
use super::request::{ListAsk, ListFilters, RoomAsk};
use super::required::{RequiredState, Rule};
use super::traits::Traits;
use crate::account_data::content;
use crate::live::Standing;

/// Rooms that the user was put out of and this connection does not have: the newest.
const MAX_KICKED: usize = 100;
/// Rooms of one space that are looked at.
const MAX_CHILDREN: usize = 1_000;

/// A room that the request wants.
pub(super) struct Ruled<'a> {
    pub room: RoomNid,
    pub standing: Standing,
    /// Events at the most.
    pub limit: usize,
    pub required: RequiredState,
    /// The lists that show it.
    pub lists: Vec<&'a str>,
    pub subscribed: bool,
}

/// What a request wants.
#[derive(Default)]
pub(super) struct Wishes<'a> {
    pub rooms: Vec<Ruled<'a>>,
    /// The lists, with the number of rooms in each.
    pub counts: Vec<(&'a str, usize)>,
    /// What the connection was not asked for before.
    pub rules: Vec<Arc<Rule>>,
}

/// A room of the user.
struct Entry {
    room: RoomNid,
    standing: Standing,
    /// Position of the newest event that the user knows of.
    recency: Pos,
}

/// What filters look at, as far as one of them does.
#[derive(Default)]
struct Looks {
    traits: HashMap<RoomNid, Arc<Traits>>,
    tags: HashMap<RoomNid, HashSet<String>>,
}

impl<'a> Wishes<'a> {
    fn add(&mut self, at: &mut HashMap<RoomNid, usize>, (room, standing): (RoomNid, &Standing), how: &How<'a>) {
        let index = *at.entry(room).or_insert(self.rooms.len());
        if index == self.rooms.len() {
            let (limit, required) = (how.limit, RequiredState::default());
            let standing = standing.clone();
            self.rooms.push(Ruled { room, standing, limit, required, lists: Vec::new(), subscribed: false });
        }
        let Some(ruled) = self.rooms.get_mut(index) else { return };
        ruled.limit = ruled.limit.max(how.limit);
        ruled.required.add(&how.rule);
        ruled.lists.extend(how.list);
        ruled.subscribed |= how.list.is_none();
    }
}

/// One rule: how much of its rooms is wanted, and which list it is; `None`: a subscription.
struct How<'a> {
    limit: usize,
    rule: Arc<Rule>,
    list: Option<&'a str>,
}

impl<'a> Slide<'a> {
    /// A rule that was known before is the one that rooms are remembered by.
    fn how(&self, ask: &RoomAsk, list: Option<&'a str>, wishes: &mut Wishes<'_>) -> How<'a> {
        let rule = ask.rule(self.who.user_id.as_str());
        let known = self.sent.rules.get(&rule).or_else(|| wishes.rules.iter().find(|known| ***known == rule));
        let rule = if let Some(known) = known {
            Arc::clone(known)
        } else {
            let rule = Arc::new(rule);
            wishes.rules.push(Arc::clone(&rule));
            rule
        };
        How { limit: ask.limit(), rule, list }
    }

    /// Everything that the request wants.
    pub(super) async fn wishes(&self) -> Result<Wishes<'a>, StoreError> {
        let mut wishes = Wishes::default();
        let mut at = HashMap::new();
        if !self.body.lists.is_empty() {
            let entries = self.entries().await?;
            let looks = self.looks(&entries).await?;
            for (name, ask) in &self.body.lists {
                let how = self.how(&ask.room, Some(name), &mut wishes);
                let mut count = 0;
                let children = self.children(ask).await?;
                for entry in &entries {
                    if let Some(filters) = &ask.filters
                        && !self.passes(entry, (filters, children.as_ref()), &looks)
                    {
                        continue;
                    }
                    if ask.shows(count) {
                        wishes.add(&mut at, (entry.room, &entry.standing), &how);
                    }
                    count += 1;
                }
                wishes.counts.push((name.as_str(), count));
            }
        }
        for (room_id, ask) in &self.body.room_subscriptions {
            let room = self.rooms.ids().room(room_id);
            let Some(standing) = self.user.standing(room) else { continue };
            if self.may_subscribe(room, &standing).await? {
                let how = self.how(ask, None, &mut wishes);
                wishes.add(&mut at, (room, &standing), &how);
            }
        }
        Ok(wishes)
    }

    /// The user's rooms, the most active first.
    async fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut kicked = Vec::new();
        for (room, standing) in self.user.all() {
            let row = Arc::clone(&standing.row);
            let is_shown = row.membership != Membership::Invite || self.is_welcome(room, &standing).await?;
            let entry = Entry { room, recency: recency(&standing), standing };
            match row.membership {
                Membership::Join | Membership::Knock | Membership::Invite if is_shown => entries.push(entry),
                Membership::Leave | Membership::Ban if self.sent.rooms.contains_key(&room) => entries.push(entry),
                Membership::Leave | Membership::Ban if !row.own => kicked.push(entry),
                _ => {}
            }
        }
        // Who has left knows it; who was put out may not.
        kicked.sort_unstable_by_key(|entry| Reverse(entry.recency));
        for entry in kicked.into_iter().take(MAX_KICKED) {
            if self.was_in(entry.room, &entry.standing).await? {
                entries.push(entry);
            }
        }
        entries.sort_unstable_by(|a, b| {
            b.recency.cmp(&a.recency).then_with(|| a.standing.row.room_id.cmp(&b.standing.row.room_id))
        });
        Ok(entries)
    }

    /// Whether the user is in the room or at its door, or was in it and has not forgotten it.
    async fn may_subscribe(&self, room: RoomNid, standing: &Standing) -> Result<bool, StoreError> {
        match standing.row.membership {
            Membership::Join | Membership::Knock => Ok(true),
            Membership::Invite => self.is_welcome(room, standing).await,
            Membership::Leave | Membership::Ban if self.sent.rooms.contains_key(&room) => Ok(true),
            Membership::Leave | Membership::Ban => self.was_in(room, standing).await,
        }
    }

    /// Whether the membership that has ended was a join, and the room is not forgotten.
    async fn was_in(&self, room: RoomNid, standing: &Standing) -> Result<bool, StoreError> {
        if !self.traits(room, standing).await?.was_in {
            return Ok(false);
        }
        // Forgetting is no event, so what is kept of the user's rooms may not know of it.
        let stored = self.rooms.membership(&self.view, self.who.user, room).await?;
        Ok(stored.is_some_and(|stored| !stored.forgotten))
    }

    /// Whether the invitation is from somebody whom the user wants to hear from.
    async fn is_welcome(&self, room: RoomNid, standing: &Standing) -> Result<bool, StoreError> {
        let traits = self.traits(room, standing).await?;
        let verdict = traits.by.as_ref().map(|by| self.screening.invite_from(by));
        Ok(verdict.is_none_or(|verdict| verdict == InviteVerdict::Welcome))
    }

    /// Reads what the filters of this request look at.
    async fn looks(&self, entries: &[Entry]) -> Result<Looks, StoreError> {
        let filters = || self.body.lists.values().filter_map(|ask| ask.filters.as_ref());
        let mut looks = Looks::default();
        if filters().any(|f| f.is_encrypted.is_some() || f.room_types.is_some() || f.not_room_types.is_some()) {
            for entry in entries {
                looks.traits.insert(entry.room, self.traits(entry.room, &entry.standing).await?);
            }
        }
        if filters().any(|f| f.tags.is_some() || f.not_tags.is_some()) {
            let key = |entry: &Entry| (self.who.user, entry.standing.row.room_id.clone(), "m.tag".to_owned());
            let keys: Vec<_> = entries.iter().map(key).collect();
            let rows = self.view.get_many::<AccountData>(&keys).await?;
            for (entry, row) in entries.iter().zip(rows) {
                if let Some(row) = row {
                    looks.tags.insert(entry.room, tags(&row.json)?);
                }
            }
        }
        Ok(looks)
    }

    /// The rooms of the spaces that a list is about, of those that the user is in.
    async fn children(&self, ask: &ListAsk) -> Result<Option<HashSet<String>>, StoreError> {
        let Some(spaces) = ask.filters.as_ref().and_then(|filters| filters.spaces.as_ref()) else { return Ok(None) };
        let mut children = HashSet::new();
        for space in spaces {
            let Ok(space) = <&RoomId>::try_from(space.as_str()) else { continue };
            let space = self.rooms.ids().room(space);
            let is_in = self.user.standing(space).is_some_and(|space| space.row.membership == Membership::Join);
            if !is_in {
                continue;
            }
            let prefix = (space, "m.space.child".to_owned());
            let rows = self.view.page::<CurrentState, _>(&prefix, Order::Ascending, MAX_CHILDREN).await?;
            let numbers: Vec<u32> = rows.iter().map(|(_, entry)| entry.n).collect();
            let events = self.rooms.events(&self.view, space, &numbers).await?;
            for event in &events {
                // Without servers to ask it is no child any more. What cannot be read has none.
                let content: Value = serde_json::from_slice(event.pdu.content_json()).unwrap_or(Value::Null);
                if content.get("via").is_some_and(Value::is_array) {
                    children.extend(event.state_key().map(str::to_owned));
                }
            }
        }
        Ok(Some(children))
    }

    fn passes(
        &self,
        entry: &Entry,
        (filters, children): (&ListFilters, Option<&HashSet<String>>),
        looks: &Looks,
    ) -> bool {
        let row = &entry.standing.row;
        let is_invited = row.membership == Membership::Invite;
        let traits = looks.traits.get(&entry.room);
        let encrypted = traits.is_some_and(|traits| traits.is_encrypted);
        let room_type = || traits.and_then(|traits| traits.room_type.clone());
        let has_tag =
            |tags: &Vec<String>| looks.tags.get(&entry.room).is_some_and(|of| tags.iter().any(|tag| of.contains(tag)));
        filters.is_dm.is_none_or(|wanted| wanted == self.direct.contains(&row.room_id))
            && filters.is_invite.is_none_or(|wanted| wanted == is_invited)
            && filters.is_encrypted.is_none_or(|wanted| wanted == encrypted)
            && filters.room_types.as_ref().is_none_or(|types| types.contains(&room_type()))
            && filters.not_room_types.as_ref().is_none_or(|types| !types.contains(&room_type()))
            && children.is_none_or(|children| children.contains(&row.room_id))
            && filters.tags.as_ref().is_none_or(has_tag)
            && !filters.not_tags.as_ref().is_some_and(has_tag)
    }
}

/// Position of the newest event that somebody with this standing knows of.
fn recency(standing: &Standing) -> Pos {
    let newest = standing.live.as_ref().map_or(Pos::ZERO, |live| live.last_event());
    newest.max(standing.row.pos)
}

/// The tags in the content of `m.tag`; what users store there may be anything.
fn tags(json: &str) -> Result<HashSet<String>, StoreError> {
    let content = content(json)?;
    let tags = content.get("tags").and_then(Value::as_object);
    Ok(tags.into_iter().flatten().map(|(tag, _)| tag.clone()).collect())
}
