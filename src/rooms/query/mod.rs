//! Reading rooms.

mod event;
mod history;
mod loading;
mod members;
mod render;

pub use event::{EventExtras, RoomEvent};
pub(crate) use history::Access;
pub use history::{Direction, EventFilter, HistoryPage, HistoryQuery, LazyLoad, TimelinePage};
pub use members::{Member, MembersFilter};
pub use render::Reader;
