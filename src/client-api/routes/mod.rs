//! Which path leads where. A path that is not here is unknown, to the letter.

mod accounts;
mod methods;
mod rooms;
mod sync;

use std::sync::Arc;

use axum::Router;
use axum::extract::MatchedPath;
use http::Extensions;

use self::methods::Methods;
use crate::Api;
use crate::edge::{Edged, unknown_method, unknown_path};

/// Older clients and the protocol's test suite still use the first stable names, which mean the same.
pub(crate) const PREFIXES: [&str; 2] = ["/_matrix/client/v3", "/_matrix/client/r0"];

/// Paths, with their parameters in braces, and what answers them.
type Table = Vec<(&'static str, Methods)>;

/// The route of a request as it is written in the tables; `""` if there is none.
pub(crate) fn behind_prefix(extensions: &Extensions) -> &str {
    let path = extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path)
}

/// Every endpoint, and answers for all other paths.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let mut router = Router::new();
    for (path, methods) in elsewhere() {
        router = router.route(path, methods.into_router());
    }
    for (path, methods) in v3() {
        for prefix in PREFIXES {
            router = router.route(&format!("{prefix}{path}"), methods.clone().into_router());
        }
    }
    let router = router.fallback(Edged(unknown_path)).method_not_allowed_fallback(Edged(unknown_method));
    router.with_state(api)
}

/// Below each of [`PREFIXES`].
fn v3() -> Table {
    [accounts::v3(), rooms::v3(), sync::v3()].concat()
}

/// Whole paths.
fn elsewhere() -> Table {
    [accounts::elsewhere(), rooms::elsewhere(), sync::elsewhere()].concat()
}

/// Every path with its parameters in braces, for tests.
#[cfg(test)]
pub(crate) fn paths() -> Vec<String> {
    let versioned = v3().into_iter().map(|(path, _)| format!("{}{path}", PREFIXES[0]));
    versioned.chain(elsewhere().into_iter().map(|(path, _)| path.to_owned())).collect()
}
