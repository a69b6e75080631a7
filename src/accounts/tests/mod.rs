//! Use-cases as a whole, on a store in memory.

mod account_data;
mod chaos;
mod lifecycle;
mod limits;
mod passwords;
mod register;
mod sessions;
mod uia;
