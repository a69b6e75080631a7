//! What the real server answers to requests that are wrong, and what it does with connections.

mod clock;
mod connections;
mod idle;
mod refusals;
mod services;
mod wire;

const BINARY: &str = env!("CARGO_BIN_EXE_hearth");
