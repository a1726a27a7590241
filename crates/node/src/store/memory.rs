use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use super::{StateChange, StateStore, StoreError};

/// State that ends with the process: for nodes that join anew each time.
#[derive(Default)]
pub struct MemoryStore {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MemoryStore")
    }
}

impl StateStore for MemoryStore {
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let value = self.values.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        Box::pin(async move { Ok(value) })
    }

    fn write<'a>(&'a self, change: &'a StateChange) -> BoxFuture<'a, Result<(), StoreError>> {
        super::file::merge(&mut self.values.lock().unwrap_or_else(PoisonError::into_inner), change);
        Box::pin(async { Ok(()) })
    }
}
