//! Read models: what clients are told, and when.
//!
//! `/sync` answers from three things. The *store* says what is new; the *registry* (`live`) says, from
//! memory, whether anything is, and wakes who waits; the *unread consumer* says how far counts are
//! known, and nothing is shown beyond that, so an event never comes with counts that are older than
//! it. (Counting at read time instead would need the rules of the consumer here as well, and a walk
//! over what it has not seen yet; waiting costs one unsynced commit, shared by all readers.)
//!
//! Nothing here writes rooms.

mod account_data;
mod answer;
mod counts;
mod ephemeral;
mod fields;
mod filter;
mod ignored;
mod json;
mod lazy;
mod live;
mod member;
mod outside;
mod presence;
mod room;
mod silenced;
mod sliding;
mod state;
mod stay;
mod summary;
mod thread_page;
mod threads;
mod timeline;
mod token;
mod v3;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use fields::EventFields;
pub use filter::{EventFormat, Filter, FilterError, Members, RoomChoice, RoomSection, ThreadCounts};
pub use presence::{PresenceError, SetPresenceError};
pub use sliding::{SlidingBody, SlidingError, SlidingRequest};
pub use thread_page::ThreadPage;
pub use token::{Incarnation, PageToken, Token, TokenError};
pub use v3::{Sync, SyncError, SyncParts, SyncRequest, SyncSettings, UseStateAfter};
