//! Opening the store, with everything that can be wrong told in plain words.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use hearth_base::{Random as _, SystemRandom};
use hearth_settings::Settings;
use hearth_store_rocks::{Identity, OpenError, RocksOptions, RocksStore};

use crate::exit::{Code, Failure};

/// Version of the format that this program writes; grows when an older one could not read it.
const SCHEMA_VERSION: u32 = 1;
/// Oldest version of the program's format that reads what this one writes.
const COMPAT_VERSION: u32 = 1;

/// Whether a store that lacks acknowledged writes is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rollback {
    /// It is refused.
    Refuse,
    /// The operator knows, and goes on without them.
    Accept,
}

/// Makes the storage directory, for this user only.
pub(crate) fn prepare_directory(settings: &Settings) -> Result<(), Failure> {
    let path = &settings.storage.path;
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Failure::new(Code::Io, format!("cannot make the storage directory {}: {error}", path.display()))
    })
}

/// Opens the store that `settings` names, or makes it.
pub(crate) fn store(settings: &Settings, rollback: Rollback) -> Result<Arc<RocksStore>, Failure> {
    let mut new_store_key = [0; 32];
    SystemRandom.fill(&mut new_store_key);
    let mut options = RocksOptions::new(new_store_key);
    options.block_cache_bytes = settings.storage.block_cache.as_usize();
    options.write_buffer_bytes = settings.storage.write_buffers.as_usize();
    options.accept_rollback = rollback == Rollback::Accept;
    let identity = Identity {
        server_name: settings.server.name.clone(),
        schema_version: SCHEMA_VERSION,
        compat_version: COMPAT_VERSION,
    };
    let store = RocksStore::open(&settings.storage.path, &options, hearth_schema::ALL, &identity)
        .map_err(|error| refusal(settings, &error))?;
    if let Some(missing) = store.rolled_back() {
        tracing::warn!(missing, "the store lacks acknowledged writes, as accepted");
    }
    Ok(Arc::new(store))
}

fn refusal(settings: &Settings, error: &OpenError) -> Failure {
    let code = match error {
        OpenError::InUse(_) => Code::Busy,
        OpenError::Io(_) => Code::Io,
        OpenError::WrongServer { .. }
        | OpenError::Newer { .. }
        | OpenError::RolledBack { .. }
        | OpenError::Corrupt(_) => Code::Unusable,
    };
    let hint = match error {
        OpenError::RolledBack { .. } => " (hearth run --accept-rollback)",
        _ => "",
    };
    Failure::new(code, format!("{}: {error}{hint}", settings.storage.path.display()))
}
