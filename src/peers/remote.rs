//! Other servers, as rooms need them.
