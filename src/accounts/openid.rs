//! OpenID tokens: a service that a user wants to use learns from this server who the user is, and gets
//! no access to the account ([spec](https://spec.matrix.org/v1.19/client-server-api/#openid)).
//!
//! A token is `hro_` + when it expires + the user's name under the store's own seal. So nothing is
//! stored for it, and nobody can fill the store with them.

use std::time::Duration;

use hearth_base::{Millis, Secret};
use hearth_schema::Users;
use hearth_store::StoreError;
use ruma_common::{OwnedUserId, UserId};
use subtle::ConstantTimeEq;

use crate::Accounts;

/// How long a token works.
pub const OPENID_LIFETIME: Duration = Duration::from_secs(3600);
const PREFIX: &str = "hro_";

impl Accounts {
    /// A token that says who `user` is, for [`OPENID_LIFETIME`].
    pub fn openid_token(&self, user: &UserId) -> Secret<String> {
        let expires_at = self.clock.now().plus(OPENID_LIFETIME);
        let seal = self.openid_seal(expires_at, user);
        Secret::new(format!("{PREFIX}{seal}_{}_{}", expires_at.0, user.localpart()))
    }

    /// Whose OpenID token this is; `None`: nobody's (any more).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn openid_user(&self, token: &str) -> Result<Option<OwnedUserId>, StoreError> {
        let Some((expires_at, user, seal)) = self.read_openid_token(token) else { return Ok(None) };
        let sealed = self.openid_seal(expires_at, &user);
        let is_ours = bool::from(sealed.as_bytes().ct_eq(seal.as_bytes()));
        if !is_ours || self.clock.now() >= expires_at {
            return Ok(None);
        }
        let row = self.view().await?.get::<Users>(&(self.ids.user(&user),)).await?;
        Ok(row.filter(|row| !row.deactivated && !row.moderation.locked).map(|_| user))
    }

    fn read_openid_token<'a>(&self, token: &'a str) -> Option<(Millis, OwnedUserId, &'a str)> {
        let mut parts = token.strip_prefix(PREFIX)?.splitn(3, '_');
        let (seal, expires_at, localpart) = (parts.next()?, parts.next()?, parts.next()?);
        let user = UserId::parse(format!("@{localpart}:{}", self.server_name)).ok()?;
        Some((Millis(expires_at.parse().ok()?), user, seal))
    }

    fn openid_seal(&self, expires_at: Millis, user: &UserId) -> String {
        self.ids.seal(&format!("openid {} {user}", expires_at.0))
    }
}
