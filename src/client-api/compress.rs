//! Compressed answers: JSON above a kilobyte, for clients that accept it.
//!
//! Smaller answers fit into a packet as they are. The fastest level takes most of what can be saved
//! of JSON, and little enough time that it is done as the answer is written.

use http::{Extensions, HeaderMap, StatusCode, Version, header};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{And, Predicate as _, SizeAbove};

/// Bytes up to which an answer is left as it is.
const LEAST_BYTES: u64 = 1024;

type IsJson = fn(StatusCode, Version, &HeaderMap, &Extensions) -> bool;

/// Compresses the answers of what it is laid around.
pub(crate) fn layer() -> CompressionLayer<And<SizeAbove, IsJson>> {
    let is_json: IsJson = is_json;
    CompressionLayer::new()
        .gzip(true)
        .quality(CompressionLevel::Fastest)
        .compress_when(SizeAbove::new(LEAST_BYTES).and(is_json))
}

fn is_json(_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}
