//! The JSON of a room.

use std::sync::Arc;

use hearth_rooms::RoomEvent;
use hearth_schema::{CurrentState, Membership, RoomNid};
use hearth_store::{Pos, StoreError};
use serde_json::{Value, json};

use super::compose::Slide;
use super::connection::SentRoom;
use super::list::Ruled;
use super::traits::content;
use crate::answer::Answer;
use crate::json::{self, Parts};
use crate::member::MEMBER;
use crate::stay::Stay;
use crate::summary::Summary;
use crate::timeline::Page;
use crate::token::Token;

/// Events that move a room up in the list that a client shows.
const BUMPS: [&str; 7] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
];
/// Events looked at for the newest of those: at a time, and how often.
const BUMP_PAGE: usize = 32;
const BUMP_PAGES: usize = 4;

/// A room's object in the making.
pub(super) struct RoomJson {
    out: Vec<u8>,
    object: Parts,
}

impl RoomJson {
    /// `known` is what the client has of the room; if nothing, it is to forget what it knew.
    pub(super) fn open(ruled: &Ruled<'_>, membership: Membership, known: Option<&SentRoom>) -> Self {
        let mut out = Vec::with_capacity(1024);
        let object = Parts::open(b'{', &mut out);
        let mut this = Self { out, object };
        json::string(membership.as_str(), this.key("membership"));
        if known.is_none() {
            this.flag("initial");
        }
        if !ruled.lists.is_empty() {
            let out = this.key("lists");
            let mut names = Parts::open(b'[', out);
            for name in &ruled.lists {
                json::string(name, names.part(out));
            }
            out.push(b']');
        }
        this
    }

    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.object.key(name, &mut self.out)
    }

    /// Says that it is so.
    pub(super) fn flag(&mut self, name: &str) {
        self.raw(name, b"true");
    }

    pub(super) fn number(&mut self, name: &str, value: u64) {
        json::number(value, self.key(name));
    }

    /// A member whose JSON is ready.
    pub(super) fn raw(&mut self, name: &str, json: &[u8]) {
        self.key(name).extend_from_slice(json);
    }

    fn value(&mut self, name: &str, value: &Value) {
        json::display(value, self.key(name));
    }

    /// The state, and what is no longer part of it, if there is any to tell of.
    pub(super) async fn state(
        &mut self,
        answer: &Answer<'_>,
        room: RoomNid,
        (events, removed): (&[Arc<RoomEvent>], &[(&str, &str)]),
    ) -> Result<(), StoreError> {
        if events.is_empty() && removed.is_empty() {
            return Ok(());
        }
        let out = self.key("required_state");
        out.push(b'[');
        answer.write_state_events(room, events, out).await?;
        for (n, (kind, key)) in removed.iter().enumerate() {
            if n > 0 || !events.is_empty() {
                out.push(b',');
            }
            json::display(&json!({"type": kind, "state_key": key}), out);
        }
        out.push(b']');
        Ok(())
    }

    /// The timeline, if it has anything.
    pub(super) async fn timeline(
        &mut self,
        answer: &Answer<'_>,
        room: RoomNid,
        (page, stay): (&Page, &Stay),
    ) -> Result<(), StoreError> {
        if page.events.is_empty() && !page.limited {
            return Ok(());
        }
        let out = self.key("timeline");
        out.push(b'[');
        answer.write_timeline_events(room, page, stay, out).await?;
        out.push(b']');
        json::plain_string(&Token::pagination(answer.until.incarnation, page.prev), self.key("prev_batch"));
        if page.limited {
            self.flag("limited");
        }
        Ok(())
    }

    pub(super) fn close(mut self) -> Vec<u8> {
        self.out.push(b'}');
        self.out
    }
}

impl Slide<'_> {
    /// What the room is called, who stands for it, how many are in it.
    pub(super) async fn write_summary(
        &self,
        room: RoomNid,
        (summary, removed): (&Summary, &[(&str, &str)]),
        json: &mut RoomJson,
    ) -> Result<(), StoreError> {
        let kinds = ["m.room.name", "m.room.avatar"];
        let keys = kinds.map(|kind| (room, kind.to_owned(), String::new()));
        let entries = self.view.get_many::<CurrentState>(&keys).await?;
        let fields = [("name", "name"), ("avatar", "url")];
        for ((entry, kind), (name, field)) in entries.into_iter().zip(kinds).zip(fields) {
            let Some(entry) = entry else {
                // Where there never was one there is nothing to take back.
                if removed.contains(&(kind, "")) {
                    json.value(name, &Value::Null);
                }
                continue;
            };
            let event = self.rooms.events(&self.view, room, &[entry.n]).await?;
            let text = event.first().map(|event| content(event)[field].clone());
            json.value(
                name,
                &text.filter(|text| text.as_str().is_some_and(|text| !text.is_empty())).unwrap_or_default(),
            );
        }
        let heroes: Vec<&str> = summary.heroes().collect();
        if !heroes.is_empty() {
            let heroes = self.heroes(room, &heroes).await?;
            json.value("heroes", &heroes);
        }
        let (joined, invited) = summary.counts();
        json.number("joined_count", joined.into());
        json.number("invited_count", invited.into());
        Ok(())
    }

    async fn heroes(&self, room: RoomNid, users: &[&str]) -> Result<Value, StoreError> {
        let keys: Vec<_> = users.iter().map(|user| (room, MEMBER.to_owned(), (*user).to_owned())).collect();
        let entries = self.view.get_many::<CurrentState>(&keys).await?;
        let numbers: Vec<u32> = entries.into_iter().flatten().map(|entry| entry.n).collect();
        let events = self.rooms.events(&self.view, room, &numbers).await?;
        let heroes = events.iter().map(|event| {
            let content = content(event);
            let mut hero = json!({"user_id": event.state_key()});
            for field in ["displayname", "avatar_url"] {
                if content[field].is_string() {
                    hero[field] = content[field].clone();
                }
            }
            hero
        });
        Ok(heroes.collect())
    }

    /// Position of the newest event that moves the room up, or one that is not before it; `None`: it has not changed.
    pub(super) async fn bump(
        &self,
        room: RoomNid,
        (page, known): (&Page, Option<&SentRoom>),
    ) -> Result<Option<Pos>, StoreError> {
        let is_bump = |event: &&Arc<RoomEvent>| BUMPS.contains(&event.event_type());
        if let Some(newest) = page.events.iter().rev().find(is_bump) {
            return Ok(Some(newest.pos));
        }
        let floor = known.map_or(Pos::ZERO, |known| known.upto);
        let mut upto = page.prev;
        for _ in 0..BUMP_PAGES {
            if upto <= floor {
                return Ok(None);
            }
            let found = self.rooms.timeline(&self.view, room, (floor, upto), BUMP_PAGE).await?;
            if let Some(newest) = found.events.iter().rev().find(is_bump) {
                return Ok(Some(newest.pos));
            }
            if !found.limited {
                break;
            }
            upto = found.prev;
        }
        Ok(known.is_none().then_some(upto))
    }
}
