//! The real server as a test sees it: a process that is started, asked, killed and started again.
//!
//! Tests of the whole product must not share its memory, or they would pass where a user's process fails. So
//! this crate knows only a binary, a configuration file and HTTP. It panics where a test would: whatever it does
//! not expect ends the test with the reason and the server's last log lines.
#![expect(clippy::missing_panics_doc, reason = "every function here panics where a test would, as said above")]
#![expect(clippy::missing_errors_doc, reason = "errors are words for the test's message: what was asked and what came")]

mod api;
mod config;
mod server;

pub use api::{Answer, Api, Request, User, pct};
pub use config::Config;
pub use server::{Server, free_port};
