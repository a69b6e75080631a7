//! Who asks: the server that signed the request, and the body that it signed.
//!
//! Spec: <https://spec.matrix.org/v1.19/server-server-api/#request-authentication>

use std::sync::Arc;

use axum::extract::{FromRequest, MatchedPath, Request};
use bytes::Bytes;
use hearth_peers::AuthError;
use http::{StatusCode, header};
use ruma_common::OwnedServerName;

use crate::Api;
use crate::body;
use crate::error::ApiError;
use crate::limits::{Caller, Work};

/// Behind which a transaction is, which may be large.
const TRANSACTION: &str = "/_matrix/federation/v1/send/";

/// A request of another server.
pub(crate) struct Signed {
    /// Which server signed it.
    pub origin: OwnedServerName,
    /// What it signed, as it came; empty if there was nothing.
    pub body: Bytes,
}

impl FromRequest<Arc<Api>> for Signed {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let caller = parts.extensions.get::<Caller>().copied().unwrap_or_default();
        let authorization: Vec<&[u8]> =
            parts.headers.get_all(header::AUTHORIZATION).iter().map(http::HeaderValue::as_bytes).collect();
        let claimed = api.peers.claimed(&authorization).map_err(refused)?;
        let unproven = api.limits.unproven(caller, &claimed)?;
        let route = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let limit = if route.starts_with(TRANSACTION) {
            api.settings.max_transaction_bytes
        } else {
            api.settings.max_body_bytes
        };
        let body = body::read(body, limit, api).await?;
        let uri = parts.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
        let signed = Some(&body).filter(|body| !body.is_empty());
        let known = api.peers.knows(&claimed).await?;
        let origin =
            api.peers.authenticate(&authorization, parts.method.as_str(), uri, signed).await.map_err(refused)?;
        // To meet a new server has cost something, however well it signs: there may be thousands of names.
        if known {
            unproven.prove();
        }
        api.limits.take(&origin, Work::of(route))?;
        Ok(Self { origin, body })
    }
}

fn refused(error: AuthError) -> ApiError {
    match error {
        AuthError::Body(why) => ApiError::not_json(why),
        AuthError::Storage(error) => error.into(),
        other => ApiError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", other.to_string()),
    }
}
