//! What a server does to others that signs anything, answers anything and asks anything.
//!
//! The classes are those of the attacks that other homeservers had to be mended for. Each test ends with a store that
//! `hearth fsck` finds nothing wrong with, and without a panic in the log.

mod edus;
mod floods;
mod forks;
mod ingress;
mod lying;
mod malformed;
mod omitted;
mod poison;
mod policy;
mod policy_inbound;
mod predecessors;
mod reads;
mod requests;
mod responses;
mod scene;
mod signatures;
mod templates;
