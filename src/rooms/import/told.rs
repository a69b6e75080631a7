//! What a server tells of a room, held against the rules.

use std::collections::{BTreeMap, HashMap};

use hearth_event::{Pdu, RoomVersion};
use ruma_common::{OwnedEventId, OwnedServerName};

use super::ImportError;
use crate::inbound::{admit, by_auth_events, sorted};
use crate::intake::Rooms;
use crate::remote::{JoinAnswer, RawPdu, RemoteError};

/// Event type and state key.
pub(super) type Place = (String, String);

/// A verified answer to `send_join`.
pub(super) struct Told {
    pub version: RoomVersion,
    /// Our join, with every signature that it needs.
    pub join: Pdu,
    /// The state before it: nothing rejected.
    pub state: BTreeMap<Place, OwnedEventId>,
    /// Every event of the state and of its auth chains, each after those that it stands on, with why it was rejected.
    pub judged: Vec<(Pdu, Option<String>)>,
}

impl Told {
    /// Every event besides the join.
    pub(super) fn events(&self) -> impl Iterator<Item = &Pdu> {
        self.judged.iter().map(|(pdu, _)| pdu)
    }

    pub(super) async fn check(
        rooms: &Rooms,
        via: &OwnedServerName,
        join: Pdu,
        answer: JoinAnswer,
    ) -> Result<Self, ImportError> {
        let version = join.version();
        let invalid = |why: &str| RemoteError::Invalid { server: via.clone(), why: why.to_owned() };
        if answer.members_omitted {
            return Err(invalid("members were left out although all were asked for").into());
        }
        let join = countersigned(rooms, &join, answer.event).await.map_err(|why| invalid(&why))?;
        let states = answer.state.len();
        let raw = answer.state.into_iter().chain(answer.auth_chain).collect();
        let admitted = admit(rooms, join.room_id(), version, raw).await;
        let mut events: HashMap<OwnedEventId, Pdu> = HashMap::new();
        let mut state: BTreeMap<Place, OwnedEventId> = BTreeMap::new();
        for (i, one) in admitted.into_iter().enumerate() {
            let pdu = match one.event {
                Ok(event) => event.into_pdu(),
                Err(why) => {
                    tracing::info!(event_id = ?one.event_id, %why, %via, "an event of a room that is joined is no good");
                    continue;
                }
            };
            if i < states {
                let key = pdu.state_key().ok_or_else(|| invalid("the state has an event that is none"))?;
                let place = (pdu.event_type().to_owned(), key.to_owned());
                if let Some(other) = state.insert(place, pdu.event_id().to_owned())
                    && other != pdu.event_id()
                {
                    return Err(invalid("the state has two events at one place").into());
                }
            }
            events.insert(pdu.event_id().to_owned(), pdu);
        }
        let create = state.get(&("m.room.create".to_owned(), String::new())).and_then(|id| events.get(id)).cloned();
        let create = create.ok_or_else(|| invalid("the state has no create event"))?;
        let judged = judge(version, &events, &create);
        let mut told = Self { version, join, state, judged };
        told.drop_rejected(&create).map_err(|why| invalid(&why))?;
        told.check_join(&create).map_err(|why| invalid(&why))?;
        Ok(told)
    }

    /// The state without what was rejected. Without what the rules themselves stand on there is no room.
    fn drop_rejected(&mut self, create: &Pdu) -> Result<(), String> {
        let rejected: HashMap<&str, &str> =
            self.judged.iter().filter_map(|(pdu, why)| Some((pdu.event_id().as_str(), why.as_deref()?))).collect();
        if let Some(why) = rejected.get(create.event_id().as_str()) {
            return Err(format!("the create event is rejected: {why}"));
        }
        for kind in ["m.room.power_levels", "m.room.join_rules"] {
            let here = self.state.get(&(kind.to_owned(), String::new()));
            if let Some(why) = here.and_then(|id| rejected.get(id.as_str())) {
                return Err(format!("{kind} is rejected: {why}"));
            }
        }
        self.state.retain(|place, id| match rejected.get(id.as_str()) {
            None => true,
            Some(why) => {
                tracing::info!(%id, kind = %place.0, %why, "an event of a room that is joined is rejected");
                false
            }
        });
        Ok(())
    }

    /// Whether the state lets us in.
    fn check_join(&self, create: &Pdu) -> Result<(), String> {
        let by_id: HashMap<&str, &(Pdu, Option<String>)> =
            self.judged.iter().map(|entry| (entry.0.event_id().as_str(), entry)).collect();
        let get = |id: &OwnedEventId| {
            by_id.get(id.as_str()).map(|(pdu, why)| if why.is_some() { pdu.with_rejected() } else { pdu.clone() })
        };
        let auth_events: Vec<Pdu> = self.join.auth_events().iter().filter_map(&get).collect();
        by_auth_events(self.version, &self.join, &auth_events, Some(create)).map_err(|error| error.rule)?;
        let state = |kind: &str, key: &str| get(self.state.get(&(kind.to_owned(), key.to_owned()))?);
        hearth_event::check_auth(self.version, &self.join, create, &state).map_err(|error| error.rule)
    }
}

/// Our join as the other server gave it back: with its signature where that is needed.
async fn countersigned(rooms: &Rooms, join: &Pdu, given: Option<RawPdu>) -> Result<Pdu, String> {
    let checked = hearth_event::check(join.json(), join.version()).map_err(|error| error.to_string())?;
    let own = rooms.0.signer.server_name.as_str();
    let needs_others = checked.signers().iter().any(|server| server.as_str() != own);
    let Some(given) = given else {
        return if needs_others {
            Err("the join lacks the signature that it needs".to_owned())
        } else {
            Ok(join.clone())
        };
    };
    let admitted = admit(rooms, join.room_id(), join.version(), vec![given]).await.pop();
    let given = admitted.ok_or("no event")?.event.map(hearth_event::Verified::into_pdu);
    match given {
        Ok(given) if given.event_id() == join.event_id() && given.content_json() == join.content_json() => Ok(given),
        Ok(_) => Err("the join that came back is another event".to_owned()),
        Err(_) if !needs_others => Ok(join.clone()),
        Err(why) => Err(why),
    }
}

/// Every event with why it is rejected by its auth events, each after those that it stands on.
fn judge(version: RoomVersion, events: &HashMap<OwnedEventId, Pdu>, create: &Pdu) -> Vec<(Pdu, Option<String>)> {
    let mut done: HashMap<OwnedEventId, Pdu> = HashMap::with_capacity(events.len());
    let mut out = Vec::with_capacity(events.len());
    for pdu in sorted(events) {
        let auth_events: Vec<Pdu> = pdu.auth_events().iter().filter_map(|id| done.get(id).cloned()).collect();
        let why = by_auth_events(version, &pdu, &auth_events, Some(create)).err().map(|rejection| rejection.rule);
        let verdict = if why.is_some() { pdu.with_rejected() } else { pdu.clone() };
        done.insert(pdu.event_id().to_owned(), verdict);
        out.push((pdu, why));
    }
    out
}
