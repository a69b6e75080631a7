//! The directory: rooms that this server shows to everybody (client-server API, "Published room
//! directory").

use hearth_schema::{Membership, PublicRooms, RoomHeads, RoomNid};
use hearth_store::{Batch, Lane, Order, Owner, StoreError, View};
use ruma_common::{RoomId, UserId};

use crate::gather::damaged;
use crate::intake::Rooms;
use crate::query::{Direction, RoomOverview};
use crate::{AliasError, QueryError, RoomVisibility};

/// Listed rooms of one lane.
const MAX_LISTED: usize = 10_000;
/// Rooms on a page at the most.
const MAX_LIMIT: usize = 500;

/// Asks for a page of the directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryQuery {
    /// Rooms at the most; `None`: as many as the server likes.
    pub limit: Option<usize>,
    /// Where the page begins; `None`: at the largest room.
    pub since: Option<DirectoryToken>,
    /// What name, topic or main alias must contain, whatever its case.
    pub search: Option<String>,
    /// Types of rooms, `None` among them for those without one; `None`: all.
    pub room_types: Option<Vec<Option<String>>>,
}

/// A place between two rooms of the directory, which is ordered by members, most first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryToken {
    /// The page has what comes before the place, not after.
    pub backward: bool,
    /// Members of the room at the place, when the token was made.
    pub members: u32,
    /// ID of that room.
    pub room_id: String,
}

/// A page of the directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryPage {
    /// Largest first.
    pub rooms: Vec<RoomOverview>,
    /// Where the next page begins; `None`: there is nothing more.
    pub next: Option<DirectoryToken>,
    /// Where the page before this one ends; `None`: this is the first.
    pub previous: Option<DirectoryToken>,
    /// Rooms in the directory, whatever the query filters.
    pub total: usize,
}

/// A listed room.
struct Listed {
    room: RoomNid,
    room_id: String,
    members: u32,
}

impl Listed {
    /// Sorts most members first, then by ID.
    fn rank(&self) -> (std::cmp::Reverse<u32>, &str) {
        (std::cmp::Reverse(self.members), &self.room_id)
    }

    fn token(&self, direction: Direction) -> DirectoryToken {
        DirectoryToken {
            backward: direction == Direction::Backward,
            members: self.members,
            room_id: self.room_id.clone(),
        }
    }
}

impl Rooms {
    /// Whether a room is in the directory.
    ///
    /// # Errors
    /// [`QueryError::NotFound`] if there is no such room here.
    pub async fn is_listed(&self, room_id: &RoomId) -> Result<bool, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        if self.room(&view, room).await?.is_none() {
            return Err(QueryError::NotFound);
        }
        Ok(view.get::<PublicRooms>(&(room.lane(), room)).await?.is_some())
    }

    /// Puts a room into the directory or takes it out; who may set the room's canonical alias may.
    ///
    /// # Errors
    /// See [`AliasError`].
    pub async fn set_listed(
        &self,
        by: &UserId,
        room_id: &RoomId,
        visibility: RoomVisibility,
    ) -> Result<(), AliasError> {
        let view = self.view().await?;
        let room = self.ids().room(room_id);
        let meta = self.room(&view, room).await?.ok_or(AliasError::UnknownRoom)?;
        let row = self.membership(&view, self.ids().user(by), room).await?;
        if row.is_none_or(|row| row.membership != Membership::Join) {
            return Err(AliasError::Forbidden("you are not in this room".into()));
        }
        let levels = self.power_levels(&view, room).await?;
        if levels.user(by) < levels.state_event("m.room.canonical_alias") {
            return Err(AliasError::Forbidden("you may not change how this room is found".into()));
        }
        let key = (room.lane(), room);
        let mut batch = Batch::new(room.lane());
        if visibility == RoomVisibility::Public {
            batch.put::<PublicRooms>(&key, &meta.room_id);
        } else {
            batch.delete::<PublicRooms>(&key);
        }
        self.0.store.commit(batch).await.map(drop).map_err(|error| AliasError::Store(error.into()))
    }

    /// A page of the directory.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn directory(&self, query: &DirectoryQuery) -> Result<DirectoryPage, StoreError> {
        let view = self.view().await?;
        let mut listed = self.listed(&view).await?;
        listed.sort_unstable_by(|a, b| a.rank().cmp(&b.rank()));
        let limit = query.limit.unwrap_or(MAX_LIMIT).clamp(1, MAX_LIMIT);
        let backward = query.since.as_ref().is_some_and(|since| since.backward);
        // First of the rooms that come behind the place.
        let place = query.since.as_ref().map_or(0, |since| {
            let at = (std::cmp::Reverse(since.members), since.room_id.as_str());
            listed.partition_point(|room| if backward { room.rank() < at } else { room.rank() <= at })
        });
        let mut page = DirectoryPage { total: listed.len(), ..DirectoryPage::default() };
        let (mut first, mut last, mut more) = (None, None, false);
        let way: Box<dyn Iterator<Item = usize> + Send> =
            if backward { Box::new((0..place).rev()) } else { Box::new(place..listed.len()) };
        for i in way {
            let overview = self.overview(&view, listed[i].room).await?;
            let overview = overview.ok_or_else(|| damaged("Rooms", "a listed room is not there"))?;
            if !query.wants(&overview) {
                continue;
            }
            if page.rooms.len() == limit {
                more = true;
                break;
            }
            page.rooms.push(overview);
            first.get_or_insert(i);
            last = Some(i);
        }
        if backward {
            page.rooms.reverse();
            std::mem::swap(&mut first, &mut last);
        }
        let (before, behind) = if backward { (more, place < listed.len()) } else { (place > 0, more) };
        page.next = last.filter(|_| behind).map(|i| listed[i].token(Direction::Forward));
        page.previous = first.filter(|_| before).map(|i| listed[i].token(Direction::Backward));
        Ok(page)
    }

    async fn listed(&self, view: &View) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        for lane in Lane::all() {
            let rows = view.page::<PublicRooms, _>(&(lane,), Order::Ascending, MAX_LISTED).await?;
            let keys: Vec<_> = rows.iter().map(|((_, room), _)| (*room,)).collect();
            let heads = view.get_many::<RoomHeads>(&keys).await?;
            for (((_, room), room_id), head) in rows.into_iter().zip(heads) {
                let head = head.ok_or_else(|| damaged("RoomHeads", format!("{room_id} is listed but has none")))?;
                found.push(Listed { room, room_id, members: head.joined_members });
            }
        }
        Ok(found)
    }
}

impl DirectoryQuery {
    fn wants(&self, room: &RoomOverview) -> bool {
        let of_type = self.room_types.as_ref().is_none_or(|types| types.contains(&room.room_type));
        of_type
            && self.search.as_ref().is_none_or(|term| {
                let term = term.to_lowercase();
                let fields = [&room.name, &room.topic, &room.canonical_alias];
                fields.into_iter().flatten().any(|text| text.to_lowercase().contains(&term))
            })
    }
}
