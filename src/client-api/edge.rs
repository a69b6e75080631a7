//! What every request and every answer has in common: CORS, refused encodings, ids for failures,
//! unknown paths and methods.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;

use crate::error::{ApiError, Failure};
use crate::{Api, reply, services};

/// Numbers failures so that a client's report finds the log line. Starts at the server's start time,
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

/// Around every route, §"Web Browser Clients".
pub(crate) async fn edge(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        // Never reaches an endpoint, whatever the path.
        StatusCode::NO_CONTENT.into_response()
    } else if let Err(refused) = admit(&api, &mut request) {
        refused.into_response()
    } else {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let method = request.method().clone();
        let mut response = next.run(request).await;
        if let Some(Failure(cause)) = response.extensions_mut().remove::<Failure>() {
            let id = api.failures.next();
            let route = route.as_ref().map_or("", MatchedPath::as_str);
            tracing::error!(%method, route, id, cause = &*cause, "a request failed inside");
            response = told(response.status(), &id);
        }
        response
    };
    add_cors(response.headers_mut());
    response
}

/// Notes where the request comes from, and whether it may.
fn admit(api: &Api, request: &mut Request) -> Result<(), ApiError> {
    let address = api.limits.client(request.extensions(), request.headers());
    if !services::is_unlimited(api, request.headers(), request.uri()) {
        api.limits.arrived(request.method(), request.extensions(), address)?;
    }
    request.extensions_mut().insert(address);
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

fn add_cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization"),
    );
}

/// A compressed body could be a thousand times its size, and no client needs one: refused. So are
/// forms, which a browser sends across origins without asking first.
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

fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "unknown path")
}

/// For paths that exist with other methods.
pub(crate) async fn unknown_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "unknown method for this path")
}
