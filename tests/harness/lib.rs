//! The real server as a test sees it: a process that is started, asked, killed and started again.
//!
//! Tests of the whole product must not share its memory, or they would pass where a user's process fails. So
//! this crate knows only a binary, a configuration file and HTTP. It panics where a test would: whatever it does
//! not expect ends the test with the reason and the server's last log lines.
#![expect(clippy::missing_panics_doc, reason = "every function here panics where a test would, as said above")]
#![expect(clippy::missing_errors_doc, reason = "errors are words for the test's message: what was asked and what came")]

mod api;
mod authority;
mod config;
mod federated;
mod gate;
mod hostile;
mod hostile_room;
mod policy;
mod server;
mod synapse;
mod tools;

pub use api::{Answer, Api, Request, User, pct};
pub use authority::{Authority, Papers};
pub use config::Config;
pub use federated::Federated;
pub use gate::Gate;
pub use hostile::{Ask, Asked, Claim, Hostile, Reply, now};
pub use hostile_room::{RawEvent, Room, Signed};
pub use policy::{POLICY_KEY_ID, PolicyKey};
pub use server::{Server, free_port};
pub use synapse::Synapse;
pub use tools::{root, synapse_python, tool};
