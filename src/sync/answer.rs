//! One answer: which rooms are in it, and the JSON around them.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use hearth_accounts::{AccountDataItem, Requester, Screening};
use hearth_base::Millis;
use hearth_rooms::Rooms;
use hearth_schema::{Membership, RoomNid};
use hearth_store::{Pos, StoreError, View};
use ruma_common::RoomId;

use crate::account_data::{self, write_items};
use crate::filter::Filter;
use crate::json::{self, Parts};
use crate::live::{LiveUser, Standing};
use crate::presence::PresenceNews;
use crate::token::Token;
use crate::v3::UseStateAfter;

/// Rooms put together at the same time.
const CONCURRENT: usize = 8;

/// What a request wants to see.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub filter: &'a Filter,
    pub full_state: bool,
    pub state_after: UseStateAfter,
}

/// An answer in the making: everything after `since`, up to `until`.
pub(crate) struct Answer<'a> {
    pub rooms: &'a Rooms,
    pub who: &'a Requester,
    pub user: &'a LiveUser,
    /// At or after `until`.
    pub view: View,
    /// What follows from everything at or below is in `view`. Before `until` only while counting is
    /// behind.
    pub counted: Pos,
    pub scope: Scope<'a>,
    /// `None`: the first answer of all.
    pub since: Option<Token>,
    pub until: Token,
    pub now: Millis,
    /// What is told of presence, as the filter wants it.
    pub presence: PresenceNews,
    /// Whom the user does not want to hear from.
    pub screening: Arc<Screening>,
}

/// A section of `rooms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Join,
    Invite,
    Knock,
    Leave,
}

/// A room of the answer: its section, its ID, its JSON.
pub(crate) type Shown = (Section, String, Vec<u8>);

/// A room that may have something new, and its account data that has.
type Candidate<'a> = (RoomNid, Standing, Vec<&'a AccountDataItem>);

/// The answer when nothing is new.
pub(crate) fn empty_answer(until: &Token) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    begin(until, &mut out);
    out.push(b'}');
    out
}

/// There are no one-time keys: their endpoints do not exist yet, and clients ask for the counts.
fn begin(until: &Token, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"next_batch\":");
    json::plain_string(until, out);
    out.extend_from_slice(b",\"device_one_time_keys_count\":{}");
}

