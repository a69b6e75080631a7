//! Pushers: where and how a user wants to be notified
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#push-notifications)).
//!
//! A pusher belongs to the device that set it and goes with it. Nothing is pushed yet: this keeps what
//! applications ask for.

use std::collections::BTreeSet;

use hearth_schema::{Devices, PushKeys, Pusher, Pushers, TokenKey, UserNid, Users};
use hearth_store::{Batch, Order, StoreError, View};
use serde_json::{Map, Value};
use url::Url;

use crate::devices::change_user;
use crate::error::damaged;
use crate::register::lane;
use crate::write::{Attempts, row_of};
use crate::{Accounts, Requester, StorageError};

/// Pushers that a user may have.
pub const MAX_PUSHERS: usize = 50;
/// Users that may share one push key.
const MAX_SHARING: usize = 50;
const MAX_PUSHKEY_BYTES: usize = 512;
const MAX_APP_ID_CHARS: usize = 64;
const MAX_TEXT_BYTES: usize = 512;
const MAX_DATA_BYTES: usize = 4096;
/// The path of every push gateway.
const GATEWAY: &str = "/_matrix/push/v1/notify";

/// A pusher to set.
#[derive(Clone, Debug)]
pub struct NewPusher {
    /// Identifies the application: 1 to 64 characters.
    pub app_id: String,
    /// Identifies the pusher within the application: 1 to 512 bytes.
    pub pushkey: String,
    /// What is shown of it. At most 512 bytes.
    pub app_display_name: String,
    /// What is shown of its device. At most 512 bytes.
    pub device_display_name: String,
    /// Which of the device's own rules it follows. At most 512 bytes.
    pub profile_tag: Option<String>,
    /// The language of its texts. At most 512 bytes.
    pub lang: String,
    /// For the gateway; `url` says where that is: HTTPS, and the path `/_matrix/push/v1/notify`. At most 4096 bytes.
    pub data: Map<String, Value>,
}

/// A pusher as its user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PusherInfo {
    /// Identifies the application.
    pub app_id: String,
    /// Identifies the pusher within the application.
    pub pushkey: String,
    /// All else.
    pub pusher: Pusher,
    /// `pusher.data`, read.
    pub data: Map<String, Value>,
}

/// What becomes of other users' pushers with the same application and push key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// They stay.
    Append,
    /// They are removed.
    Replace,
}

