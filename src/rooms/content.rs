//! What a client's event may not say, beyond the auth rules.

use hearth_event::{Pdu, RoomVersion};
use hearth_store::StoreError;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue};

use crate::SendError;
use crate::command::SendEvent;
use crate::gather::damaged;
use crate::plan::{PlanError, Planner};

/// Why `event` makes no sense in the room whoever of its members sends it: then it is a bad request, while
/// the auth rules, which would not let it pass either, would call it forbidden. Others are not told what is
/// in the room.
pub(crate) fn refused(planner: &Planner, event: &SendEvent) -> Result<Option<SendError>, PlanError> {
    match (event.event_type.as_str(), event.state_key.as_deref()) {
        ("m.room.create", _) => Ok(Some(SendError::BadContent("a room is created once".into()))),
        ("m.room.power_levels", Some("")) if planner.is_joined(&event.sender)? => {
            let Some(create) = planner.state_event("m.room.create", "")? else { return Ok(None) };
            let creators = creators(planner.version, create).map_err(SendError::from)?;
            let named = creators.into_iter().find(|creator| names(&event.content, creator));
            Ok(named.map(|creator| SendError::BadContent(format!("{creator} created the room and has every power"))))
        }
        _ => Ok(None),
    }
}

fn names(power_levels: &CanonicalJsonObject, user: &str) -> bool {
    matches!(power_levels.get("users"), Some(CanonicalJsonValue::Object(users)) if users.contains_key(user))
}

/// The room's creators, where its version (12 and later) sets them above all power levels; nobody in
/// older versions.
pub(crate) fn creators(version: RoomVersion, create: &Pdu) -> Result<Vec<String>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Content {
        additional_creators: Option<Vec<String>>,
    }
    if !version.rules().authorization.explicitly_privilege_room_creators {
        return Ok(Vec::new());
    }
    // The auth rules of these versions have checked the type of the field.
    let content: Content =
        serde_json::from_str(create.content().get()).map_err(|error| damaged("Events", error.to_string()))?;
    let mut creators = vec![create.sender().to_string()];
    creators.extend(content.additional_creators.unwrap_or_default());
    Ok(creators)
}
