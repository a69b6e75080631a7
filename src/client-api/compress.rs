//! Compressed answers: JSON above a kilobyte, for clients that accept it.
//!
//! Smaller answers fit into a packet as they are. The fastest level takes most of what can be saved
//! of JSON, and little enough time that it is done as the answer is written.
//!
//! This is no layer around the routes, which every request would have to pass: it is asked for the
//! answers that it is worth for.

use std::convert::Infallible;
use std::future::ready;

use axum::body::Body;
use axum::response::Response;
use http::{Extensions, HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use tower::{Layer as _, ServiceExt as _, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate as _, SizeAbove};

/// Bytes up to which an answer is left as it is.
const LEAST_BYTES: u64 = 1024;

type IsJson = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// What a client accepts: its headers `Accept-Encoding`.
pub(crate) struct Accepted(Vec<HeaderValue>);

impl Accepted {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.get_all(header::ACCEPT_ENCODING).iter().cloned().collect())
    }
}

/// Whether to ask [`compressed`].
pub(crate) fn is_worth(response: &Response) -> bool {
    worthy().should_compress(response)
}

/// `response` as the client accepts it.
pub(crate) async fn compressed(accepted: Accepted, mut response: Response) -> Response {
    if accepted.0.is_empty() {
        // As the library says it of whatever it leaves as it is.
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
        return response;
    }
    // What is asked for is there already, and goes through the library as a request.
    let mut request = Request::new(response);
    for value in accepted.0 {
        request.headers_mut().append(header::ACCEPT_ENCODING, value);
    }
    let echo = service_fn(|request: Request<Response>| ready(Ok::<_, Infallible>(request.into_body())));
    let layer = CompressionLayer::new().gzip(true).quality(CompressionLevel::Fastest).compress_when(worthy());
    match layer.layer(echo).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

fn worthy() -> And<SizeAbove, IsJson> {
    let is_json: IsJson = is_json;
    SizeAbove::new(LEAST_BYTES).and(is_json)
}

fn is_json(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}
