//! `GET /versions`.

use std::collections::BTreeMap;

use axum::response::Response;
use serde::Serialize;

use crate::reply;

/// The versions whose rules the endpoints of this server follow. Endpoints that are not there yet
/// answer `M_UNRECOGNIZED`, which clients take for what it is.
const VERSIONS: [&str; 19] = [
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12", "v1.13",
    "v1.14", "v1.15", "v1.16", "v1.17", "v1.18", "v1.19",
];

/// What is served under a name that is not final. Everything else that exists here has its final one.
const UNSTABLE: &[&str] = &[
    "org.matrix.msc3391",
    "org.matrix.msc3874",
    "org.matrix.msc3912",
    "org.matrix.msc4140",
    "org.matrix.msc4155",
    "org.matrix.msc4222",
    "org.matrix.msc4306",
    "org.matrix.msc4308",
    "org.matrix.simplified_msc3575",
    "uk.half-shot.msc2666.query_mutual_rooms",
];

#[derive(Serialize)]
struct Versions {
    versions: [&'static str; 19],
    unstable_features: BTreeMap<&'static str, bool>,
}

/// Which versions of the specification this server follows.
pub(crate) async fn get() -> Response {
    let unstable_features = UNSTABLE.iter().map(|name| (*name, true)).collect();
    reply::json(&Versions { versions: VERSIONS, unstable_features })
}
