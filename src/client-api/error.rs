//! The one shape of every error answer: `{"errcode": …, "error": …, …}`.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use hearth_store::StoreError;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use crate::reply;

/// An error answer, §"Standard error response".
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    errcode: Option<Cow<'static, str>>,
    message: Cow<'static, str>,
    extra: Option<Box<Map<String, Value>>>,
    cause: Option<Box<str>>,
}

/// Why a request failed inside: rides on the response to [`crate::edge::Edged`], which logs it once,
/// beside the id that the client is told. Never part of the answer.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub Box<str>);

impl ApiError {
    /// Any error.
    pub(crate) fn new(
        status: StatusCode,
        errcode: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { status, errcode: Some(errcode.into()), message: message.into(), extra: None, cause: None }
    }

    /// An answer without `errcode` and `error`: the 401 that begins a user-interactive authentication.
    pub(crate) const fn plain(status: StatusCode) -> Self {
        Self { status, errcode: None, message: Cow::Borrowed(""), extra: None, cause: None }
    }

    /// The HTTP status.
    pub(crate) const fn status(&self) -> StatusCode {
        self.status
    }

    /// The same with another key in the answer.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra.get_or_insert_default().insert(key.into(), value.into());
        self
    }

    /// 403 `M_FORBIDDEN`
    pub(crate) fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", message)
    }

    /// 404 `M_NOT_FOUND`
    pub(crate) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", message)
    }

    /// 400 `M_BAD_JSON`: JSON, but not of the right shape.
    pub(crate) fn bad_json(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", message)
    }

    /// 400 `M_NOT_JSON`
    pub(crate) fn not_json(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", message)
    }

    /// 400 `M_INVALID_PARAM`
    pub(crate) fn invalid_param(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", message)
    }

    /// 400 `M_MISSING_PARAM` for the parameter or key `name`.
    pub(crate) fn missing_param(name: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", format!("\"{name}\" is missing"))
    }

    /// 413 `M_TOO_LARGE`
    pub(crate) fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", message)
    }

    /// 429 `M_LIMIT_EXCEEDED`: worth trying again after `retry_after_ms` milliseconds.
    pub(crate) fn busy(retry_after_ms: u64) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "too much is going on, try again soon")
            .with("retry_after_ms", retry_after_ms)
    }

    /// 429 `M_LIMIT_EXCEEDED`: this client has to wait so long.
    pub(crate) fn limit_exceeded(wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "too many requests").with("retry_after_ms", millis)
    }

    /// 503: the server is going away.
    pub(crate) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", "the server is shutting down")
    }

    /// 507: nothing can be written now, reading goes on.
    pub(crate) fn disk_full() -> Self {
        let message = "the server's disk is full: nothing was stored";
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "M_RESOURCE_LIMIT_EXCEEDED", message)
    }

    /// 500: `cause` is logged, the client gets an id to quote.
    pub(crate) fn internal(cause: &dyn std::fmt::Display) -> Self {
        let error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "internal error");
        Self { cause: Some(cause.to_string().into()), ..error }
    }

    /// The error as JSON that is part of another answer.
    pub(crate) fn standard(&self) -> Value {
        serde_json::json!({"errcode": self.errcode, "error": self.message})
    }

    fn retry_after(&self) -> Option<HeaderValue> {
        let millis = self.extra.as_ref()?.get("retry_after_ms")?.as_u64()?;
        Some(HeaderValue::from(millis.div_ceil(1000)))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::SnapshotExpired | StoreError::Unavailable(_) => {
                Self { status: StatusCode::SERVICE_UNAVAILABLE, ..Self::internal(&error) }
            }
            StoreError::Corrupt { .. } => Self::internal(&error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry_after = self.retry_after();
        let mut body = self.extra.map_or_else(Map::new, |extra| *extra);
        if let Some(errcode) = self.errcode {
            body.insert("errcode".into(), errcode.into());
            body.insert("error".into(), self.message.into());
        }
        let mut response = reply::json(&body);
        *response.status_mut() = self.status;
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Failure(cause));
        }
        response
    }
}
