//! Answers.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// `{}`
pub(crate) fn empty() -> Response {
    raw(Bytes::from_static(b"{}"))
}

/// An answer whose JSON is ready.
pub(crate) fn raw(body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Body::from(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer as `body` serialises.
pub(crate) fn json(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => raw(bytes),
        // Only a map with keys that are no strings gets here, and then the type is wrong.
        Err(error) => {
            let mut response = raw(Bytes::from_static(br#"{"errcode":"M_UNKNOWN","error":"internal error"}"#));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response.extensions_mut().insert(crate::error::Failure(error.to_string().into()));
            response
        }
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn write_string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}

/// `[…]` of values that are JSON already.
pub(crate) fn list(values: &[Bytes]) -> Vec<u8> {
    let mut out = Vec::with_capacity(values.iter().map(|value| value.len().saturating_add(1)).sum::<usize>() + 2);
    out.push(b'[');
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(value);
    }
    out.push(b']');
    out
}
