//! Making accounts.

use std::collections::BTreeMap;
use std::time::Duration;

use hearth_base::Secret;
use hearth_schema::{
    AccessToken, AccessTokens, AccountKind, Device, Devices, Moderation, ProfileRow, Profiles, RefreshFamilies,
    RefreshFamily, User, UserNid, Users,
};
use hearth_store::{Batch, StoreError};
use ruma_common::{OwnedDeviceId, OwnedUserId};

use crate::names::{self, BadName};
use crate::password::SALT_BYTES;
use crate::pool::PoolError;
use crate::registration_tokens::Reserved;
use crate::write::Attempts;
use crate::{Accounts, LoginError, Registration, Service, StorageError, token};

/// Bytes of a password that are looked at; longer ones are refused.
const MAX_PASSWORD_BYTES: usize = 512;
/// Bytes of a device ID.
const MAX_DEVICE_ID_BYTES: usize = 255;
/// Characters of a device's name.
pub(crate) const MAX_DEVICE_NAME_CHARS: usize = 100;
/// Characters of a name that the server chooses: 10^18 possibilities.
const RANDOM_LOCALPART_CHARS: usize = 12;
const RANDOM_DEVICE_ID_CHARS: usize = 10;

/// What a client says about the device it logs in with.
#[derive(Clone, Debug, Default)]
pub struct DeviceRequest {
    /// The device's ID; `None`: the server chooses one.
    pub device_id: Option<OwnedDeviceId>,
    /// What to call a new device. A known one keeps its name.
    pub display_name: Option<String>,
    /// The client can refresh its access token, which then expires.
    pub refresh: bool,
}

/// A wish for an account.
#[derive(Clone, Debug, Default)]
pub struct NewAccount {
    /// The name without server; `None`: the server chooses one.
    pub localpart: Option<String>,
    /// `None`: nobody can log in by password.
    pub password: Option<Secret<String>>,
    /// The device to log in at once.
    pub device: DeviceRequest,
    /// Do not log in.
    pub inhibit_login: bool,
    /// The token that permits it, where registration needs one.
    pub registration_token: Option<String>,
}

/// What an account gets that no client can wish for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grant {
    pub(crate) kind: AccountKind,
    pub(crate) admin: bool,
    pub(crate) user_type: Option<String>,
    pub(crate) displayname: Option<String>,
    pub(crate) accepted_terms: BTreeMap<String, String>,
}

/// A device that is logged in now.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its ID.
    pub device_id: OwnedDeviceId,
    /// The token to show with each request; it is stored nowhere.
    pub access_token: Secret<String>,
    /// `None`: the access token does not expire.
    pub refresh: Option<Refreshable>,
}

/// How a session goes on when its access token has expired.
#[derive(Clone, Debug)]
pub struct Refreshable {
    /// The token to show to [`Accounts::refresh`]; it is stored nowhere.
    pub token: Secret<String>,
    /// How long the access token works.
    pub expires_in: Duration,
}

/// A new account.
#[derive(Clone, Debug)]
pub struct Registered {
    /// Its ID.
    pub user_id: OwnedUserId,
    /// `None` if that was the wish.
    pub session: Option<Session>,
}

/// Why there is no account.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegisterError {
    /// Somebody has the name, or had it.
    #[error("this name is taken")]
    UserInUse,
    /// The name breaks the grammar of new user IDs.
    #[error("{0}")]
    InvalidUsername(&'static str),
    /// The operator or an application service keeps the name back; for a service: it does not claim it.
    #[error("this name is reserved")]
    Exclusive,
    /// The password is too short or too long.
    #[error("{0}")]
    WeakPassword(String),
    /// The device's ID or name is too long.
    #[error("{0}")]
    InvalidDevice(&'static str),
    /// There are no guests here.
    #[error("guests are not served here")]
    NoGuests,
    /// Nobody can register here.
    #[error("registration is closed")]
    Closed,
    /// A token is needed and this is none, or it has expired or is used up.
    #[error("the registration token is not valid")]
    InvalidToken,
    /// Too many passwords wait to be hashed: try later.
    #[error("the server is busy")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for RegisterError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl From<PoolError> for RegisterError {
    fn from(_: PoolError) -> Self {
        Self::Busy
    }
}

/// Planning a session can fail in these ways only.
impl From<LoginError> for RegisterError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::InvalidDevice(why) => Self::InvalidDevice(why),
            LoginError::TooManyDevices => Self::InvalidDevice("too many devices"),
            LoginError::Storage(error) => Self::Storage(error),
            LoginError::Forbidden | LoginError::Deactivated | LoginError::Locked | LoginError::Busy => Self::Busy,
        }
    }
}

impl From<BadName> for RegisterError {
    fn from(why: BadName) -> Self {
        Self::InvalidUsername(why.reason())
    }
}

