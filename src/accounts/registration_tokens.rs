//! Tokens that permit registering.
//!
//! Only their hashes are stored: whoever makes one sees it once.

use hearth_base::Millis;
use hearth_schema::{RegistrationToken, RegistrationTokens, TokenKey};
use hearth_store::{Batch, Lane, Order, Owner, StoreError};

use crate::write::Attempts;
use crate::{Accounts, StorageError};

/// Characters of a token that the server chooses.
const TOKEN_CHARS: usize = 22;
/// Characters a token may have, as in the
/// [spec](https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration).
const MAX_TOKEN_CHARS: usize = 64;
/// How many tokens a list shows a lane.
const MAX_LISTED: usize = 1000;

/// A wish for a registration token.
#[derive(Clone, Debug, Default)]
pub struct NewRegistrationToken {
    /// The token; `None`: the server chooses one.
    pub token: Option<String>,
    /// How many accounts may be made with it; `None`: without limit.
    pub uses_allowed: Option<u32>,
    /// When it ends.
    pub expires_at: Option<Millis>,
}

/// A registration token without its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrationTokenInfo {
    /// The hash of its text.
    pub key: TokenKey,
    /// How many accounts may be made with it; `None`: without limit.
    pub uses_allowed: Option<u32>,
    /// How many have been made.
    pub used: u32,
    /// When it ends.
    pub expires_at: Option<Millis>,
}

/// Why a registration token was not made.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistrationTokenError {
    /// The wish breaks the spec's grammar.
    #[error("a registration token has 1 to 64 characters out of A-Z a-z 0-9 . _ ~ -")]
    InvalidToken,
    /// There is one with this text.
    #[error("this registration token exists already")]
    Exists,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for RegistrationTokenError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

/// A use that was taken before the account is there.
#[derive(Debug)]
pub(crate) struct Reserved(TokenKey);

impl Accounts {
    /// Makes a registration token and gives its text.
    ///
    /// # Errors
    /// If there is none.
    pub async fn create_registration_token(
        &self,
        wish: NewRegistrationToken,
    ) -> Result<String, RegistrationTokenError> {
        let text = wish.token.unwrap_or_else(|| self.random.alphanumeric(TOKEN_CHARS));
        if !follows_grammar(&text) {
            return Err(RegistrationTokenError::InvalidToken);
        }
        let key = self.registration_key(&text);
        let row = RegistrationToken {
            uses_allowed: wish.uses_allowed,
            used: 0,
            expires_at: wish.expires_at.map(|Millis(at)| at),
        };
        let mut attempts = Attempts::default();
        loop {
            let mut batch = Batch::new(key.0);
            batch.check_absent::<RegistrationTokens>(&key);
            batch.put::<RegistrationTokens>(&key, &row);
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(text);
            }
            if self.view().await?.get::<RegistrationTokens>(&key).await?.is_some() {
                return Err(RegistrationTokenError::Exists);
            }
        }
    }

    /// The registration tokens, at most 1000 of each lane.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn registration_tokens(&self) -> Result<Vec<RegistrationTokenInfo>, StoreError> {
        let view = self.view().await?;
        let mut tokens = Vec::new();
        for lane in Lane::all() {
            let rows = view.page::<RegistrationTokens, _>(&(lane,), Order::Ascending, MAX_LISTED).await?;
            tokens.extend(rows.into_iter().map(|((_, key), row)| RegistrationTokenInfo {
                key,
                uses_allowed: row.uses_allowed,
                used: row.used,
                expires_at: row.expires_at.map(Millis),
            }));
        }
        Ok(tokens)
    }

    /// Ends a registration token; `false`: there is none with this text.
    ///
    /// # Errors
    /// If it is still there.
    pub async fn delete_registration_token(&self, token: &str) -> Result<bool, StorageError> {
        let key = self.registration_key(token);
        let mut attempts = Attempts::default();
        loop {
            let Some(row) = self.view().await?.get::<RegistrationTokens>(&key).await? else { return Ok(false) };
            let mut batch = Batch::new(key.0);
            batch.check::<RegistrationTokens>(&key, Some(&row));
            batch.delete::<RegistrationTokens>(&key);
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(true);
            }
        }
    }

    /// Whether an account could be made with `token` now.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn registration_token_is_valid(&self, token: &str) -> Result<bool, StoreError> {
        if !follows_grammar(token) {
            return Ok(false);
        }
        let row = self.view().await?.get::<RegistrationTokens>(&self.registration_key(token)).await?;
        Ok(row.is_some_and(|row| self.usable(&row)))
    }

    /// Takes one use; `None`: there is none left.
    pub(crate) async fn reserve(&self, token: &str) -> Result<Option<Reserved>, StorageError> {
        let key = self.registration_key(token);
        let mut attempts = Attempts::default();
        loop {
            let row = self.view().await?.get::<RegistrationTokens>(&key).await?;
            let Some(row) = row.filter(|row| self.usable(row)) else { return Ok(None) };
            let mut batch = Batch::new(key.0);
            batch.check::<RegistrationTokens>(&key, Some(&row));
            batch.put::<RegistrationTokens>(&key, &RegistrationToken { used: row.used.saturating_add(1), ..row });
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(Some(Reserved(key.1)));
            }
        }
    }

    /// Gives a use back. If that fails it is lost, which is the safe side and no reason to fail.
    pub(crate) async fn give_back(&self, reserved: Option<Reserved>) {
        if let Some(Reserved(key)) = reserved
            && let Err(error) = self.take_back((key.lane(), key)).await
        {
            tracing::warn!(%error, "a use of a registration token is lost");
        }
    }

    async fn take_back(&self, key: (Lane, TokenKey)) -> Result<(), StorageError> {
        let mut attempts = Attempts::default();
        loop {
            let Some(row) = self.view().await?.get::<RegistrationTokens>(&key).await? else { return Ok(()) };
            let mut batch = Batch::new(key.0);
            batch.check::<RegistrationTokens>(&key, Some(&row));
            batch.put::<RegistrationTokens>(&key, &RegistrationToken { used: row.used.saturating_sub(1), ..row });
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    fn registration_key(&self, token: &str) -> (Lane, TokenKey) {
        let key = self.ids.token(token);
        (key.lane(), key)
    }

    fn usable(&self, row: &RegistrationToken) -> bool {
        row.uses_allowed.is_none_or(|allowed| row.used < allowed)
            && row.expires_at.is_none_or(|end| self.clock.now() < Millis(end))
    }
}

fn follows_grammar(token: &str) -> bool {
    (1..=MAX_TOKEN_CHARS).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte))
}
