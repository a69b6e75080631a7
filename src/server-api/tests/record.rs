//! Notes which test asks which endpoint, for `.ci/coverage tests`.

use std::io::Write;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

/// Names the file that gets a line for each request: method, route, status, test.
const LOG: &str = "HEARTH_COVERAGE_LOG";

/// The router, and if the log is wanted, every request of it noted there.
pub(super) fn around(router: Router) -> Router {
    if std::env::var_os(LOG).is_some() { router.layer(from_fn(note)) } else { router }
}

async fn note(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let response = next.run(request).await;
    // A test runs on a thread of its own name, and so does everything it asks.
    let thread = std::thread::current();
    if let (Some(route), Some(test), Some(log)) = (route, thread.name(), std::env::var_os(LOG)) {
        let line = format!("{method}\t{}\t{}\t{test}\n", route.as_str(), response.status().as_u16());
        let file = std::fs::File::options().append(true).open(log);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("the log takes a line");
    }
    response
}