/// Why a pusher was not set.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PusherError {
    /// Something of it is too long, empty, or no push gateway.
    #[error("{0}")]
    Invalid(&'static str),
    /// The user has [`MAX_PUSHERS`], or too many users share the push key.
    #[error("too many pushers")]
    TooMany,
    /// The device that sets it has been logged out meanwhile.
    #[error("the device has been logged out")]
    NoDevice,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for PusherError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

impl NewPusher {
    fn check(&self) -> Result<(), PusherError> {
        check_name(&self.app_id, &self.pushkey)?;
        let shown = [&self.app_display_name, &self.device_display_name, &self.lang];
        if shown.into_iter().chain(&self.profile_tag).any(|text| text.len() > MAX_TEXT_BYTES) {
            return Err(PusherError::Invalid("names, tags and languages have at most 512 bytes"));
        }
        let url = self.data.get("url").and_then(Value::as_str).and_then(|url| Url::parse(url).ok());
        let gateway = url.filter(|url| url.scheme() == "https" && url.path() == GATEWAY && url.host_str().is_some());
        gateway.map(|_| ()).ok_or(PusherError::Invalid("data.url must be https://…/_matrix/push/v1/notify"))
    }
}

fn check_name(app_id: &str, pushkey: &str) -> Result<(), PusherError> {
    if app_id.is_empty() || app_id.chars().count() > MAX_APP_ID_CHARS {
        return Err(PusherError::Invalid("app_id has 1 to 64 characters"));
    }
    if pushkey.is_empty() || pushkey.len() > MAX_PUSHKEY_BYTES {
        return Err(PusherError::Invalid("pushkey has 1 to 512 bytes"));
    }
    Ok(())
}

impl Accounts {
    /// The pushers of `user`, by application and push key.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn pushers(&self, user: UserNid) -> Result<Vec<PusherInfo>, StoreError> {
        let rows = rows_of(&self.view().await?, user).await?;
        rows.into_iter()
            .map(|((_, app_id, pushkey), pusher)| {
                let data = serde_json::from_str(&pusher.data).map_err(|error| damaged("Pushers", error))?;
                Ok(PusherInfo { app_id, pushkey, pusher, data })
            })
            .collect()
    }

    /// Sets a pusher for the device of `requester`, or changes it.
    ///
    /// Two users who replace each other's pusher at the same moment may both keep theirs.
    ///
    /// # Errors
    /// If nothing has changed.
    pub async fn set_pusher(&self, requester: &Requester, new: NewPusher, sharing: Sharing) -> Result<(), PusherError> {
        new.check()?;
        let data = serde_json::to_string(&new.data).map_err(|error| damaged("Pushers", error))?;
        if data.len() > MAX_DATA_BYTES {
            return Err(PusherError::Invalid("data has at most 4096 bytes"));
        }
        let user = requester.user;
        let device_id = requester.client.device_id().ok_or(PusherError::NoDevice)?;
        let shared = self.push_key(&new.app_id, &new.pushkey);
        let key = (user, new.app_id, new.pushkey);
        let mut pusher = Pusher {
            kind: "http".to_owned(),
            app_display_name: new.app_display_name,
            device_display_name: new.device_display_name,
            profile_tag: new.profile_tag,
            lang: new.lang,
            data,
            device_id: device_id.to_string(),
            created_at: self.clock.now().0,
        };
        let mut attempts = Attempts::default();
        loop {
            let view = self.view().await?;
            let mut batch = Batch::new(lane(user));
            let device_key = (user, pusher.device_id.clone());
            let device = view.get::<Devices>(&device_key).await?.ok_or(PusherError::NoDevice)?;
            batch.check::<Devices>(&device_key, Some(&device));
            let old = view.get::<Pushers>(&key).await?;
            match &old {
                Some(old) => pusher.created_at = old.created_at,
                None => count_another(&view, &mut batch, user).await?,
            }
            batch.check::<Pushers>(&key, old.as_ref());
            batch.put::<Pushers>(&key, &pusher);
            share(&view, &mut batch, (shared, &key), sharing).await?;
            if attempts.commit(self, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Removes a pusher of `user`; one that is not there is no error.
    ///
    /// # Errors
    /// If nothing has changed.
    pub async fn remove_pusher(&self, user: UserNid, app_id: &str, pushkey: &str) -> Result<(), PusherError> {
        check_name(app_id, pushkey)?;
        let mut batch = Batch::new(lane(user));
        batch.delete::<Pushers>(&(user, app_id.to_owned(), pushkey.to_owned()));
        batch.delete_elsewhere::<PushKeys>(&(self.push_key(app_id, pushkey), user));
        Attempts::default().commit(self, batch).await?;
        Ok(())
    }

    fn push_key(&self, app_id: &str, pushkey: &str) -> TokenKey {
        self.ids.token(&format!("{app_id}\0{pushkey}"))
    }
}

type Key = (UserNid, String, String);

async fn rows_of(view: &View, user: UserNid) -> Result<Vec<(Key, Pusher)>, StoreError> {
    // The cap is exact, because a new one is counted under the check of the user's row.
    view.page::<Pushers, _>(&(user,), Order::Ascending, MAX_PUSHERS).await
}

async fn count_another(view: &View, batch: &mut Batch, user: UserNid) -> Result<(), PusherError> {
    if rows_of(view, user).await?.len() >= MAX_PUSHERS {
        return Err(PusherError::TooMany);
    }
    let row = row_of(view.get::<Users>(&(user,)).await?, "Users")?;
    change_user(batch, user, &row, row.clone());
    Ok(())
}

async fn share(
    view: &View,
    batch: &mut Batch,
    (shared, key): (TokenKey, &Key),
    sharing: Sharing,
) -> Result<(), PusherError> {
    let rows = view.page::<PushKeys, _>(&(shared,), Order::Ascending, MAX_SHARING + 1).await?;
    let others: Vec<UserNid> = rows.into_iter().map(|((_, user), ())| user).filter(|user| *user != key.0).collect();
    match sharing {
        Sharing::Append if others.len() >= MAX_SHARING => return Err(PusherError::TooMany),
        Sharing::Append => {}
        Sharing::Replace => {
            for user in others {
                batch.delete_elsewhere::<Pushers>(&(user, key.1.clone(), key.2.clone()));
                batch.delete_elsewhere::<PushKeys>(&(shared, user));
            }
        }
    }
    batch.put_elsewhere::<PushKeys>(&(shared, key.0), &());
    Ok(())
}

/// Removes the pushers that `devices` of `user` have set. Their users stay named in `PushKeys`.
///
/// # Errors
/// If the store cannot be read.
pub(crate) async fn remove_pushers_of(
    view: &View,
    batch: &mut Batch,
    user: UserNid,
    devices: &BTreeSet<String>,
) -> Result<(), StoreError> {
    for (key, pusher) in rows_of(view, user).await? {
        if devices.contains(&pusher.device_id) {
            batch.check::<Pushers>(&key, Some(&pusher));
            batch.delete::<Pushers>(&key);
        }
    }
    Ok(())
}