impl Accounts {
    /// Whether `localpart` can be registered now; the error says why not.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn is_available(&self, localpart: &str) -> Result<(), RegisterError> {
        let user_id = self.registrable(localpart)?;
        let taken = self.view().await?.get::<Users>(&(self.ids.user(&user_id),)).await?;
        taken.map_or(Ok(()), |_| Err(RegisterError::UserInUse))
    }

    /// Makes an account and, if wished, logs its first device in: one batch.
    ///
    /// A registration token lives in another lane, so one use of it is taken first and given back if
    /// the account does not come about. A crash in between loses a use; it never gives one too many.
    ///
    /// # Errors
    /// If there is no account.
    pub async fn register(&self, account: NewAccount) -> Result<Registered, RegisterError> {
        if self.settings.registration == Registration::Closed {
            return Err(RegisterError::Closed);
        }
        check_device(&account.device).map_err(RegisterError::InvalidDevice)?;
        // What costs nothing is refused before what costs an Argon2.
        if let Some(localpart) = &account.localpart {
            self.is_available(localpart).await?;
        }
        self.check_open(account.registration_token.as_deref()).await?;
        let password_hash = self.hash_wished(&account).await?;
        let reserved = self.reserve_registration_token(account.registration_token.as_deref()).await?;
        let grant = Grant { accepted_terms: self.terms_in_force(), ..Grant::default() };
        let result = self.create(&account, password_hash, grant).await;
        if result.is_err() {
            self.give_back(reserved).await;
        }
        result
    }

    /// The hash of the password that comes with the wish for an account.
    pub(crate) async fn hash_wished(&self, account: &NewAccount) -> Result<Option<String>, RegisterError> {
        match &account.password {
            None => Ok(None),
            Some(password) => Ok(Some(self.hash_new_password(password).await?)),
        }
    }

    pub(crate) async fn create(
        &self,
        account: &NewAccount,
        password_hash: Option<String>,
        grant: Grant,
    ) -> Result<Registered, RegisterError> {
        self.create_for(None, account, password_hash, grant).await
    }

    /// The same for a name that a service claims.
    pub(crate) async fn create_for(
        &self,
        service: Option<&Service>,
        account: &NewAccount,
        password_hash: Option<String>,
        grant: Grant,
    ) -> Result<Registered, RegisterError> {
        let mut attempts = Attempts::default();
        loop {
            let random;
            let localpart = if let Some(localpart) = &account.localpart {
                localpart
            } else {
                random = self.random_localpart();
                &random
            };
            let user_id = match service {
                None => self.registrable(localpart)?,
                Some(service) => self.registrable_by(service, localpart)?,
            };
            let user = self.ids.user(&user_id);
            let row = User {
                user_id: user_id.to_string(),
                password_hash: password_hash.clone(),
                created_at: self.clock.now().0,
                deactivated: false,
                admin: grant.admin,
                next_filter: 0,
                account_data: 0,
                account_data_rows: 0,
                generation: 0,
                kind: grant.kind,
                moderation: Moderation::default(),
                user_type: grant.user_type.clone(),
                accepted_terms: grant.accepted_terms.clone(),
            };
            let mut batch = Batch::new(lane(user));
            batch.check_absent::<Users>(&(user,));
            batch.put::<Users>(&(user,), &row);
            if let Some(displayname) = &grant.displayname {
                let profile = ProfileRow { displayname: Some(displayname.clone()), ..ProfileRow::default() };
                batch.put::<Profiles>(&(user,), &profile);
            }
            let session = (!account.inhibit_login).then(|| self.new_session(&mut batch, &user_id, &account.device));
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(Registered { user_id, session });
            }
            let taken = self.view().await?.get::<Users>(&(user,)).await?.is_some();
            if taken && account.localpart.is_some() {
                return Err(RegisterError::UserInUse);
            }
        }
    }

    /// The hash of a password that somebody chooses now.
    pub(crate) async fn hash_new_password(&self, password: &Secret<String>) -> Result<String, RegisterError> {
        self.check_new_password(password.expose()).map_err(RegisterError::WeakPassword)?;
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt);
        Ok(self.pool.hash(password, salt).await?)
    }

    fn check_new_password(&self, password: &str) -> Result<(), String> {
        let least = self.settings.min_password_chars.max(1);
        if password.chars().take(least).count() < least {
            return Err(format!("a password must have at least {least} characters"));
        }
        check_password_size(password).map_err(str::to_owned)
    }

    /// Adds a device that is not there yet, and its token.
    fn new_session(&self, batch: &mut Batch, user_id: &OwnedUserId, request: &DeviceRequest) -> Session {
        let session = self.choose_session(request);
        let device = Device {
            display_name: request.display_name.clone(),
            token: Some(self.ids.token(session.access_token.expose())),
            created_at: self.clock.now().0,
            refresh: self.first_refresh(&session),
        };
        self.put_session(batch, user_id, &session, &device);
        session
    }

    /// A new token for the device wished for, or for a new one.
    pub(crate) fn choose_session(&self, request: &DeviceRequest) -> Session {
        let random_id = || self.random.alphanumeric(RANDOM_DEVICE_ID_CHARS).to_ascii_uppercase().into();
        Session {
            device_id: request.device_id.clone().unwrap_or_else(random_id),
            access_token: Secret::new(token::generate(&*self.random)),
            refresh: request.refresh.then(|| Refreshable {
                token: Secret::new(token::generate_refresh(&*self.random)),
                expires_in: self.settings.access_token_lifetime,
            }),
        }
    }

    /// Writes `device` with the token of `session`, which it names.
    pub(crate) fn put_session(&self, batch: &mut Batch, user_id: &OwnedUserId, session: &Session, device: &Device) {
        let user = self.ids.user(user_id);
        let device_id = session.device_id.to_string();
        let token = self.ids.token(session.access_token.expose());
        batch.put::<Devices>(&(user, device_id.clone()), device);
        if let Some(refresh) = &device.refresh {
            let family = RefreshFamily { user_id: user_id.to_string(), device_id: device_id.clone() };
            batch.put_elsewhere::<RefreshFamilies>(&(refresh.family,), &family);
        }
        batch.put_elsewhere::<AccessTokens>(&(token,), &AccessToken { user_id: user_id.to_string(), device_id });
    }

    fn registrable(&self, localpart: &str) -> Result<OwnedUserId, RegisterError> {
        let user_id = names::registrable(localpart, &self.server_name)?;
        let reserved = self.settings.reserved_localparts.contains(user_id.localpart())
            || self.services().reserves_user(&user_id, None);
        if reserved { Err(RegisterError::Exclusive) } else { Ok(user_id) }
    }

    /// The same for a service, which registers the users that it claims and no other does alone.
    fn registrable_by(&self, service: &Service, localpart: &str) -> Result<OwnedUserId, RegisterError> {
        let user_id = names::registrable_by_service(localpart, &self.server_name)?;
        // What another service claims includes this one's sender at times; it must have that.
        let of_another = user_id != service.sender() && self.services().reserves_user(&user_id, Some(service));
        let reserved = of_another
            || !service.has_user(&user_id)
            || self.settings.reserved_localparts.contains(user_id.localpart());
        if reserved { Err(RegisterError::Exclusive) } else { Ok(user_id) }
    }

    fn random_localpart(&self) -> String {
        self.random.alphanumeric(RANDOM_LOCALPART_CHARS).to_ascii_lowercase()
    }

    /// Whether somebody with this token may register.
    pub(crate) async fn check_open(&self, token: Option<&str>) -> Result<(), RegisterError> {
        match (self.settings.registration, token) {
            (Registration::Closed, _) => Err(RegisterError::Closed),
            (Registration::Token, None) => Err(RegisterError::InvalidToken),
            (Registration::Token, Some(token)) if !self.registration_token_is_valid(token).await? => {
                Err(RegisterError::InvalidToken)
            }
            _ => Ok(()),
        }
    }

    pub(crate) async fn reserve_registration_token(
        &self,
        token: Option<&str>,
    ) -> Result<Option<Reserved>, RegisterError> {
        match (self.settings.registration, token) {
            (Registration::Token, Some(token)) => {
                self.reserve(token).await?.ok_or(RegisterError::InvalidToken).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// The lane of a user's rows.
pub(crate) fn lane(user: UserNid) -> hearth_store::Lane {
    hearth_store::Owner::lane(&user)
}

/// Limits of what a client may call a device.
pub(crate) fn check_device(request: &DeviceRequest) -> Result<(), &'static str> {
    let id = request.device_id.as_ref().map(|id| id.as_str());
    if id.is_some_and(|id| !is_device_id(id)) {
        return Err("a device ID has 1 to 255 bytes, of which none is zero");
    }
    check_device_name(request.display_name.as_deref())
}

/// Whether a device can be called so. What begins with a zero byte is the name of a client that has no
/// device (see [`crate::Client::name`]).
pub(crate) fn is_device_id(id: &str) -> bool {
    (1..=MAX_DEVICE_ID_BYTES).contains(&id.len()) && !id.contains('\0')
}

/// Limits of a device's name.
pub(crate) fn check_device_name(name: Option<&str>) -> Result<(), &'static str> {
    match name {
        Some(name) if name.chars().nth(MAX_DEVICE_NAME_CHARS).is_some() => {
            Err("a device's name has at most 100 characters")
        }
        _ => Ok(()),
    }
}

/// Limits that hold for old passwords, too, so that nobody makes us hash a megabyte.
pub(crate) const fn check_password_size(password: &str) -> Result<(), &'static str> {
    if password.len() > MAX_PASSWORD_BYTES { Err("a password has at most 512 bytes") } else { Ok(()) }
}
