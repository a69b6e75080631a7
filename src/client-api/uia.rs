//! §"User-interactive authentication": reads `auth`, binds the session to the request, answers 401.

use hearth_accounts::{
    RequestDigest, Requester, StageData, StageFailure, UiaAttempt, UiaChallenge, UiaComplete, UiaError, UiaOperation,
    UiaOutcome, UiaRequest,
};
use http::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::{Api, body};

/// How long a client waits before it tries a password again, in milliseconds.
const PASSWORD_RETRY_MS: u64 = 2_000;

/// What is to be confirmed: a session serves one such thing.
pub(crate) struct Operation<'a> {
    /// The request's method.
    pub method: Method,
    /// Its path with its parameters, without the API's prefix.
    pub path: &'a str,
}

/// Lets a request of a logged-in user pass once its user has shown the password. The session ends
/// with [`hearth_accounts::Accounts::uia_complete`].
///
/// # Errors
/// The 401 that asks for the password, among others.
pub(crate) async fn confirm(
    api: &Api,
    requester: &Requester,
    operation: Operation<'_>,
    bytes: &[u8],
) -> Result<UiaComplete, ApiError> {
    let body = if bytes.is_empty() { Value::Object(Map::new()) } else { body::parse(bytes, api.settings.json_depth)? };
    let attempt = UiaAttempt::parse(body.get("auth"))?;
    let request = UiaRequest {
        operation: UiaOperation::Account(requester),
        method: operation.method.as_str(),
        path: operation.path,
        body: RequestDigest::of(&body),
    };
    let shows_password =
        attempt.as_ref().is_some_and(|attempt| matches!(attempt.stage, Some(StageData::Password { .. })));
    // A stolen access token is no leave to guess its user's password.
    let guess = shows_password.then(|| api.limits.password_attempt(requester.user_id.as_str(), None)).transpose()?;
    let outcome = api.accounts.uia_advance(&request, attempt).await;
    let wrong =
        matches!(&outcome, Ok(UiaOutcome::Challenge(UiaChallenge { failure: Some(StageFailure::WrongPassword), .. })));
    if let Some(guess) = guess.filter(|_| !wrong) {
        guess.was_not_wrong();
    }
    answer(outcome?)
}

/// The same where application services need not be confirmed.
///
/// # Errors
/// As [`confirm`].
pub(crate) async fn confirm_unless_service(
    api: &Api,
    requester: &Requester,
    operation: Operation<'_>,
    bytes: &[u8],
) -> Result<Option<UiaComplete>, ApiError> {
    match requester.client.service() {
        Some(_) => Ok(None),
        None => confirm(api, requester, operation, bytes).await.map(Some),
    }
}

/// The same for a registration. Its session is not bound to the body, because clients ask for the
/// flows with an empty one.
///
/// # Errors
/// The 401 that names the flows, among others.
pub(crate) async fn confirm_registration(api: &Api, auth: Option<&Value>) -> Result<UiaComplete, ApiError> {
    let attempt = UiaAttempt::parse(auth)?;
    let request = UiaRequest {
        operation: UiaOperation::Register,
        method: "POST",
        path: "/register",
        body: RequestDigest::unbound(),
    };
    answer(api.accounts.uia_advance(&request, attempt).await?)
}

fn answer(outcome: UiaOutcome) -> Result<UiaComplete, ApiError> {
    match outcome {
        UiaOutcome::Complete(complete) => Ok(complete),
        UiaOutcome::Challenge(challenge) => Err(unauthorized(&challenge)),
    }
}

fn unauthorized(challenge: &UiaChallenge) -> ApiError {
    let error = match challenge.failure {
        None => ApiError::plain(StatusCode::UNAUTHORIZED),
        Some(StageFailure::WrongPassword) => {
            ApiError::new(StatusCode::UNAUTHORIZED, "M_FORBIDDEN", "this is not your password")
        }
        Some(StageFailure::InvalidToken) => {
            ApiError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", "the registration token is not valid")
        }
        Some(StageFailure::NotOffered) => {
            ApiError::new(StatusCode::UNAUTHORIZED, "M_UNRECOGNIZED", "this stage is not offered, or lacks its data")
        }
    };
    match challenge.body() {
        Value::Object(members) => members.into_iter().fold(error, |error, (key, value)| error.with(&key, value)),
        _ => error,
    }
}

impl From<UiaError> for ApiError {
    fn from(error: UiaError) -> Self {
        match error {
            UiaError::BadAuth => Self::bad_json("\"auth\" is malformed"),
            UiaError::UnknownSession => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", "this session is unknown or has ended")
            }
            UiaError::OtherRequest => Self::forbidden("this session belongs to another request"),
            UiaError::OtherUser => Self::forbidden("these are the credentials of another user"),
            UiaError::Closed => Self::forbidden("registration is closed on this server"),
            UiaError::Busy => Self::busy(PASSWORD_RETRY_MS),
            UiaError::Storage(error) => error.into(),
        }
    }
}
