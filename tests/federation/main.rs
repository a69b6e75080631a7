//! Rooms shared with Synapse, the server that most others are: whatever one side does, the other has it too.
//!
//! Both are real processes that reach each other by TLS on loopback. Needs matrix-synapse (`.ci/setup tests`).
//! With `HEARTH_FEDERATION_SELF_CHECK` set, Synapse also takes the place of Hearth, which tests the scenarios.

mod access;
mod hostile;
mod outages;
mod pair;
mod people;
mod rooms;
mod services;
mod versions;
