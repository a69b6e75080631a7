//! The store's own rows: who it belongs to, and how far it has come.

use hearth_store::Pos;
use rocksdb::DB;
use serde::{Deserialize, Serialize};

use crate::open::OpenError;

/// Key of the identity. Lanes end at 31, so no row of a keyspace is near.
const IDENTITY: &[u8] = b"\xFFidentity";
/// Key of the progress.
pub(crate) const PROGRESS: &[u8] = b"\xFFprogress";
/// First byte of the store's own keys.
pub(crate) const OWN: u8 = 0xFF;

/// Whose store it is and which format it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The server's name. Everything in the store is signed and named by it, so it never changes.
    pub server_name: String,
    /// Version of the format that this program writes.
    pub schema_version: u32,
    /// Oldest version of this program's format that can still read what it writes.
    pub compat_version: u32,
}

/// The identity as it is stored. JSON, so that an old program reads the versions of a newer one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredIdentity {
    server_name: String,
    schema_version: u32,
    compat_version: u32,
    pub(crate) store_key: [u8; 32],
}

impl StoredIdentity {
    pub(crate) fn new(identity: &Identity, store_key: [u8; 32]) -> Self {
        let Identity { server_name, schema_version, compat_version } = identity.clone();
        Self { server_name, schema_version, compat_version, store_key }
    }

    /// The identity of `db`, `None` if it has just been created.
    pub(crate) fn read(db: &DB) -> Result<Option<Self>, OpenError> {
        let row = db.get_pinned(IDENTITY).map_err(OpenError::from_rocks)?;
        row.map(|json| serde_json::from_slice(&json))
            .transpose()
            .map_err(|error| OpenError::Corrupt(format!("the identity row: {error}")))
    }

    pub(crate) fn put(&self, batch: &mut rocksdb::WriteBatch) {
        let json = serde_json::to_vec(self).expect("an identity is plain data");
        batch.put(IDENTITY, json);
    }

    /// Refuses a store of another server or of a format this program cannot read.
    pub(crate) fn admit(&self, wanted: &Identity) -> Result<(), OpenError> {
        if self.server_name != wanted.server_name {
            let (stored, wanted) = (self.server_name.clone(), wanted.server_name.clone());
            return Err(OpenError::WrongServer { stored, wanted });
        }
        if self.compat_version > wanted.schema_version {
            return Err(OpenError::Newer { stored: self.schema_version, known: wanted.schema_version });
        }
        Ok(())
    }

    /// Whether the versions have to be raised because this program is newer than the last one.
    pub(crate) fn raise(&mut self, wanted: &Identity) -> bool {
        let older = self.schema_version < wanted.schema_version;
        if older {
            self.schema_version = wanted.schema_version;
            self.compat_version = wanted.compat_version;
        }
        older
    }
}

/// How far the store has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Batches ever committed.
    pub(crate) commits: u64,
    /// Last position given out.
    pub(crate) last: Pos,
}

impl Default for Progress {
    /// Of a new store.
    fn default() -> Self {
        Self { commits: 0, last: Pos::FLOOR }
    }
}

impl Progress {
    pub(crate) fn read(db: &DB) -> Result<Self, OpenError> {
        match db.get_pinned(PROGRESS).map_err(OpenError::from_rocks)? {
            None => Ok(Self::default()),
            Some(row) => {
                let row = <[u8; 16]>::try_from(&*row)
                    .map_err(|_| OpenError::Corrupt("the progress row has a wrong length".into()))?;
                Ok(Self::from_bytes(row))
            }
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.commits) << 64 | u128::from(self.last.get())).to_be_bytes()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(crate) const fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { commits: (both >> 64) as u64, last: Pos::new(both as u64) }
    }
}
