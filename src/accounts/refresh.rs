//! Refresh tokens ([spec](https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens)).
//!
//! The problem: an answer with a new pair of tokens can get lost, and two programs of one device can
//! ask at the same moment; neither may end the session. But a refresh token that is shown again later
//! has been stolen, from the one who shows it or by it.
//!
//! The answer. The pair after a refresh token is derived from it and a random nonce in the device's
//! row, so the same pair can be given out again although only hashes are stored: as long as the new
//! access token has not been used, and for [`GRACE`]. The first use of the new access token ends the
//! old one. Any other spent token ends the session. Each step is one batch under a check of the
//! device's row.

use std::time::Duration;

use hearth_base::{Millis, Secret};
use hearth_schema::{
    AccessToken, AccessTokens, Device, Devices, Refresh, RefreshFamilies, SpentRefresh, TokenKey, UserNid,
};
use hearth_store::{Batch, StoreError};
use ruma_common::OwnedUserId;

use crate::error::damaged;
use crate::register::{Refreshable, Session, lane};
use crate::write::Attempts;
use crate::{Accounts, StorageError, token};

/// How long a spent refresh token gives the same pair again, whatever has been used since.
const GRACE: Duration = Duration::from_secs(10);
/// Bytes of the nonce that successors are derived with.
const NONCE_BYTES: usize = 32;

/// Why there are no new tokens.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RefreshError {
    /// This is no refresh token of any device.
    #[error("the refresh token is not known")]
    Unknown,
    /// The token was spent, which ended the session; the device is still there to log in again on.
    #[error("the refresh token has already been used")]
    Spent,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for RefreshError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

/// What a refresh token that belongs to a family is.
enum Shown {
    /// The one to be shown next.
    Current,
    /// The one before, whose successors may be given out again.
    Again { nonce: [u8; NONCE_BYTES] },
    /// Spent.
    Reused,
}

