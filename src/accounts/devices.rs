//! Devices: list, name, log out.

use std::collections::BTreeSet;

use hearth_schema::{AccessTokens, Device, Devices, LoginTokens, TokenKey, User, UserNid, Users};
use hearth_store::{Batch, Order, Owner, StoreError, View};
use ruma_common::{DeviceId, OwnedDeviceId};

use crate::account_data::remove_local_notification_settings;
use crate::pushers::remove_pushers_of;
use crate::refresh::{access_tokens, delete_tokens};
use crate::register::{check_device_name, lane};
use crate::write::Attempts;
use crate::{Accounts, Requester, StorageError};

/// How many devices a user may have.
pub const MAX_DEVICES: usize = 500;

/// A device as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its ID.
    pub device_id: OwnedDeviceId,
    /// What its user calls it.
    pub display_name: Option<String>,
}

/// Why a device was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeviceError {
    /// The user has no such device.
    #[error("there is no such device")]
    NotFound,
    /// The name is too long, or a new device's ID is.
    #[error("{0}")]
    InvalidName(&'static str),
    /// The user has as many devices as anybody may have.
    #[error("too many devices")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for DeviceError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// The devices of `user`, by ID.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn devices(&self, user: UserNid) -> Result<Vec<DeviceInfo>, StoreError> {
        let rows = device_rows(&self.view().await?, user).await?;
        Ok(rows.into_iter().map(|(id, device)| info(id.into(), device)).collect())
    }

    /// One device of `user`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn device(&self, user: UserNid, device_id: &DeviceId) -> Result<Option<DeviceInfo>, StoreError> {
        let row = self.view().await?.get::<Devices>(&(user, device_id.to_string())).await?;
        Ok(row.map(|row| info(device_id.to_owned(), row)))
    }

    /// Names a device; `None` takes the name away.
    ///
    /// # Errors
    /// If the device keeps its old name.
    pub async fn set_device_name(
        &self,
        user: UserNid,
        device_id: &DeviceId,
        name: Option<String>,
    ) -> Result<(), DeviceError> {
        check_device_name(name.as_deref()).map_err(DeviceError::InvalidName)?;
        let key = (user, device_id.to_string());
        let mut attempts = Attempts::default();
        loop {
            let row = self.view().await?.get::<Devices>(&key).await?.ok_or(DeviceError::NotFound)?;
            let mut batch = Batch::new(lane(user));
            batch.check::<Devices>(&key, Some(&row));
            batch.put::<Devices>(&key, &Device { display_name: name.clone(), ..row });
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Removes devices and their tokens; those that are not there are no error. Whether the user may
    /// is for the caller to ask (user-interactive authentication).
    ///
    /// # Errors
    /// If nothing was removed.
    pub async fn delete_devices(&self, user: UserNid, devices: &[OwnedDeviceId]) -> Result<(), StorageError> {
        let wanted: BTreeSet<_> = devices.iter().map(|id| id.as_str()).collect();
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let mut rows = device_rows(&view, user).await?;
            rows.retain(|(id, _)| wanted.contains(id.as_str()));
            if rows.is_empty() {
                return Ok(());
            }
            let mut batch = Batch::new(lane(user));
            let revoked = remove_devices(&view, &mut batch, user, rows).await?;
            if attempts.commit_revoking(self, batch, revoked).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Ends the session of `requester` and removes its device. A newer log-in on the same device is
    /// another session and stays. A service that acts as a user has no session.
    ///
    /// # Errors
    /// If the session goes on.
    pub async fn logout(&self, requester: &Requester) -> Result<(), StorageError> {
        let key = (requester.user, requester.client.name().to_string());
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let row = view.get::<Devices>(&key).await?;
            let (batch, revoked) = match row {
                Some(row) if access_tokens(&row).any(|token| token == requester.token) => {
                    let mut batch = Batch::new(lane(requester.user));
                    let rows = vec![(key.1.clone(), row)];
                    let revoked = remove_devices(&view, &mut batch, requester.user, rows).await?;
                    (batch, revoked)
                }
                _ => {
                    let mut batch = Batch::new(requester.token.lane());
                    batch.delete::<AccessTokens>(&(requester.token,));
                    (batch, vec![requester.token])
                }
            };
            if attempts.commit_revoking(self, batch, revoked).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Ends every session of `user` and removes all devices.
    ///
    /// # Errors
    /// If they go on.
    pub async fn logout_all(&self, user: UserNid) -> Result<(), StorageError> {
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let Some(row) = view.get::<Users>(&(user,)).await? else { return Ok(()) };
            let mut batch = Batch::new(lane(user));
            change_user(&mut batch, user, &row, row.clone());
            batch.delete_prefix::<LoginTokens, _>(&(user,));
            let revoked = remove_devices(&view, &mut batch, user, device_rows(&view, user).await?).await?;
            if attempts.commit_revoking(self, batch, revoked).await?.is_some() {
                return Ok(());
            }
        }
    }
}

fn info(device_id: OwnedDeviceId, row: Device) -> DeviceInfo {
    DeviceInfo { device_id, display_name: row.display_name }
}

/// All devices of `user`, by ID.
pub(crate) async fn device_rows(view: &View, user: UserNid) -> Result<Vec<(String, Device)>, StoreError> {
    // The cap is exact, because a log-in counts under the check of the user's row.
    let rows = view.page::<Devices, _>(&(user,), Order::Ascending, MAX_DEVICES).await?;
    Ok(rows.into_iter().map(|((_, id), device)| (id, device)).collect())
}

/// Removes devices as they were read in `view`, what belongs to them, and their tokens, which it returns.
///
/// # Errors
/// If the store cannot be read.
pub(crate) async fn remove_devices(
    view: &View,
    batch: &mut Batch,
    user: UserNid,
    rows: Vec<(String, Device)>,
) -> Result<Vec<TokenKey>, StoreError> {
    let mut revoked = Vec::new();
    let mut gone = BTreeSet::new();
    for (id, device) in rows {
        let key = (user, id);
        batch.check::<Devices>(&key, Some(&device));
        batch.delete::<Devices>(&key);
        revoked.extend(delete_tokens(batch, &device));
        gone.insert(key.1);
    }
    remove_pushers_of(view, batch, user, &gone).await?;
    remove_local_notification_settings(view, batch, user, &gone).await?;
    Ok(revoked)
}

/// Replaces the user's row by `new` with the next generation, unless it is no longer `old`.
pub(crate) fn change_user(batch: &mut Batch, user: UserNid, old: &User, new: User) {
    batch.check::<Users>(&(user,), Some(old));
    batch.put::<Users>(&(user,), &User { generation: old.generation + 1, ..new });
}
