//! Reading rooms.

mod bundle;
mod current;
mod event;
mod gaps;
mod history;
mod lens;
mod loading;
mod members;
mod mutual;
mod overview;
mod related;
mod relations;
mod render;
mod thread;
mod threads;
mod timestamp;

pub use current::Current;
pub use event::{EventExtras, RoomEvent, SentBy};
pub(crate) use history::Access;
pub use history::{Direction, EventFilter, HistoryPage, HistoryQuery, LazyLoad, RelatedBy, TimelinePage};
pub(crate) use loading::parse_room_id;
pub use members::MembersFilter;
pub use mutual::MutualRooms;
pub use overview::{RoomOverview, RoomSummary};
pub(crate) use relations::children;
pub use relations::{RelationsPage, RelationsQuery};
pub use render::Reader;
pub use threads::{ThreadsInclude, ThreadsPage, ThreadsQuery};
pub(crate) use timestamp::{fits, nearest};
