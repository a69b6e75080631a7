//! Whose token is this: the question of every request.
//!
//! The first look-up reads the token's row and the device's, which must name each other; the answer
//! is kept in memory. A token that is taken away must not come back through a look-up that read
//! before the commit and answered after it: therefore each look-up remembers the cache's epoch, each
//! revocation moves the epoch, and a look-up of an older epoch is answered but not kept.

use std::sync::Arc;

use hearth_schema::{AccessTokens, Devices, TokenKey, UserNid};
use hearth_store::StoreError;
use moka::sync::Cache;
use parking_lot::Mutex;
use ruma_common::{OwnedDeviceId, OwnedUserId};

use crate::error::damaged;
use crate::{Accounts, token};

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user's ID.
    pub user_id: OwnedUserId,
    /// The same as a number.
    pub user: UserNid,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// The hash of the token that was shown.
    pub token: TokenKey,
}

/// Requesters by token.
pub(crate) struct SessionCache {
    by_token: Cache<TokenKey, Arc<Requester>>,
    epoch: Mutex<u64>,
}

impl SessionCache {
    pub(crate) fn new(capacity: u64) -> Self {
        Self { by_token: Cache::new(capacity), epoch: Mutex::new(0) }
    }

    fn epoch(&self) -> u64 {
        *self.epoch.lock()
    }

    /// Keeps what was read after `epoch` was, unless something has been revoked since.
    fn keep(&self, epoch: u64, requester: &Requester) {
        let now = self.epoch.lock();
        if *now == epoch {
            self.by_token.insert(requester.token, Arc::new(requester.clone()));
        }
    }

    /// To be called when the rows are gone and before anybody is told.
    pub(crate) fn forget(&self, tokens: &[TokenKey]) {
        // The epoch first: a look-up that is not kept because of it is what makes the second step final.
        *self.epoch.lock() += 1;
        for token in tokens {
            self.by_token.invalidate(token);
        }
    }
}

impl Accounts {
    /// Who `token` speaks for; `None`: nobody (any more).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Requester>, StoreError> {
        let key = self.ids.token(token);
        if let Some(known) = self.sessions.by_token.get(&key) {
            return Ok(Some(Requester::clone(&known)));
        }
        if !token::is_well_formed(token) {
            return Ok(None);
        }
        let epoch = self.sessions.epoch();
        let requester = self.look_up(key).await?;
        if let Some(requester) = &requester {
            self.sessions.keep(epoch, requester);
        }
        Ok(requester)
    }

    async fn look_up(&self, token: TokenKey) -> Result<Option<Requester>, StoreError> {
        let view = self.view().await?;
        let Some(row) = view.get::<AccessTokens>(&(token,)).await? else { return Ok(None) };
        let user_id = OwnedUserId::try_from(row.user_id).map_err(|error| damaged("AccessTokens", error))?;
        let user = self.ids.user(&user_id);
        // The device's row decides: a token's row lives in another lane and may outlast it for a moment.
        let device = view.get::<Devices>(&(user, row.device_id.clone())).await?;
        if device.is_none_or(|device| device.token != Some(token)) {
            return Ok(None);
        }
        Ok(Some(Requester { user_id, user, device_id: row.device_id.into(), token }))
    }
}
