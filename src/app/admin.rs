//! The operator's listener: metrics and health. Never on the clients' address.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::exit::{Code, Failure};

/// Bucket bounds of durations, in seconds: from a cached read to a long poll.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];
/// Bucket bounds of everything else that is counted in a histogram.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 1024.0];

/// Starts collecting metrics for the whole process.
pub(crate) fn start_metrics() -> Result<PrometheusHandle, Failure> {
    let wrong =
        |error: &dyn std::fmt::Display| Failure::new(Code::Unusable, format!("cannot collect metrics: {error}"));
    let recorder = PrometheusBuilder::new()
        .set_buckets(COUNTS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), SECONDS))
        .map_err(|error| wrong(&error))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|error| wrong(&error))?;
    Ok(handle)
}

/// `/metrics` and `/health`.
pub(crate) fn router(metrics: PrometheusHandle, stopping: CancellationToken) -> Router {
    Router::new().route("/metrics", get(render).with_state(metrics)).route("/health", get(health).with_state(stopping))
}

async fn render(State(metrics): State<PrometheusHandle>) -> Response {
    if let Some(bytes) = resident_bytes() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    let body = metrics.render();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], body).into_response()
}

async fn health(State(stopping): State<CancellationToken>) -> Response {
    let (status, body) = if stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"stopping"}"#)
    } else {
        (StatusCode::OK, r#"{"status":"ok"}"#)
    };
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// What the kernel says this process has in memory. `None` where there is no such file: the gauge is
/// then left out.
fn resident_bytes() -> Option<f64> {
    const PAGE_KIB: u32 = 4;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u32 = text.split(' ').nth(1)?.parse().ok()?;
    Some(f64::from(pages) * f64::from(PAGE_KIB * 1024))
}
