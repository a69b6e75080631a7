//! Typing and presence of local users on their way to other servers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use hearth_accounts::{PresenceMode, PresenceState, Sight};
use hearth_base::Millis;
use hearth_schema::{Membership, RoomNid, UserNid};
use hearth_store::{StoreError, View};
use ruma_common::{OwnedServerName, OwnedUserId, RoomId};
use tokio::sync::broadcast::error::RecvError;

use super::recipients::Recipients;
use super::{Outbound, PresenceOut, TICK};

/// Who goes on typing is told again: other servers take silence for an end.
const TYPING_AGAIN: Duration = Duration::from_secs(30);
/// Users whose presence is told in a tick: the rest waits for the next.
const PRESENCE_AT_ONCE: usize = 100;
/// Changes looked at in a tick: those of other servers' users are among them.
const SEEN_AT_ONCE: usize = 5_000;
/// Rooms looked at for one user's presence.
const MAX_ROOMS: usize = 1000;

/// What was told of what is not stored.
pub(super) struct Ephemeral {
    outbound: Outbound,
    recipients: Recipients,
    /// Local users who are typing, and when others were told.
    typing: HashMap<RoomNid, HashMap<OwnedUserId, Millis>>,
    /// Version of the last presence that others were told of.
    presence: u64,
    /// Users of whom others were told that they are there. That somebody is not there is news only of these: at a start
    /// nobody is.
    there: HashSet<UserNid>,
}

impl Ephemeral {
    pub(super) fn new(outbound: Outbound) -> Self {
        let presence = outbound.0.presence.version();
        let recipients = Recipients::new(outbound.0.rooms.clone(), outbound.0.server_name.clone());
        Self { outbound, recipients, typing: HashMap::new(), presence, there: HashSet::new() }
    }

    /// Tells until shutdown.
    pub(super) async fn run(mut self) {
        let shutdown = self.outbound.0.shutdown.clone();
        let mut typing = self.outbound.0.rooms.typing().changes();
        let mut ticks = hearth_base::ticks(TICK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                room = typing.recv() => match room {
                    Ok(room) => self.typing_changed(room).await,
                    // Whoever went on typing meanwhile is told of at the next change.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                _ = ticks.tick() => self.tick().await,
            }
        }
    }

    /// Somebody has begun or ceased to type in `room`.
    pub(super) async fn typing_changed(&mut self, room: RoomNid) {
        let inner = &self.outbound.0;
        let (_, users) = inner.rooms.typing().in_room(room);
        let local = users.into_iter().filter(|user| user.server_name() == inner.server_name);
        let now: BTreeSet<OwnedUserId> = local.collect();
        let before = self.typing.remove(&room).unwrap_or_default();
        let changed: Vec<(OwnedUserId, bool)> = now
            .iter()
            .filter(|user| !before.contains_key(*user))
            .map(|user| (user.clone(), true))
            .chain(before.keys().filter(|user| !now.contains(*user)).map(|user| (user.clone(), false)))
            .collect();
        if !now.is_empty() {
            let at = self.outbound.now();
            let told = now.into_iter().map(|user| (before.get(&user).copied().unwrap_or(at), user));
            self.typing.insert(room, told.map(|(at, user)| (user, at)).collect());
        }
        self.tell_typing(room, &changed).await;
    }

    /// What is due.
    pub(super) async fn tick(&mut self) {
        let now = self.outbound.now();
        let mut again = Vec::new();
        for (room, users) in &mut self.typing {
            let mut still = Vec::new();
            for (user, told) in users.iter_mut().filter(|(_, told)| now.since(**told) >= TYPING_AGAIN) {
                *told = now;
                still.push((user.clone(), true));
            }
            if !still.is_empty() {
                again.push((*room, still));
            }
        }
        for (room, still) in again {
            self.tell_typing(room, &still).await;
        }
        if self.outbound.0.settings.presence == PresenceOut::Told
            && self.outbound.0.presence.mode() == PresenceMode::On
            && let Err(error) = self.tell_presence().await
        {
            tracing::warn!(%error, "cannot tell other servers of presence now");
        }
    }

    async fn tell_typing(&mut self, room: RoomNid, changed: &[(OwnedUserId, bool)]) {
        if changed.is_empty() {
            return;
        }
        if let Err(error) = self.try_tell_typing(room, changed).await {
            tracing::warn!(%error, "cannot tell other servers of typing");
        }
    }

    async fn try_tell_typing(&mut self, room: RoomNid, changed: &[(OwnedUserId, bool)]) -> Result<(), StoreError> {
        let view = self.outbound.0.rooms.view().await?;
        let servers = self.recipients.now_in(&view, room).await?;
        if servers.is_empty() {
            return Ok(());
        }
        let inner = &self.outbound.0;
        let Some(meta) = inner.rooms.room(&view, room).await? else { return Ok(()) };
        let room_id = RoomId::parse(&meta.room_id)
            .map_err(|error| StoreError::Corrupt { keyspace: "Rooms", detail: error.to_string().into() })?;
        for server in servers.iter() {
            self.outbound.send_to(server, |destination| {
                destination
                    .fleeting(|edus| changed.iter().for_each(|(user, typing)| edus.typing(&room_id, user, *typing)))
            });
        }
        Ok(())
    }

    /// Tells of those who have changed since the last time.
    async fn tell_presence(&mut self) -> Result<(), StoreError> {
        let outbound = self.outbound.clone();
        let changes = outbound.0.presence.since(self.presence, SEEN_AT_ONCE, |_| true);
        if changes.is_empty() {
            return Ok(());
        }
        let view = outbound.0.rooms.view().await?;
        let mut told = 0;
        for (version, sight) in changes {
            if sight.user_id.server_name() == outbound.0.server_name && self.is_news(&sight) {
                if told == PRESENCE_AT_ONCE {
                    break;
                }
                told += 1;
                self.tell_sight(&view, &sight).await?;
            }
            self.presence = version;
        }
        Ok(())
    }

    fn is_news(&mut self, sight: &Sight) -> bool {
        if sight.state == PresenceState::Offline {
            return self.there.remove(&sight.user);
        }
        self.there.insert(sight.user);
        true
    }

    async fn tell_sight(&mut self, view: &View, sight: &Sight) -> Result<(), StoreError> {
        let rooms = self.outbound.0.rooms.user_rooms(view, sight.user).await?;
        let joined = rooms.iter().filter(|(_, row)| row.membership == Membership::Join);
        let mut servers: BTreeSet<OwnedServerName> = BTreeSet::new();
        for (room, _) in joined.take(MAX_ROOMS) {
            servers.extend(self.recipients.now_in(view, *room).await?.iter().cloned());
        }
        for server in servers {
            self.outbound.send_to(&server, |destination| destination.fleeting(|edus| edus.presence(sight)));
        }
        Ok(())
    }
}
