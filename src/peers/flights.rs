//! One question at a time to each name.

use std::hash::Hash;
use std::sync::Arc;

use moka::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Names that are asked at the same time.
const MAX_FLIGHTS: u64 = 50_000;

/// Who wants to ask waits here until nobody else does, and then looks whether the answer has come meanwhile.
///
/// Under very many names a lock may be forgotten while it is held: then two ask, which is no harm.
pub(crate) struct Flights<K>(Cache<K, Arc<Mutex<()>>>);

impl<K: Hash + Eq + Send + Sync + 'static> Flights<K> {
    pub(crate) fn new() -> Self {
        Self(Cache::new(MAX_FLIGHTS))
    }

    pub(crate) async fn turn(&self, name: K) -> OwnedMutexGuard<()> {
        self.0.get_with(name, Arc::default).lock_owned().await
    }
}
