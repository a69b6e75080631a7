//! What users report as inappropriate, kept for the operator.
//!
//! A report belongs to who made it: its rows live in that user's lane, and the newest
//! [`MAX_REPORTS`] of each user are kept, so that nobody can fill the store or push out the reports of
//! others.
//!
//! See <https://spec.matrix.org/v1.19/client-server-api/#reporting-content>.

use hearth_base::Millis;
use hearth_schema::{Report, ReportSubject, Reports};
use hearth_store::{Batch, Lane, Order, Owner, Pos, StoreError};
use ruma_common::{OwnedEventId, OwnedRoomId, OwnedUserId};

use crate::write::Attempts;
use crate::{Accounts, Requester, StorageError};

/// Reports kept of one user.
pub const MAX_REPORTS: usize = 200;
/// Bytes of a reason.
pub const MAX_REASON_BYTES: usize = 4096;
/// Reports listed at the most.
const MAX_LISTED: usize = 100_000;
/// Rows read at a time.
const PAGE: usize = 512;

/// What is reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reported {
    /// A room.
    Room(OwnedRoomId),
    /// An event.
    Event {
        /// Its room.
        room_id: OwnedRoomId,
        /// Its ID.
        event_id: OwnedEventId,
        /// Who sent it.
        sender: OwnedUserId,
    },
    /// A user.
    User(OwnedUserId),
}

/// A report, as the operator reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportInfo {
    /// When it was made.
    pub at: Millis,
    /// By whom.
    pub reporter: String,
    /// What is reported.
    pub subject: ReportSubject,
    /// Why.
    pub reason: String,
}

/// Why a report was not kept.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReportError {
    /// The reason is over [`MAX_REASON_BYTES`].
    #[error("a reason has at most 4096 bytes")]
    ReasonTooLong,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for ReportError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// Keeps a report, and says so in the log. Whether there is such a thing, and the reporter may see
    /// it, has been checked.
    ///
    /// # Errors
    /// See [`ReportError`].
    pub async fn report(&self, by: &Requester, subject: Reported, reason: String) -> Result<(), ReportError> {
        if reason.len() > MAX_REASON_BYTES {
            return Err(ReportError::ReasonTooLong);
        }
        let lane = by.user.lane();
        let kept = self.view().await?.page::<Reports, _>(&(lane, by.user), Order::Descending, MAX_REPORTS).await?;
        let mut batch = Batch::new(lane);
        if let Some(((_, _, oldest), _)) = kept.get(MAX_REPORTS - 1) {
            batch.delete::<Reports>(&(lane, by.user, *oldest));
        }
        tracing::info!(reporter = %by.user_id, ?subject, "something was reported as inappropriate");
        let pos = batch.next_pos();
        let subject = match subject {
            Reported::Room(room_id) => ReportSubject::Room { room_id: room_id.to_string() },
            Reported::Event { room_id, event_id, sender } => ReportSubject::Event {
                room_id: room_id.to_string(),
                event_id: event_id.to_string(),
                sender: sender.to_string(),
            },
            Reported::User(user_id) => ReportSubject::User { user_id: user_id.to_string() },
        };
        let report = Report { at: self.clock.now().0, reporter: by.user_id.to_string(), subject, reason };
        batch.put::<Reports>(&(lane, by.user, pos), &report);
        // No condition: two reports at once may leave one more than the limit, and the next ones mend it.
        Attempts::default().commit(self, batch).await?;
        Ok(())
    }

    /// Reports that were made at `since` or later, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn reports(&self, since: Millis) -> Result<Vec<ReportInfo>, StoreError> {
        let view = self.view().await?;
        let mut found: Vec<(Pos, ReportInfo)> = Vec::new();
        for lane in Lane::all() {
            view.scan::<Reports, _>(&(lane,), Order::Ascending, PAGE, |(_, _, pos), row| {
                if row.at >= since.0 && found.len() < MAX_LISTED {
                    let Report { at, reporter, subject, reason } = row;
                    found.push((pos, ReportInfo { at: Millis(at), reporter, subject, reason }));
                }
                std::ops::ControlFlow::Continue(())
            })
            .await?;
        }
        found.sort_unstable_by_key(|(pos, _)| *pos);
        Ok(found.into_iter().map(|(_, report)| report).collect())
    }
}

#[cfg(test)]
mod tests {
    use ruma_common::{room_id, user_id};

    use super::*;
    use crate::testing::world;

    #[tokio::test]
    async fn the_newest_reports_of_each_user_are_kept() {
        let world = world();
        let (ann, bob) = (world.user("ann").await, world.user("bob").await);
        let room = room_id!("!room:hs.test").to_owned();
        world.accounts.report(&bob, Reported::Room(room.clone()), "bad".into()).await.unwrap();
        for n in 0..=MAX_REPORTS {
            world.accounts.report(&ann, Reported::User(user_id!("@eve:hs.test").into()), n.to_string()).await.unwrap();
        }
        let reports = world.accounts.reports(Millis(0)).await.unwrap();
        assert_eq!(reports.len(), MAX_REPORTS + 1);
        assert_eq!(reports[0].subject, ReportSubject::Room { room_id: room.to_string() });
        assert_eq!((reports[0].reporter.as_str(), reports[0].reason.as_str()), ("@bob:hs.test", "bad"));
        assert_eq!(reports[1].reason, "1", "the oldest went");
        assert_eq!(reports[MAX_REPORTS].reason, MAX_REPORTS.to_string());
        assert!(
            world.accounts.reports(reports[0].at.plus(std::time::Duration::from_secs(1))).await.unwrap().is_empty()
        );
        let long = "x".repeat(MAX_REASON_BYTES + 1);
        let refused = world.accounts.report(&ann, Reported::Room(room), long).await;
        assert!(matches!(refused, Err(ReportError::ReasonTooLong)));
    }
}
