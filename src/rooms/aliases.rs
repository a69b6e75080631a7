//! Local aliases.

use hearth_event::PowerLevels;
use hearth_schema::{AliasRow, Aliases, RoomAliases, RoomNid, Rooms as RoomRows};
use hearth_store::{Batch, CommitError, Order, Owner, StoreError, View};
use ruma_common::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, UserId};

use crate::alias_claims::AliasClaim;
use crate::gather::damaged;
use crate::intake::Rooms;
use crate::query::Access;
use crate::{CreateError, QueryError, SendError};

/// Local aliases that a room may have.
pub(crate) const MAX_ALIASES: usize = 100;
/// How often an alias is tried for while others change it.
const MAX_TRIES: u32 = 8;

/// Where an alias points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AliasTarget {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that are in it.
    pub servers: Vec<OwnedServerName>,
}

/// Who makes or removes an alias.
#[derive(Clone, Copy, Debug)]
pub enum AliasBy<'a> {
    /// A user, by what it may do in the room.
    User(&'a UserId),
    /// A user for whoever has the alias, whatever room it points to.
    Owner(&'a UserId),
}

impl<'a> AliasBy<'a> {
    const fn user(self) -> &'a UserId {
        match self {
            Self::User(user) | Self::Owner(user) => user,
        }
    }
}

/// Why an alias was not made, changed or removed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AliasError {
    /// It points to a room already.
    #[error("the alias is taken")]
    Taken,
    /// It belongs to another server.
    #[error("the alias belongs to another server")]
    NotLocal,
    /// There is no such alias.
    #[error("no such alias")]
    NotFound,
    /// There is no such room here.
    #[error("the room is not known")]
    UnknownRoom,
    /// The user may not.
    #[error("{0}")]
    Forbidden(String),
    /// The room has as many as it may have.
    #[error("the room has too many aliases")]
    TooMany,
    /// The store failed or is full.
    #[error(transparent)]
    Store(#[from] SendError),
}

impl From<StoreError> for AliasError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<AliasError> for CreateError {
    fn from(error: AliasError) -> Self {
        match error {
            AliasError::Taken => Self::AliasInUse,
            AliasError::Store(error) => Self::Send(error),
            other => Self::BadAlias(other.to_string()),
        }
    }
}

impl Rooms {
    /// Makes a local alias for a room that the creator is in; its owner makes it for any room here.
    ///
    /// # Errors
    /// See [`AliasError`].
    pub async fn create_alias(&self, alias: &RoomAliasId, room_id: &RoomId, by: AliasBy<'_>) -> Result<(), AliasError> {
        let creator = by.user();
        if alias.server_name() != self.0.signer.server_name {
            return Err(AliasError::NotLocal);
        }
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        if self.room(&view, room).await?.is_none() {
            return Err(AliasError::UnknownRoom);
        }
        match self.access(&view, creator, room).await {
            Err(QueryError::Store(error)) => return Err(error.into()),
            Ok(Access::Joined) => {}
            _ if matches!(by, AliasBy::Owner(_)) => {}
            Ok(_) | Err(QueryError::Forbidden | QueryError::NotFound | QueryError::BadToken) => {
                return Err(AliasError::Forbidden("you are not in this room".into()));
            }
        }
        if view.page::<RoomAliases, _>(&(room,), Order::Ascending, MAX_ALIASES).await?.len() >= MAX_ALIASES {
            return Err(AliasError::TooMany);
        }
        let claim = self.0.alias_claims.claim(alias)?;
        self.take_alias(&claim, room_id, creator).await.map(drop)
    }

    /// Points the claimed alias to the room unless it points to an existing one.
    pub(crate) async fn take_alias(
        &self,
        claim: &AliasClaim<'_>,
        room_id: &RoomId,
        creator: &UserId,
    ) -> Result<AliasRow, AliasError> {
        let alias = claim.alias();
        let (key, room) = (self.ids().alias(alias), self.ids().room(room_id));
        let row = AliasRow { alias: alias.to_string(), room_id: room_id.to_string(), creator: creator.to_string() };
        for _ in 0..MAX_TRIES {
            let view = self.view().await?;
            let before = view.get::<Aliases>(&(key,)).await?;
            if self.existing_target(&view, before.as_ref()).await?.is_some() {
                return Err(AliasError::Taken);
            }
            let mut batch = Batch::new(key.lane());
            batch.check::<Aliases>(&(key,), before.as_ref());
            batch.put::<Aliases>(&(key,), &row);
            batch.put_elsewhere::<RoomAliases>(&(room, row.alias.clone()), &row.creator);
            match self.0.store.commit(batch).await {
                Ok(_) => return Ok(row),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(AliasError::Store(error.into())),
            }
        }
        Err(AliasError::Store(SendError::Busy))
    }

    /// Removes `alias`, of which `row` says that it points to `room`.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] if it says something else by now; nothing is removed then.
    pub(crate) async fn drop_alias(
        &self,
        alias: &RoomAliasId,
        row: &AliasRow,
        room: RoomNid,
    ) -> Result<(), CommitError> {
        let key = self.ids().alias(alias);
        let mut batch = Batch::new(key.lane());
        batch.check::<Aliases>(&(key,), Some(row));
        batch.delete::<Aliases>(&(key,));
        batch.delete_elsewhere::<RoomAliases>(&(room, row.alias.clone()));
        self.0.store.commit(batch).await.map(drop)
    }

