//! `/user/{userId}/filter`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use ruma_common::OwnedUserId;
use serde::Serialize;

use crate::Api;
use crate::auth::{Authed, only_oneself};
use crate::body::JsonText;
use crate::error::ApiError;
use crate::params::Segments;
use crate::reply;
use crate::sync::check_filter;

#[derive(Serialize)]
struct FilterReply {
    filter_id: String,
}

/// `POST /user/{userId}/filter`
pub(crate) async fn post(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments(user): Segments<OwnedUserId>,
    JsonText(json): JsonText,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    check_filter(&json)?;
    let filter_id = api.accounts.store_filter(requester.user, &json).await?;
    Ok(reply::json(&FilterReply { filter_id }))
}

/// `GET /user/{userId}/filter/{filterId}`
pub(crate) async fn get(
    State(api): State<Arc<Api>>,
    Authed(requester): Authed,
    Segments((user, filter_id)): Segments<(OwnedUserId, String)>,
) -> Result<Response, ApiError> {
    only_oneself(&requester, &user)?;
    let json = api.accounts.filter(requester.user, &filter_id).await?;
    json.map(reply::raw).ok_or_else(|| ApiError::not_found("there is no such filter"))
}
