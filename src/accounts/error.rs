//! What can go wrong with the store in any use-case.

use std::sync::Arc;

use hearth_store::{CommitError, StoreError};

/// The store did not do its part; nothing of the use-case was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// Others changed the same rows again and again: try later.
    #[error("too many changes of the same account at the same time")]
    Contended,
    /// The store has no space; reads go on.
    #[error("the server's disk is full")]
    Full,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for StorageError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict(_) => Self::Contended,
            CommitError::Full => Self::Full,
            CommitError::Unavailable(why) => Self::Store(StoreError::Unavailable(why)),
            // Every collection here has a cap far below the engine's limit, so this is a defect.
            CommitError::TooLarge { bytes, limit } => Self::Store(StoreError::Unavailable(Arc::from(format!(
                "a batch of {bytes} bytes, {limit} are allowed"
            )))),
        }
    }
}

/// A row that decodes but cannot mean anything.
pub(crate) fn damaged(keyspace: &'static str, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { keyspace, detail: Arc::from(detail.to_string()) }
}
