//! Consumers of the change log: what happens after an event is durable, at its own pace.
//!
//! The problem: whatever follows from an event (unread counts, pushes, other servers, search) must
//! neither delay the sender nor be forgotten in a crash. The answer: a [`Consumer`] reads the change
//! log behind a durable cursor per lane. What it derives and how far it has come are one batch, so a
//! crash replays a little and loses nothing; such batches need no sync of their own, because what
//! they are derived from has one.
//!
//! What other servers say that is no event comes in by [`ForeignEdus`].
//!
//! A [`Follower`] drives one consumer. The consumers are [`Unread`], [`Followups`], [`Departures`] and
//! [`ToServers`].

mod departures;
mod edus;
mod follow;
mod followups;
mod notify;
mod servers;
mod unread;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use departures::Departures;
pub use edus::{BoundEdu, Dropped, ForeignEdus, bind};
pub use follow::{ConsumeError, Consumer, Follower, Habit};
pub use followups::Followups;
pub use notify::{Notification, notification};
pub use servers::{Deliver, Outbound, OutboundParts, OutboundSettings, PresenceOut, ToServers};
pub use unread::Unread;
