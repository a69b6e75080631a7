//! The threads of a room: `GET /rooms/{roomId}/threads`.

use std::sync::Arc;

use hearth_schema::{RoomNid, Threads, Timeline, Verdict};
use hearth_store::{Order, Pos, StoreError, View};
use ruma_common::{OwnedRoomId, UserId};

use super::event::RoomEvent;
use super::lens::Lens;
use crate::QueryError;
use crate::intake::Rooms;

/// Threads looked at for one page at the most; a page that finds nothing still gives a token.
const MAX_SCANNED: usize = 1_000;
/// Threads loaded and judged at a time.
const CHUNK: usize = 64;
/// Threads a page has at the most.
const MAX_LIMIT: usize = 100;

/// `include`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThreadsInclude {
    /// All threads.
    #[default]
    All,
    /// Those that the reader began or has replied in.
    Participated,
}

/// Asks for the threads of a room.
#[derive(Clone, Debug)]
pub struct ThreadsQuery {
    /// Which room.
    pub room_id: OwnedRoomId,
    /// Which threads.
    pub include: ThreadsInclude,
    /// Where to begin: with threads whose newest reply is not above; `None`: with the newest.
    pub from: Option<Pos>,
    /// Threads at the most.
    pub limit: usize,
}

/// A page of threads.
#[derive(Clone, Debug)]
pub struct ThreadsPage {
    /// Their roots, by the newest reply, newest first.
    pub roots: Vec<Arc<RoomEvent>>,
    /// Where the next page begins; `None`: there is nothing more.
    pub next: Option<Pos>,
}

/// What has been found, and what was looked at last.
struct Found {
    roots: Vec<Arc<RoomEvent>>,
    last: Option<u32>,
}

impl Rooms {
    /// A page of the threads of which `user` may see the root and at least one reply.
    ///
    /// They come by their newest reply, for readers from whom that is hidden too.
    ///
    /// # Errors
    /// [`QueryError::Forbidden`] for who is not and was not in the room, unless everybody may read it.
    pub async fn threads(&self, user: &UserId, query: &ThreadsQuery) -> Result<ThreadsPage, QueryError> {
        let view = self.view().await?;
        let room = self.ids().room(&query.room_id);
        self.access(&view, user, room).await?;
        let mut before = match query.from {
            None => u32::MAX,
            Some(from) => match self.newest_at(&view, room, from).await? {
                Some(n) => n.saturating_add(1),
                None => return Ok(ThreadsPage { roots: Vec::new(), next: None }),
            },
        };
        let lens = Lens::of(self, &view, user, room).await?;
        let limit = query.limit.clamp(1, MAX_LIMIT);
        let (mut found, mut scanned) = (Found { roots: Vec::new(), last: None }, 0);
        loop {
            let rows = view.page_before::<Threads, _>(&(room,), &(room, before), CHUNK).await?;
            let more = rows.len() == CHUNK;
            scanned += rows.len();
            let Some(((_, oldest), _)) = rows.last() else { break };
            before = *oldest;
            let rows: Vec<(u32, u32)> = rows.into_iter().map(|((_, latest), top)| (latest, top)).collect();
            let full = self.add_roots((&view, &lens), (query.include, limit), rows, &mut found).await?;
            if !full && !more {
                found.last = None;
                break;
            }
            if full || scanned >= MAX_SCANNED {
                break;
            }
        }
        let next = match found.last {
            None => None,
            Some(last) => self.events(&view, room, &[last]).await?.pop().map(|last| before_it(&last)),
        };
        Ok(ThreadsPage { roots: found.roots, next })
    }

    /// Adds the roots that the reader is shown; whether one more than `limit` was found.
    async fn add_roots(
        &self,
        (view, lens): (&View, &Lens<'_>),
        (include, limit): (ThreadsInclude, usize),
        rows: Vec<(u32, u32)>,
        found: &mut Found,
    ) -> Result<bool, StoreError> {
        let numbers: Vec<u32> = rows.iter().map(|(_, root)| *root).collect();
        let roots = self.events(view, lens.room, &numbers).await?;
        let shown = self.aggregates(view, lens.room, &roots).await?;
        let shown = self.shown(view, lens, shown).await?;
        for ((latest, n), root) in rows.into_iter().zip(roots) {
            let thread = shown.get(&n).and_then(|shown| shown.thread.as_ref());
            let wanted = thread.is_some_and(|thread| include == ThreadsInclude::All || thread.participated());
            let candidate = wanted && root.verdict == Verdict::Accepted;
            if candidate && let Some(root) = lens.root(&root).await? {
                if found.roots.len() == limit {
                    return Ok(true);
                }
                found.roots.push(root);
            }
            found.last = Some(latest);
        }
        Ok(false)
    }

    /// The newest event at or below `pos`.
    async fn newest_at(&self, view: &View, room: RoomNid, pos: Pos) -> Result<Option<u32>, StoreError> {
        let rows = view.page_between::<Timeline, _>(&(room,), ..=pos, Order::Descending, 1).await?;
        Ok(rows.first().map(|(_, n)| *n))
    }
}

/// A page that begins here leaves the event out.
fn before_it(event: &RoomEvent) -> Pos {
    Pos::new(event.pos.get().saturating_sub(1))
}
