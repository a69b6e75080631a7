//! What every request and every answer has in common: CORS, refused encodings, ids for failures,
//! unknown paths and methods.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, Ready, ready};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use tower::{Service as _, layer::layer_fn, service_fn};

use crate::compress::{self, Accepted};
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

/// `router` with [`around`] around every route.
///
/// By hand, because `axum::middleware` copies the route and boxes it again for every request.
pub(crate) fn edged<S: Clone + Send + Sync + 'static>(router: Router<S>, api: Arc<Api>) -> Router<S> {
    router.layer(layer_fn(move |mut route: Route| {
        let api = Arc::clone(&api);
        service_fn(move |request| around(&api, &mut route, request))
    }))
}

/// Around every route, §"Web Browser Clients".
fn around(
    api: &Arc<Api>,
    route: &mut Route,
    mut request: Request,
) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
    let asked = Asked::of(api, &request);
    if request.method() == Method::OPTIONS {
        // Never reaches an endpoint, whatever the path.
        return Either::Right(asked.finish(StatusCode::NO_CONTENT.into_response()));
    }
    match admit(api, &mut request) {
        // No `async` block, which would hold the route's future twice.
        Ok(()) => Either::Left(route.call(request).then(move |answered| match answered {
            Ok(response) => asked.finish(response),
            Err(never) => match never {},
        })),
        Err(refused) => Either::Right(asked.finish(refused.into_response())),
    }
}

/// An answer that is ready, unless it has to be compressed.
type Finished = Either<Ready<Result<Response, Infallible>>, BoxFuture<'static, Result<Response, Infallible>>>;

/// What is needed of a request when it is answered.
struct Asked {
    api: Arc<Api>,
    /// `None`: answers are not compressed.
    accepted: Option<Accepted>,
    route: Option<MatchedPath>,
    method: Method,
}

impl Asked {
    fn of(api: &Arc<Api>, request: &Request) -> Self {
        Self {
            accepted: api.settings.compress.then(|| Accepted::of(request.headers())),
            api: Arc::clone(api),
            route: request.extensions().get::<MatchedPath>().cloned(),
            method: request.method().clone(),
        }
    }

    fn finish(self, mut response: Response) -> Finished {
        if let Some(Failure(cause)) = response.extensions_mut().remove::<Failure>() {
            response = self.failed(&cause, response.status());
        }
        add_cors(response.headers_mut());
        match self.accepted {
            Some(accepted) if compress::is_worth(&response) => {
                Either::Right(compress::compressed(accepted, response).map(Ok).boxed())
            }
            _ => Either::Left(ready(Ok(response))),
        }
    }

    fn failed(&self, cause: &str, status: StatusCode) -> Response {
        let id = self.api.failures.next();
        let route = self.route.as_ref().map_or("", MatchedPath::as_str);
        tracing::error!(method = %self.method, route, id, cause, "a request failed inside");
        told(status, &id)
    }
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
