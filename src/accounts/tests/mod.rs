//! Use-cases as a whole, on a store in memory.

mod account_data;
mod chaos;
mod gates;
mod lifecycle;
mod limits;
mod openid;
mod passwords;
mod pushers;
mod races;
mod refresh;
mod register;
mod services;
mod session_watch;
mod sessions;
mod standing;
mod uia;
