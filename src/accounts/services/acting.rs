//! As whom a service acts
//! ([spec](https://spec.matrix.org/v1.19/application-service-api/#identity-assertion)).

use std::sync::Arc;

use hearth_schema::{Devices, User, Users};
use hearth_store::StoreError;
use ruma_common::OwnedUserId;

use super::{Client, Service, Services};
use crate::register::{Grant, NewAccount, RegisterError};
use crate::{Accounts, Requester, Standing};

/// Whom a service says that it acts as in one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Acting<'a> {
    /// The user; `None`: its sender.
    pub user_id: Option<&'a str>,
    /// A device of that user; `None`: without a device.
    pub device_id: Option<&'a str>,
}

/// Why a service may not act so.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ActingError {
    /// The service does not claim this user.
    #[error("the application service does not have this user")]
    OtherUser,
    /// Nobody has registered the user.
    #[error("the application service has not registered this user")]
    NotRegistered,
    /// The account has been deactivated.
    #[error("this account has been deactivated")]
    Deactivated,
    /// The device is not one of the user's.
    #[error("the user has no such device")]
    UnknownDevice,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// All application services.
    pub const fn services(&self) -> &Services {
        &self.services.all
    }

    /// The service whose token this is.
    pub fn service(&self, token: &str) -> Option<&Arc<Service>> {
        if self.services.all.is_empty() { None } else { self.services.get(self.ids.token(token)) }
    }

    /// Who makes a request of `service`. Locks and suspensions of the user hold as in its own requests;
    /// but of administrators only the sender has the powers, because a namespace may be wide.
    ///
    /// # Errors
    /// If the service may not act so.
    pub async fn act(&self, service: &Arc<Service>, acting: Acting<'_>) -> Result<Requester, ActingError> {
        let user_id = match acting.user_id {
            None => service.sender.clone(),
            Some(named) => self.user_of(service, named)?,
        };
        let user = self.ids.user(&user_id);
        let view = self.view().await?;
        let row = view.get::<Users>(&(user,)).await?.ok_or(ActingError::NotRegistered)?;
        if row.deactivated {
            return Err(ActingError::Deactivated);
        }
        let device_id = match acting.device_id {
            None => None,
            Some(named) => {
                let key = (user, named.to_owned());
                let known = if crate::register::is_device_id(named) { view.get::<Devices>(&key).await? } else { None };
                known.ok_or(ActingError::UnknownDevice)?;
                Some(named.into())
            }
        };
        let standing = self.standing(&row);
        Ok(Requester {
            standing: Standing { admin: standing.admin && user_id == service.sender, ..standing },
            user_id,
            user,
            client: Client::Service { service: Arc::clone(service), device_id },
            token: self.ids.token(service.as_token.expose()),
        })
    }

    fn user_of(&self, service: &Service, named: &str) -> Result<OwnedUserId, ActingError> {
        let user_id = OwnedUserId::try_from(named).map_err(|_| ActingError::OtherUser)?;
        let has = self.is_local(&user_id) && service.has_user(&user_id);
        if has { Ok(user_id) } else { Err(ActingError::OtherUser) }
    }

    /// Makes the accounts of the services' senders that are not there yet, without password and profile.
    /// To be called at the start.
    ///
    /// # Errors
    /// If one could not be made; those made before stay. [`RegisterError::Exclusive`]: the server keeps the
    /// name for itself.
    pub async fn make_senders(&self) -> Result<(), RegisterError> {
        for service in self.services.all.iter() {
            if let Some(row) = self.account_row(service).await? {
                warn_of(service, &row);
                continue;
            }
            let account = NewAccount {
                localpart: Some(service.sender.localpart().to_owned()),
                inhibit_login: true,
                ..NewAccount::default()
            };
            match self.create_for(Some(service), &account, None, Grant::default()).await {
                // Somebody was faster: it is there.
                Ok(_) | Err(RegisterError::UserInUse) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn account_row(&self, service: &Service) -> Result<Option<User>, StoreError> {
        self.view().await?.get::<Users>(&(self.ids.user(&service.sender),)).await
    }
}

/// An account that was there before the service.
fn warn_of(service: &Service, row: &User) {
    if row.deactivated {
        tracing::warn!(service = service.id, sender = %service.sender, "the sender's account is deactivated");
    } else if row.password_hash.is_some() {
        tracing::warn!(
            service = service.id,
            sender = %service.sender,
            "the sender's account has a password: somebody registered it before the service"
        );
    }
}
