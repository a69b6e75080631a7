//! What a room's refusals look like over HTTP.

use hearth_event::JsonError;
use hearth_rooms::{AliasError, CreateError, MembershipError, PolicyError, QueryError, ReceiptError, SendError};
use http::StatusCode;

use crate::error::ApiError;
use crate::standing;

/// How long a client waits before it tries a busy room again, in milliseconds.
const ROOM_RETRY_MS: u64 = 500;

impl From<SendError> for ApiError {
    fn from(error: SendError) -> Self {
        match error {
            // A room that is not here and one that the user may not see must look alike.
            SendError::UnknownRoom => Self::forbidden("you are not in this room"),
            SendError::Forbidden(why) => Self::forbidden(why),
            SendError::BadContent(why) => Self::bad_json(why),
            SendError::TooLarge => Self::too_large("the event is larger than 65 536 bytes"),
            SendError::UnknownEvent => Self::not_found("there is no such event in this room"),
            // The specification has no code of its own for it.
            SendError::BadRelation(why) => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", why),
            SendError::DuplicateAnnotation => Self::new(
                StatusCode::BAD_REQUEST,
                "M_DUPLICATE_ANNOTATION",
                "you have annotated this event with the same key before",
            ),
            SendError::Locked => standing::locked(),
            SendError::Suspended => standing::suspended(),
            SendError::Busy => Self::busy(ROOM_RETRY_MS),
            SendError::Unanswered(why) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", why),
            SendError::Policy(error) => error.into(),
            SendError::Stopping => Self::stopping(),
            SendError::Full => Self::disk_full(),
            SendError::Store(error) => error.into(),
            SendError::Internal(why) => Self::internal(&why),
        }
    }
}

/// Codes that would have a client do something about its own session or account.
const OF_SESSIONS: [&str; 7] = [
    "M_UNKNOWN_TOKEN",
    "M_MISSING_TOKEN",
    "M_USER_DEACTIVATED",
    "M_USER_LOCKED",
    "M_USER_SUSPENDED",
    "M_CONSENT_NOT_GIVEN",
    "M_GUEST_ACCESS_FORBIDDEN",
];

/// What a room's policy server says goes to the client as it is, but for codes that only this server can mean.
impl From<PolicyError> for ApiError {
    fn from(error: PolicyError) -> Self {
        let refusal = match error {
            PolicyError::Refused(refusal) => refusal,
            PolicyError::Unreachable(_) | PolicyError::Useless { .. } => {
                return Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", error.to_string());
            }
        };
        let is_of_session = OF_SESSIONS.contains(&refusal.errcode.as_str());
        let errcode = if is_of_session { "M_FORBIDDEN".to_owned() } else { refusal.errcode };
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::FORBIDDEN);
        let answer = Self::new(status, errcode, refusal.error);
        match refusal.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)) {
            Some(wait) => answer.with("retry_after_ms", wait),
            None => answer,
        }
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::NotInState(why) => Self::new(StatusCode::FORBIDDEN, "M_BAD_STATE", why),
            MembershipError::CannotAuthorise => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN", error.to_string())
            }
            MembershipError::CannotGrant => {
                Self::new(StatusCode::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN", error.to_string())
            }
            MembershipError::Remote(error) => error.into(),
            MembershipError::Send(error) => error.into(),
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::AliasInUse => Self::new(StatusCode::BAD_REQUEST, "M_ROOM_IN_USE", "the alias is taken"),
            CreateError::BadAlias(why) => Self::invalid_param(why),
            CreateError::InvalidRoomState(why) => Self::new(StatusCode::BAD_REQUEST, "M_INVALID_ROOM_STATE", why),
            CreateError::Send(error) => error.into(),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Forbidden => Self::forbidden("you are not in this room"),
            QueryError::NotFound => Self::not_found("not found"),
            QueryError::BadToken => Self::invalid_param("the pagination token is not valid"),
            QueryError::Store(error) => error.into(),
        }
    }
}

/// For endpoints where the spec wants 404 for what the user may not see.
pub(crate) fn hidden(error: QueryError) -> ApiError {
    match error {
        QueryError::Forbidden | QueryError::NotFound => ApiError::not_found("there is no such event, or none for you"),
        other => other.into(),
    }
}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> Self {
        match &error {
            JsonError::Syntax { .. } => Self::not_json(error.to_string()),
            JsonError::TooLarge { .. } => Self::too_large(error.to_string()),
            JsonError::NotAnObject
            | JsonError::TooDeep { .. }
            | JsonError::DuplicateKey { .. }
            | JsonError::Float
            | JsonError::IntegerOutOfRange => Self::bad_json(error.to_string()),
        }
    }
}

impl From<AliasError> for ApiError {
    fn from(error: AliasError) -> Self {
        match error {
            AliasError::Taken => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", "the alias is taken"),
            AliasError::NotLocal => Self::invalid_param("the alias belongs to another server"),
            AliasError::UnknownRoom => Self::not_found("there is no such room"),
            AliasError::Forbidden(why) => Self::forbidden(why),
            AliasError::TooMany => {
                Self::new(StatusCode::BAD_REQUEST, "M_RESOURCE_LIMIT_EXCEEDED", "the room has too many aliases")
            }
            AliasError::NotFound => Self::not_found("there is no such alias"),
            AliasError::Store(error) => error.into(),
        }
    }
}

impl From<ReceiptError> for ApiError {
    fn from(error: ReceiptError) -> Self {
        match error {
            ReceiptError::NotJoined => Self::forbidden("you are not in this room"),
            ReceiptError::UnknownEvent => Self::not_found("there is no such event in this room"),
            ReceiptError::NotInThread => Self::invalid_param("\"event_id\" is not related to \"thread_id\""),
            ReceiptError::Store(error) => error.into(),
        }
    }
}
