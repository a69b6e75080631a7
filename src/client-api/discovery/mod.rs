//! What this server is and can do.

pub(crate) mod capabilities;
pub(crate) mod versions;
pub(crate) mod well_known;
