//! Rooms: how an event comes in, is judged, is written and is found again.
//!
//! One room has one task, the only code that commits to that room. It plans each event on the head
//! it has just submitted, so that many events of one room share a disk sync, and answers in order
//! when they are durable. Everything that may happen later (sync, unread counts, other servers)
//! follows the change log.

mod acl;
mod alias_claims;
mod aliases;
mod attach;
mod bound;
mod cache;
mod canonical;
mod command;
mod content;
mod create;
mod delayed;
mod directory;
mod early;
mod ephemeral;
mod erasure;
mod error;
mod exchange;
mod foreign;
mod gather;
mod graph;
mod handshake;
mod import;
mod inbound;
mod intake;
mod inviting;
mod joining;
mod membership;
mod outside;
mod parting;
mod persist;
mod plan;
mod policy;
mod profile;
mod query;
mod read_marks;
mod receipts;
mod recent_tallies;
mod redact;
mod relation;
pub mod remote;
mod restricted;
mod servers;
mod serving;
pub mod state;
mod subscription_log;
mod subscriptions;
mod task;
#[cfg(test)]
mod tests;
mod upgrade;
mod visibility;

pub use acl::ServerAcl;
pub use aliases::{AliasBy, AliasError, AliasTarget};
pub use command::{
    CreateRoom, Entry, InitialState, IsDirect, MemberProfile, MembershipChange, Preset, RedactRelated, RelTypes,
    RequesterKind, RoomSettings, RoomVisibility, SendEvent, Sent, Transaction, UpgradeRoom,
};
pub use delayed::{DelayLimits, Delayed, DelayedAction, DelayedError};
pub use directory::{DirectoryPage, DirectoryQuery, DirectoryToken};
pub use ephemeral::{Typing, TypingState};
pub use error::{CreateError, MembershipError, QueryError, SendError};
pub use exchange::{ExchangeError, ExchangeIn, Signatures};
pub use foreign::{ForeignReceipt, Ignored};
pub use inbound::{Entered, Received};
pub use intake::{Rooms, RoomsParts};
pub use joining::{JoinError, RemoteJoin};
pub use outside::{GoodInvite, InviteError, InviteIn, OutsideRoom};
pub use policy::PolicyError;
pub use query::{
    Current, Direction, EventExtras, EventFilter, HistoryPage, HistoryQuery, LazyLoad, MembersFilter, MutualRooms,
    Reader, RelatedBy, RelationsPage, RelationsQuery, RoomEvent, RoomOverview, RoomSummary, SentBy, ThreadsInclude,
    ThreadsPage, ThreadsQuery, TimelinePage,
};
pub use read_marks::ReadMarks;
pub use receipts::{NewReceipt, ReceiptError, ReceiptThread};
pub use recent_tallies::RecentTallies;
pub use servers::RoomServers;
pub use serving::{
    Accepted, EarlierTransaction, EventAtTime, HandshakeRefusal, MadeTemplate, Members, MissingQuery, ServeError,
    ServedEvent, ServedEvents, ServedState, TransactionPlace,
};
pub use subscription_log::{ThreadChange, ThreadChanges};
pub use subscriptions::{Reason, SubscriptionError, ThreadOf};
pub use upgrade::Succession;
