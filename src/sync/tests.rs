//! Whole answers, on a store in memory.

mod filters;
mod follow;
mod leaving;
mod rooms;
mod sessions;
mod state;
mod threads;
mod state_after;
