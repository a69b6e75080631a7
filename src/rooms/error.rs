//! Why a room says no.

use hearth_store::{CommitError, StoreError};

use crate::policy::PolicyError;
use crate::remote::RemoteError;

/// Why an event was not sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// There is no such room here.
    #[error("the room is not known")]
    UnknownRoom,
    /// The auth rules say no.
    #[error("{0}")]
    Forbidden(String),
    /// The content breaks a rule of the room version.
    #[error("{0}")]
    BadContent(String),
    /// The event would be over the size limits.
    #[error("the event is too large")]
    TooLarge,
    /// The event to redact is not in this room.
    #[error("the event is not known in this room")]
    UnknownEvent,
    /// The event relates to one that it may not relate to in this way.
    #[error("{0}")]
    BadRelation(String),
    /// The sender has annotated the event with the same key before.
    #[error("you have sent this annotation before")]
    DuplicateAnnotation,
    /// The sender's account is locked.
    #[error("this account has been locked")]
    Locked,
    /// The sender's account is suspended.
    #[error("you cannot do this while your account is suspended")]
    Suspended,
    /// Too many requests wait for this room.
    #[error("the room is busy")]
    Busy,
    /// Other servers that may know what the event stands on do not answer now.
    #[error("{0}")]
    Unanswered(String),
    /// The room's policy server has not signed the event.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The server is stopping.
    #[error("the server is shutting down")]
    Stopping,
    /// The store has no space.
    #[error("the server's disk is full")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something in here is broken.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<CommitError> for SendError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::TooLarge { .. } => Self::TooLarge,
            CommitError::Full => Self::Full,
            CommitError::Conflict(_) => Self::Busy,
            CommitError::Unavailable(why) => Self::Store(StoreError::Unavailable(why)),
        }
    }
}

/// Why a membership was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MembershipError {
    /// The target is not in the membership that the change needs.
    #[error("{0}")]
    NotInState(String),
    /// The room lets in members of other rooms, and this server does not know whether the user is in one.
    #[error("this server cannot tell whether you may join")]
    CannotAuthorise,
    /// The user may join, but no local member of the room may let others in.
    #[error("nobody on this server may let you into the room")]
    CannotGrant,
    /// It takes another server, and none of those asked did it; this is what the most telling of them said.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// As when sending an event.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for MembershipError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// Why a room was not created.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CreateError {
    /// Somebody has the alias.
    #[error("the alias is taken")]
    AliasInUse,
    /// The alias belongs to another server.
    #[error("{0}")]
    BadAlias(String),
    /// The events asked for contradict each other or the room version.
    #[error("{0}")]
    InvalidRoomState(String),
    /// As when sending an event.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl From<StoreError> for CreateError {
    fn from(error: StoreError) -> Self {
        Self::Send(error.into())
    }
}

/// Why a room cannot be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueryError {
    /// There is no such room here, or the user has no business there; the two look alike.
    #[error("you are not in this room")]
    Forbidden,
    /// No such event, state entry or alias, or none that the user may see.
    #[error("not found")]
    NotFound,
    /// A pagination token of another server, room or time.
    #[error("the token is not valid")]
    BadToken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
