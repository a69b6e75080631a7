//! Logging in by password.

use hearth_base::Secret;
use hearth_schema::{Device, Devices, TokenKey, User, UserNid, Users};
use hearth_store::{Batch, Order, StoreError, View};
use ruma_common::OwnedUserId;

use crate::devices::MAX_DEVICES;
use crate::error::damaged;
use crate::names;
use crate::password::{SALT_BYTES, Verdict};
use crate::pool::PoolError;
use crate::refresh::delete_tokens;
use crate::register::{DeviceRequest, Session, check_device, check_password_size, lane};
use crate::write::Attempts;
use crate::{Accounts, StorageError};

/// A device that has logged in.
#[derive(Clone, Debug)]
pub struct LoggedIn {
    /// The full user ID, as the account has it.
    pub user_id: OwnedUserId,
    /// The device and its token.
    pub session: Session,
}

/// Why a log-in failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoginError {
    /// The name or the password is wrong; which of them is nobody's business.
    #[error("wrong user name or password")]
    Forbidden,
    /// The account has been deactivated.
    #[error("this account has been deactivated")]
    Deactivated,
    /// An administrator has locked the account; only who proves to be its user is told.
    #[error("this account has been locked")]
    Locked,
    /// The device's ID or name is too long.
    #[error("{0}")]
    InvalidDevice(&'static str),
    /// The user has as many devices as anybody may have: log one out first.
    #[error("too many devices")]
    TooManyDevices,
    /// Too many passwords wait to be checked: try later.
    #[error("the server is busy")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for LoginError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<PoolError> for LoginError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Busy | PoolError::Stopped => Self::Busy,
            PoolError::Unusable(why) => Self::Storage(damaged("Users", why).into()),
        }
    }
}

/// A user whose password was right, as the row was then.
struct Proven {
    row: User,
    /// To be stored, because the stored one was made with other costs.
    rehashed: Option<String>,
}

impl Accounts {
    /// Logs in as `user`, a localpart or a whole user ID, on a new device or again on a known one,
    /// whose old token then stops working.
    ///
    /// An unknown name costs the same time as a wrong password.
    ///
    /// # Errors
    /// If nobody was logged in.
    pub async fn login_password(
        &self,
        user: &str,
        password: &Secret<String>,
        device: DeviceRequest,
    ) -> Result<LoggedIn, LoginError> {
        check_device(&device).map_err(LoginError::InvalidDevice)?;
        let row = self.find_login(user).await?;
        let mut proven = self.prove(row, password).await?;
        let user_id = OwnedUserId::try_from(proven.row.user_id.as_str()).map_err(|e| damaged("Users", e))?;
        let user = self.ids.user(&user_id);
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let row = view.get::<Users>(&(user,)).await?.ok_or(LoginError::Forbidden)?;
            if row.deactivated || row.password_hash != proven.row.password_hash {
                // Somebody was faster: what was proven no longer counts.
                attempts.missed()?;
                proven = self.prove(Some(row), password).await?;
                continue;
            }
            if row.moderation.locked {
                return Err(LoginError::Locked);
            }
            let plan = self.plan_session(&view, &user_id, &device).await?;
            let mut batch = plan.batch;
            let mut changed = User { generation: row.generation + 1, ..row.clone() };
            if let Some(hash) = &proven.rehashed {
                changed.password_hash = Some(hash.clone());
            }
            batch.check::<Users>(&(user,), Some(&row));
            batch.put::<Users>(&(user,), &changed);
            if attempts.commit_revoking(self, batch, plan.revoked).await?.is_some() {
                return Ok(LoggedIn { user_id, session: plan.session });
            }
        }
    }

    /// Whether `password` is that of `user`, for user-interactive authentication.
    ///
    /// # Errors
    /// If it could not be checked.
    pub(crate) async fn is_password_of(&self, user: UserNid, password: &Secret<String>) -> Result<bool, LoginError> {
        let row = self.view().await?.get::<Users>(&(user,)).await?;
        match self.prove(row, password).await {
            Ok(_) => Ok(true),
            Err(LoginError::Forbidden | LoginError::Deactivated) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The account that somebody who types `user` means.
    async fn find_login(&self, user: &str) -> Result<Option<User>, StoreError> {
        let candidates = names::login_candidates(user, &self.server_name);
        let keys: Vec<_> = candidates.iter().map(|id| (self.ids.user(id),)).collect();
        // With no candidate, too: an impossible name must not answer faster.
        let rows = self.view().await?.get_many::<Users>(&keys).await?;
        Ok(rows.into_iter().flatten().next())
    }

    async fn prove(&self, row: Option<User>, password: &Secret<String>) -> Result<Proven, LoginError> {
        // The same for everybody, so it tells nothing.
        if password.expose().is_empty() || check_password_size(password.expose()).is_err() {
            return Err(LoginError::Forbidden);
        }
        let phc = row.as_ref().filter(|row| !row.deactivated).and_then(|row| row.password_hash.clone());
        let verdict = self.pool.verify(password, phc).await?;
        match row {
            Some(row) if row.deactivated => Err(LoginError::Deactivated),
            Some(row) => match verdict {
                Verdict::Wrong => Err(LoginError::Forbidden),
                Verdict::Correct => Ok(Proven { row, rehashed: None }),
                Verdict::Outdated => {
                    let mut salt = [0; SALT_BYTES];
                    self.random.fill(&mut salt);
                    Ok(Proven { row, rehashed: Some(self.pool.hash(password, salt).await?) })
                }
            },
            None => Err(LoginError::Forbidden),
        }
    }

    /// A batch that gives the device a token. The caller adds its check of the user's row.
    pub(crate) async fn plan_session(
        &self,
        view: &View,
        user_id: &OwnedUserId,
        request: &DeviceRequest,
    ) -> Result<PlannedSession, LoginError> {
        let user = self.ids.user(user_id);
        let session = self.choose_session(request);
        let key = (user, session.device_id.to_string());
        let token = Some(self.ids.token(session.access_token.expose()));
        let known = view.get::<Devices>(&key).await?;
        let mut batch = Batch::new(lane(user));
        batch.check::<Devices>(&key, known.as_ref());
        let refresh = self.first_refresh(&session);
        let (device, revoked) = if let Some(known) = known {
            let revoked = delete_tokens(&mut batch, &known);
            (Device { token, refresh, ..known }, revoked)
        } else {
            let devices = view.page::<Devices, _>(&(user,), Order::Ascending, MAX_DEVICES).await?;
            if devices.len() >= MAX_DEVICES {
                return Err(LoginError::TooManyDevices);
            }
            let display_name = request.display_name.clone();
            (Device { display_name, token, created_at: self.clock.now().0, refresh }, Vec::new())
        };
        self.put_session(&mut batch, user_id, &session, &device);
        Ok(PlannedSession { batch, session, revoked })
    }
}

/// A session that exists once its batch is durable.
pub(crate) struct PlannedSession {
    pub(crate) batch: Batch,
    pub(crate) session: Session,
    /// Tokens that the batch takes away.
    pub(crate) revoked: Vec<TokenKey>,
}
