//! What administrators may do to accounts: lock them and suspend them
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#server-administration)).
//!
//! A locked account can do nothing but log out; its sessions wait until it is unlocked. A suspended one
//! goes on reading. Both take effect at once, because the change empties the cache of sessions.

use hearth_schema::{AccountKind, Moderation, User, UserNid, Users};
use hearth_store::{Batch, StoreError};
use ruma_common::UserId;

use crate::devices::{change_user, device_rows};
use crate::refresh::access_tokens;
use crate::register::lane;
use crate::write::Attempts;
use crate::{Accounts, DeviceInfo, Requester, SessionEnd, StorageError};

/// What an account may do beside what everybody may, and what it may not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Whether somebody registered.
    pub kind: AccountKind,
    /// May use administrative endpoints.
    pub admin: bool,
    /// What administrators have decided.
    pub moderation: Moderation,
}

/// What an administrator decides about an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// It can do nothing but log out.
    Lock,
    /// It can do again what it could before it was locked.
    Unlock,
    /// It can only read, leave and redact.
    Suspend,
    /// It can do again what it could before it was suspended.
    Unsuspend,
}

impl Measure {
    const fn of(self, before: Moderation) -> Moderation {
        match self {
            Self::Lock => Moderation { locked: true, ..before },
            Self::Unlock => Moderation { locked: false, ..before },
            Self::Suspend => Moderation { suspended: true, ..before },
            Self::Unsuspend => Moderation { suspended: false, ..before },
        }
    }
}

/// Why an administrator's wish was not done.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdminError {
    /// Who asks is no administrator.
    #[error("only administrators of this server may do this")]
    NotAdmin,
    /// The account is on another server.
    #[error("this user belongs to another server")]
    NotLocal,
    /// Administrators do not shut themselves out.
    #[error("this is your own account")]
    Oneself,
    /// Nor each other.
    #[error("this is the account of another administrator")]
    OtherAdmin,
    /// There is no such account, or it has been deactivated.
    #[error("there is no such account")]
    NoAccount,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// What has been decided about `user`.
    ///
    /// # Errors
    /// If `by` may not ask; that is told before anything about `user` is.
    pub async fn moderation(&self, by: &Requester, user: &UserId) -> Result<Moderation, AdminError> {
        let nid = self.moderated(by, user)?;
        let row = self.view().await?.get::<Users>(&(nid,)).await?;
        Ok(self.moderated_row(by, nid, row)?.moderation)
    }

    /// Locks, unlocks, suspends or unsuspends `user`, from the next request on.
    ///
    /// # Errors
    /// If everything is as before.
    pub async fn moderate(&self, by: &Requester, user: &UserId, measure: Measure) -> Result<Moderation, AdminError> {
        let nid = self.moderated(by, user)?;
        if nid == by.user {
            return Err(AdminError::Oneself);
        }
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let row = self.moderated_row(by, nid, view.get::<Users>(&(nid,)).await?)?;
            let moderation = measure.of(row.moderation);
            if moderation == row.moderation {
                return Ok(moderation);
            }
            // Requests that wait are answered with nothing new, and the next ones are refused.
            let waiting: Vec<_> = match measure {
                Measure::Lock => device_rows(&view, nid).await?,
                Measure::Unlock | Measure::Suspend | Measure::Unsuspend => Vec::new(),
            };
            let mut batch = Batch::new(lane(nid));
            change_user(&mut batch, nid, &row, User { moderation, ..row.clone() });
            if attempts.commit_standing(self, batch).await?.is_some() {
                let tokens: Vec<_> = waiting.iter().flat_map(|(_, device)| access_tokens(device)).collect();
                self.sessions.watched.end(&tokens, SessionEnd::Superseded);
                return Ok(moderation);
            }
        }
    }

    /// The devices of `user`, for an administrator or the user.
    ///
    /// # Errors
    /// If `by` is neither, or there is no such account.
    pub async fn whois(&self, by: &Requester, user: &UserId) -> Result<Vec<DeviceInfo>, AdminError> {
        if by.user_id != user && !by.standing.admin {
            return Err(AdminError::NotAdmin);
        }
        let nid = self.local(user)?;
        self.view().await?.get::<Users>(&(nid,)).await?.ok_or(AdminError::NoAccount)?;
        Ok(self.devices(nid).await?)
    }

    /// Whether there is an account that could get a notice of the server.
    ///
    /// # Errors
    /// If `by` is no administrator or there is none.
    pub async fn check_notice(&self, by: &Requester, user: &UserId) -> Result<UserNid, AdminError> {
        let nid = self.moderated(by, user)?;
        let row = self.view().await?.get::<Users>(&(nid,)).await?.filter(|row| !row.deactivated);
        row.map(|_| nid).ok_or(AdminError::NoAccount)
    }

    /// Whether the account of this row is an administrator's.
    pub(crate) fn is_admin(&self, row: &User) -> bool {
        !row.deactivated && (row.admin || self.settings.admins.contains(&row.user_id))
    }

    /// What the requests of an account with this row may do.
    pub(crate) fn standing(&self, row: &User) -> Standing {
        Standing { kind: row.kind, admin: self.is_admin(row), moderation: row.moderation }
    }

    fn moderated(&self, by: &Requester, user: &UserId) -> Result<UserNid, AdminError> {
        if by.standing.admin { self.local(user) } else { Err(AdminError::NotAdmin) }
    }

    fn local(&self, user: &UserId) -> Result<UserNid, AdminError> {
        if self.is_local(user) { Ok(self.ids.user(user)) } else { Err(AdminError::NotLocal) }
    }

    fn moderated_row(&self, by: &Requester, user: UserNid, row: Option<User>) -> Result<User, AdminError> {
        let row = row.filter(|row| !row.deactivated).ok_or(AdminError::NoAccount)?;
        if user != by.user && self.is_admin(&row) {
            return Err(AdminError::OtherAdmin);
        }
        Ok(row)
    }
}
