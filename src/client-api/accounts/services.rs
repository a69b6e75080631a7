//! `POST /register` and `POST /login` of application services.

use axum::response::Response;
use hearth_accounts::{DeviceRequest, LoggedIn, NewAccount, Service, ServiceLoginError};

use super::register::registered;
use crate::Api;
use crate::error::ApiError;
use crate::services::exclusive;

/// How services say that they register or log in a user.
pub(crate) const TYPE: &str = "m.login.application_service";

/// Makes an account that `service` claims.
///
/// # Errors
/// `M_EXCLUSIVE` if it does not claim it, and as for everybody.
pub(crate) async fn register(api: &Api, service: &Service, account: NewAccount) -> Result<Response, ApiError> {
    if account.localpart.is_none() {
        return Err(ApiError::missing_param("username"));
    }
    Ok(registered(&api.accounts.register_by_service(service, account).await?))
}

/// Logs in a user that `service` claims.
///
/// # Errors
/// `M_EXCLUSIVE` if it does not claim it, and as for everybody.
pub(crate) async fn login(
    api: &Api,
    service: &Service,
    user: &str,
    device: DeviceRequest,
) -> Result<LoggedIn, ApiError> {
    Ok(api.accounts.login_by_service(service, user, device).await?)
}

impl From<ServiceLoginError> for ApiError {
    fn from(error: ServiceLoginError) -> Self {
        match error {
            ServiceLoginError::Exclusive => exclusive("the application service does not have this user"),
            ServiceLoginError::NotRegistered | ServiceLoginError::Administrator => Self::forbidden(error.to_string()),
            ServiceLoginError::Login(error) => error.into(),
        }
    }
}
