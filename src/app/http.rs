//! What happens to every request, whatever it asks for: a log line, metrics, and a caught panic.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures::FutureExt as _;
use futures::future::{Either, ready};
use hearth_base::{Random as _, SystemRandom};
use metrics::{Counter, Histogram};
use parking_lot::RwLock;
use tokio::time::Instant;
use tower::{Service as _, layer::layer_fn, service_fn};

/// `router`, observed. Not by `axum::middleware`, which copies the route and boxes it again for every request.
pub(crate) fn observed(router: Router) -> Router {
    let meters = Arc::<Meters>::default();
    // Only a layer inside the router sees which route matched.
    router.layer(layer_fn(move |mut route: Route| {
        let meters = Arc::clone(&meters);
        service_fn(move |request| observe(Arc::clone(&meters), &mut route, request))
    }))
}

/// What has been counted before: finding a metric by its labels costs more than all else that is counted.
#[derive(Default)]
struct Meters {
    /// By method and route.
    times: RwLock<HashMap<&'static str, HashMap<String, Histogram>>>,
    responses: RwLock<BTreeMap<StatusCode, Counter>>,
}

impl Meters {
    fn record(&self, method: &'static str, route: &str, status: StatusCode, seconds: f64) {
        self.count(status);
        if let Some(histogram) = self.times.read().get(method).and_then(|routes| routes.get(route)) {
            return histogram.record(seconds);
        }
        let histogram =
            metrics::histogram!("hearth_http_request_seconds", "method" => method, "route" => route.to_owned());
        histogram.record(seconds);
        // Routes are ours, not what peers invent.
        self.times.write().entry(method).or_default().insert(route.to_owned(), histogram);
    }

    fn count(&self, status: StatusCode) {
        if let Some(counter) = self.responses.read().get(&status) {
            return counter.increment(1);
        }
        let counter = metrics::counter!("hearth_http_responses_total", "status" => status.as_str().to_owned());
        counter.increment(1);
        self.responses.write().insert(status, counter);
    }
}

fn observe(
    meters: Arc<Meters>,
    route: &mut Route,
    request: Request,
) -> impl Future<Output = Result<Response, Infallible>> + Send + use<> {
    let asked = Asked {
        meters,
        began: Instant::now(),
        method: method_name(request.method()),
        path: request.extensions().get::<MatchedPath>().cloned(),
    };
    // Nothing of the request survives its panic, except what locks and stores guard themselves.
    match catch_unwind(AssertUnwindSafe(|| route.call(request))) {
        // No `async` block, which would hold the route's future twice.
        Ok(answer) => Either::Left(AssertUnwindSafe(answer).catch_unwind().map(move |answered| asked.finish(answered))),
        Err(panic) => Either::Right(ready(asked.finish(Err(panic)))),
    }
}

/// What is needed of a request when it is answered.
struct Asked {
    meters: Arc<Meters>,
    began: Instant,
    method: &'static str,
    path: Option<MatchedPath>,
}

impl Asked {
    fn finish(self, answered: std::thread::Result<Result<Response, Infallible>>) -> Result<Response, Infallible> {
        let Self { meters, began, method, path } = self;
        let route = path.as_ref().map_or("unmatched", MatchedPath::as_str);
        let response = answered.unwrap_or_else(|_| Ok(after_panic(method, route)))?;
        let seconds = began.elapsed().as_secs_f64();
        let status = response.status();
        log(method, route, status, seconds);
        meters.record(method, route, status, seconds);
        Ok(response)
    }
}

fn log(method: &'static str, route: &str, status: StatusCode, seconds: f64) {
    let duration_ms = seconds * 1000.0;
    // Why a request failed was logged where it was known; this line says which and how long.
    // Whoever floods the server must not flood its log: these are counted below.
    let refused = status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS;
    if refused || status.is_server_error() {
        tracing::info!(method, route, status = status.as_u16(), duration_ms, "request refused");
    } else {
        tracing::debug!(method, route, status = status.as_u16(), duration_ms, "request");
    }
}

/// The method's name; what peers invent is one name, so that they cannot invent metrics.
fn method_name(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "HEAD" => "HEAD",
        _ => "other",
    }
}

/// The client gets an id that finds the log line, and nothing else of what went wrong.
fn after_panic(method: &'static str, route: &str) -> Response {
    let id = SystemRandom.alphanumeric(12);
    tracing::error!(method, route, id, "a request handler panicked: this is a bug, please report it");
    metrics::counter!("hearth_http_panics_total").increment(1);
    let body = format!(r#"{{"errcode":"M_UNKNOWN","error":"Internal error {id}"}}"#);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    ];
    (StatusCode::INTERNAL_SERVER_ERROR, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    async fn broken() -> &'static str {
        panic!("on purpose")
    }

    #[tokio::test]
    async fn a_panic_is_a_500_with_an_id() {
        let router = observed(Router::new().route("/broken", get(broken)));
        let request = Request::get("/broken").body(Body::empty()).expect("valid");
        let response = router.oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let body = to_bytes(response.into_body(), 1000).await.expect("small");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["errcode"], "M_UNKNOWN");
        let error = body["error"].as_str().expect("text");
        assert!(error.starts_with("Internal error ") && error.len() == 27, "{error}");
        assert!(!error.contains("purpose"));
    }
}
