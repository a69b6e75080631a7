//! `/_matrix/key/v2/…`: open to everybody, because whoever checks signatures needs keys first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use hearth_base::Millis;
use hearth_peers::NotaryAsk;
use ruma_common::OwnedServerName;
use serde::Deserialize;

use crate::error::ApiError;
use crate::limits::Caller;
use crate::params::{Query, Segments};
use crate::{Api, body, reply};

/// Servers that one request may ask about.
const MAX_SERVERS: usize = 100;
/// Keys of one server that a request may name.
const MAX_KEYS: usize = 100;

/// `GET /_matrix/key/v2/server`
pub(crate) async fn server(State(api): State<Arc<Api>>) -> Response {
    reply::raw(api.peers.server_keys())
}

/// `GET /_matrix/key/v2/query/{serverName}`
pub(crate) async fn query_one(
    State(api): State<Arc<Api>>,
    Segments(server): Segments<OwnedServerName>,
    query: Query,
    caller: Caller,
) -> Result<Response, ApiError> {
    api.limits.keys(caller, 1)?;
    let minimum_valid_until_ts = query.parse("minimum_valid_until_ts")?.map(Millis);
    let ask = NotaryAsk { server, key_ids: Vec::new(), minimum_valid_until_ts };
    Ok(reply::raw(api.peers.notary(&[ask]).await?))
}

#[derive(Deserialize)]
struct Asked {
    server_keys: BTreeMap<OwnedServerName, BTreeMap<String, Criteria>>,
}

#[derive(Deserialize)]
struct Criteria {
    minimum_valid_until_ts: Option<u64>,
}

/// `POST /_matrix/key/v2/query`
pub(crate) async fn query_many(
    State(api): State<Arc<Api>>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read(request.into_body(), api.settings.max_body_bytes, &api).await?;
    let Asked { server_keys } = body::parse(&body)?;
    if server_keys.len() > MAX_SERVERS || server_keys.values().any(|keys| keys.len() > MAX_KEYS) {
        return Err(ApiError::too_large(format!("at most {MAX_SERVERS} servers can be asked about at once")));
    }
    api.limits.keys(caller, server_keys.len())?;
    let asks: Vec<NotaryAsk> = server_keys
        .into_iter()
        .map(|(server, keys)| NotaryAsk {
            server,
            minimum_valid_until_ts: keys
                .values()
                .filter_map(|criteria| criteria.minimum_valid_until_ts)
                .max()
                .map(Millis),
            key_ids: keys.into_keys().collect(),
        })
        .collect();
    Ok(reply::raw(api.peers.notary(&asks).await?))
}
