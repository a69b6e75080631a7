//! What the refusals of accounts look like over HTTP.

use hearth_accounts::{
    AccountDataError, ChangePasswordError, DeactivateError, DeviceError, FilterError, LoginError, LoginTokenError,
    ProfileError, PusherError, RegisterError, StorageError,
};
use http::StatusCode;

use crate::error::ApiError;

/// How long a client waits before it tries a password again, in milliseconds.
const PASSWORD_RETRY_MS: u64 = 2_000;
const CONTENDED_RETRY_MS: u64 = 500;

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Contended => Self::busy(CONTENDED_RETRY_MS),
            StorageError::Full => Self::disk_full(),
            StorageError::Store(error) => error.into(),
        }
    }
}

fn bad_request(errcode: &'static str, message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, errcode, message)
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::UserInUse => bad_request("M_USER_IN_USE", "this user name is taken"),
            RegisterError::InvalidUsername(why) => bad_request("M_INVALID_USERNAME", why),
            RegisterError::Exclusive => bad_request("M_EXCLUSIVE", "this user name is reserved"),
            RegisterError::WeakPassword(why) => bad_request("M_WEAK_PASSWORD", why),
            RegisterError::InvalidDevice(why) => Self::invalid_param(why),
            RegisterError::InvalidToken => Self::forbidden("the registration token is not valid"),
            RegisterError::NoGuests => {
                Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", "guests are not served here")
            }
            RegisterError::Closed => Self::forbidden("registration is closed on this server"),
            RegisterError::Busy => Self::busy(PASSWORD_RETRY_MS),
            RegisterError::Storage(error) => error.into(),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Forbidden => Self::forbidden("wrong user name or password"),
            LoginError::Deactivated => {
                Self::new(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED", "this account has been deactivated")
            }
            LoginError::Locked => crate::standing::locked(),
            LoginError::InvalidDevice(why) => Self::invalid_param(why),
            LoginError::TooManyDevices => Self::forbidden("too many devices are logged in: log one out first"),
            LoginError::Busy => Self::busy(PASSWORD_RETRY_MS),
            LoginError::Storage(error) => error.into(),
        }
    }
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::NotFound => Self::not_found("there is no such device"),
            DeviceError::InvalidName(why) => Self::invalid_param(why),
            DeviceError::TooMany => Self::forbidden("the user has too many devices: delete one first"),
            DeviceError::Storage(error) => error.into(),
        }
    }
}

impl From<ChangePasswordError> for ApiError {
    fn from(error: ChangePasswordError) -> Self {
        match error {
            ChangePasswordError::WeakPassword(why) => bad_request("M_WEAK_PASSWORD", why),
            ChangePasswordError::NoAccount => Self::not_found("there is no such account"),
            ChangePasswordError::Busy => Self::busy(PASSWORD_RETRY_MS),
            ChangePasswordError::Storage(error) => error.into(),
        }
    }
}

impl From<DeactivateError> for ApiError {
    fn from(error: DeactivateError) -> Self {
        match error {
            DeactivateError::NoAccount => Self::not_found("there is no such account"),
            DeactivateError::Storage(error) => error.into(),
        }
    }
}

impl From<ProfileError> for ApiError {
    fn from(error: ProfileError) -> Self {
        match error {
            ProfileError::DisplaynameTooLong | ProfileError::AvatarUrlTooLong | ProfileError::BadName => {
                Self::invalid_param(error.to_string())
            }
            ProfileError::NameTooLong => bad_request("M_KEY_TOO_LARGE", error.to_string()),
            ProfileError::TooLarge => bad_request("M_PROFILE_TOO_LARGE", error.to_string()),
            ProfileError::Storage(error) => error.into(),
        }
    }
}

impl From<PusherError> for ApiError {
    fn from(error: PusherError) -> Self {
        match error {
            PusherError::Invalid(why) => Self::invalid_param(why),
            PusherError::TooMany => bad_request("M_RESOURCE_LIMIT_EXCEEDED", "too many pushers"),
            PusherError::NoDevice => crate::auth::unknown_token("the device has been logged out"),
            PusherError::Storage(error) => error.into(),
        }
    }
}

impl From<AccountDataError> for ApiError {
    fn from(error: AccountDataError) -> Self {
        match error {
            AccountDataError::TooLarge(why) => Self::too_large(why),
            AccountDataError::TooMany => bad_request("M_RESOURCE_LIMIT_EXCEEDED", "too many kinds of account data"),
            AccountDataError::TooManyTags => bad_request("M_RESOURCE_LIMIT_EXCEEDED", "this room has too many tags"),
            AccountDataError::IgnoresItself => Self::invalid_param("you cannot ignore yourself"),
            AccountDataError::BadTag => Self::invalid_param("a tag has 1 to 255 bytes"),
            AccountDataError::Storage(error) => error.into(),
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::TooLarge => Self::too_large("a filter has at most 16384 bytes"),
            FilterError::TooMany => bad_request("M_RESOURCE_LIMIT_EXCEEDED", "too many filters"),
            FilterError::Storage(error) => error.into(),
        }
    }
}

impl From<LoginTokenError> for ApiError {
    fn from(error: LoginTokenError) -> Self {
        match error {
            LoginTokenError::Disabled => bad_request("M_UNKNOWN", "there are no tokens to log in with here"),
            LoginTokenError::TooMany => bad_request("M_RESOURCE_LIMIT_EXCEEDED", error.to_string()),
            LoginTokenError::Storage(error) => error.into(),
        }
    }
}
