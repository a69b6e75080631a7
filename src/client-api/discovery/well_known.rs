//! `/.well-known/matrix/client`, `…/server` and `…/support`, each where the operator has set what it says.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

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
pub(crate) async fn client(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let found = ClientWellKnown::of(&api.settings).ok_or_else(|| ApiError::not_found("no public address is set"))?;
    Ok(reply::json(&found))
}

/// Where other servers find this server.
pub(crate) async fn server(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let address = api.settings.federation_address.as_deref();
    let address = address.ok_or_else(|| ApiError::not_found("no address for other servers is set"))?;
    Ok(reply::json(&json!({ "m.server": address })))
}

/// Whom to ask about this server.
pub(crate) async fn support(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let support = &api.settings.support;
    if support.page.is_none() && support.contacts.is_empty() {
        return Err(ApiError::not_found("no contact is set"));
    }
    Ok(reply::json(support))
}
