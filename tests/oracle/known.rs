//! Differences that are there for a reason. Whatever is not listed fails the test.

use hearth_event::{Pdu, PowerLevel, PowerLevels, RoomVersion, check_auth_events};
use ruma_common::{EventId, UserId};
use serde_json::{Value, json};

use crate::Case;

/// Why our answer to `case` and `theirs` (`raw`, before it was brought to our shape) may differ.
pub(crate) fn reason(version: RoomVersion, case: &Case, theirs: &Value, raw: &Value) -> Option<&'static str> {
    match case.request["op"].as_str()? {
        "event_id" => (theirs.get("err").is_some() && is_rejected_create(version, case)).then_some(
            "a create event from version 12 on with odd fields: they cannot read it, we reject it by the rules",
        ),
        "auth" => auth(case, theirs, raw),
        "resolve" if has_no_verdict(&raw["err"]) => {
            Some("their resolution breaks off at a power level that is no number")
        }
        "resolve" => changes_a_default(version, case).then_some(
            "ruma-state-res compares a level that is added or removed with its default, they only with what is there",
        ),
        _ => None,
    }
}

/// Whether somebody below 50, who may send power levels all the same, adds or removes a level whose default is 50.
fn changes_a_default(version: RoomVersion, case: &Case) -> bool {
    const KIND: &str = "m.room.power_levels";
    let events = case.request["events"].as_object().expect("an object");
    let read = |id: &str| {
        let bytes = serde_json::to_vec(&events[id]).expect("a value is JSON");
        let id = <&EventId>::try_from(id).expect("an event ID");
        Pdu::from_stored(id, bytes.into(), version).expect("the event was read before")
    };
    let of = |kind: &str| events.keys().filter(|id| events[*id]["type"] == kind).map(|id| read(id)).collect::<Vec<_>>();
    let create = &of("m.room.create")[0];
    let all = of(KIND);
    // While resolving, an event is compared with any that may come before it.
    all.iter().any(|before| {
        let levels = PowerLevels::of(version, create, Some(before));
        all.iter().any(|after| {
            let own = levels.user(after.sender());
            let content = |pdu: &Pdu| &events[pdu.event_id().as_str()]["content"];
            own < PowerLevel::Finite(50)
                && own >= levels.state_event(KIND)
                && ["ban", "kick", "redact", "state_default"]
                    .iter()
                    .any(|key| content(before)[key].is_null() != content(after)[key].is_null())
        })
    })
}

fn auth(case: &Case, theirs: &Value, raw: &Value) -> Option<&'static str> {
    let pdu = &case.request["pdu"];
    let named = &pdu["content"]["room_version"];
    if pdu["type"] == "m.room.create" && *named != *case.request["room_version"].as_str()? {
        return Some(
            "a create event that names another version: our caller vouches for the version, so we reject the event",
        );
    }
    if ["auth_types", "independent"].iter().any(|key| case.ours[key] != theirs[key]) {
        return None;
    }
    if pdu["type"] == "m.room.power_levels" && pdu["state_key"] != "" {
        return Some(
            "power levels under a state key: they compare with what is there, the rules with those of the room",
        );
    }
    if pdu["type"] == "m.room.member" && pdu["state_key"].as_str().is_some_and(|key| <&UserId>::try_from(key).is_err())
    {
        return Some(
            "a membership of what is no user ID: they take any server name, we reject it as ruma-state-res does",
        );
    }
    if pdu["type"] == "m.room.power_levels" && theirs["dependent"] == true {
        return is_empty_list(case).then_some("notifications is an empty list: they take it for an empty object");
    }
    let error = raw["dependent"].as_str()?;
    if has_no_verdict(&raw["dependent"]) {
        return Some(
            "a power level or key that this rule does not need cannot be read: their check breaks off, we do not look at it",
        );
    }
    (error.contains("unfederatable") && pdu["type"] == "m.room.member" && pdu["state_key"] != pdu["sender"]).then_some(
        "not federated: they also look at the server of the user whose membership changes, the rules only at the sender's",
    )
}

/// Whether the power levels before or after have an empty list, or no text, for `notifications`.
fn is_empty_list(case: &Case) -> bool {
    let events = case.request["events"].as_object().expect("an object").values();
    let levels = events.filter(|event| event["type"] == "m.room.power_levels").chain([&case.request["pdu"]]);
    levels.map(|event| &event["content"]["notifications"]).any(|value| *value == json!([]) || *value == "")
}

/// Whether the rules reject the create event of `case`.
fn is_rejected_create(version: RoomVersion, case: &Case) -> bool {
    let event = &case.request["pdu"];
    let id = case.ours["event_id"].as_str().and_then(|id| <&EventId>::try_from(id).ok());
    let Some(id) = id.filter(|_| event["type"] == "m.room.create" && version.as_str() == "12") else { return false };
    let bytes = serde_json::to_vec(event).expect("a value is JSON");
    let pdu = Pdu::from_stored(id, bytes.into(), version).expect("the event was read before");
    check_auth_events(version, &pdu, &[]).is_err()
}

/// An exception that is not meant for the sender: the check broke off, it did not come to an end.
fn has_no_verdict(error: &Value) -> bool {
    let broken = ["ValueError", "TypeError", "AttributeError", "KeyError", "OverflowError"];
    error.as_str().is_some_and(|error| broken.iter().any(|name| error.starts_with(name)))
}
