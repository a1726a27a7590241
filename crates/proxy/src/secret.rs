use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use node::{StateChange, StateStore, StoreError};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backoff::Backoff;

mod remote;

use remote::Remote;
pub(crate) use remote::RemoteError;

/// How long a write waits to be acknowledged, before the node goes on with what is kept in memory so far.
const PATIENCE: Duration = Duration::from_secs(20);
/// Waits between attempts to reach the API server.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The most that is kept, in bytes: the API server takes no Secret beyond 1 MiB, base64 included.
const MAX_STATE: usize = 700 * 1024;

/// The state of a proxy in its Secret: read once, then written through.
///
/// What is written stands in memory at once and reaches the Secret in order, as one patch of the keys that changed. While
/// the API server is away it is tried again for as long as it takes, and the node goes on. A Secret that was made anew
/// meanwhile gets the whole state.
#[derive(Clone)]
pub(crate) struct SecretStore {
    shared: Arc<Shared>,
    _ends: Arc<DropGuard>,
}

struct Shared {
    name: String,
    state: Mutex<State>,
    /// Counts changes; the writer follows it.
    wanted: watch::Sender<u64>,
    /// The last change that the Secret has.
    acknowledged: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    values: BTreeMap<String, Vec<u8>>,
    /// What the Secret does not have yet.
    pending: StateChange,
    /// The Secret that was read: another one of the same name starts empty.
    uid: Option<String>,
}

impl SecretStore {
    /// Reads the Secret, and waits for it for as long as that takes: `waits` is told why.
    pub(crate) async fn open(client: kube::Client, namespace: &str, name: &str, waits: impl Fn(String)) -> Self {
        let remote = Remote::new(client, namespace, name);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut complaint = String::new();
        let (uid, values) = loop {
            match remote.read().await {
                Ok(found) => break found,
                Err(error) => {
                    let error = error.to_string();
                    if error != complaint {
                        tracing::warn!(%error, "waiting for the state Secret");
                        waits(error.clone());
                        complaint = error;
                    }
                    tokio::time::sleep(backoff.step()).await;
                }
            }
        };
        tracing::info!(secret = name, keys = values.len(), "the state was read");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            state: Mutex::new(State { values, pending: StateChange::new(), uid }),
            wanted: watch::Sender::new(0),
            acknowledged: watch::Sender::new(0),
        });
        let ends = CancellationToken::new();
        tokio::spawn(ends.clone().run_until_cancelled_owned(write_through(shared.clone(), remote)));
        Self { shared, _ends: Arc::new(ends.drop_guard()) }
    }

    /// A value as it stands.
    pub(crate) fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.lock().values.get(name).cloned()
    }

    /// The names of all values.
    pub(crate) fn names(&self) -> Vec<String> {
        self.shared.lock().values.keys().cloned().collect()
    }

    /// Changes values; the Secret has them as soon as the API server lets it.
    ///
    /// # Errors
    /// Names or a size that no Secret can have; nothing is changed then.
    pub(crate) fn put(&self, change: &StateChange) -> Result<(), StoreError> {
        self.shared.take(change).map(drop)
    }

    /// Changes values, and waits a while for the Secret to have them.
    ///
    /// # Errors
    /// Names or a size that no Secret can have; nothing is changed then.
    pub(crate) async fn change(&self, change: &StateChange) -> Result<(), StoreError> {
        let number = self.shared.take(change)?;
        let mut acknowledged = self.shared.acknowledged.subscribe();
        // An error means that the writer is gone, with the process.
        let kept = tokio::time::timeout(PATIENCE, acknowledged.wait_for(|last| *last >= number)).await;
        if kept.is_err() {
            tracing::warn!(secret = %self.shared.name, "the state is kept in memory until the API server answers");
        }
        Ok(())
    }

    /// Waits until the Secret has everything, for as long as it takes.
    pub(crate) async fn settled(&self) {
        let number = *self.shared.wanted.borrow();
        let mut acknowledged = self.shared.acknowledged.subscribe();
        // An error means that the writer is gone, with the process.
        let _ = acknowledged.wait_for(|last| *last >= number).await;
    }
}

impl StateStore for SecretStore {
    fn read<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        std::future::ready(Ok(self.value(name))).boxed()
    }

    fn write<'a>(&'a self, change: &'a StateChange) -> BoxFuture<'a, Result<(), StoreError>> {
        self.change(change).boxed()
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretStore").field(&self.shared.name).finish()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a change into memory and returns its number.
    fn take(&self, change: &StateChange) -> Result<u64, StoreError> {
        if let Some(name) = change.keys().find(|name| !is_key(name)) {
            return Err(StoreError::Other(format!("{name:?} can't be a key of a Secret")));
        }
        let mut state = self.lock();
        let mut values = state.values.clone();
        let mut differs = false;
        for (name, value) in change {
            let before = match value {
                Some(value) => values.insert(name.clone(), value.clone()),
                None => values.remove(name),
            };
            if before != *value {
                differs = true;
            }
        }
        let size: usize = values.iter().map(|(name, value)| name.len() + value.len()).sum();
        if size > MAX_STATE {
            return Err(StoreError::Other(format!("a state of {size} bytes does not fit in a Secret, {MAX_STATE} do")));
        }
        if !differs {
            return Ok(*self.wanted.borrow());
        }
        state.values = values;
        state.pending.extend(change.clone());
        // Under the lock, so that the writer never sees the number without the change.
        self.wanted.send_modify(|number| *number += 1);
        Ok(*self.wanted.borrow())
    }
}

/// Brings every change to the Secret, in order.
async fn write_through(shared: Arc<Shared>, remote: Remote) {
    let mut wanted = shared.wanted.subscribe();
    loop {
        let (number, change, uid) = {
            let state = shared.lock();
            let number = *wanted.borrow_and_update();
            (number, state.pending.clone(), state.uid.clone())
        };
        if !change.is_empty() {
            deliver(&shared, &remote, change, uid).await;
        }
        shared.acknowledged.send_replace(number);
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Tries until the Secret has a change.
async fn deliver(shared: &Shared, remote: &Remote, mut change: StateChange, mut uid: Option<String>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut since: Option<Instant> = None;
    let mut complaint = String::new();
    loop {
        match remote.patch(uid.as_deref(), &change).await {
            Ok(()) => break,
            Err(error) => {
                if matches!(error, RemoteError::Missing { .. } | RemoteError::Conflict { .. })
                    && let Ok((found, _)) = remote.read().await
                    && found != uid
                {
                    tracing::warn!(secret = %shared.name, "the state Secret was made anew; it gets the whole state");
                    uid.clone_from(&found);
                    let mut state = shared.lock();
                    state.uid = found;
                    change.extend(state.values.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
                    continue;
                }
                let error = error.to_string();
                if error != complaint {
                    tracing::warn!(%error, "the state is not in its Secret yet; it is tried again");
                    complaint = error;
                }
                since.get_or_insert_with(Instant::now);
                tokio::time::sleep(backoff.step()).await;
            }
        }
    }
    if let Some(since) = since {
        tracing::info!(secret = %shared.name, seconds = since.elapsed().as_secs(), "the state is in its Secret again");
    }
    // What changed again meanwhile stays to be written.
    shared.lock().pending.retain(|name, value| change.get(name) != Some(value));
}

/// Whether a Secret can have such a key.
fn is_key(name: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&name.len()) && name.bytes().all(fine) && name != "." && !name.starts_with("..")
}

#[cfg(test)]
mod tests;
