//! Request bodies: bounded while they stream, each by itself and all together.

use axum::body::Body;
use bytes::Bytes;
use hearth_peers::{Full, Memory};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;

use crate::Api;
use crate::error::ApiError;

/// How long whoever brings too much waits before the next try, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// Reads a body of at most `limit` bytes. A slow one does not hold up a shutdown.
pub(crate) async fn read(body: Body, limit: usize, api: &Api) -> Result<Bytes, ApiError> {
    tokio::select! {
        // Nearly every body is there at once: then neither the timer nor the signal is looked at.
        biased;
        whole = collect(body, limit, &api.memory) => whole,
        () = api.shutdown.cancelled() => Err(ApiError::stopping()),
        () = tokio::time::sleep(api.settings.body_deadline) => {
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "the body did not arrive in time"))
        }
    }
}

async fn collect(mut body: Body, limit: usize, memory: &Memory) -> Result<Bytes, ApiError> {
    let mut growing = memory.begin();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::not_json("the body broke off"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if growing.len().saturating_add(chunk.len()) > limit {
            return Err(ApiError::too_large(format!("the body is larger than {limit} bytes")));
        }
        growing.push(&chunk).map_err(|Full| ApiError::busy(RETRY_MS))?;
    }
    Ok(growing.finish())
}

/// Parses a JSON object.
///
/// # Errors
/// `M_NOT_JSON`, or `M_BAD_JSON` when it is JSON that has not the right shape.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(ApiError::not_json("the body is not a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let at = format!("line {} column {}", error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => ApiError::bad_json(format!("a value is not valid at {at}")),
            _ => ApiError::not_json(format!("the body is not JSON: {at}")),
        }
    })
}
