//! Reading rooms.

mod event;
mod history;
mod loading;
mod members;
mod mutual;
mod overview;
mod relations;
mod render;
mod thread;
mod timestamp;

pub use event::{EventExtras, RoomEvent, SentBy};
pub(crate) use history::Access;
pub use history::{Direction, EventFilter, HistoryPage, HistoryQuery, LazyLoad, TimelinePage};
pub use members::{Member, MembersFilter};
pub use mutual::MutualRooms;
pub use overview::{RoomOverview, RoomSummary};
pub(crate) use relations::children;
pub use relations::{RelationsPage, RelationsQuery};
pub use render::Reader;
