//! `m.room.canonical_alias` claims names for a room, and must be true: a room could pass for another one.
//!
//! What the room claims already is not asked again, so that an alias that has died, or whose server does not answer,
//! does not keep the others from being changed.
//!
//! Spec: <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>

use std::collections::{BTreeSet, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use hearth_rooms::QueryError;
use http::StatusCode;
use ruma_common::{CanonicalJsonObject, CanonicalJsonValue, RoomAliasId, RoomId, UserId};
use serde_json::Value;

use super::aliases::resolve;
use crate::Api;
use crate::error::ApiError;

/// The type of the events that claim aliases.
pub(crate) const CANONICAL_ALIAS: &str = "m.room.canonical_alias";

/// Aliases that one event may claim anew: each may be a question to another server.
const MAX_NEW: usize = 20;
/// Aliases that are looked up at once.
const AT_ONCE: usize = 8;

/// Whether the aliases that `content` adds to those of the room lead to it.
///
/// # Errors
/// 400 `M_INVALID_PARAM` for what is no alias, 400 `M_BAD_ALIAS` for one that leads nowhere or elsewhere, 502 if its
/// server does not tell; 403 if the user has no business in the room.
pub(crate) async fn check_aliases(
    api: &Api,
    user: &UserId,
    room_id: &RoomId,
    content: &CanonicalJsonObject,
) -> Result<(), ApiError> {
    let mut new = claimed(content)?;
    if new.is_empty() {
        return Ok(());
    }
    let known = known(api, user, room_id).await?;
    new.retain(|alias| !known.contains(*alias));
    if new.len() > MAX_NEW {
        return Err(ApiError::invalid_param(format!("at most {MAX_NEW} aliases can be added at once")));
    }
    let parse = |alias| <&RoomAliasId>::try_from(alias).map_err(|_| ApiError::invalid_param("an alias is not valid"));
    let new: Vec<&RoomAliasId> = new.into_iter().map(parse).collect::<Result<_, _>>()?;
    let checks: Vec<_> = new.into_iter().map(|alias| leads_to(api, alias, room_id)).collect();
    // In order, so that of several wrong ones the same is named each time.
    stream::iter(checks).buffered(AT_ONCE).try_collect().await
}

async fn leads_to(api: &Api, alias: &RoomAliasId, room_id: &RoomId) -> Result<(), ApiError> {
    match resolve(api, alias).await {
        Ok(target) if target.room_id == room_id => Ok(()),
        Err(error) if error.status() != StatusCode::NOT_FOUND => Err(error),
        _ => {
            let message = format!("the alias {alias} does not point to this room");
            Err(ApiError::new(StatusCode::BAD_REQUEST, "M_BAD_ALIAS", message))
        }
    }
}

/// The aliases that the room claims now, as far as `user` may read that.
async fn known(api: &Api, user: &UserId, room_id: &RoomId) -> Result<HashSet<String>, ApiError> {
    let event = match api.rooms.state_event(user, room_id, CANONICAL_ALIAS, "").await {
        Ok(event) => event,
        Err(QueryError::NotFound) => return Ok(HashSet::new()),
        Err(error) => return Err(error.into()),
    };
    let content: Value = serde_json::from_slice(event.pdu.content_json())
        .map_err(|error| ApiError::internal(&format!("a canonical alias: {error}")))?;
    // Servers put anything there; what is no text is nobody's alias.
    let others = content["alt_aliases"].as_array().into_iter().flatten();
    Ok(others.chain([&content["alias"]]).filter_map(Value::as_str).map(str::to_owned).collect())
}

/// `alias` and `alt_aliases`; an absent, `null` or empty `alias` removes it.
fn claimed(content: &CanonicalJsonObject) -> Result<BTreeSet<&str>, ApiError> {
    let wrong = || ApiError::bad_json("aliases must be strings");
    let mut aliases = BTreeSet::new();
    match content.get("alias") {
        None | Some(CanonicalJsonValue::Null) => {}
        Some(CanonicalJsonValue::String(alias)) if alias.is_empty() => {}
        Some(CanonicalJsonValue::String(alias)) => drop(aliases.insert(alias.as_str())),
        Some(_) => return Err(wrong()),
    }
    match content.get("alt_aliases") {
        None | Some(CanonicalJsonValue::Null) => {}
        Some(CanonicalJsonValue::Array(alternatives)) => {
            for alternative in alternatives {
                aliases.insert(alternative.as_str().ok_or_else(wrong)?);
            }
        }
        Some(_) => return Err(wrong()),
    }
    Ok(aliases)
}
