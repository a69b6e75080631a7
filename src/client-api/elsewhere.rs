//! What clients ask of other servers.
//!
//! What comes from there is shown to clients, so it is shaped here: only known keys, and errors that cannot be taken for
//! this server's own. An answer of another server never says that the client is logged out.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use hearth_base::Millis;
use hearth_peers::{DirectoryAnswer, Peers};
use hearth_rooms::remote::RemoteError;
use http::StatusCode;
use parking_lot::Mutex;
use ruma_common::{OwnedUserId, RoomAliasId, ServerName, UserId};
use serde_json::{Map, Value};

use crate::Api;
use crate::error::ApiError;

/// How long a profile of another server is taken for true.
const PROFILE_AGE: Duration = Duration::from_secs(60);
/// Profiles that are kept.
const MAX_PROFILES: usize = 2_000;
/// Bytes of a profile that is kept.
const MAX_PROFILE_BYTES: usize = 64 * 1024;

/// The answer of another server.
pub type Lookup<'a, T> = BoxFuture<'a, Result<T, RemoteError>>;

/// Looks up at other servers what clients want to know.
pub trait Elsewhere: Send + Sync + 'static {
    /// All fields of the profile of a user of another server.
    fn profile<'a>(&'a self, user: &'a UserId) -> Lookup<'a, Map<String, Value>>;

    /// Where an alias of another server leads.
    fn directory<'a>(&'a self, alias: &'a RoomAliasId) -> Lookup<'a, DirectoryAnswer>;

    /// The directory of another server: `query` without `?`, or a body to search by.
    fn public_rooms<'a>(
        &'a self,
        server: &'a ServerName,
        query: &'a str,
        body: Option<Bytes>,
    ) -> Lookup<'a, Map<String, Value>>;
}

impl Elsewhere for Peers {
    fn profile<'a>(&'a self, user: &'a UserId) -> Lookup<'a, Map<String, Value>> {
        Box::pin(Self::profile(self, user, None))
    }

    fn directory<'a>(&'a self, alias: &'a RoomAliasId) -> Lookup<'a, DirectoryAnswer> {
        Box::pin(Self::directory(self, alias))
    }

    fn public_rooms<'a>(
        &'a self,
        server: &'a ServerName,
        query: &'a str,
        body: Option<Bytes>,
    ) -> Lookup<'a, Map<String, Value>> {
        Box::pin(Self::public_rooms(self, server, query, body))
    }
}

/// For a server that talks to no others: every look-up is [`RemoteError::Off`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Nowhere;

impl Elsewhere for Nowhere {
    fn profile<'a>(&'a self, _: &'a UserId) -> Lookup<'a, Map<String, Value>> {
        Box::pin(async { Err(RemoteError::Off) })
    }

    fn directory<'a>(&'a self, _: &'a RoomAliasId) -> Lookup<'a, DirectoryAnswer> {
        Box::pin(async { Err(RemoteError::Off) })
    }

    fn public_rooms<'a>(&'a self, _: &'a ServerName, _: &'a str, _: Option<Bytes>) -> Lookup<'a, Map<String, Value>> {
        Box::pin(async { Err(RemoteError::Off) })
    }
}

/// Profiles of users of other servers, for a short time: clients ask for the same ones again and again.
#[derive(Default)]
pub(crate) struct Profiles(Mutex<HashMap<OwnedUserId, Known>>);

/// A profile, and when it was told.
type Known = (Millis, Map<String, Value>);

impl Profiles {
    fn get(&self, user: &UserId, now: Millis) -> Option<Map<String, Value>> {
        let profiles = self.0.lock();
        let (at, profile) = profiles.get(user)?;
        (now.0 < at.plus(PROFILE_AGE).0).then(|| profile.clone())
    }

    fn keep(&self, user: &UserId, now: Millis, profile: &Map<String, Value>) {
        let mut profiles = self.0.lock();
        if profiles.len() >= MAX_PROFILES {
            profiles.retain(|_, (at, _)| now.0 < at.plus(PROFILE_AGE).0);
        }
        if profiles.len() < MAX_PROFILES {
            profiles.insert(user.to_owned(), (now, profile.clone()));
        }
    }
}

