//! Accounts and what they keep.

pub(crate) mod account;
pub(crate) mod account_data;
pub(crate) mod admin;
pub(crate) mod devices;
mod errors;
pub(crate) mod filter;
pub(crate) mod login;
pub(crate) mod notices;
pub(crate) mod openid;
pub(crate) mod profile;
pub(crate) mod push_rules;
pub(crate) mod pushers;
pub(crate) mod refresh;
pub(crate) mod register;
pub(crate) mod services;
pub(crate) mod shared_secret;
pub(crate) mod tags;
