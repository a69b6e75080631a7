//! Profiles of local users.

use hearth_schema::{ProfileRow, Profiles, UserNid, Users};
use hearth_store::{Batch, StoreError};
use ruma_common::UserId;

use crate::register::lane;
use crate::write::Attempts;
use crate::{Accounts, StorageError};

/// Characters of a display name.
pub const MAX_DISPLAYNAME_CHARS: usize = 256;
/// Bytes of an avatar's URI.
pub const MAX_AVATAR_URL_BYTES: usize = 1000;

/// What others see of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Display name.
    pub displayname: Option<String>,
    /// `mxc:` URI of the avatar, as the client sent it.
    pub avatar_url: Option<String>,
}

/// Why a profile was not changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProfileError {
    /// The name is over [`MAX_DISPLAYNAME_CHARS`].
    #[error("a display name has at most 256 characters")]
    DisplaynameTooLong,
    /// The URI is over [`MAX_AVATAR_URL_BYTES`].
    #[error("an avatar's address has at most 1000 bytes")]
    AvatarUrlTooLong,
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl From<StoreError> for ProfileError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.into())
    }
}

/// A profile before and after a change, so that the caller knows whether rooms must be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileChange {
    /// As it was.
    pub before: Profile,
    /// As it is.
    pub after: Profile,
}

impl Accounts {
    /// The profile of a local user; `None`: no such account here (remote users among them).
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn profile(&self, user: &UserId) -> Result<Option<Profile>, StoreError> {
        if !self.is_local(user) {
            return Ok(None);
        }
        let user = self.ids.user(user);
        let view = self.view().await?;
        let mut reads = view.reads();
        let (account, profile) = (reads.get::<Users>(&(user,)), reads.get::<Profiles>(&(user,)));
        let mut found = reads.run().await?;
        let account = found.take(account)?;
        // Who never said anything has an empty profile and no row.
        let profile = found.take(profile)?.map_or_else(Profile::default, Profile::from);
        Ok(account.map(|_| profile))
    }

    /// Changes the display name; `None` and `""` take it away.
    ///
    /// # Errors
    /// If it is as before.
    pub async fn set_displayname(&self, user: UserNid, name: Option<String>) -> Result<ProfileChange, ProfileError> {
        let name = name.filter(|name| !name.is_empty());
        if name.as_ref().is_some_and(|name| name.chars().nth(MAX_DISPLAYNAME_CHARS).is_some()) {
            return Err(ProfileError::DisplaynameTooLong);
        }
        self.change_profile(user, |profile| profile.displayname.clone_from(&name)).await
    }

    /// Changes the avatar; `None` and `""` take it away.
    ///
    /// # Errors
    /// If it is as before.
    pub async fn set_avatar_url(&self, user: UserNid, url: Option<String>) -> Result<ProfileChange, ProfileError> {
        let url = url.filter(|url| !url.is_empty());
        if url.as_ref().is_some_and(|url| url.len() > MAX_AVATAR_URL_BYTES) {
            return Err(ProfileError::AvatarUrlTooLong);
        }
        self.change_profile(user, |profile| profile.avatar_url.clone_from(&url)).await
    }

    async fn change_profile(
        &self,
        user: UserNid,
        change: impl Fn(&mut ProfileRow) + Send + Sync,
    ) -> Result<ProfileChange, ProfileError> {
        let mut attempts = Attempts::default();
        loop {
            let before = self.view().await?.get::<Profiles>(&(user,)).await?;
            // No row means an empty profile.
            let mut after = before.clone().unwrap_or_default();
            change(&mut after);
            let mut batch = Batch::new(lane(user));
            batch.check::<Profiles>(&(user,), before.as_ref());
            batch.put::<Profiles>(&(user,), &after);
            if attempts.commit(self, batch).await?.is_some() {
                let before = before.map_or_else(Profile::default, Profile::from);
                return Ok(ProfileChange { before, after: after.into() });
            }
        }
    }
}

impl From<ProfileRow> for Profile {
    fn from(row: ProfileRow) -> Self {
        Self { displayname: row.displayname, avatar_url: row.avatar_url }
    }
}
