//! Timelines.

use std::collections::HashSet;
use std::sync::Arc;

use hearth_rooms::{Reader, RoomEvent, TimelinePage};
use hearth_schema::RoomNid;
use hearth_store::{Pos, StoreError};

use crate::answer::Answer;
use crate::filter::EventFormat;
use crate::json;
use crate::live::{LiveRoom, Recent};
use crate::stay::Stay;
use crate::token::Token;

/// Events looked at for one timeline when the filter lets few pass.
const MAX_SCANNED: usize = 2_000;

/// A timeline, oldest event first.
pub(crate) struct Page {
    pub events: Vec<Arc<RoomEvent>>,
    pub limited: bool,
    /// Everything before the events is at or below.
    pub prev: Pos,
}

/// Whether events may be hidden from the user by the history visibility.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Perhaps.
    Visibility,
    /// The user has been joined throughout.
    Nothing,
}

impl Answer<'_> {
    /// The newest events at positions in `(after, upto]` that the filter lets pass.
    pub(crate) async fn page(
        &self,
        (room, room_id, live): (RoomNid, &str, Option<&LiveRoom>),
        (after, upto): (Pos, Pos),
        check: Check,
    ) -> Result<Page, StoreError> {
        let section = &self.scope.filter.timeline;
        let mut page = Page { events: Vec::new(), limited: false, prev: upto };
        if after >= upto || !section.rooms.contains(room_id) || section.events.types.as_ref().is_some_and(Vec::is_empty)
        {
            return Ok(page);
        }
        let limit = section.limit();
        let mut scanned = 0;
        loop {
            let stretch = (after, page.prev);
            let found = self.stretch(room, live, stretch, limit - page.events.len()).await?;
            scanned += found.events.len();
            let (mut events, mut limited, mut prev) = (found.events, found.limited, found.prev);
            if check == Check::Visibility && !events.is_empty() {
                let visible = self.rooms.visible(&self.view, &self.who.user_id, room, events.clone());
                let shown = Box::pin(visible).await?;
                if let Some(hidden) = newest_hidden_state(&events, &shown) {
                    (limited, prev) = (true, hidden);
                }
                events = shown;
                events.retain(|event| event.pos > prev);
            }
            let ends = found.gap || prev > found.prev;
            if !section.lets_all_pass() {
                events.retain(|event| section.events.matches(event));
            }
            events = self.rooms.with_children(&self.view, room, &section.events, events).await?;
            self.drop_ignored(&mut events);
            events.append(&mut page.events);
            page = Page { events, limited, prev };
            if ends {
                return Ok(page);
            }
            if !page.limited || page.events.len() >= limit || scanned >= MAX_SCANNED {
                return Ok(page);
            }
        }
    }

    /// Begins `page`, the client's first of the room, after state events that are older than what came before it.
    ///
    /// One that another server told late follows on less of the room than the event that it stands behind here.
    /// A client that does not have that other event learns it from the state before the timeline.
    pub(crate) async fn begin_after_late_state(&self, room: RoomNid, page: &mut Page) -> Result<(), StoreError> {
        let begins_with_state = page.events.first().is_some_and(|event| event.state_key().is_some());
        if !page.limited || !begins_with_state {
            return Ok(());
        }
        let left_out = self.rooms.timeline(&self.view, room, (Pos::ZERO, page.prev), 1).await?;
        let Some(last) = left_out.events.last() else { return Ok(()) };
        let is_late = |event: &Arc<RoomEvent>| event.state_key().is_some() && event.pdu.depth() < last.pdu.depth();
        let late = page.events.iter().take_while(|event| is_late(event)).count();
        if let Some(end) = page.events.drain(..late).next_back() {
            page.prev = end.pos;
        }
        Ok(())
    }

    /// The newest `limit` events in `(after, upto]`. What many are shown is looked up by the first of them.
    async fn stretch(
        &self,
        room: RoomNid,
        live: Option<&LiveRoom>,
        (after, upto): (Pos, Pos),
        limit: usize,
    ) -> Result<TimelinePage, StoreError> {
        // The notifier has seen every event up to `upto`: none lies between the newest and it.
        let Some((live, newest)) = live.and_then(|live| Some((live, live.newest_event(upto)?))) else {
            return self.rooms.timeline(&self.view, room, (after, upto), limit).await;
        };
        if let Some(known) = live.recent(newest, after, limit) {
            let events = self.rooms.events(&self.view, room, &known.numbers).await?;
            let prev = known.first.map_or(upto, |first| Pos::new(first.get().saturating_sub(1)));
            return Ok(TimelinePage { events, limited: known.limited, prev, gap: false }.since_gap());
        }
        let found = self.rooms.timeline(&self.view, room, (after, upto), limit).await?;
        live.keep_recent(Recent::read(&found, after, newest));
        Ok(found)
    }

    /// Appends the object `timeline`.
    pub(crate) async fn write_timeline(
        &self,
        room: RoomNid,
        page: &Page,
        stay: &Stay,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        out.extend_from_slice(b"{\"events\":[");
        self.write_timeline_events(room, page, stay, out).await?;
        out.extend_from_slice(if page.limited { b"],\"limited\":true" } else { b"],\"limited\":false" });
        out.extend_from_slice(b",\"prev_batch\":");
        json::plain_string(&Token::pagination(self.until.incarnation, page.prev), out);
        out.push(b'}');
        Ok(())
    }

    /// Appends the events, with commas between.
    pub(crate) async fn write_timeline_events(
        &self,
        room: RoomNid,
        page: &Page,
        stay: &Stay,
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let begin = out.len();
        match self.scope.filter.format {
            EventFormat::Client => {
                let reader = Reader {
                    user_id: &self.who.user_id,
                    device_id: self.who.client.name().as_str(),
                    now: self.now,
                    standing: Some((stay.membership, stay.pos)),
                };
                let events = &page.events;
                // Children of what follows on what the client has are given to it one by one.
                if page.limited {
                    Box::pin(self.rooms.render(&self.view, &reader, room, events, out)).await?;
                } else {
                    self.rooms.render_without_relations(&self.view, &reader, room, events, out).await?;
                }
            }
            EventFormat::Federation => write_pdus(&page.events, out),
        }
        if let Some(fields) = &self.scope.filter.fields {
            fields.apply(out, begin..);
        }
        Ok(())
    }
}

/// The position of the newest state event among `all`, oldest first, that is not among `shown`.
///
/// A timeline begins after it: the state before the timeline has it, while further up, what the client is not
/// shown would be missing between what it is.
fn newest_hidden_state(all: &[Arc<RoomEvent>], shown: &[Arc<RoomEvent>]) -> Option<Pos> {
    if shown.len() == all.len() {
        return None;
    }
    let shown: HashSet<u32> = shown.iter().map(|event| event.n).collect();
    let hidden = |event: &&Arc<RoomEvent>| event.state_key().is_some() && !shown.contains(&event.n);
    all.iter().rev().find(hidden).map(|event| event.pos)
}

/// Appends the events as they went over federation, with commas between.
pub(crate) fn write_pdus(events: &[Arc<RoomEvent>], out: &mut Vec<u8>) {
    for (i, event) in events.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(event.pdu.json());
    }
}
