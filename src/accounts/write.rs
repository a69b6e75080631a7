//! Committing under conditions.

use std::sync::Arc;

use hearth_schema::TokenKey;
use hearth_store::{Batch, CommitError, Committed, StoreError};

use crate::session_watch::SessionEnd;
use crate::{Accounts, StorageError};

/// How often a use-case plans again because somebody else was faster.
const ATTEMPTS: u32 = 16;

/// Counts the tries of one use-case: read, plan, [`Self::commit`], and from the start if that gave
/// `None`.
#[derive(Debug, Default)]
pub(crate) struct Attempts(u32);

impl Attempts {
    /// Commits `batch`; `None`: its conditions did not hold, plan again on a new view.
    pub(crate) async fn commit(
        &mut self,
        accounts: &Accounts,
        batch: Batch,
    ) -> Result<Option<Committed>, StorageError> {
        let result = accounts.store.commit(batch).await;
        self.judge(result)
    }

    /// Commits a `batch` that takes `revoked` away; they are refused from then on.
    pub(crate) async fn commit_revoking(
        &mut self,
        accounts: &Accounts,
        batch: Batch,
        revoked: Vec<TokenKey>,
    ) -> Result<Option<Committed>, StorageError> {
        self.commit_ending(accounts, batch, revoked, SessionEnd::Revoked).await
    }

    /// The same for tokens of a device that goes on with a newer one.
    pub(crate) async fn commit_superseding(
        &mut self,
        accounts: &Accounts,
        batch: Batch,
        old: Vec<TokenKey>,
    ) -> Result<Option<Committed>, StorageError> {
        self.commit_ending(accounts, batch, old, SessionEnd::Superseded).await
    }

    async fn commit_ending(
        &mut self,
        accounts: &Accounts,
        batch: Batch,
        revoked: Vec<TokenKey>,
        end: SessionEnd,
    ) -> Result<Option<Committed>, StorageError> {
        if revoked.is_empty() {
            return self.commit(accounts, batch).await;
        }
        let commit = accounts.store.commit(batch);
        let sessions = Arc::clone(&accounts.sessions);
        // A client that hangs up drops our future, but not the batch: whoever forgets the tokens
        // must outlive the request. It lives as long as the commit, so no supervisor is needed.
        let forgotten = tokio::spawn(async move {
            let result = commit.await;
            sessions.forget(&revoked);
            // After a conflict they still work.
            if result.is_ok() {
                sessions.watched.end(&revoked, end);
            }
            result
        });
        let result = forgotten.await.unwrap_or_else(|error| Err(CommitError::Unavailable(error.to_string().into())));
        self.judge(result)
    }

    /// Counts a try that found something changed before it came to a commit.
    pub(crate) const fn missed(&mut self) -> Result<(), StorageError> {
        self.0 += 1;
        if self.0 < ATTEMPTS { Ok(()) } else { Err(StorageError::Contended) }
    }

    fn judge(&mut self, result: Result<Committed, CommitError>) -> Result<Option<Committed>, StorageError> {
        match result {
            Ok(committed) => Ok(Some(committed)),
            Err(CommitError::Conflict(_)) => self.missed().map(|()| None),
            Err(error) => Err(error.into()),
        }
    }
}

/// A read that a row promised to be possible.
pub(crate) fn row_of<T>(row: Option<T>, keyspace: &'static str) -> Result<T, StoreError> {
    row.ok_or_else(|| crate::error::damaged(keyspace, "the row is missing"))
}
