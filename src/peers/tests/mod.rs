//! Other servers on this machine, asked over sockets.

mod authentication;
mod discovery;
mod discovery_limits;
mod doctor;
mod files;
mod keys;
mod remote;
mod transport;
mod trust;
