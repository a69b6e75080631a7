//! A joined room.

use std::sync::Arc;

use hearth_accounts::{AccountDataItem, account_data_of_room};
use hearth_rooms::RoomEvent;
use hearth_schema::{Membership, RoomNid};
use hearth_store::{Pos, StoreError, View};

use crate::account_data::write_items;
use crate::answer::Answer;
use crate::ephemeral::{ReceiptEvents, write_typing};
use crate::filter::Members;
use crate::json::{self, Parts};
use crate::live::LiveRoom;
use crate::member::MEMBER;
use crate::state::{Changes, Delta, Head, Wanted};
use crate::stay::Stay;
use crate::summary::{Summary, write_summary};
use crate::timeline::{Check, Page};

/// What `ephemeral` has.
struct Ephemeral {
    typing: Option<Vec<u8>>,
    receipts: Option<ReceiptEvents>,
}

/// How much of a room is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    News,
}

impl Answer<'_> {
    /// The room's JSON; `None`: nothing is new.
    pub(crate) async fn joined(
        &self,
        (room, room_id): (RoomNid, &str),
        stay: &Stay,
        live: Option<&LiveRoom>,
        items: &[&AccountDataItem],
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let since = if stay.continuous { self.since_pos() } else { Pos::ZERO };
        let page = self.joined_page(room, room_id, stay, live).await?;
        let whole = !stay.continuous || self.scope.full_state;
        let changes = if live.is_none_or(|live| live.has_state(since)) && !whole {
            self.changes(room, since).await?
        } else {
            Changes::default()
        };
        let head = if whole { Some(self.head(room).await?) } else { None };
        let summary = if whole || changes.touch_summary(self.until.pos) {
            self.summary(room, stay, head.as_ref()).await?
        } else {
            None
        };
        let extent = if whole { Extent::Whole } else { Extent::News };
        let wanted = self.wanted_members(room, &page, summary.as_ref(), extent);
        let state = if let Some(head) = &head {
            self.whole_state(room, &page, live, (&wanted, head)).await?
        } else {
            self.changed_state(room, Delta { page: &page, changes: &changes, wanted: &wanted, until: self.until.pos })
                .await?
        };
        self.remember_members(room, &page, &state);
        let ephemeral = self.ephemeral(room, room_id, live, since).await?;
        let missed = if stay.continuous || self.since.is_none() {
            Vec::new()
        } else {
            // What was stored while the user was not in the room has not been shown.
            account_data_of_room(&self.view, self.who.user, room_id).await?
        };
        let missed: Vec<&AccountDataItem> = missed.iter().collect();
        let items = self.room_items(room_id, if missed.is_empty() { items } else { &missed });
        let own_receipt = ephemeral.receipts.as_ref().is_some_and(|receipts| receipts.own);
        let something = whole
            || !page.events.is_empty()
            || page.limited
            || !state.is_empty()
            || summary.is_some()
            || ephemeral.typing.is_some()
            || ephemeral.receipts.as_ref().is_some_and(|receipts| !receipts.is_empty())
            || own_receipt
            || !items.is_empty();
        if !something {
            return Ok(None);
        }
        let counts = self.counts(room, live).await?;
        let mut out = Vec::with_capacity(512 + 640 * (page.events.len() + state.len()));
        out.extend_from_slice(b"{\"timeline\":");
        self.write_timeline(room, &page, stay, &mut out).await?;
        json::member(self.scope.state_after.key(), &mut out);
        self.write_state(room, &state, &mut out).await?;
        out.extend_from_slice(b",\"account_data\":{\"events\":");
        write_items(items.into_iter(), &mut out);
        out.extend_from_slice(b"},\"ephemeral\":");
        ephemeral.write(&self.scope.filter.ephemeral.events, &mut out);
        out.extend_from_slice(b",\"summary\":");
        write_summary(summary.as_ref(), &mut out);
        counts.write(&mut out);
        out.push(b'}');
        Ok(Some(out))
    }

    /// Who and how many are in the room; `None`: the user is not, any more.
    pub(crate) async fn summary(
        &self,
        room: RoomNid,
        stay: &Stay,
        head: Option<&Head>,
    ) -> Result<Option<Summary>, StoreError> {
        // Counts are those of the view: not for who has left before it.
        let is_in = if self.view.frontier().base() <= self.until.pos {
            stay.membership == Membership::Join
        } else {
            self.is_in(&self.view, room).await?
        };
        if !is_in {
            return Ok(None);
        }
        let read;
        let head = if let Some(head) = head {
            head
        } else {
            read = Head { row: self.rooms.head(&self.view, room).await?, current: None };
            &read
        };
        Summary::read(self.rooms, &self.view, (room, head), &self.who.user_id).await.map(Some)
    }

    /// The newest events of a room that the user is in: since the user's own coming in or the answer before.
    pub(crate) async fn joined_page(
        &self,
        room: RoomNid,
        room_id: &str,
        stay: &Stay,
        live: Option<&LiveRoom>,
    ) -> Result<Page, StoreError> {
        let until = self.until.pos;
        if !stay.continuous {
            let mut page = self.page((room, room_id, live), (stay.known, until), Check::Visibility).await?;
            self.begin_after_late_state(room, &mut page).await?;
            // The client may have an older stretch of the room: what it is given now does not join on.
            page.limited |= self.since.is_some();
            return Ok(page);
        }
        let since = self.since_pos();
        if live.is_some_and(|live| !live.has_events(since)) {
            return Ok(Page { events: Vec::new(), limited: false, prev: until });
        }
        self.page((room, room_id, live), (since, until), Check::Nothing).await
    }

    /// Who the client must be able to name, and may not have.
    fn wanted_members(&self, room: RoomNid, page: &Page, summary: Option<&Summary>, extent: Extent) -> Wanted {
        let members = self.scope.filter.state.members;
        if members == Members::All {
            return Wanted::All;
        }
        let mut users: Vec<&str> = page.events.iter().map(|event| event.sender().as_str()).collect();
        if extent == Extent::Whole {
            users.push(self.who.user_id.as_str());
        }
        users.extend(summary.iter().flat_map(|summary| summary.heroes()));
        users.sort_unstable();
        users.dedup();
        if members == Members::Lazy && extent == Extent::News {
            users = self.user.sent_members.missing(self.who.client.name().as_str(), room, users);
        }
        Wanted::Users(users.into_iter().map(str::to_owned).collect())
    }

    fn remember_members(&self, room: RoomNid, page: &Page, state: &[Arc<RoomEvent>]) {
        if self.scope.filter.state.members == Members::All {
            return;
        }
        let members = page.events.iter().chain(state).filter(|event| event.event_type() == MEMBER);
        let mut users = members.filter_map(|event| event.state_key()).peekable();
        if users.peek().is_some() {
            self.user.sent_members.sent(self.who.client.name().as_str(), room, users, self.until.pos);
        }
    }

    async fn ephemeral(
        &self,
        room: RoomNid,
        room_id: &str,
        live: Option<&LiveRoom>,
        since: Pos,
    ) -> Result<Ephemeral, StoreError> {
        let section = &self.scope.filter.ephemeral;
        if !section.rooms.contains(room_id) {
            return Ok(Ephemeral { typing: None, receipts: None });
        }
        let reader = &self.who.user_id;
        let receipts = match self.since {
            Some(_) if since > Pos::ZERO => {
                if live.is_none_or(|live| live.has_receipts(since)) {
                    Some(ReceiptEvents::since(&self.view, reader, room, (since, self.until.pos)).await?)
                } else {
                    None
                }
            }
            _ if live.is_some_and(LiveRoom::has_no_receipts) => None,
            _ => Some(ReceiptEvents::all(&self.view, reader, room, self.until.pos).await?),
        };
        let wanted = section.events.matches_parts("m.receipt", "");
        let receipts = receipts.filter(|receipts| !receipts.is_empty() && (wanted || receipts.own));
        let mut typing = section.events.matches_parts("m.typing", "").then(|| self.typing(room, live, since)).flatten();
        // Typing runs ahead of events: who left before it, and is not told of the leave yet, must not see it.
        if typing.is_some() && !self.is_in(&self.rooms.view().await?, room).await? {
            typing = None;
        }
        Ok(Ephemeral { typing, receipts })
    }

    /// Whether the user is joined in `view`, which may be later than the end of the answer.
    pub(crate) async fn is_in(&self, view: &View, room: RoomNid) -> Result<bool, StoreError> {
        let row = self.rooms.membership(view, self.who.user, room).await?;
        Ok(row.is_some_and(|row| row.membership == Membership::Join))
    }

    fn typing(&self, room: RoomNid, live: Option<&LiveRoom>, since: Pos) -> Option<Vec<u8>> {
        let seen = self.since.filter(|_| since > Pos::ZERO).map(|since| since.typing);
        if live.is_some_and(|live| live.typing() <= seen.unwrap_or(0)) {
            return None;
        }
        let (version, users) = self.rooms.typing().in_room(room);
        let shown = match seen {
            Some(seen) => version > seen,
            None => !users.is_empty(),
        };
        shown.then(|| {
            let mut out = Vec::new();
            write_typing(&users, &mut out);
            out
        })
    }

    /// Those of the room's account data that the filter lets pass.
    pub(crate) fn room_items<'i>(&self, room_id: &str, items: &[&'i AccountDataItem]) -> Vec<&'i AccountDataItem> {
        let section = &self.scope.filter.room_account_data;
        if !section.rooms.contains(room_id) {
            return Vec::new();
        }
        let sender = self.who.user_id.as_str();
        items.iter().copied().filter(|item| section.events.matches_parts(&item.kind, sender)).collect()
    }

    /// The room's ID, as the user's list of rooms has it.
    pub(crate) fn room_id(&self, room: RoomNid) -> String {
        self.user.standing(room).map_or_else(String::new, |standing| standing.row.room_id.clone())
    }
}

impl Ephemeral {
    fn write(&self, filter: &hearth_rooms::EventFilter, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"events\":");
        let mut list = Parts::open(b'[', out);
        if let Some(typing) = &self.typing {
            list.part(out).extend_from_slice(typing);
        }
        if let Some(receipts) = self.receipts.as_ref().filter(|_| filter.matches_parts("m.receipt", "")) {
            receipts.write(&mut list, out);
        }
        out.extend_from_slice(b"]}");
    }
}
