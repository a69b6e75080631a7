//! Whole answers, on a store in memory.

mod counting;
mod filters;
mod follow;
mod foreign;
mod lazy;
mod leaving;
mod presence;
mod recent;
mod rooms;
mod sessions;
mod spam;
mod state;
mod state_after;
mod threads;
