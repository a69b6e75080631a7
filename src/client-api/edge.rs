//! What every request and every answer has in common: CORS, refused encodings, ids for failures,
//! unknown paths and methods.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::extract::{MatchedPath, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use futures::future::{self, BoxFuture, Either};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;

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

/// A handler, and around it what every request and every answer has in common, §"Web Browser Clients".
///
/// No layer of the router: each would copy the route and box it again for every request.
#[derive(Clone)]
pub(crate) struct Edged<H>(pub H);

impl<H, T> Handler<T, Arc<Api>> for Edged<H>
where
    H: Handler<T, Arc<Api>, Future: Unpin>,
    T: 'static,
{
    type Future = Answering<H::Future>;

    fn call(self, mut request: Request, api: Arc<Api>) -> Self::Future {
        let asked = Asked::of(&api, &request);
        if request.method() == Method::OPTIONS {
            // Never reaches an endpoint, whatever the path.
            return Answering::Finishing(asked.finish(StatusCode::NO_CONTENT.into_response()));
        }
        match admit(&api, &mut request) {
            Ok(()) => Answering::Handling(self.0.call(request, api), Some(asked)),
            Err(refused) => Answering::Finishing(asked.finish(refused.into_response())),
        }
    }
}

/// A request on its way through [`Edged`].
pub(crate) enum Answering<F> {
    /// It is with its handler.
    Handling(F, Option<Asked>),
    Finishing(Finished),
}

impl<F: Future<Output = Response> + Unpin> Future for Answering<F> {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Response> {
        loop {
            *self = match &mut *self {
                Self::Handling(handler, asked) => {
                    let response = ready!(handler.poll_unpin(context));
                    Self::Finishing(match asked.take() {
                        Some(asked) => asked.finish(response),
                        None => Either::Left(future::ready(response)),
                    })
                }
                Self::Finishing(finished) => return finished.poll_unpin(context),
            };
        }
    }
}

/// An answer that is ready, unless it has to be compressed.
pub(crate) type Finished = Either<future::Ready<Response>, BoxFuture<'static, Response>>;

/// What is needed of a request when it is answered.
pub(crate) struct Asked {
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
                Either::Right(compress::compressed(accepted, response).boxed())
            }
            _ => Either::Left(future::ready(response)),
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
