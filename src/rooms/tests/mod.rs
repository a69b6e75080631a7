//! Rooms on the memory engine and on one that misbehaves.

mod delayed;
mod fixture;
mod members;
mod membership;
mod reading;
mod sending;
mod upgrade;
