//! What every request and every answer has in common: refused encodings, ids for failures, unknown paths and methods.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use crate::Api;
use crate::error::{ApiError, Failure};
use crate::reply;

/// Numbers failures so that a report finds the log line. Starts at the server's start time,
/// so that numbers of two runs do not meet.
#[derive(Debug)]
pub(crate) struct FailureIds(AtomicU64);

impl FailureIds {
    /// Counts from `start`, milliseconds since the epoch.
    pub(crate) const fn new(start: u64) -> Self {
        Self(AtomicU64::new(start))
    }

    fn next(&self) -> String {
        format!("{:x}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// Around every route.
pub(crate) async fn edge(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if let Err(refused) = admit(&request) {
        return refused.into_response();
    }
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let mut response = next.run(request).await;
    if let Some(Failure(cause)) = response.extensions_mut().remove::<Failure>() {
        let id = api.failures.next();
        let route = route.as_ref().map_or("", MatchedPath::as_str);
        tracing::error!(%method, route, id, cause = &*cause, "a request of another server failed inside");
        response = told(response.status(), &id);
    }
    response
}

fn admit(request: &Request) -> Result<(), ApiError> {
    // The router takes nothing between two slashes for a parameter that is empty. None may be.
    if request.uri().path().contains("//") {
        return Err(unknown());
    }
    check_encoding(request.headers())
}

fn told(status: StatusCode, id: &str) -> Response {
    let message = format!("internal error {id}; the server's log says more");
    let mut response = reply::json(&json!({"errcode": "M_UNKNOWN", "error": message}));
    *response.status_mut() = status;
    response
}

/// A compressed body could be a thousand times its size, and no server sends one: refused. So are forms.
fn check_encoding(headers: &HeaderMap) -> Result<(), ApiError> {
    let refuse = |message| Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "M_UNKNOWN", message));
    let encoded = headers.get_all(header::CONTENT_ENCODING).iter().any(|value| value != "identity");
    if encoded {
        return refuse("Content-Encoding is not supported");
    }
    let form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")));
    if form { refuse("multipart bodies are not supported") } else { Ok(()) }
}

/// For paths that no route has.
pub(crate) async fn unknown_path() -> ApiError {
    unknown()
}

/// There is no such path.
pub(crate) fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "unknown path")
}

/// For paths that exist with other methods.
pub(crate) async fn unknown_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "unknown method for this path")
}
