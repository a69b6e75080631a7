//! Who is taking which alias at this moment.
//!
//! The problem: an alias and its room live in different lanes, so a room that is made with an alias takes two commits.
//! The alias comes first, and one of a room that does not exist counts as free, so that a crash in between leaves nothing
//! behind. Between the two commits it would be free for others as well. So whoever takes an alias claims it here first,
//! until both commits are done. A crash forgets the claims together with what they were for.

use std::collections::HashSet;

use parking_lot::Mutex;
use ruma_common::{OwnedRoomAliasId, RoomAliasId};

use crate::aliases::AliasError;

/// All aliases that are being taken.
#[derive(Default)]
pub(crate) struct AliasClaims(Mutex<HashSet<OwnedRoomAliasId>>);

/// The right to take one alias, until it is dropped.
pub(crate) struct AliasClaim<'a> {
    claims: &'a AliasClaims,
    alias: OwnedRoomAliasId,
}

impl AliasClaims {
    /// Claims `alias`.
    ///
    /// # Errors
    /// [`AliasError::Taken`] while somebody else has it: should they fail, asking again helps.
    pub(crate) fn claim(&self, alias: &RoomAliasId) -> Result<AliasClaim<'_>, AliasError> {
        let alias = alias.to_owned();
        if !self.0.lock().insert(alias.clone()) {
            return Err(AliasError::Taken);
        }
        Ok(AliasClaim { claims: self, alias })
    }
}

impl AliasClaim<'_> {
    /// What is claimed.
    pub(crate) fn alias(&self) -> &RoomAliasId {
        &self.alias
    }
}

impl Drop for AliasClaim<'_> {
    fn drop(&mut self) {
        self.claims.0.lock().remove(&self.alias);
    }
}