impl Accounts {
    /// Gives the device that `token` belongs to a new pair of tokens.
    ///
    /// # Errors
    /// If there is none.
    pub async fn refresh(&self, token: &str) -> Result<Session, RefreshError> {
        let family = self.ids.token(token::family(token).ok_or(RefreshError::Unknown)?);
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let row = view.get::<RefreshFamilies>(&(family,)).await?.ok_or(RefreshError::Unknown)?;
            let user_id = OwnedUserId::try_from(row.user_id).map_err(|error| damaged("RefreshFamilies", error))?;
            let key = (self.ids.user(&user_id), row.device_id);
            let device = view.get::<Devices>(&key).await?.ok_or(RefreshError::Unknown)?;
            // The device's row decides: the family's lives in another lane and may outlast it for a moment.
            let refresh = device.refresh.clone().filter(|refresh| refresh.family == family);
            let refresh = refresh.ok_or(RefreshError::Unknown)?;
            if device.token.is_none() {
                return Err(RefreshError::Spent);
            }
            let plan = match judge(&refresh, self.ids.token(token), self.clock.now()) {
                Shown::Reused => {
                    if self.end_session(&mut attempts, &key, device).await? {
                        return Err(RefreshError::Spent);
                    }
                    continue;
                }
                Shown::Current => self.plan_refresh(token, &user_id, (&key, &device), &refresh),
                Shown::Again { nonce } => match self.plan_again(token, (&key, &device), &refresh, &nonce) {
                    (session, None) => return Ok(session),
                    (session, Some(batch)) => Planned { session, batch, revoked: Vec::new() },
                },
            };
            if attempts.commit_superseding(self, plan.batch, plan.revoked).await?.is_some() {
                return Ok(plan.session);
            }
        }
    }

    /// The next pair. The access token before the last one ends now at the latest.
    fn plan_refresh(
        &self,
        token: &str,
        user_id: &OwnedUserId,
        (key, device): (&(UserNid, String), &Device),
        refresh: &Refresh,
    ) -> Planned {
        let mut nonce = [0; NONCE_BYTES];
        self.random.fill(&mut nonce);
        let (access, next) = token::successors(token, &nonce);
        let (access, next) = (self.ids.token(&access), self.ids.token(&next));
        let session = self.successor(token, &nonce, &key.1);
        let now = self.clock.now();
        let spent = SpentRefresh {
            token: refresh.current,
            access: device.token,
            access_expires_at: refresh.expires_at,
            at: now.0,
            nonce,
        };
        let expires_at = now.plus(self.settings.access_token_lifetime).0;
        let renewed = Refresh { family: refresh.family, current: next, expires_at, spent: Some(spent) };
        let mut batch = Batch::new(lane(key.0));
        batch.check::<Devices>(key, Some(device));
        batch.put::<Devices>(key, &Device { token: Some(access), refresh: Some(renewed), ..device.clone() });
        let row = AccessToken { user_id: user_id.to_string(), device_id: key.1.clone() };
        batch.put_elsewhere::<AccessTokens>(&(access,), &row);
        let revoked: Vec<_> = refresh.spent.as_ref().and_then(|spent| spent.access).into_iter().collect();
        for token in &revoked {
            batch.delete_elsewhere::<AccessTokens>(&(*token,));
        }
        Planned { session, batch, revoked }
    }

    /// The same pair again. One that was never used begins its life anew, for which there is a batch.
    fn plan_again(
        &self,
        token: &str,
        (key, device): (&(UserNid, String), &Device),
        refresh: &Refresh,
        nonce: &[u8; NONCE_BYTES],
    ) -> (Session, Option<Batch>) {
        let (now, lifetime) = (self.clock.now(), self.settings.access_token_lifetime);
        let mut session = self.successor(token, nonce, &key.1);
        let left = Millis(refresh.expires_at).since(now);
        if left + GRACE >= lifetime {
            if let Some(refreshable) = &mut session.refresh {
                refreshable.expires_in = left;
            }
            return (session, None);
        }
        let renewed = Refresh { expires_at: now.plus(lifetime).0, ..refresh.clone() };
        let mut batch = Batch::new(lane(key.0));
        batch.check::<Devices>(key, Some(device));
        batch.put::<Devices>(key, &Device { refresh: Some(renewed), ..device.clone() });
        (session, Some(batch))
    }

    fn successor(&self, token: &str, nonce: &[u8; NONCE_BYTES], device_id: &str) -> Session {
        let (access, refresh) = token::successors(token, nonce);
        let expires_in = self.settings.access_token_lifetime;
        Session {
            device_id: device_id.into(),
            access_token: Secret::new(access),
            refresh: Some(Refreshable { token: Secret::new(refresh), expires_in }),
        }
    }

    /// Ends the session of a device, which stays. `false`: somebody else was faster.
    async fn end_session(
        &self,
        attempts: &mut Attempts,
        key: &(UserNid, String),
        device: Device,
    ) -> Result<bool, StorageError> {
        let mut batch = Batch::new(lane(key.0));
        batch.check::<Devices>(key, Some(&device));
        let revoked: Vec<_> = access_tokens(&device).collect();
        for token in &revoked {
            batch.delete_elsewhere::<AccessTokens>(&(*token,));
        }
        // The family is kept, so that its other tokens are known for what they are.
        let refresh = device.refresh.map(|refresh| Refresh { spent: None, ..refresh });
        batch.put::<Devices>(key, &Device { token: None, refresh, ..device });
        Ok(attempts.commit_revoking(self, batch, revoked).await?.is_some())
    }

    /// Ends the access token before `device`'s, because that has been used for the first time.
    /// `false`: the row has changed meanwhile, and the next use will tell.
    pub(crate) async fn end_predecessor(
        &self,
        key: &(UserNid, String),
        device: &Device,
        old: TokenKey,
    ) -> Result<bool, StorageError> {
        let mut used = device.clone();
        if let Some(spent) = used.refresh.as_mut().and_then(|refresh| refresh.spent.as_mut()) {
            spent.access = None;
        }
        let mut batch = Batch::new(lane(key.0));
        batch.check::<Devices>(key, Some(device));
        batch.put::<Devices>(key, &used);
        batch.delete_elsewhere::<AccessTokens>(&(old,));
        Ok(Attempts::default().commit_superseding(self, batch, vec![old]).await?.is_some())
    }

    /// What the row of a device that logs in says of refreshing.
    pub(crate) fn first_refresh(&self, session: &Session) -> Option<Refresh> {
        let Refreshable { token, expires_in } = session.refresh.as_ref()?;
        let family = token::family(token.expose())?;
        Some(Refresh {
            family: self.ids.token(family),
            current: self.ids.token(token.expose()),
            expires_at: self.clock.now().plus(*expires_in).0,
            spent: None,
        })
    }
}

struct Planned {
    session: Session,
    batch: Batch,
    revoked: Vec<TokenKey>,
}

fn judge(refresh: &Refresh, shown: TokenKey, now: Millis) -> Shown {
    if refresh.current == shown {
        return Shown::Current;
    }
    match &refresh.spent {
        Some(spent) if spent.token == shown => {
            let unused = spent.access.is_some();
            if unused || now.since(Millis(spent.at)) < GRACE {
                Shown::Again { nonce: spent.nonce }
            } else {
                Shown::Reused
            }
        }
        _ => Shown::Reused,
    }
}

/// The access tokens that speak for a device: its own, and the one before until that is used.
pub(crate) fn access_tokens(device: &Device) -> impl Iterator<Item = TokenKey> {
    let spent = device.refresh.as_ref().and_then(|refresh| refresh.spent.as_ref());
    device.token.into_iter().chain(spent.and_then(|spent| spent.access))
}

/// Takes the tokens of a device away: gives those that were access tokens.
pub(crate) fn delete_tokens(batch: &mut Batch, device: &Device) -> Vec<TokenKey> {
    if let Some(refresh) = &device.refresh {
        batch.delete_elsewhere::<RefreshFamilies>(&(refresh.family,));
    }
    let tokens: Vec<_> = access_tokens(device).collect();
    for token in &tokens {
        batch.delete_elsewhere::<AccessTokens>(&(*token,));
    }
    tokens
}
