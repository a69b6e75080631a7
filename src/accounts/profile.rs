//! Profiles of local users: the display name and the avatar, which rooms show, and any other fields
//! ([spec](https://spec.matrix.org/v1.19/client-server-api/#profiles)).

use std::collections::BTreeMap;

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

/// Bytes of a profile as JSON, which must be less.
pub const MAX_PROFILE_BYTES: usize = 64 * 1024;
/// Bytes of a field's name.
const MAX_FIELD_NAME_BYTES: usize = 255;

/// What others see of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Display name.
    pub displayname: Option<String>,
    /// `mxc:` URI of the avatar, as the client sent it.
    pub avatar_url: Option<String>,
    /// Other fields by name, each with its value as JSON.
    pub fields: BTreeMap<String, String>,
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
    /// A field's name is over 255 bytes.
    #[error("the name of a profile field has at most 255 bytes")]
    NameTooLong,
    /// A field's name breaks the spec's grammar.
    #[error("the name of a profile field is namespaced, as in \"org.example.field\"")]
    BadName,
    /// The profile would be over [`MAX_PROFILE_BYTES`].
    #[error("a profile has less than 65536 bytes")]
    TooLarge,
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

    /// Changes a field other than the two above; `None` takes it away. `json` is its value, which the
    /// caller has parsed.
    ///
    /// # Errors
    /// If it is as before.
    pub async fn set_profile_field(
        &self,
        user: UserNid,
        name: &str,
        json: Option<String>,
    ) -> Result<ProfileChange, ProfileError> {
        if name.len() > MAX_FIELD_NAME_BYTES {
            return Err(ProfileError::NameTooLong);
        }
        if !is_field_name(name) {
            return Err(ProfileError::BadName);
        }
        let change = |profile: &mut ProfileRow| match &json {
            Some(json) => drop(profile.fields.insert(name.to_owned(), json.clone())),
            None => drop(profile.fields.remove(name)),
        };
        self.change_profile(user, change).await
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
            // What makes it smaller is welcome in any case.
            let bytes = json_bytes(&after);
            if bytes >= MAX_PROFILE_BYTES && before.as_ref().is_none_or(|before| bytes >= json_bytes(before)) {
                return Err(ProfileError::TooLarge);
            }
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
        Self { displayname: row.displayname, avatar_url: row.avatar_url, fields: row.fields }
    }
}

/// `m.tz`, or any other name with a namespace.
fn is_field_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_lowercase())
            && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte))
    };
    name.contains('.') && name.split('.').all(is_part)
}

/// Bytes of the profile as an answer shows it, braces and commas included.
fn json_bytes(row: &ProfileRow) -> usize {
    let text = |value: &str| serde_json::Value::from(value).to_string().len();
    let displayname = row.displayname.as_deref().map(|name| "displayname".len() + text(name));
    let avatar_url = row.avatar_url.as_deref().map(|url| "avatar_url".len() + text(url));
    let fields = row.fields.iter().map(|(name, json)| name.len() + json.len());
    // Two quotation marks, a colon and a comma each, the last comma being a brace.
    1 + displayname.into_iter().chain(avatar_url).chain(fields).map(|bytes| bytes + 4).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_have_a_namespace() {
        for good in ["m.tz", "org.example.job_title", "us.cloke.msc4175.tz", "a.b-c"] {
            assert!(is_field_name(good), "{good}");
        }
        for bad in ["", "tz", ".tz", "m.", "m..tz", "M.tz", "m.1", "m.t z", "m.tz\"", "m.ü"] {
            assert!(!is_field_name(bad), "{bad}");
        }
    }
}
