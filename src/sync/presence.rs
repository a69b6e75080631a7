//! The section `presence`, and the presence of one user.

use hearth_accounts::{PresenceMode, PresenceState, Requester, Sight, StatusTooLong};
use hearth_base::Millis;
use hearth_store::StoreError;
use ruma_common::UserId;

use crate::json::{self, Parts};
use crate::v3::Sync;

/// `m.presence`
const PRESENCE: &str = "m.presence";

/// What an answer tells of presence.
#[derive(Default)]
pub(crate) struct PresenceNews {
    pub sights: Vec<Sight>,
    /// The version up to which the client knows everything then.
    pub upto: u64,
}

impl PresenceNews {
    /// Those that `wanted` lets pass, by type and sender.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&str, &UserId) -> bool) {
        self.sights.retain(|sight| wanted(PRESENCE, &sight.user_id));
    }

    /// Appends the array of events.
    pub(crate) fn write(&self, now: Millis, out: &mut Vec<u8>) {
        let mut list = Parts::open(b'[', out);
        for sight in &self.sights {
            let out = list.part(out);
            out.extend_from_slice(b"{\"content\":");
            write_content(sight, now, out);
            out.extend_from_slice(b",\"sender\":");
            json::string(sight.user_id.as_str(), out);
            out.extend_from_slice(b",\"type\":\"m.presence\"}");
        }
        out.push(b']');
    }
}

/// Appends the content of `m.presence`, which is also the answer of `GET /presence/{userId}/status`.
fn write_content(sight: &Sight, now: Millis, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"currently_active\":");
    out.extend_from_slice(if sight.currently_active { b"true" } else { b"false" });
    if let Some(at) = sight.last_active {
        out.extend_from_slice(b",\"last_active_ago\":");
        json::number(now.0.saturating_sub(at.0), out);
    }
    out.extend_from_slice(b",\"presence\":");
    json::string(sight.state.as_str(), out);
    if let Some(text) = &sight.status_msg {
        out.extend_from_slice(b",\"status_msg\":");
        json::string(text, out);
    }
    out.push(b'}');
}

/// Why a user's presence is not told.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PresenceError {
    /// The two share no room, or there is no such user: the two look alike.
    #[error("you cannot see this user's presence")]
    Forbidden,
    /// There is no presence on this server.
    #[error("there is no presence here")]
    Off,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why presence was not set.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SetPresenceError {
    /// The status message is too long.
    #[error(transparent)]
    StatusTooLong(#[from] StatusTooLong),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Sync {
    /// Sets the presence of `who` and its status message. Without presence this does nothing: clients
    /// go on saying what nobody listens to.
    ///
    /// # Errors
    /// See [`SetPresenceError`].
    pub async fn set_presence(
        &self,
        who: &Requester,
        state: PresenceState,
        status_msg: Option<String>,
    ) -> Result<(), SetPresenceError> {
        let presence = self.presence();
        if presence.mode() == PresenceMode::On {
            // Registered users are those whose rooms are known, so that others can be told.
            let _registered = self.enter(who).await?;
            presence.set(who, state, status_msg)?;
        }
        Ok(())
    }

    /// The presence of `user` as JSON, if `who` may see it.
    ///
    /// # Errors
    /// See [`PresenceError`].
    pub async fn presence_of(&self, who: &Requester, user: &UserId) -> Result<Vec<u8>, PresenceError> {
        let presence = self.presence();
        if presence.mode() == PresenceMode::Off {
            return Err(PresenceError::Off);
        }
        let poll = self.enter(who).await?;
        let view = self.rooms().view().await?;
        let nid = self.rooms().ids().user(user);
        if !self.live().may_see(&view, &poll.user, user).await? {
            return Err(PresenceError::Forbidden);
        }
        let unknown = || Sight {
            user: nid,
            user_id: user.to_owned(),
            state: PresenceState::Offline,
            currently_active: false,
            last_active: None,
            status_msg: None,
        };
        let mut out = Vec::with_capacity(128);
        write_content(&presence.sight(nid).unwrap_or_else(unknown), self.now(), &mut out);
        Ok(out)
    }
}
