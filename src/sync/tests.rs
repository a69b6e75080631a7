//! Whole answers, on a store in memory.

mod follow;
mod rooms;
mod state;
mod threads;
