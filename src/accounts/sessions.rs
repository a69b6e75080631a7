//! Whose token is this: the question of every request.
//!
//! The first look-up reads the token's row and the device's, which must name each other, and the
//! account's, which says what it may do; the answer
//! is kept in memory. A token that is taken away must not come back through a look-up that read
//! before the commit and answered after it: therefore each look-up remembers the cache's epoch, each
//! revocation moves the epoch, and a look-up of an older epoch is answered but not kept.

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use hearth_base::Millis;
use hearth_schema::{AccessTokens, Device, Devices, NidHasher, TokenKey, UserNid, Users};
use hearth_store::StoreError;
use parking_lot::Mutex;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use ruma_common::OwnedUserId;

use crate::error::damaged;
use crate::refresh::access_tokens;
use crate::session_watch::Watched;
use crate::write::row_of;
use crate::{Accounts, Client, Standing, token};

/// Tokens that the cache makes room for at once; more grow it.
const EXPECTED: usize = 256;

/// Who makes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user's ID.
    pub user_id: OwnedUserId,
    /// The same as a number.
    pub user: UserNid,
    /// What it is made with: a device, or a service.
    pub client: Client,
    /// The hash of the token that was shown.
    pub token: TokenKey,
    /// What the account may do.
    pub standing: Standing,
}

/// What a token is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// It speaks for somebody.
    Live(Requester),
    /// It has expired, and can be refreshed.
    Expired,
    /// It speaks for nobody (any more).
    Unknown,
}

/// Whom a token speaks for, and until when.
#[derive(Clone)]
struct Known {
    requester: Requester,
    expires_at: Option<Millis>,
}

impl Known {
    fn state(&self, now: Millis) -> TokenState {
        if self.expires_at.is_some_and(|end| end <= now) {
            TokenState::Expired
        } else {
            TokenState::Live(self.requester.clone())
        }
    }
}

/// Requesters by token.
pub(crate) struct SessionCache {
    by_token: Cache<TokenKey, Arc<Known>, UnitWeighter, BuildHasherDefault<NidHasher>>,
    epoch: Mutex<u64>,
    /// Who waits with a token.
    pub(crate) watched: Watched,
}

impl SessionCache {
    pub(crate) fn new(capacity: u64) -> Self {
        let by_token =
            Cache::with(EXPECTED, capacity, UnitWeighter, BuildHasherDefault::default(), DefaultLifecycle::default());
        Self { by_token, epoch: Mutex::new(0), watched: Watched::default() }
    }

    fn epoch(&self) -> u64 {
        *self.epoch.lock()
    }

    /// Keeps what was read after `epoch` was, unless something has been revoked since.
    fn keep(&self, epoch: u64, known: &Known) {
        let now = self.epoch.lock();
        if *now == epoch {
            self.by_token.insert(known.requester.token, Arc::new(known.clone()));
        }
    }

    /// To be called when the rows are gone and before anybody is told.
    pub(crate) fn forget(&self, tokens: &[TokenKey]) {
        // The epoch first: a look-up that is not kept because of it is what makes the second step final.
        *self.epoch.lock() += 1;
        for token in tokens {
            self.by_token.remove(token);
        }
    }

    /// The same for all tokens.
    pub(crate) fn forget_all(&self) {
        *self.epoch.lock() += 1;
        self.by_token.clear();
    }
}

impl Accounts {
    /// Who `token` speaks for; `None`: nobody (any more).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn authenticate(&self, token: &str) -> Result<Option<Requester>, StoreError> {
        Ok(match self.token_state(token).await? {
            TokenState::Live(requester) => Some(requester),
            TokenState::Expired | TokenState::Unknown => None,
        })
    }

    /// The same, telling a token that can be refreshed from one that is nobody's.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn token_state(&self, token: &str) -> Result<TokenState, StoreError> {
        let key = self.ids.token(token);
        if let Some(known) = self.sessions.by_token.get(&key) {
            return Ok(known.state(self.clock.now()));
        }
        if !token::is_well_formed(token) {
            return Ok(TokenState::Unknown);
        }
        let epoch = self.sessions.epoch();
        // Boxed, because it is rare.
        let Some((known, device)) = Box::pin(self.look_up(key)).await? else { return Ok(TokenState::Unknown) };
        let state = known.state(self.clock.now());
        if matches!(state, TokenState::Live(_)) && Box::pin(self.is_settled(&known.requester, &device)).await {
            self.sessions.keep(epoch, &known);
        }
        Ok(state)
    }

    /// Whether `token` speaks for somebody, expired or not.
    pub(crate) async fn is_known(&self, token: TokenKey) -> Result<bool, StoreError> {
        let known = self.sessions.by_token.contains_key(&token) || self.services.get(token).is_some();
        // What is rare is boxed: a long poll would hold the place for it as long as it waits.
        Ok(known || Box::pin(self.look_up(token)).await?.is_some())
    }

    async fn look_up(&self, token: TokenKey) -> Result<Option<(Known, Device)>, StoreError> {
        let view = self.view().await?;
        let Some(row) = view.get::<AccessTokens>(&(token,)).await? else { return Ok(None) };
        let user_id = OwnedUserId::try_from(row.user_id).map_err(|error| damaged("AccessTokens", error))?;
        let user = self.ids.user(&user_id);
        // The device's row decides: a token's row lives in another lane and may outlast it for a moment.
        let device = view.get::<Devices>(&(user, row.device_id.clone())).await?;
        let Some(device) = device.filter(|device| access_tokens(device).any(|own| own == token)) else {
            return Ok(None);
        };
        let expires_at = device.refresh.as_ref().map(|refresh| match &refresh.spent {
            Some(spent) if device.token != Some(token) => Millis(spent.access_expires_at),
            _ => Millis(refresh.expires_at),
        });
        let account = row_of(view.get::<Users>(&(user,)).await?, "Users")?;
        let standing = self.standing(&account);
        let requester = Requester { user_id, user, client: Client::Device(row.device_id.into()), token, standing };
        Ok(Some((Known { requester, expires_at }, device)))
    }

    /// Whether nothing remains to be done at a use of the token. The first use of a new one ends the
    /// one before; if that cannot be stored now, the request goes on and the next use tries again.
    async fn is_settled(&self, requester: &Requester, device: &Device) -> bool {
        let spent = device.refresh.as_ref().and_then(|refresh| refresh.spent.as_ref());
        let Some(old) = spent.and_then(|spent| spent.access) else { return true };
        if device.token != Some(requester.token) {
            return true;
        }
        let key = (requester.user, requester.client.name().to_string());
        self.end_predecessor(&key, device, old).await.unwrap_or_else(|error| {
            tracing::warn!(%error, user_id = %requester.user_id, "a refreshed access token could not be ended");
            false
        })
    }
}
