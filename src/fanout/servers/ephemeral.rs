//! Typing and presence of local users on their way to other servers.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use hearth_accounts::{PresenceMode, Sight};
use hearth_base::Millis;
use hearth_schema::{Membership, RoomNid};
use hearth_store::{StoreError, View};
use ruma_common::{OwnedServerName, OwnedUserId, RoomId};

use super::{Outbound, PresenceOut, recipients};

/// Who goes on typing is told again: other servers take silence for an end.
const TYPING_AGAIN: Duration = Duration::from_secs(30);
/// Users whose presence is told in a tick: the rest waits for the next.
const PRESENCE_AT_ONCE: usize = 100;
/// Rooms looked at for one user's presence.
const MAX_ROOMS: usize = 1000;

/// What was told of what is not stored.
pub(super) struct Ephemeral {
    outbound: Outbound,
    /// Local users who are typing, and when others were told.
    typing: HashMap<RoomNid, HashMap<OwnedUserId, Millis>>,
    /// Version of the last presence that others were told of.
    presence: u64,
}

impl Ephemeral {
    pub(super) fn new(outbound: Outbound) -> Self {
        let presence = outbound.0.presence.version();
        Self { outbound, typing: HashMap::new(), presence }
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

    async fn tell_typing(&self, room: RoomNid, changed: &[(OwnedUserId, bool)]) {
        if changed.is_empty() {
            return;
        }
        if let Err(error) = self.try_tell_typing(room, changed).await {
            tracing::warn!(%error, "cannot tell other servers of typing");
        }
    }

    async fn try_tell_typing(&self, room: RoomNid, changed: &[(OwnedUserId, bool)]) -> Result<(), StoreError> {
        let inner = &self.outbound.0;
        let view = inner.rooms.view().await?;
        let servers = recipients::in_room_now(&inner.rooms, &view, room, &inner.server_name).await?;
        if servers.is_empty() {
            return Ok(());
        }
        let Some(meta) = inner.rooms.room(&view, room).await? else { return Ok(()) };
        let room_id = RoomId::parse(&meta.room_id)
            .map_err(|error| StoreError::Corrupt { keyspace: "Rooms", detail: error.to_string().into() })?;
        for server in servers {
            self.outbound.send_to(&server, |destination| {
                destination
                    .fleeting(|edus| changed.iter().for_each(|(user, typing)| edus.typing(&room_id, user, *typing)))
            });
        }
        Ok(())
    }

    /// Tells of those who have changed since the last time.
    pub(super) async fn tell_presence(&mut self) -> Result<(), StoreError> {
        let inner = &self.outbound.0;
        let changes = inner.presence.since(self.presence, PRESENCE_AT_ONCE, |_| true);
        let Some((newest, _)) = changes.last() else { return Ok(()) };
        let newest = *newest;
        let view = inner.rooms.view().await?;
        for (_, sight) in changes {
            if sight.user_id.server_name() == inner.server_name {
                self.tell_sight(&view, &sight).await?;
            }
        }
        self.presence = newest;
        Ok(())
    }

    async fn tell_sight(&self, view: &View, sight: &Sight) -> Result<(), StoreError> {
        let inner = &self.outbound.0;
        let rooms = inner.rooms.user_rooms(view, sight.user).await?;
        let joined = rooms.iter().filter(|(_, row)| row.membership == Membership::Join);
        let mut servers: BTreeSet<OwnedServerName> = BTreeSet::new();
        for (room, _) in joined.take(MAX_ROOMS) {
            servers.extend(inner.rooms.servers(view, *room).await?.keys().cloned());
        }
        servers.remove(&inner.server_name);
        for server in servers {
            self.outbound.send_to(&server, |destination| destination.fleeting(|edus| edus.presence(sight)));
        }
        Ok(())
    }
}
