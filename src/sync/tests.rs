//! Whole answers, on a store in memory.

mod filters;
mod follow;
mod lazy;
mod leaving;
mod rooms;
mod sessions;
mod state;
mod state_after;
mod threads;