/// The profile of a user of another server.
///
/// # Errors
/// 404 if there is none, 502 if the server does not tell.
pub(crate) async fn profile(api: &Api, user: &UserId) -> Result<Map<String, Value>, ApiError> {
    let now = api.clock.now();
    if let Some(known) = api.profiles.get(user, now) {
        return Ok(known);
    }
    let profile = api.elsewhere.profile(user).await?;
    let texts = ["displayname", "avatar_url"].map(|key| profile.get(key));
    let sound = texts.into_iter().flatten().all(|value| value.is_string() || value.is_null());
    if !sound || Value::Object(profile.clone()).to_string().len() > MAX_PROFILE_BYTES {
        return Err(bad_gateway(format!("{} gave a profile that cannot be used", user.server_name())));
    }
    // Older servers say `null` where there is nothing.
    let profile: Map<_, _> = profile.into_iter().filter(|(_, value)| !value.is_null()).collect();
    api.profiles.keep(user, now, &profile);
    Ok(profile)
}

/// Whether a value can be used.
type IsSound = fn(&Value) -> bool;

/// The keys of a page of another server's directory, and what is taken for each.
const PAGE_KEYS: [(&str, IsSound); 4] = [
    ("chunk", |value| value.as_array().is_some_and(|rooms| rooms.iter().all(Value::is_object))),
    ("next_batch", Value::is_string),
    ("prev_batch", Value::is_string),
    ("total_room_count_estimate", Value::is_u64),
];

/// A page of another server's directory, with nothing in it that is not of a page.
///
/// # Errors
/// 502 if the server does not give one.
pub(crate) async fn public_rooms(
    api: &Api,
    server: &ServerName,
    query: &str,
    body: Option<Bytes>,
) -> Result<Map<String, Value>, ApiError> {
    let mut answer = api.elsewhere.public_rooms(server, query, body).await?;
    let known = PAGE_KEYS.iter().filter_map(|(key, sound)| {
        let value = answer.remove(*key).filter(sound)?;
        Some(((*key).to_owned(), value))
    });
    let page: Map<_, _> = known.collect();
    if !page.contains_key("chunk") {
        return Err(bad_gateway(format!("{server} gave a directory that cannot be used")));
    }
    Ok(page)
}

fn bad_gateway(message: String) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message)
}

/// Codes of other servers that mean the same to the client as if this server said them.
const FORBIDDEN: [&str; 3] = ["M_FORBIDDEN", "M_INVITE_BLOCKED", "M_BAD_STATE"];
const BAD_REQUEST: [&str; 4] = [
    "M_INCOMPATIBLE_ROOM_VERSION",
    "M_UNSUPPORTED_ROOM_VERSION",
    "M_UNABLE_TO_AUTHORISE_JOIN",
    "M_UNABLE_TO_GRANT_JOIN",
];

/// What a client is told of another server's failure: never that it is logged out or that it has to wait, whatever the
/// other server says.
impl From<RemoteError> for ApiError {
    fn from(error: RemoteError) -> Self {
        let known = |codes: &[&'static str], errcode: &str| codes.iter().find(|known| **known == errcode).copied();
        match error {
            RemoteError::Off => Self::not_found("this server does not federate"),
            RemoteError::Refused { status: 403, errcode, error, .. } => {
                Self::new(StatusCode::FORBIDDEN, known(&FORBIDDEN, &errcode).unwrap_or("M_FORBIDDEN"), error)
            }
            RemoteError::Refused { status: 404, error, .. } => Self::not_found(error),
            RemoteError::Refused { status, errcode, error, server } => match known(&BAD_REQUEST, &errcode) {
                Some(errcode) if status == 400 => Self::new(StatusCode::BAD_REQUEST, errcode, error),
                _ => bad_gateway(format!("{server} refused: {error}")),
            },
            error @ (RemoteError::Unreachable { .. } | RemoteError::Invalid { .. }) => bad_gateway(error.to_string()),
        }
    }
}
