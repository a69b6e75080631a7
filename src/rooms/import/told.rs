//! What a server has told of a room, once all of it is verified, judged and stored.

use std::collections::{BTreeMap, HashMap, HashSet};

use hearth_event::{Pdu, RoomVersion};
use hearth_schema::Membership;
use hearth_store::StoreError;
use ruma_common::OwnedEventId;

use super::judging::stored;
use crate::graph::Graph;
use crate::inbound::{admit, by_auth_events};
use crate::intake::Rooms;
use crate::remote::RawPdu;

/// Event type and state key.
pub(super) type Place = (String, String);

/// The answer to `send_join`.
pub(super) struct Told {
    pub version: RoomVersion,
    /// Our join, with every signature that it needs.
    pub join: Pdu,
    /// The state before it: nothing rejected, everything stored.
    pub state: BTreeMap<Place, (OwnedEventId, Option<Membership>)>,
}

impl Told {
    /// Whether the state lets us in; if not, why.
    pub(super) async fn check_join(&self, graph: &Graph, create: &Pdu) -> Result<Result<(), String>, StoreError> {
        let auth_events = stored(graph, self.join.auth_events()).await?;
        if auth_events.len() < self.join.auth_events().iter().collect::<HashSet<_>>().len() {
            return Ok(Err("the join stands on an event that was not told".to_owned()));
        }
        let auth_events: Vec<Pdu> = auth_events.into_values().collect();
        if let Err(error) = by_auth_events(self.version, &self.join, &auth_events, Some(create)) {
            return Ok(Err(error.rule));
        }
        let places = match hearth_event::auth_types_of(self.version, &self.join) {
            Ok(places) => places,
            Err(error) => return Ok(Err(error.rule)),
        };
        let named = places.into_iter().filter_map(|place| Some((self.state.get(&place)?.0.clone(), place)));
        let named: Vec<(OwnedEventId, Place)> = named.collect();
        let ids: Vec<OwnedEventId> = named.iter().map(|(id, _)| id.clone()).collect();
        let events = stored(graph, &ids).await?;
        let entries: HashMap<&Place, &Pdu> =
            named.iter().filter_map(|(id, place)| Some((place, events.get(id)?))).collect();
        let state = |kind: &str, key: &str| {
            if create.is_state(kind, key) {
                return Some(create.clone());
            }
            entries.get(&(kind.to_owned(), key.to_owned())).map(|pdu| (*pdu).clone())
        };
        Ok(hearth_event::check_auth(self.version, &self.join, create, &state).map_err(|error| error.rule))
    }
}

/// Our join as the other server gave it back: with its signature where that is needed. Otherwise why it is no good.
///
/// # Errors
/// If the store fails.
pub(super) async fn countersigned(
    rooms: &Rooms,
    join: &Pdu,
    given: Option<RawPdu>,
) -> Result<Result<Pdu, String>, StoreError> {
    let checked = match hearth_event::check(join.json(), join.version()) {
        Ok(checked) => checked,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let own = rooms.0.signer.server_name.as_str();
    let needs_others = checked.signers().iter().any(|server| server.as_str() != own);
    let Some(given) = given else {
        let lacking = || "the join lacks the signature that it needs".to_owned();
        return Ok(if needs_others { Err(lacking()) } else { Ok(join.clone()) });
    };
    let admitted = admit(rooms, join.room_id(), join.version(), vec![given]).await?.pop();
    let Some(admitted) = admitted else { return Ok(Err("no event".to_owned())) };
    Ok(match admitted.event.map(hearth_event::Verified::into_pdu) {
        Ok(given) if given.event_id() == join.event_id() && given.content_json() == join.content_json() => Ok(given),
        Ok(_) => Err("the join that came back is another event".to_owned()),
        Err(_) if !needs_others => Ok(join.clone()),
        Err(why) => Err(why),
    })
}