impl Answer<'_> {
    /// The JSON, and whether it says nothing.
    pub(crate) async fn write(&self) -> Result<(Vec<u8>, bool), StoreError> {
        let items = self.account_data().await?;
        let (global, of_rooms): (Vec<_>, Vec<_>) = items.iter().partition(|item| item.room.is_empty());
        let mut by_room: HashMap<&str, Vec<&AccountDataItem>> = HashMap::new();
        for item in of_rooms {
            by_room.entry(item.room.as_str()).or_default().push(item);
        }
        let mut shown = Vec::new();
        for (room, standing) in self.candidates(&by_room) {
            let items = by_room.remove(standing.row.room_id.as_str()).unwrap_or_default();
            shown.push((room, standing, items));
        }
        let rooms = self.rooms_shown(&shown).await?;
        let filter = &self.scope.filter.account_data;
        let global: Vec<_> =
            global.into_iter().filter(|item| filter.matches_parts(&item.kind, self.who.user_id.as_str())).collect();
        let empty = rooms.is_empty() && global.is_empty() && self.presence.sights.is_empty();
        Ok((self.assemble(&rooms, &global), empty))
    }

    async fn rooms_shown(&self, rooms: &[Candidate<'_>]) -> Result<Vec<Shown>, StoreError> {
        // News of one room is what most answers are.
        if let [(room, standing, items)] = rooms {
            return Ok(Box::pin(self.room(*room, standing, items)).await?.into_iter().collect());
        }
        // Not a closure within the stream: the compiler could not see that the answer is `Send`.
        let answers: Vec<_> = rooms.iter().map(|(room, standing, items)| self.room(*room, standing, items)).collect();
        let shown: Vec<Option<Shown>> = stream::iter(answers).buffered(CONCURRENT).try_collect().await?;
        Ok(shown.into_iter().flatten().collect())
    }

    fn assemble(&self, rooms: &[Shown], global: &[&AccountDataItem]) -> Vec<u8> {
        let mut out =
            Vec::with_capacity(256 + rooms.iter().map(|(_, id, json)| id.len() + json.len() + 8).sum::<usize>());
        begin(&self.until, &mut out);
        if !global.is_empty() {
            out.extend_from_slice(b",\"account_data\":{\"events\":");
            write_items(global.iter().copied(), &mut out);
            out.push(b'}');
        }
        if !self.presence.sights.is_empty() {
            out.extend_from_slice(b",\"presence\":{\"events\":");
            self.presence.write(self.now, &mut out);
            out.push(b'}');
        }
        if !rooms.is_empty() {
            out.extend_from_slice(b",\"rooms\":");
            let mut sections = Parts::open(b'{', &mut out);
            let names = [
                (Section::Join, "join"),
                (Section::Invite, "invite"),
                (Section::Knock, "knock"),
                (Section::Leave, "leave"),
            ];
            for (section, name) in names {
                if rooms.iter().any(|(of, ..)| *of == section) {
                    let out = sections.key(name, &mut out);
                    let mut object = Parts::open(b'{', out);
                    for (_, room_id, json) in rooms.iter().filter(|(of, ..)| *of == section) {
                        object.key(room_id, out).extend_from_slice(json);
                    }
                    out.push(b'}');
                }
            }
            out.push(b'}');
        }
        out.push(b'}');
        out
    }

    /// The position after which things are new.
    pub(crate) fn since_pos(&self) -> Pos {
        self.since.map_or(Pos::ZERO, |since| since.pos)
    }

    /// Rooms that may have something new.
    fn candidates(&self, account_data: &HashMap<&str, Vec<&AccountDataItem>>) -> Vec<(RoomNid, Standing)> {
        let mut rooms = match self.since {
            Some(since) if !self.scope.full_state => {
                let mut rooms = self.user.changed(since.pos, since.typing);
                for room_id in account_data.keys() {
                    // Account data may have been stored for anything that looks like a room ID.
                    let Ok(room_id) = <&RoomId>::try_from(*room_id) else { continue };
                    let nid = self.rooms.ids().room(room_id);
                    if !rooms.iter().any(|(room, _)| *room == nid) {
                        rooms.extend(self.user.standing(nid).map(|standing| (nid, standing)));
                    }
                }
                rooms
            }
            _ => self.user.all(),
        };
        rooms.retain(|(_, standing)| self.scope.filter.rooms.contains(&standing.row.room_id));
        rooms
    }

    async fn account_data(&self) -> Result<Vec<AccountDataItem>, StoreError> {
        match self.since {
            None => account_data::all(&self.view, self.who).await,
            Some(since) if self.user.has_account_data(since.pos) => {
                hearth_accounts::account_data_since(&self.view, self.who.user, since.pos, self.until.pos).await
            }
            Some(_) => Ok(Vec::new()),
        }
    }

    /// One room, if it has anything to show.
    async fn room(
        &self,
        room: RoomNid,
        standing: &Standing,
        items: &[&AccountDataItem],
    ) -> Result<Option<Shown>, StoreError> {
        let Some(stay) = self.stay(room, &standing.row).await? else { return Ok(None) };
        let new = stay.pos > self.since_pos();
        // What is rare is boxed, here and below: a future is as large as the largest that it may wait for, and is copied.
        let (section, json) = match stay.membership {
            Membership::Join => {
                let named = (room, standing.row.room_id.as_str());
                (Section::Join, self.joined(named, &stay, standing.live.as_deref(), items).await?)
            }
            Membership::Invite if (new || self.scope.full_state) && !self.is_unwanted(room, &stay).await? => {
                (Section::Invite, Box::pin(self.invited(room, &stay)).await?)
            }
            Membership::Knock if new || self.scope.full_state => {
                (Section::Knock, Box::pin(self.knocked(room, &stay)).await?)
            }
            Membership::Leave | Membership::Ban if new => {
                (Section::Leave, Box::pin(self.left(room, &stay, items)).await?)
            }
            _ => (Section::Leave, None),
        };
        Ok(json.map(|json| (section, standing.row.room_id.clone(), json)))
    }
}
