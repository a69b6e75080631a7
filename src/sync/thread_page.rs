//! `GET /thread_subscriptions`: decisions about threads that did not fit into an answer (MSC4308).

use bytes::Bytes;
use hearth_accounts::Requester;
use hearth_store::{Pos, StoreError};

use crate::sliding::write_threads;
use crate::token::PageToken;
use crate::v3::{MAX_VIEWS, Sync};

/// Decisions in one answer at the most.
const MAX_LIMIT: usize = 1_000;

/// Which decisions about threads are wanted.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadPage {
    /// Up to here; `None`: up to now.
    pub from: Option<PageToken>,
    /// After here; `None`: from the first.
    pub to: Option<PageToken>,
    /// How many at the most; 1 to 1000.
    pub limit: usize,
}

impl Sync {
    /// The body of the answer: what the requester has decided about threads, newest first.
    ///
    /// See [MSC4308](https://github.com/matrix-org/matrix-spec-proposals/pull/4308).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn thread_subscriptions(&self, who: &Requester, page: &ThreadPage) -> Result<Bytes, StoreError> {
        let after = page.to.map_or(Pos::ZERO, |token| token.pos);
        let mut attempts = 0;
        let found = loop {
            let view = self.rooms().view().await?;
            let upto = page.from.map_or(Pos::MAX, |token| token.pos);
            let limit = page.limit.clamp(1, MAX_LIMIT);
            match self.rooms().thread_changes(&view, who.user, (after, upto), limit).await {
                Err(StoreError::SnapshotExpired) if attempts < MAX_VIEWS => attempts += 1,
                found => break found?,
            }
        };
        let mut out = Vec::with_capacity(64 + 96 * found.changes.len());
        write_threads(&found, ("end", self.incarnation()), &mut out);
        Ok(out.into())
    }
}
