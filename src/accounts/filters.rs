//! Stored filters.

use std::ops::ControlFlow;

use hearth_schema::{Filter, Filters, User, UserNid, Users};
use hearth_store::{Batch, Order, StoreError};

use crate::devices::change_user;
use crate::register::lane;
use crate::write::{Attempts, row_of};
use crate::{Accounts, StorageError};

/// How many filters a user may store.
pub const MAX_FILTERS: u32 = 200;
/// Bytes of a filter.
pub const MAX_FILTER_BYTES: usize = 16 * 1024;
/// Rows read at a time: at the most 512 KiB.
const PAGE: usize = 32;

/// Why a filter was not stored.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FilterError {
    /// It is over [`MAX_FILTER_BYTES`].
    #[error("a filter has at most 16384 bytes")]
    TooLarge,
    /// The user has [`MAX_FILTERS`].
    #[error("too many filters")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for FilterError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// Stores a filter, which the caller has parsed, and gives its ID. The same text has the same ID,
    /// because clients store theirs again at every start.
    ///
    /// # Errors
    /// If it was not stored.
    pub async fn store_filter(&self, user: UserNid, json: &str) -> Result<String, FilterError> {
        if json.len() > MAX_FILTER_BYTES {
            return Err(FilterError::TooLarge);
        }
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let mut same = None;
            view.scan::<Filters, _>(&(user,), Order::Ascending, PAGE, |(_, number), filter| {
                if filter.json == json {
                    same = Some(number);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })
            .await?;
            if let Some(number) = same {
                return Ok(number.to_string());
            }
            let row = row_of(view.get::<Users>(&(user,)).await?, "Users")?;
            let number = row.next_filter;
            if number >= MAX_FILTERS {
                return Err(FilterError::TooMany);
            }
            let mut batch = Batch::new(lane(user));
            change_user(&mut batch, user, &row, User { next_filter: number + 1, ..row.clone() });
            batch.put::<Filters>(&(user, number), &Filter { json: json.to_owned() });
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(number.to_string());
            }
        }
    }

    /// The text of a filter; `None`: `user` has no filter with this ID.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn filter(&self, user: UserNid, filter_id: &str) -> Result<Option<String>, StoreError> {
        // Only the form that `store_filter` gives: "+1" and "01" are no IDs.
        let number = filter_id.parse::<u32>().ok().filter(|number| number.to_string() == filter_id);
        let Some(number) = number else { return Ok(None) };
        let row = self.view().await?.get::<Filters>(&(user, number)).await?;
        Ok(row.map(|row| row.json))
    }
}
