//! What happens to an account between its first and its last day.

use hearth_base::{Millis, Secret};
use hearth_schema::{
    AccountData, AccountDataLog, AccountKind, Change, ErasedUsers, Filters, LoginTokens, Moderation, Position,
    Profiles, Pushers, User, UserNid, Users,
};
use hearth_store::{Batch, StoreError};
use ruma_common::{OwnedDeviceId, OwnedUserId};

use crate::devices::{change_user, device_rows, remove_devices};
use crate::error::damaged;
use crate::register::lane;
use crate::write::Attempts;
use crate::{Accounts, RegisterError, StorageError};

/// What the server knows of a local account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// The full user ID.
    pub user_id: OwnedUserId,
    /// When it was made.
    pub created_at: Millis,
    /// May not log in again.
    pub deactivated: bool,
    /// May use administrative endpoints.
    pub admin: bool,
    /// Can log in by password.
    pub has_password: bool,
    /// Whether somebody registered.
    pub kind: AccountKind,
    /// What administrators have decided.
    pub moderation: Moderation,
    /// What the operator's program called the account when it made it.
    pub user_type: Option<String>,
}

/// Which devices a new password logs out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogoutDevices {
    /// All but this one.
    Others(OwnedDeviceId),
    /// None.
    None,
}

/// Whether a deactivated account should be forgotten as far as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erase {
    /// The profile goes, too, and whatever else is kept of the user that is no event (see [`Accounts::erase`]); who
    /// comes into a room later sees none of what the user said.
    Yes,
    /// The profile stays, for those who read old messages.
    No,
}

/// Why a password was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ChangePasswordError {
    /// The new password is too short or too long.
    #[error("{0}")]
    WeakPassword(String),
    /// There is no such account, or it has been deactivated.
    #[error("there is no such account")]
    NoAccount,
    /// Too many passwords wait to be hashed: try later.
    #[error("the server is busy")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for ChangePasswordError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

/// Why an account was not deactivated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeactivateError {
    /// There is no such account.
    #[error("there is no such account")]
    NoAccount,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for DeactivateError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// What is known of `user`; `None`: no account here.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn account(&self, user: UserNid) -> Result<Option<AccountInfo>, StoreError> {
        let row = self.view().await?.get::<Users>(&(user,)).await?;
        row.map(|row| {
            Ok(AccountInfo {
                user_id: OwnedUserId::try_from(row.user_id.as_str()).map_err(|error| damaged("Users", error))?,
                created_at: Millis(row.created_at),
                admin: self.is_admin(&row),
                deactivated: row.deactivated,
                has_password: row.password_hash.is_some(),
                kind: row.kind,
                moderation: row.moderation,
                user_type: row.user_type,
            })
        })
        .transpose()
    }

    /// Gives `user` a new password and ends the sessions that `logout` says, in one batch.
    ///
    /// # Errors
    /// If the old password is still the one.
    pub async fn change_password(
        &self,
        user: UserNid,
        new: &Secret<String>,
        logout: LogoutDevices,
    ) -> Result<(), ChangePasswordError> {
        let hash = self.hash_new_password(new).await.map_err(|error| match error {
            RegisterError::WeakPassword(why) => ChangePasswordError::WeakPassword(why),
            RegisterError::Storage(error) => ChangePasswordError::Storage(error),
            _ => ChangePasswordError::Busy,
        })?;
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let row = view.get::<Users>(&(user,)).await?.filter(|row| !row.deactivated);
            let row = row.ok_or(ChangePasswordError::NoAccount)?;
            let mut batch = Batch::new(lane(user));
            change_user(&mut batch, user, &row, User { password_hash: Some(hash.clone()), ..row.clone() });
            let revoked = match &logout {
                LogoutDevices::None => Vec::new(),
                LogoutDevices::Others(keep) => {
                    let mut rows = device_rows(&view, user).await?;
                    rows.retain(|(id, _)| id != keep.as_str());
                    batch.delete_prefix::<LoginTokens, _>(&(user,));
                    remove_devices(&view, &mut batch, user, rows).await?
                }
            };
            if attempts.commit_revoking(self, batch, revoked).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Ends an account for good: no password, no session, no account data, no filters. The name stays
    /// taken. A second time is no error.
    ///
    /// Rooms are another matter, which the fact in the change log leads to, whatever becomes of the caller.
    ///
    /// # Errors
    /// If nothing has changed.
    pub async fn deactivate(&self, user: UserNid, erase: Erase) -> Result<(), DeactivateError> {
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let row = view.get::<Users>(&(user,)).await?.ok_or(DeactivateError::NoAccount)?;
            let ended = User {
                password_hash: None,
                deactivated: true,
                admin: false,
                account_data: 0,
                account_data_rows: 0,
                ..row.clone()
            };
            let mut batch = Batch::new(lane(user));
            change_user(&mut batch, user, &row, ended);
            let revoked = remove_devices(&view, &mut batch, user, device_rows(&view, user).await?).await?;
            batch.delete_prefix::<AccountData, _>(&(user,));
            batch.delete_prefix::<AccountDataLog, _>(&(user,));
            batch.delete_prefix::<Filters, _>(&(user,));
            batch.delete_prefix::<Pushers, _>(&(user,));
            batch.delete_prefix::<LoginTokens, _>(&(user,));
            let at = batch.next_pos();
            batch.fact(at, Change::Deactivated { user }.to_bytes());
            if erase == Erase::Yes {
                batch.delete::<Profiles>(&(user,));
                batch.put::<ErasedUsers>(&(lane(user), user), &Position(at));
            }
            if attempts.commit_revoking(self, batch, revoked).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Makes `user` an administrator, or an ordinary user again. `false`: there is no such account.
    ///
    /// # Errors
    /// If nothing has changed.
    pub async fn set_admin(&self, user: UserNid, admin: Admin) -> Result<bool, StorageError> {
        let mut attempts = Attempts::default();
        loop {
            let row = self.view().await?.get::<Users>(&(user,)).await?.filter(|row| !row.deactivated);
            let Some(row) = row else { return Ok(false) };
            let mut batch = Batch::new(lane(user));
            change_user(&mut batch, user, &row, User { admin: admin == Admin::Yes, ..row.clone() });
            if attempts.commit_standing(self, batch).await?.is_some() {
                return Ok(true);
            }
        }
    }
}

/// Whether an account may use administrative endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// It may.
    Yes,
    /// It may not.
    No,
}
