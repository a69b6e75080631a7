//! Events as JSON for one reader.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use hearth_base::Millis;
use hearth_schema::{Membership, RoomNid, StateKeyNid};
use hearth_store::{Pos, StoreError, View};
use ruma_common::UserId;

use super::bundle::Bundles;
use super::event::{EventExtras, RoomEvent};
use crate::intake::Rooms;

/// Who is shown events.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// The user.
    pub user_id: &'a UserId,
    /// The device: its own transaction ids are shown to it.
    pub device_id: &'a str,
    /// The time, for `age`.
    pub now: Millis,
    /// The user's newest membership of the room that is shown, and since when, if that is known already.
    pub standing: Option<(Membership, Pos)>,
}

/// Events as JSON, by number.
#[derive(Default)]
pub(super) struct Rendered {
    json: Vec<u8>,
    places: HashMap<u32, Range<usize>>,
}

impl Rendered {
    /// The event `n`.
    pub(super) fn get(&self, n: u32) -> Option<&[u8]> {
        self.places.get(&n).map(|place| &self.json[place.clone()])
    }
}

impl Rooms {
    /// Appends `events`, all of `room`, to `out` as JSON objects separated by commas, with what their
    /// children come to.
    ///
    /// # Errors
    /// If the store cannot be read.
    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    pub async fn render(
        &self,
        view: &View,
        reader: &Reader<'_>,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let bundles = self.bundles(view, reader, room, events).await?;
        self.write(view, reader, (room, events), &bundles, out).await.map(drop)
    }

    /// The same without children, for a timeline with no gap before it: the client has them all, or is
    /// given them with the next answers.
    ///
    /// # Errors
    /// If the store cannot be read.
    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    pub async fn render_without_relations(
        &self,
        view: &View,
        reader: &Reader<'_>,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
        out: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        self.write(view, reader, (room, events), &Bundles::new(), out).await.map(drop)
    }

    /// `events` one by one.
    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    pub(super) async fn rendered(
        &self,
        view: &View,
        reader: &Reader<'_>,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
        bundles: &Bundles,
    ) -> Result<Rendered, StoreError> {
        let mut json = Vec::new();
        let places = self.write(view, reader, (room, events), bundles, &mut json).await?;
        Ok(Rendered { json, places: events.iter().map(|event| event.n).zip(places).collect() })
    }

    /// Appends the events and gives their places in `out`.
    #[expect(clippy::too_many_arguments, reason = "the receiver counts; what is left names different things")]
    async fn write(
        &self,
        view: &View,
        reader: &Reader<'_>,
        (room, events): (RoomNid, &[Arc<RoomEvent>]),
        bundles: &Bundles,
        out: &mut Vec<u8>,
    ) -> Result<Vec<Range<usize>>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let others = self.shown_with(view, reader.user_id, room, events).await?;
        let known = self.memberships(view, reader, room, events).await?;
        let mut places = Vec::with_capacity(events.len());
        for (i, event) in events.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let other = |n: Option<u32>| n.and_then(|n| others.get(&n)).map(|event| &**event);
            let extras = EventExtras {
                now: Some(reader.now),
                transaction_id: transaction_id(event, reader),
                delay_id: delay_id(event, reader),
                membership: self.membership_at(view, reader, event, &known).await?,
                previous: other(event.replaces_state),
                redacted_because: other(event.redacted_by),
                relations: bundles.get(&event.n).map(Vec::as_slice),
            };
            let start = out.len();
            event.write_client(&extras, out);
            places.push(start..out.len());
        }
        Ok(places)
    }

    /// What `events` redacted and replaced, by number, as far as `user` may see it.
    ///
    /// Who sees an event come into the state has seen, or could have asked for, what was there before. Who is
    /// only given it as the state that it is now may not, and who has left does not see a redaction made since.
    async fn shown_with(
        &self,
        view: &View,
        user: &UserId,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
    ) -> Result<HashMap<u32, Arc<RoomEvent>>, StoreError> {
        let redactions: Vec<u32> = events.iter().filter_map(|event| event.redacted_by).collect();
        let mut judged = self.events(view, room, &redactions).await?;
        judged.extend(events.iter().filter(|event| event.replaces_state.is_some()).cloned());
        if judged.is_empty() {
            return Ok(HashMap::new());
        }
        let visible = self.visible(view, user, room, judged).await?;
        let replaced: Vec<u32> = visible.iter().filter_map(|event| event.replaces_state).collect();
        let replaced = self.events(view, room, &replaced).await?;
        Ok(visible.into_iter().chain(replaced).map(|event| (event.n, event)).collect())
    }

    /// What says which membership the reader had when each of `events` was sent.
    async fn memberships(
        &self,
        view: &View,
        reader: &Reader<'_>,
        room: RoomNid,
        events: &[Arc<RoomEvent>],
    ) -> Result<Memberships, StoreError> {
        let newest = match reader.standing {
            Some(known) => Some(known),
            None => {
                self.membership(view, self.ids().user(reader.user_id), room).await?.map(|row| (row.membership, row.pos))
            }
        };
        let since = newest.map_or(Pos::MAX, |(_, since)| since);
        let place = if events.iter().all(|event| event.pos >= since) {
            None
        } else {
            self.state_place(view, room, "m.room.member", reader.user_id.as_str()).await?
        };
        Ok(Memberships { newest, place })
    }

    /// The reader's membership when `event` was sent, counting the event itself.
    async fn membership_at(
        &self,
        view: &View,
        reader: &Reader<'_>,
        event: &RoomEvent,
        known: &Memberships,
    ) -> Result<Option<Membership>, StoreError> {
        match (known.newest, known.place) {
            (Some((membership, since)), _) if event.pos >= since => Ok(Some(membership)),
            _ if event.event_type() == "m.room.member" && event.state_key() == Some(reader.user_id.as_str()) => {
                Ok(crate::plan::membership_of(&event.pdu))
            }
            (_, None) => Ok(Some(Membership::Leave)),
            (_, Some(place)) => {
                let before = self.membership_at_place(view, event.room, event.state_before, place).await?;
                Ok(Some(before.unwrap_or(Membership::Leave)))
            }
        }
    }
}

/// What is known of a reader's memberships in a room.
struct Memberships {
    /// The newest, and since when.
    newest: Option<(Membership, Pos)>,
    /// The place of the reader's member events in the room's states, if an older membership is asked for and there
    /// is one.
    place: Option<StateKeyNid>,
}

/// For the sender on any device: whoever has it can look up what became of the event.
fn delay_id<'a>(event: &'a RoomEvent, reader: &Reader<'_>) -> Option<&'a str> {
    let by = event.sent_by.as_ref()?;
    (event.sender() == reader.user_id && by.is_delayed()).then_some(by.transaction_id.as_str())
}

fn transaction_id<'a>(event: &'a RoomEvent, reader: &Reader<'_>) -> Option<&'a str> {
    let by = event.sent_by.as_ref()?;
    (event.sender() == reader.user_id && by.device_id == reader.device_id).then_some(by.transaction_id.as_str())
}
