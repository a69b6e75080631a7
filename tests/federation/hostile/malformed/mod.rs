//! Content that the auth rules allow and that is nothing its type promises: every answer still comes, and the other
//! rooms of whoever asks are complete in it.

mod contents;
mod outside;
mod reading;
mod rooms;
