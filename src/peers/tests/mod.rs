//! Other servers on this machine, asked over sockets.

mod authentication;
mod discovery;
mod doctor;
mod keys;
mod remote;
mod transport;
mod trust;
