//! Rooms on the memory engine and on one that misbehaves.

mod bound;
mod contested;
mod current;
mod dag;
mod delayed;
mod ends;
mod exchange;
mod federation;
mod fixture;
mod founded;
mod gaps;
mod hostile;
mod joining;
mod late;
mod members;
mod membership;
mod missed;
mod neighbour;
mod reading;
mod reads;
mod runs;
mod sending;
mod serving;
mod upgrade;
mod waiting;
mod watched;