    /// Removes a local alias; its creator and its owner may, and whoever may set the room's canonical alias.
    ///
    /// # Errors
    /// See [`AliasError`].
    pub async fn delete_alias(&self, alias: &RoomAliasId, by: AliasBy<'_>) -> Result<(), AliasError> {
        if alias.server_name() != self.0.signer.server_name {
            return Err(AliasError::NotLocal);
        }
        for _ in 0..MAX_TRIES {
            let view = self.view().await?;
            let row = view.get::<Aliases>(&(self.ids().alias(alias),)).await?.ok_or(AliasError::NotFound)?;
            let room_id = self.existing_target(&view, Some(&row)).await?.ok_or(AliasError::NotFound)?;
            let room = self.ids().room(&room_id);
            let user = by.user();
            let own = matches!(by, AliasBy::Owner(_)) || row.creator == user.as_str();
            if !own && !self.may_set_aliases(&view, room, user).await? {
                return Err(AliasError::Forbidden("you may not remove this alias".into()));
            }
            // First the claim, then the alias: whoever is told of a failure can ask again.
            self.drop_from_canonical(&view, (room, &room_id), user, |other| other != alias).await?;
            match self.drop_alias(alias, &row, room).await {
                Ok(()) => return Ok(()),
                // It points elsewhere by now, and who may remove it there is another question.
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(AliasError::Store(error.into())),
            }
        }
        Err(AliasError::Store(SendError::Busy))
    }

    /// Points an alias of room `from` to the room `to`, with the creator that it has. One that has been
    /// removed or points elsewhere by now stays as it is.
    pub(crate) async fn move_alias(&self, alias: &RoomAliasId, from: RoomNid, to: &RoomId) -> Result<(), AliasError> {
        let (key, room) = (self.ids().alias(alias), self.ids().room(to));
        for _ in 0..MAX_TRIES {
            let before = self.view().await?.get::<Aliases>(&(key,)).await?;
            let Some(row) = before else { return Ok(()) };
            let points_to =
                OwnedRoomId::try_from(row.room_id.as_str()).map_err(|error| damaged("Aliases", error.to_string()))?;
            if self.ids().room(&points_to) != from {
                return Ok(());
            }
            let after = AliasRow { room_id: to.to_string(), ..row.clone() };
            let mut batch = Batch::new(key.lane());
            batch.check::<Aliases>(&(key,), Some(&row));
            batch.put::<Aliases>(&(key,), &after);
            batch.delete_elsewhere::<RoomAliases>(&(from, row.alias.clone()));
            batch.put_elsewhere::<RoomAliases>(&(room, row.alias), &row.creator);
            match self.0.store.commit(batch).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict(_)) => {}
                Err(error) => return Err(AliasError::Store(error.into())),
            }
        }
        Err(AliasError::Store(SendError::Busy))
    }

    /// Where an alias of this server points; `None`: nowhere.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Option<AliasTarget>, StoreError> {
        let view = self.view().await?;
        let row = view.get::<Aliases>(&(self.ids().alias(alias),)).await?;
        let room_id = self.existing_target(&view, row.as_ref()).await?;
        let servers = vec![self.0.signer.server_name.clone()];
        Ok(room_id.map(|room_id| AliasTarget { room_id, servers }))
    }

    /// The local aliases of a room that `user` is in, or that everybody may read.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`].
    pub async fn room_aliases(&self, user: &UserId, room_id: &RoomId) -> Result<Vec<OwnedRoomAliasId>, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        if matches!(self.access(&view, user, room).await?, Access::Until(..)) {
            return Err(QueryError::Forbidden);
        }
        let rows = view.page::<RoomAliases, _>(&(room,), Order::Ascending, MAX_ALIASES).await?;
        let parse = |alias: &str| {
            OwnedRoomAliasId::try_from(alias).map_err(|error| damaged("RoomAliases", error.to_string()).into())
        };
        rows.iter().map(|((_, alias), _)| parse(alias)).collect()
    }

    async fn existing_target(&self, view: &View, row: Option<&AliasRow>) -> Result<Option<OwnedRoomId>, StoreError> {
        let Some(row) = row else { return Ok(None) };
        let room_id =
            OwnedRoomId::try_from(row.room_id.as_str()).map_err(|error| damaged("Aliases", error.to_string()))?;
        let known = view.get::<RoomRows>(&(self.ids().room(&room_id),)).await?;
        Ok(known.map(|_| room_id))
    }

    async fn may_set_aliases(&self, view: &View, room: RoomNid, user: &UserId) -> Result<bool, StoreError> {
        let joined = self.membership(view, self.ids().user(user), room).await?;
        if joined.is_none_or(|row| row.membership != hearth_schema::Membership::Join) {
            return Ok(false);
        }
        let levels = self.power_levels(view, room).await?;
        Ok(levels.user(user) >= levels.state_event("m.room.canonical_alias"))
    }

    /// The room's current power levels.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn power_levels(&self, view: &View, room: RoomNid) -> Result<PowerLevels, StoreError> {
        let version = self.version(view, room).await?;
        let create = self.current_entry(view, room, "m.room.create", "").await?;
        let create = create.ok_or_else(|| damaged("CurrentState", "a room has no create event"))?;
        let levels = self.current_entry(view, room, "m.room.power_levels", "").await?;
        let numbers: Vec<u32> = [Some(create), levels].into_iter().flatten().map(|entry| entry.n).collect();
        let events = self.events(view, room, &numbers).await?;
        let create = events.first().ok_or_else(|| damaged("Events", "a room has no create event"))?;
        Ok(PowerLevels::of(version, &create.pdu, events.get(1).map(|event| &event.pdu)))
    }
}
