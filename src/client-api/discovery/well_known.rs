//! `GET /.well-known/matrix/client`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use crate::error::ApiError;
use crate::{Api, ClientApiSettings, reply};

/// Where clients find this server, also a part of the answer to a log-in.
#[derive(Serialize)]
pub(crate) struct ClientWellKnown<'a> {
    #[serde(rename = "m.homeserver")]
    homeserver: Homeserver<'a>,
}

#[derive(Serialize)]
struct Homeserver<'a> {
    base_url: &'a str,
}

impl<'a> ClientWellKnown<'a> {
    /// `None` if the operator has not said where clients reach the server.
    pub(crate) fn of(settings: &'a ClientApiSettings) -> Option<Self> {
        let base_url = settings.public_base_url.as_deref()?;
        Some(Self { homeserver: Homeserver { base_url } })
    }
}

/// Where clients find this server.
pub(crate) async fn get(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let found = ClientWellKnown::of(&api.settings).ok_or_else(|| ApiError::not_found("no public address is set"))?;
    Ok(reply::json(&found))
}
