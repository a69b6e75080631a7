//! Tokens that log in once: who is logged in gets one for another device
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#token-based)).
//!
//! A token is `hlt_` + a secret + the user's name. So its row lies in the user's lane, and the log-in
//! takes it away in the batch that makes the session: it cannot serve twice.

use std::time::Duration;

use hearth_base::{Millis, Secret};
use hearth_schema::{LoginToken, LoginTokens, TokenKey, User, UserNid, Users};
use hearth_store::{Batch, Order, StoreError};
use ruma_common::{OwnedUserId, UserId};

use crate::devices::change_user;
use crate::register::{DeviceRequest, check_device, lane};
use crate::write::Attempts;
use crate::{Accounts, LoggedIn, LoginError, Requester, StorageError};

/// Tokens of a user that may be valid at once.
pub const MAX_LOGIN_TOKENS: usize = 10;
const PREFIX: &str = "hlt_";
/// 256 bits.
const SECRET_CHARS: usize = 43;

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoginTokenError {
    /// The operator does not want them.
    #[error("this server gives out no tokens to log in with")]
    Disabled,
    /// The user has [`MAX_LOGIN_TOKENS`] of them.
    #[error("too many tokens to log in with: use them, or wait until they expire")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for LoginTokenError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl Accounts {
    /// How long a token works that logs in once; `None`: there are none here.
    pub const fn login_token_lifetime(&self) -> Option<Duration> {
        self.settings.login_token_lifetime
    }

    /// A token with which somebody else becomes the requester, once, and how long it works. Whether the
    /// user wants that is for the caller to ask (user-interactive authentication).
    ///
    /// # Errors
    /// If there is none.
    pub async fn create_login_token(
        &self,
        requester: &Requester,
    ) -> Result<(Secret<String>, Duration), LoginTokenError> {
        let lifetime = self.settings.login_token_lifetime.ok_or(LoginTokenError::Disabled)?;
        let secret = self.random.alphanumeric(SECRET_CHARS);
        let token = Secret::new(format!("{PREFIX}{secret}_{}", requester.user_id.localpart()));
        let (user, key) = (requester.user, self.ids.token(token.expose()));
        let mut attempts = Attempts::default();
        loop {
            let (view, now) = (self.view().await?, self.clock.now());
            let row = view.get::<Users>(&(user,)).await?.filter(|row| !row.deactivated);
            // Deactivated after its access token was looked at.
            let row = row.ok_or(LoginTokenError::Disabled)?;
            let mut batch = Batch::new(lane(user));
            // The cap is exact, because each token is made under the check of the user's row.
            let known = view.page::<LoginTokens, _>(&(user,), Order::Ascending, MAX_LOGIN_TOKENS).await?;
            let mut live = known.len();
            for (key, row) in known.into_iter().filter(|(_, row)| Millis(row.expires_at) <= now) {
                batch.check::<LoginTokens>(&key, Some(&row));
                batch.delete::<LoginTokens>(&key);
                live -= 1;
            }
            if live >= MAX_LOGIN_TOKENS {
                return Err(LoginTokenError::TooMany);
            }
            change_user(&mut batch, user, &row, row.clone());
            batch.put::<LoginTokens>(&(user, key), &LoginToken { expires_at: now.plus(lifetime).0 });
            if attempts.commit(self, batch).await?.is_some() {
                return Ok((token, lifetime));
            }
        }
    }

    /// Logs in with a token of [`Self::create_login_token`], which is spent then.
    ///
    /// # Errors
    /// If nobody was logged in. A token that was refused may still be good, unless it was spent.
    pub async fn login_token(&self, token: &str, device: DeviceRequest) -> Result<LoggedIn, LoginError> {
        check_device(&device).map_err(LoginError::InvalidDevice)?;
        let user_id = self.user_of_login_token(token).ok_or(LoginError::Forbidden)?;
        let user = self.ids.user(&user_id);
        let key: (UserNid, TokenKey) = (user, self.ids.token(token));
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let stored = view.get::<LoginTokens>(&key).await?.ok_or(LoginError::Forbidden)?;
            if Millis(stored.expires_at) <= self.clock.now() || self.settings.login_token_lifetime.is_none() {
                return Err(LoginError::Forbidden);
            }
            let row = view.get::<Users>(&(user,)).await?.filter(|row| !row.deactivated);
            let row = row.ok_or(LoginError::Forbidden)?;
            if row.moderation.locked {
                return Err(LoginError::Locked);
            }
            let plan = self.plan_session(&view, &user_id, &device).await?;
            let mut batch = plan.batch;
            change_user(&mut batch, user, &row, User { ..row.clone() });
            batch.check::<LoginTokens>(&key, Some(&stored));
            batch.delete::<LoginTokens>(&key);
            if attempts.commit_revoking(self, batch, plan.revoked).await?.is_some() {
                return Ok(LoggedIn { user_id, session: plan.session });
            }
        }
    }

    /// Whose token this would be.
    fn user_of_login_token(&self, token: &str) -> Option<OwnedUserId> {
        // More than a user ID may have: no need to copy it.
        if token.len() > PREFIX.len() + SECRET_CHARS + 256 {
            return None;
        }
        let (secret, localpart) = token.strip_prefix(PREFIX)?.split_once('_')?;
        if secret.len() != SECRET_CHARS || localpart.contains(':') {
            return None;
        }
        UserId::parse(format!("@{localpart}:{}", self.server_name)).ok()
    }
}
