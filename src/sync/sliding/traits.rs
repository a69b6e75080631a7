//! What decides whether a list shows a room, and is in its state or in the user's own member event; remembered while
//! that stays, so that who is invited a lot reads no more for what is new elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_rooms::RoomEvent;
use hearth_schema::{CurrentState, Membership, RoomNid};
use hearth_store::{Pos, StoreError};
use parking_lot::Mutex;
use ruma_common::OwnedUserId;
use serde_json::Value;

use super::compose::Slide;
use crate::live::Standing;
use crate::member::membership;

/// Rooms of one user that are remembered.
const MAX_ROOMS: usize = 10_000;
/// Where they are found.
const PLACES: [(&str, &str); 2] = [(CREATE, ""), (ENCRYPTION, "")];
const CREATE: &str = "m.room.create";
const ENCRYPTION: &str = "m.room.encryption";

/// What there is to know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Traits {
    /// Who made the membership of a user what it is that is not in the room.
    pub by: Option<OwnedUserId>,
    /// Whether the membership before that was a join.
    pub was_in: bool,
    /// `type` of the room's creation.
    pub room_type: Option<String>,
    pub is_encrypted: bool,
}

/// Traits of one user's rooms, and of when they are.
#[derive(Default)]
pub(crate) struct KnownTraits(Mutex<HashMap<RoomNid, (Pos, Arc<Traits>)>>);

impl KnownTraits {
    fn get(&self, room: RoomNid, is_valid: impl Fn(Pos) -> bool) -> Option<Arc<Traits>> {
        self.0.lock().get(&room).filter(|(at, _)| is_valid(*at)).map(|(_, traits)| Arc::clone(traits))
    }

    fn keep(&self, room: RoomNid, at: Pos, traits: &Arc<Traits>) {
        let mut known = self.0.lock();
        if known.len() >= MAX_ROOMS {
            known.clear();
        }
        known.insert(room, (at, Arc::clone(traits)));
    }
}

impl Slide<'_> {
    /// A room's traits, as who stands so to it may know them.
    pub(super) async fn traits(&self, room: RoomNid, standing: &Standing) -> Result<Arc<Traits>, StoreError> {
        let row = &standing.row;
        let live = standing.live.as_ref().filter(|_| row.membership == Membership::Join);
        // Who is not in the room knows what it was when that began.
        let is_valid = |at: Pos| live.map_or(at == row.pos, |live| !live.has_state(at));
        if let Some(known) = self.user.traits.get(room, is_valid) {
            return Ok(known);
        }
        let traits = Arc::new(match (row.membership, row.n) {
            (Membership::Join, _) => {
                let keys = PLACES.map(|(kind, key)| (room, kind.to_owned(), key.to_owned()));
                let entries = self.view.get_many::<CurrentState>(&keys).await?;
                self.read_traits(room, entries.into_iter().flatten().map(|entry| entry.n).collect()).await?
            }
            (_, Some(n)) => self.traits_then(room, n).await?,
            (_, None) => {
                let outside = self.rooms.outside_room(&self.view, (self.who.user, room), row.pos).await?;
                outside.map_or_else(Traits::default, |outside| Traits {
                    by: Some(outside.sender.clone()),
                    ..described(&outside.events)
                })
            }
        });
        self.user.traits.keep(room, if live.is_some() { self.until } else { row.pos }, &traits);
        Ok(traits)
    }

    /// What the room was when the user's member event `n` came, which is no join.
    async fn traits_then(&self, room: RoomNid, n: u32) -> Result<Traits, StoreError> {
        let own = self.rooms.events(&self.view, room, &[n]).await?;
        let Some(own) = own.first() else { return Ok(Traits::default()) };
        let then = self.rooms.state_lookup(&self.view, room, own.state_before, &PLACES).await?;
        let traits = self.read_traits(room, then.into_iter().flatten().collect()).await?;
        let before: Vec<u32> = own.replaces_state.into_iter().collect();
        let before = self.rooms.events(&self.view, room, &before).await?;
        let was_in = before.first().and_then(|event| membership(event)) == Some(Membership::Join);
        Ok(Traits { by: Some(own.sender().to_owned()), was_in, ..traits })
    }

    async fn read_traits(&self, room: RoomNid, numbers: Vec<u32>) -> Result<Traits, StoreError> {
        let events = self.rooms.events(&self.view, room, &numbers).await?;
        let mut traits = Traits::default();
        for event in &events {
            traits.add(event.event_type(), &content(event));
        }
        Ok(traits)
    }
}

impl Traits {
    fn add(&mut self, event_type: &str, content: &Value) {
        match event_type {
            CREATE => self.room_type = content.get("type").and_then(Value::as_str).map(str::to_owned),
            ENCRYPTION => self.is_encrypted = true,
            _ => {}
        }
    }
}

/// The content; what is no JSON that this server reads says nothing.
pub(super) fn content(event: &RoomEvent) -> Value {
    serde_json::from_slice(event.pdu.content_json()).unwrap_or(Value::Null)
}

/// What the stripped state of another server says.
fn described(events: &[String]) -> Traits {
    let mut traits = Traits::default();
    for json in events {
        let event: Value = serde_json::from_str(json).unwrap_or(Value::Null);
        if let (Some(kind), Some("")) = (event["type"].as_str(), event["state_key"].as_str()) {
            traits.add(kind, &event["content"]);
        }
    }
    traits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripped_state_says_what_a_room_is() {
        let space = r#"{"type":"m.room.create","state_key":"","sender":"@a:x","content":{"type":"m.space"}}"#;
        let secret = r#"{"type":"m.room.encryption","state_key":"","sender":"@a:x","content":{}}"#;
        let odd = r#"{"type":"m.room.create","state_key":"","content":7}"#;
        let traits = |events: &[&str]| described(&events.iter().map(|json| (*json).to_owned()).collect::<Vec<_>>());
        let expected = Traits { room_type: Some("m.space".to_owned()), is_encrypted: true, ..Traits::default() };
        assert_eq!(traits(&[space, secret, "{"]), expected);
        assert_eq!(traits(&[odd, "[]"]), Traits::default());
    }
}
