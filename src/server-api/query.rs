//! `version`, `query/directory`, `query/profile`, and queries that nobody knows.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::Profile;
use hearth_store::StoreError;
use ruma_common::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::params::{Query, invalid};
use crate::signed::Signed;
use crate::{Api, reply};

/// `GET /version`: open to everybody.
pub(crate) async fn version() -> Response {
    reply::json(&json!({"server": {"name": "Hearth", "version": env!("CARGO_PKG_VERSION")}}))
}

#[derive(Serialize)]
struct Found {
    room_id: OwnedRoomId,
    servers: Vec<OwnedServerName>,
}

/// `GET /query/directory`
pub(crate) async fn directory(State(api): State<Arc<Api>>, query: Query, _: Signed) -> Result<Response, ApiError> {
    let alias = query.required("room_alias")?;
    let alias = OwnedRoomAliasId::try_from(alias).map_err(|_| invalid("room_alias"))?;
    if alias.server_name() != api.rooms.server_name() {
        return Err(ApiError::not_found("the alias is not of this server"));
    }
    let target = api.rooms.alias_for_server(&alias).await?;
    let target = target.ok_or_else(|| ApiError::not_found("there is no such alias"))?;
    Ok(reply::json(&Found { room_id: target.room_id, servers: target.servers }))
}

/// `GET /query/profile`
pub(crate) async fn profile(State(api): State<Arc<Api>>, query: Query, _: Signed) -> Result<Response, ApiError> {
    let user = OwnedUserId::try_from(query.required("user_id")?).map_err(|_| invalid("user_id"))?;
    if user.server_name() != api.rooms.server_name() {
        return Err(ApiError::invalid_param("the user is not of this server"));
    }
    let profile = api.accounts.profile(&user).await?;
    let Profile { displayname, avatar_url, fields } =
        profile.ok_or_else(|| ApiError::not_found("there is no such user"))?;
    let mut all = Map::new();
    for (name, json) in fields {
        let value = serde_json::from_str(&json).map_err(|error| StoreError::Corrupt {
            keyspace: "Profiles",
            detail: format!("{name} of {user}: {error}").into(),
        })?;
        all.insert(name, value);
    }
    let known = [("displayname", displayname), ("avatar_url", avatar_url)];
    all.extend(known.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?)))));
    if let Some(field) = query.get("field") {
        all.retain(|name, _| name == field);
    }
    Ok(reply::json(&all))
}

/// `GET /query/{queryType}` of any other type.
pub(crate) async fn unknown(_: Signed) -> ApiError {
    ApiError::not_found("this server does not know such queries")
}
