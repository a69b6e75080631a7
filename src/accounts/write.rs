//! Committing under conditions.

use std::sync::Arc;

use hearth_schema::{TokenKey, UserNid};
use hearth_store::{Batch, CommitError, Committed, StoreError};

use crate::session_watch::SessionEnd;
use crate::{Accounts, StorageError};

/// How often a use-case plans again because somebody else was faster.
const ATTEMPTS: u32 = 16;

/// What caches do not know any more after a commit.
enum Forget {
    Tokens(Vec<TokenKey>, SessionEnd),
    All,
    /// Whom a user does not want to hear from, which another cache keeps.
    Screening(UserNid),
}

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
        self.commit_forgetting(accounts, batch, Forget::Tokens(revoked, end)).await
    }

    /// Commits a `batch` that changes what an account may do. Any token may be that account's, also one
    /// that was made a moment ago, so all are looked up again; it is rare.
    pub(crate) async fn commit_standing(
        &mut self,
        accounts: &Accounts,
        batch: Batch,
    ) -> Result<Option<Committed>, StorageError> {
        self.commit_forgetting(accounts, batch, Forget::All).await
    }

    /// Commits a `batch` that changes whom `user` does not want to hear from.
    pub(crate) async fn commit_screening(
        &mut self,
        accounts: &Accounts,
        batch: Batch,
        user: UserNid,
    ) -> Result<Option<Committed>, StorageError> {
        self.commit_forgetting(accounts, batch, Forget::Screening(user)).await
    }

    async fn commit_forgetting(
        &mut self,
        accounts: &Accounts,
        batch: Batch,
        what: Forget,
    ) -> Result<Option<Committed>, StorageError> {
        let commit = accounts.store.commit(batch);
        let (sessions, screenings) = (Arc::clone(&accounts.sessions), Arc::clone(&accounts.screenings));
        // A client that hangs up drops our future, but not the batch: whoever forgets must outlive the
        // request. It lives as long as the commit, so no supervisor is needed.
        let forgotten = tokio::spawn(async move {
            let result = commit.await;
            match what {
                Forget::Tokens(revoked, end) => {
                    sessions.forget(&revoked);
                    // After a conflict they still work.
                    if result.is_ok() {
                        sessions.watched.end(&revoked, end);
                    }
                }
                Forget::All => sessions.forget_all(),
                Forget::Screening(user) => screenings.forget(user),
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
