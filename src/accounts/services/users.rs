//! What a service does with the users that it claims: it registers them, logs them in, and makes their
//! devices ([spec](https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions)).

use hearth_schema::{Device, Devices, User, Users};
use hearth_store::{Batch, Order};
use ruma_common::{DeviceId, OwnedUserId};

use super::Service;
use crate::devices::{DeviceError, MAX_DEVICES, change_user};
use crate::error::damaged;
use crate::login::LoggedIn;
use crate::register::{DeviceRequest, Grant, NewAccount, RegisterError, Registered, check_device, lane};
use crate::write::{Attempts, row_of};
use crate::{Accounts, LoginError, Requester, names};

/// Why a service did not log a user in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ServiceLoginError {
    /// The service does not claim this user.
    #[error("the application service does not have this user")]
    Exclusive,
    /// Nobody has registered the user.
    #[error("the application service has not registered this user")]
    NotRegistered,
    /// The user is an administrator and not the service's sender.
    #[error("an application service does not log in administrators")]
    Administrator,
    /// As for everybody.
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl From<hearth_store::StoreError> for ServiceLoginError {
    fn from(error: hearth_store::StoreError) -> Self {
        Self::Login(error.into())
    }
}

impl From<crate::StorageError> for ServiceLoginError {
    fn from(error: crate::StorageError) -> Self {
        Self::Login(error.into())
    }
}

/// What naming a device came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutDevice {
    /// There was none; there is one now.
    Created,
    /// It has the new name.
    Updated,
}

impl Accounts {
    /// Makes an account that `service` claims, whoever else may register. Its password and registration
    /// token are not looked at: there is none.
    ///
    /// # Errors
    /// If there is no account.
    pub async fn register_by_service(
        &self,
        service: &Service,
        account: NewAccount,
    ) -> Result<Registered, RegisterError> {
        check_device(&account.device).map_err(RegisterError::InvalidDevice)?;
        self.create_for(Some(service), &account, None, Grant::default()).await
    }

    /// Logs in `user`, a localpart or a whole user ID that `service` claims, without a password.
    ///
    /// # Errors
    /// If nobody was logged in.
    pub async fn login_by_service(
        &self,
        service: &Service,
        user: &str,
        device: DeviceRequest,
    ) -> Result<LoggedIn, ServiceLoginError> {
        check_device(&device).map_err(LoginError::InvalidDevice)?;
        let mut candidates = names::login_candidates(user, &self.server_name);
        candidates.retain(|user_id| service.has_user(user_id));
        if candidates.is_empty() {
            return Err(ServiceLoginError::Exclusive);
        }
        let keys: Vec<_> = candidates.iter().map(|id| (self.ids.user(id),)).collect();
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let found = view.get_many::<Users>(&keys).await?.into_iter().flatten().next();
            let row = found.ok_or(ServiceLoginError::NotRegistered)?;
            if row.deactivated {
                return Err(LoginError::Deactivated.into());
            }
            if row.moderation.locked {
                return Err(LoginError::Locked.into());
            }
            let user_id = OwnedUserId::try_from(row.user_id.as_str()).map_err(|error| damaged("Users", error))?;
            // A namespace may be wide, and a session is all that its user may do.
            if self.is_admin(&row) && user_id != service.sender {
                return Err(ServiceLoginError::Administrator);
            }
            let user = self.ids.user(&user_id);
            let plan = self.plan_session(&view, &user_id, &device).await?;
            let mut batch = plan.batch;
            change_user(&mut batch, user, &row, row.clone());
            if attempts.commit_revoking(self, batch, plan.revoked).await?.is_some() {
                return Ok(LoggedIn { user_id, session: plan.session });
            }
        }
    }

    /// Names a device of the user that a service acts as, or makes it, without an access token. `None`
    /// leaves the name of a known one.
    ///
    /// # Errors
    /// If everything is as before.
    pub async fn put_device_by_service(
        &self,
        requester: &Requester,
        device_id: &DeviceId,
        display_name: Option<String>,
    ) -> Result<PutDevice, DeviceError> {
        let wish = DeviceRequest { device_id: Some(device_id.to_owned()), display_name, refresh: false };
        check_device(&wish).map_err(DeviceError::InvalidName)?;
        let (user, display_name) = (requester.user, wish.display_name);
        let key = (user, device_id.to_string());
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let known = view.get::<Devices>(&key).await?;
            let mut batch = Batch::new(lane(user));
            batch.check::<Devices>(&key, known.as_ref());
            let done = if let Some(known) = known {
                let name = display_name.clone().or_else(|| known.display_name.clone());
                batch.put::<Devices>(&key, &Device { display_name: name, ..known });
                PutDevice::Updated
            } else {
                // Under a check of the user's row, so that the cap is exact and the account is there.
                let row: User = row_of(view.get::<Users>(&(user,)).await?, "Users")?;
                if view.page::<Devices, _>(&(user,), Order::Ascending, MAX_DEVICES).await?.len() >= MAX_DEVICES {
                    return Err(DeviceError::TooMany);
                }
                if row.deactivated {
                    return Err(DeviceError::NotFound);
                }
                change_user(&mut batch, user, &row, row.clone());
                let (display_name, created_at) = (display_name.clone(), self.clock.now().0);
                batch.put::<Devices>(&key, &Device { display_name, token: None, created_at, refresh: None });
                PutDevice::Created
            };
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(done);
            }
        }
    }
}
