//! Registration by whoever knows a secret of the operator: for scripts that make accounts, also of
//! administrators, also where nobody else may register. The protocol is that of Synapse's
//! [admin API](https://element-hq.github.io/synapse/latest/admin_api/register_api.html).
//!
//! The secret itself never travels: the request carries an HMAC over a nonce of this server, which
//! serves once and for a minute, so that a request that somebody has seen is worth nothing.

use std::collections::VecDeque;
use std::time::Duration;

use hearth_base::{Millis, Secret};
use hmac::{Hmac, KeyInit, Mac};
use parking_lot::Mutex;
use sha1::Sha1;

use crate::register::{DeviceRequest, Grant, NewAccount, RegisterError, Registered};
use crate::{Accounts, StorageError};

/// How long a nonce serves.
const NONCE_LIFETIME: Duration = Duration::from_secs(60);
/// Nonces that are remembered; the oldest makes room.
const MAX_NONCES: usize = 1000;
/// 190 random bits.
const NONCE_CHARS: usize = 32;
/// Bytes of a secret at the least: a shorter one could be guessed from one request.
const MIN_SECRET_BYTES: usize = 8;
/// Bytes of an account's type.
const MAX_USER_TYPE_BYTES: usize = 64;

/// Nonces that were given out and not used, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Nonces(Mutex<VecDeque<(String, Millis)>>);

impl Nonces {
    fn add(&self, nonce: String, now: Millis) {
        let mut all = self.0.lock();
        while all.len() >= MAX_NONCES {
            all.pop_front();
        }
        all.push_back((nonce, now));
    }

    /// Takes a nonce away; `false`: it was not there, or for too long.
    fn take(&self, nonce: &str, now: Millis) -> bool {
        let mut all = self.0.lock();
        all.retain(|(_, at)| now.since(*at) < NONCE_LIFETIME);
        let place = all.iter().position(|(known, _)| known == nonce);
        place.and_then(|place| all.remove(place)).is_some()
    }
}

/// A request of somebody who knows the secret.
#[derive(Clone, Debug)]
pub struct SharedSecretRequest {
    /// One of [`Accounts::shared_secret_nonce`].
    pub nonce: String,
    /// The name without server.
    pub localpart: String,
    /// The password.
    pub password: Secret<String>,
    /// Whether the account becomes an administrator's.
    pub admin: crate::Admin,
    /// What the operator's program calls the account.
    pub user_type: Option<String>,
    /// The display name to begin with.
    pub displayname: Option<String>,
    /// Do not log in.
    pub inhibit_login: bool,
    /// HMAC-SHA1 in hexadecimal digits.
    pub mac: String,
}

/// Why there is no account.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SharedSecretError {
    /// The operator has set no secret.
    #[error("there is no shared secret")]
    Disabled,
    /// The nonce is unknown, used or too old.
    #[error("unrecognised nonce")]
    UnknownNonce,
    /// Who asks does not know the secret.
    #[error("the HMAC is wrong")]
    WrongMac,
    /// A value is too long, or holds a zero byte, which the HMAC's format excludes.
    #[error("{0}")]
    BadValue(&'static str),
    /// As for everybody.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl From<StorageError> for SharedSecretError {
    fn from(error: StorageError) -> Self {
        Self::Register(error.into())
    }
}

/// Whether `secret` could be the operator's.
pub(crate) fn is_secret(secret: &Secret<String>) -> bool {
    secret.expose().len() >= MIN_SECRET_BYTES
}

impl Accounts {
    /// A nonce for [`Self::register_with_secret`]; `None`: the operator has set no secret.
    pub fn shared_secret_nonce(&self) -> Option<String> {
        self.settings.shared_secret.as_ref()?;
        let nonce = self.random.alphanumeric(NONCE_CHARS);
        self.nonces.add(nonce.clone(), self.clock.now());
        Some(nonce)
    }

    /// Makes an account for somebody who knows the secret, whoever else may register.
    ///
    /// # Errors
    /// If there is none. The nonce is spent unless it was unknown.
    pub async fn register_with_secret(&self, request: SharedSecretRequest) -> Result<Registered, SharedSecretError> {
        let secret = self.settings.shared_secret.as_ref().ok_or(SharedSecretError::Disabled)?;
        if !self.nonces.take(&request.nonce, self.clock.now()) {
            return Err(SharedSecretError::UnknownNonce);
        }
        check(&request).map_err(SharedSecretError::BadValue)?;
        if !is_signed(&request, secret) {
            return Err(SharedSecretError::WrongMac);
        }
        self.is_available(&request.localpart).await?;
        let account = NewAccount {
            localpart: Some(request.localpart),
            password: Some(request.password),
            device: DeviceRequest::default(),
            inhibit_login: request.inhibit_login,
            registration_token: None,
        };
        let grant = Grant {
            admin: request.admin == crate::Admin::Yes,
            user_type: request.user_type,
            displayname: request.displayname.filter(|name| !name.is_empty()),
            ..Grant::default()
        };
        let password_hash = self.hash_wished(&account).await?;
        Ok(self.create(&account, password_hash, grant).await?)
    }
}

fn check(request: &SharedSecretRequest) -> Result<(), &'static str> {
    let user_type = request.user_type.as_deref().unwrap_or_default();
    if [request.localpart.as_str(), request.password.expose(), user_type].iter().any(|text| text.contains('\0')) {
        return Err("no value may hold a zero byte");
    }
    if user_type.len() > MAX_USER_TYPE_BYTES {
        return Err("a user type has at most 64 bytes");
    }
    let name = request.displayname.as_deref().unwrap_or_default();
    if name.chars().nth(crate::MAX_DISPLAYNAME_CHARS).is_some() {
        return Err("a display name has at most 256 characters");
    }
    Ok(())
}

/// Compares in constant time.
fn is_signed(request: &SharedSecretRequest, secret: &Secret<String>) -> bool {
    let Some(given) = from_hex(&request.mac) else { return false };
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.expose().as_bytes()) else { return false };
    let admin = if request.admin == crate::Admin::Yes { "admin" } else { "notadmin" };
    let parts = [request.nonce.as_str(), &request.localpart, request.password.expose(), admin];
    mac.update(parts.join("\0").as_bytes());
    if let Some(user_type) = &request.user_type {
        mac.update(b"\0");
        mac.update(user_type.as_bytes());
    }
    mac.verify_slice(&given).is_ok()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}
