//! Whether the database can be written: what readiness says of it.

use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use telemetry::Condition;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Store, StoreError};

/// How soon a write is tried again after one failed.
const RETRY: Duration = Duration::from_secs(1);

/// How long nothing may be written before a write is tried, so that a server that nobody asks anything knows too.
const IDLE: Duration = Duration::from_secs(60);

/// How the last write went.
#[derive(Debug, Clone)]
pub(super) struct LastWrite(watch::Sender<Outcome>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Outcome {
    #[default]
    Written,
    /// The reason; the next try may go better.
    Failed(String),
    /// The reason; nothing but a restart helps.
    Lost(String),
}

impl Default for LastWrite {
    fn default() -> Self {
        Self(watch::Sender::new(Outcome::Written))
    }
}

impl LastWrite {
    /// Takes note of how a write went.
    pub(super) fn note(&self, written: &Result<(), StoreError>) {
        let outcome = match written {
            Ok(()) => Outcome::Written,
            // The row is at fault, not the database.
            Err(StoreError::Row { .. }) => return,
            Err(error @ StoreError::Overtaken { .. }) => Outcome::Lost(error.to_string()),
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.0.send_modify(|last| {
            if !matches!(last, Outcome::Lost(_)) {
                *last = outcome;
            }
        });
    }
}

impl Store {
    /// Says of a condition whether the database can be written, until `stop` is asked for.
    ///
    /// It goes by how the last write went, whoever made it. Only when that failed, or when none was made for a minute, is
    /// one made for its own sake: probes cost nothing, however often they come.
    pub(crate) async fn watch(self, condition: Condition, stop: CancellationToken) {
        let mut last = self.last_write.0.subscribe();
        loop {
            let outcome = last.borrow_and_update().clone();
            match &outcome {
                Outcome::Written => condition.met(),
                Outcome::Failed(reason) | Outcome::Lost(reason) => {
                    condition.unmet(format!("no write succeeds: {reason}"))
                }
            }
            let wait = if outcome == Outcome::Written { IDLE } else { RETRY };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = last.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = tokio::time::sleep(wait) => {
                    if let Err(error) = self.try_write().await {
                        tracing::warn!(%error, "the database can't be written");
                    }
                }
            }
        }
    }

    /// Writes something that changes nothing, and waits until it is as safe as any write.
    async fn try_write(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(error))?;
        let written = self.try_write_on(&mut connection).await;
        self.give_back(connection, written).await
    }

    async fn try_write_on(&self, connection: &mut SqliteConnection) -> Result<(), StoreError> {
        let begun = connection.begin_with("BEGIN IMMEDIATE").await;
        let mut transaction = begun.map_err(|error| self.failed(error))?;
        // A number in the database's head that is the application's to use. We use it for nothing else.
        let touched = sqlx::query("PRAGMA user_version = 1").execute(&mut *transaction).await;
        touched.map_err(|error| self.failed(error))?;
        transaction.commit().await.map_err(|error| self.failed(error))
    }
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions;
    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
    use telemetry::Health;

    use super::*;

    /// Waits until readiness is as it should be; answers the reason.
    async fn until(health: &Health, ready: bool) -> String {
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                let reason: String = health.unmet().into_iter().map(|(_, reason)| reason).collect();
                if reason.is_empty() == ready && reason != "not started" {
                    return reason;
                }
                // tidy: sleep, readiness tells nobody that it changed
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        waited.await.expect("readiness follows the database")
    }

    fn watched(store: &Store) -> (Health, CancellationToken) {
        let (health, stop) = (Health::new(), CancellationToken::new());
        tokio::spawn(store.clone().watch(health.condition("database"), stop.clone()));
        (health, stop)
    }

    #[tokio::test]
    async fn a_locked_database_is_not_ready_for_as_long_as_it_is_locked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let store = Store::open(&path).await.unwrap();
        let (health, stop) = watched(&store);
        until(&health, true).await;

        let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
        let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let failed = store.write_presence(tailnet::TailnetId(1), &[(tailcfg::NodeId(1), "{}".to_owned())]).await;
        assert!(matches!(failed, Err(StoreError::Locked)), "{failed:?}");
        let reason = until(&health, false).await;
        assert!(reason.starts_with("no write succeeds: the database is locked by another process"), "{reason}");
        held.rollback().await.unwrap();
        until(&health, true).await;
        stop.cancel();
    }

    #[tokio::test]
    async fn a_database_that_is_read_only_is_not_ready() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let whole = Store::open(&path).await.unwrap();
        let options = SqliteConnectOptions::new().filename(&path).read_only(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let store = Store { pool, ..whole.clone() };
        let (health, stop) = watched(&whole);
        until(&health, true).await;
        let failed = store.try_write().await.unwrap_err().to_string();
        assert!(failed.contains("readonly"), "{failed}");
        let reason = until(&health, false).await;
        assert!(reason.contains("readonly"), "{reason}");
        // The watch writes by a connection that can.
        until(&health, true).await;
        stop.cancel();
    }

    #[tokio::test]
    async fn who_was_overtaken_is_not_ready_until_it_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("control.db")).await.unwrap();
        store.last_write.note(&Err(StoreError::Overtaken { tailnet: tailnet::TailnetId(1) }));
        store.try_write().await.unwrap();
        let (health, stop) = watched(&store);
        let reason = until(&health, false).await;
        assert!(reason.contains("restart the server"), "{reason}");
        stop.cancel();
    }
}
