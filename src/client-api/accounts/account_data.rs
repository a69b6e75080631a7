//! `/user/{userId}/account_data/{type}` and the same of a room.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use hearth_accounts::{NewAccountData, Requester};
use http::StatusCode;
use ruma_common::{OwnedRoomId, OwnedUserId, RoomId, UserId};

use crate::Api;
use crate::auth::{Authed, only_oneself};
use crate::body::JsonText;
use crate::error::ApiError;
use crate::params::Segments;
use crate::reply;

const PUSH_RULES: &str = "m.push_rules";

/// `GET /user/{userId}/account_data/{type}`
pub(crate) async fn get_global(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, kind)): Segments<(OwnedUserId, String)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    if kind == PUSH_RULES {
        return Ok(reply::raw(api.accounts.push_rules_content(&requester.user_id).await?));
    }
    get(&api, &requester, None, &kind).await
}

/// `GET /user/{userId}/rooms/{roomId}/account_data/{type}`
pub(crate) async fn get_of_room(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, room_id, kind)): Segments<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    get(&api, &requester, Some(&room_id), &kind).await
}

async fn get(api: &Api, requester: &Requester, room: Option<&RoomId>, kind: &str) -> Result<Response, ApiError> {
    let json = api.accounts.account_data(requester.user, room, kind).await?;
    json.map(reply::raw).ok_or_else(|| ApiError::not_found("there is no account data of this type"))
}

/// `PUT /user/{userId}/account_data/{type}`
pub(crate) async fn put_global(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, kind)): Segments<(OwnedUserId, String)>,
    JsonText(json): JsonText,
) -> Result<Response, ApiError> {
    put(&api, &requester, &user, NewAccountData { room: None, kind, json }).await
}

/// `PUT /user/{userId}/rooms/{roomId}/account_data/{type}`
pub(crate) async fn put_of_room(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, room_id, kind)): Segments<(OwnedUserId, OwnedRoomId, String)>,
    JsonText(json): JsonText,
) -> Result<Response, ApiError> {
    put(&api, &requester, &user, NewAccountData { room: Some(room_id), kind, json }).await
}

async fn put(api: &Api, requester: &Requester, user: &UserId, data: NewAccountData) -> Result<Response, ApiError> {
    only_oneself(requester, user)?;
    only_free(&data.kind)?;
    api.accounts.set_account_data(requester.user, data).await?;
    Ok(reply::empty())
}

/// `DELETE /user/{userId}/account_data/{type}`, MSC3391. A second time is no error.
pub(crate) async fn delete_global(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, kind)): Segments<(OwnedUserId, String)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    delete(&api, &requester, None, &kind).await
}

/// `DELETE /user/{userId}/rooms/{roomId}/account_data/{type}`, MSC3391
pub(crate) async fn delete_of_room(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, room_id, kind)): Segments<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    delete(&api, &requester, Some(&room_id), &kind).await
}

async fn delete(api: &Api, requester: &Requester, room: Option<&RoomId>, kind: &str) -> Result<Response, ApiError> {
    only_free(kind)?;
    api.accounts.delete_account_data(requester.user, room, kind).await?;
    Ok(reply::empty())
}

/// The server keeps its own kinds of account data in order by itself.
fn only_free(kind: &str) -> Result<(), ApiError> {
    if matches!(kind, "m.fully_read" | PUSH_RULES) {
        let message = "this type of account data has endpoints of its own";
        return Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON", message));
    }
    Ok(())
}
