//! Rooms.

pub(crate) mod aliases;
mod claims;
pub(crate) mod create;
pub(crate) mod delayed;
pub(crate) mod directory;
mod errors;
pub(crate) mod event;
pub(crate) mod legacy;
pub(crate) mod members;
pub(crate) mod membership;
pub(crate) mod messages;
pub(crate) mod mutual;
pub(crate) mod receipts;
pub(crate) mod relations;
mod render;
pub(crate) mod reports;
pub(crate) mod screening;
pub(crate) mod send;
pub(crate) mod state;
pub(crate) mod subscriptions;
pub(crate) mod summary;
pub(crate) mod threads;
pub(crate) mod typing;
pub(crate) mod upgrade;
