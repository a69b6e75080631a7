//! Request bodies: bounded while they stream, bounded in depth before anything is built from them.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::Api;
use crate::error::ApiError;

/// A request body, as it came.
pub(crate) struct RawBody(pub Bytes);

/// A JSON object.
pub(crate) struct Json<T>(pub T);

/// A JSON object, or nothing at all, which is `T`'s default: many clients send no body where no key
/// is required.
pub(crate) struct OptionalJson<T>(pub T);

/// A JSON object that is stored or passed on as it came.
pub(crate) struct JsonText(pub String);

impl FromRequest<Arc<Api>> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        read(request.into_body(), api).await.map(Self)
    }
}

impl<T: DeserializeOwned> FromRequest<Arc<Api>> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let RawBody(bytes) = RawBody::from_request(request, api).await?;
        parse(&bytes, api.settings.json_depth).map(Self)
    }
}

impl<T: DeserializeOwned + Default> FromRequest<Arc<Api>> for OptionalJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let RawBody(bytes) = RawBody::from_request(request, api).await?;
        if bytes.is_empty() { Ok(Self(T::default())) } else { parse(&bytes, api.settings.json_depth).map(Self) }
    }
}

impl FromRequest<Arc<Api>> for JsonText {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let RawBody(bytes) = RawBody::from_request(request, api).await?;
        object_text(&bytes, api.settings.json_depth).map(Self)
    }
}

/// Reads a body within the bounds of the settings. A slow one does not hold up a shutdown.
async fn read(body: Body, api: &Api) -> Result<Bytes, ApiError> {
    let limit = api.settings.max_body_bytes;
    if body.size_hint().lower() > limit as u64 {
        return Err(over(limit));
    }
    tokio::select! {
        // Nearly every body is there at once: then neither the timer nor the signal is looked at.
        biased;
        whole = collect(body, limit) => whole,
        () = api.shutdown.cancelled() => Err(ApiError::stopping()),
        () = tokio::time::sleep(api.settings.body_deadline) => {
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "the body did not arrive in time"))
        }
    }
}

async fn collect(mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let mut all = BytesMut::new();
    let mut first = Bytes::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::not_json("the body broke off"))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if first.len() + all.len() + chunk.len() > limit {
            return Err(over(limit));
        }
        // Nearly every body is one chunk, and then nothing is copied.
        if first.is_empty() && all.is_empty() {
            first = chunk;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn over(limit: usize) -> ApiError {
    ApiError::too_large(format!("the body is larger than {limit} bytes"))
}

/// Parses a JSON object that nests at most `depth` deep.
///
/// # Errors
/// `M_NOT_JSON`, or `M_BAD_JSON` when it is JSON that nests too deeply, is no object, or has values
/// of the wrong types.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8], depth: usize) -> Result<T, ApiError> {
    check_depth(bytes, depth)?;
    // The parser does not look at the text of members that nobody asks for.
    if std::str::from_utf8(bytes).is_err() {
        return Err(ApiError::not_json("the body is not UTF-8"));
    }
    if !is_object(bytes) {
        return Err(no_object(bytes));
    }
    serde_json::from_slice(bytes).map_err(|error| from_serde(&error))
}

/// The text of a JSON object, unchanged.
///
/// # Errors
/// As [`parse`].
pub(crate) fn object_text(bytes: &[u8], depth: usize) -> Result<String, ApiError> {
    let IgnoredAny = parse(bytes, depth)?;
    let text = std::str::from_utf8(bytes).map_err(|_| ApiError::not_json("the body is not UTF-8"))?;
    Ok(text.trim().to_owned())
}

fn is_object(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

fn no_object(bytes: &[u8]) -> ApiError {
    match serde_json::from_slice::<IgnoredAny>(bytes) {
        Ok(IgnoredAny) => ApiError::bad_json("the body must be a JSON object"),
        Err(_) => ApiError::not_json("the body is not JSON"),
    }
}

/// What is wrong, without the value that is wrong: it may be a password.
fn from_serde(error: &serde_json::Error) -> ApiError {
    let at = format!("line {} column {}", error.line(), error.column());
    match error.classify() {
        serde_json::error::Category::Data => ApiError::bad_json(format!("a value has the wrong type at {at}")),
        _ => ApiError::not_json(format!("the body is not JSON: {at}")),
    }
}

/// Refuses JSON that nests deeper than `limit`, in one pass that allocates nothing. Text that
/// is not JSON passes or not, the parser behind finds it.
fn check_depth(bytes: &[u8], limit: usize) -> Result<(), ApiError> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => {
                depth += 1;
                if depth > limit {
                    return Err(ApiError::bad_json(format!("JSON may nest {limit} deep")));
                }
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![any::<i64>().prop_map(Value::from), r#"[\[\]{}"\\a]{0,6}"#.prop_map(Value::from)];
        leaf.prop_recursive(6, 40, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(r#"[\[{"\\a]{0,3}"#, inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn depth_is_counted_outside_strings_only(value in json(), limit in 1_usize..8) {
            let text = value.to_string();
            prop_assert_eq!(check_depth(text.as_bytes(), limit).is_ok(), depth(&value) <= limit, "{}", text);
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_panic(bytes: Vec<u8>) {
            prop_assert!(object_text(&bytes, 64).is_err() || serde_json::from_slice::<Value>(&bytes).is_ok());
        }
    }
}
