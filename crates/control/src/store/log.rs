//! The log of what was done, and by whom; and the number of the last decision, which keeps decisions in their order.
//!
//! Nothing is read from the log to go on after a crash: what a tailnet is stands in its tables. So its oldest rows may go,
//! and they do: once they are old, and where the rows of one of those who act, or of all devices together, take too much
//! room. Nobody pushes out what another did but a device what devices did.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use sqlx::{Sqlite, Transaction};

use super::{Entry, Store, StoreError, number};

/// How long a row of the log is kept, and how much room rows have.
#[derive(Debug, Clone, Copy)]
pub(super) struct LogBounds {
    /// How long at most.
    pub(super) kept: SignedDuration,
    /// How many bytes the rows of one person, one program or the server itself have in a tailnet.
    pub(super) of_one: i64,
    /// How many those of one device have.
    pub(super) of_device: i64,
    /// How many those of all devices together have.
    pub(super) of_devices: i64,
    /// How many bytes come until the log is held to its bounds again.
    pub(super) slack: u64,
}

impl LogBounds {
    /// Those of every server; the guide tells them.
    const OF_SERVER: Self = Self {
        kept: SignedDuration::from_hours(400 * 24),
        of_one: 16 << 20,
        of_device: 256 << 10,
        of_devices: 64 << 20,
        slack: 4 << 20,
    };

    /// How long the log is not held to its bounds however little comes.
    const REST: SignedDuration = SignedDuration::from_hours(24);
}

impl Default for LogBounds {
    fn default() -> Self {
        Self::OF_SERVER
    }
}

/// When the log was last held to its bounds, and how many bytes have come since; `None` when it was not since the start.
#[derive(Debug, Clone, Default)]
pub(super) struct LogGrowth(Arc<Mutex<Option<(Timestamp, u64)>>>);

impl LogGrowth {
    fn is_due(&self, bounds: &LogBounds, at: Timestamp, bytes: u64) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_none_or(|(last, come)| come + bytes > bounds.slack || at.duration_since(last) > LogBounds::REST)
    }

    fn note(&self, appended: &Appended) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *last {
            Some((_, come)) if !appended.pruned => *come += appended.bytes,
            _ => *last = Some((appended.at, 0)),
        }
    }
}

/// What was appended to the log in a transaction that may still fail.
#[derive(Debug)]
#[must_use]
pub(super) struct Appended {
    at: Timestamp,
    bytes: u64,
    pruned: bool,
}

impl Store {
    /// Gives a decision its number, if it follows the last one.
    pub(super) async fn follow(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        entry: &Entry<'_>,
    ) -> Result<(), StoreError> {
        let query = match entry.revision {
            1 => "INSERT INTO revisions (tailnet, revision) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            _ => "UPDATE revisions SET revision = ?2 WHERE tailnet = ?1 AND revision = ?2 - 1",
        };
        let query = sqlx::query(query).bind(number(entry.tailnet.0)).bind(number(entry.revision));
        let followed = query.execute(&mut **transaction).await.map_err(|error| self.failed(error))?;
        if followed.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Overtaken { tailnet: entry.tailnet }) }
    }

    /// Appends what somebody did to the log, and holds the log to its bounds where that is due.
    pub(super) async fn append(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        entry: &Entry<'_>,
    ) -> Result<Appended, StoreError> {
        let told: Vec<_> = entry.changes.iter().map(tailnet::Change::for_log).collect();
        let changes = serde_json::to_string(&told).map_err(|error| StoreError::Database {
            path: self.path.clone(),
            source: sqlx::Error::Encode(error.into()),
        })?;
        let bytes = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        let query = "INSERT INTO log (tailnet, revision, at, actor, command, changes) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        sqlx::query(query)
            .bind(number(entry.tailnet.0))
            .bind(number(entry.revision))
            .bind(entry.at.to_string())
            .bind(entry.actor)
            .bind(entry.command)
            .bind(changes)
            .execute(&mut **transaction)
            .await
            .map_err(|error| self.failed(error))?;
        let pruned = self.log_growth.is_due(&self.log_bounds, entry.at, bytes);
        if pruned {
            self.prune(transaction, entry.at).await?;
        }
        Ok(Appended { at: entry.at, bytes, pruned })
    }

    /// Takes note of what was appended, once it is written.
    pub(super) fn note_appended(&self, appended: Option<Appended>) {
        if let Some(appended) = appended {
            self.log_growth.note(&appended);
        }
    }

    /// Takes out of the log what is too old, and the oldest rows where there is more than there is room for.
    async fn prune(&self, transaction: &mut Transaction<'_, Sqlite>, now: Timestamp) -> Result<(), StoreError> {
        // Devices act by their machine keys. A row has about a hundred bytes besides what it tells.
        let query = "DELETE FROM log WHERE at < ?1 OR (tailnet, revision) IN ( \
                       SELECT tailnet, revision FROM ( \
                         SELECT tailnet, revision, device, \
                                sum(bytes) OVER (PARTITION BY tailnet, actor ORDER BY revision DESC) AS own, \
                                sum(bytes) OVER (PARTITION BY tailnet, device ORDER BY revision DESC) AS shared \
                         FROM (SELECT tailnet, revision, actor, actor GLOB 'mkey:*' AS device, \
                                      octet_length(changes) + 100 AS bytes FROM log)) \
                       WHERE own > iif(device, ?2, ?3) OR (device AND shared > ?4))";
        let bounds = &self.log_bounds;
        let oldest = now.saturating_sub(bounds.kept).unwrap_or(Timestamp::MIN);
        let pruned = sqlx::query(query)
            .bind(oldest.to_string())
            .bind(bounds.of_device)
            .bind(bounds.of_one)
            .bind(bounds.of_devices)
            .execute(&mut **transaction)
            .await
            .map_err(|error| self.failed(error))?;
        tracing::debug!(rows = pruned.rows_affected(), "the oldest rows of the log went");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tailnet::TailnetId;

    use super::*;

    const BOUNDS: LogBounds = LogBounds {
        kept: SignedDuration::from_hours(24 * 10),
        of_one: 1000,
        of_device: 500,
        of_devices: 2000,
        slack: 0,
    };

    async fn store(folder: &tempfile::TempDir) -> Store {
        let store = Store::open(&folder.path().join("control.db")).await.unwrap();
        sqlx::query("INSERT INTO tailnet VALUES (1, '', '{}')").execute(&store.pool).await.unwrap();
        Store { log_bounds: BOUNDS, ..store }
    }

    /// What some did, one after the other.
    async fn act(store: &Store, from: u64, actors: &[&str], at: Timestamp) {
        for (actor, revision) in actors.iter().zip(from..) {
            let tailnet = TailnetId(1);
            let entry = Entry { tailnet, revision, at, actor, command: "Test", changes: &[], is_act: true };
            store.write(&entry).await.unwrap();
        }
    }

    /// Who acted at which revision, by the log.
    async fn rows(store: &Store) -> Vec<(i64, String)> {
        let query = "SELECT revision, actor FROM log ORDER BY revision";
        sqlx::query_as(query).fetch_all(&store.pool).await.unwrap()
    }

    fn count(rows: &[(i64, String)], actor: &str) -> usize {
        rows.iter().filter(|(_, by)| by == actor).count()
    }

    #[tokio::test]
    async fn nobody_pushes_out_what_another_did_and_devices_have_room_together() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        let at = Timestamp::UNIX_EPOCH;
        act(&store, 1, &["user 1 admin@example.com"], at).await;
        act(&store, 2, &["user 2 member@example.com"; 20], at).await;
        let machines: Vec<String> = (0..30).map(|number| format!("mkey:{}", number % 10)).collect();
        act(&store, 22, &machines.iter().map(String::as_str).collect::<Vec<_>>(), at).await;
        act(&store, 52, &["mkey:0"; 20], at).await;
        let rows = rows(&store).await;
        // A row of nothing has 102 bytes.
        assert_eq!(count(&rows, "user 1 admin@example.com"), 1);
        assert_eq!(count(&rows, "user 2 member@example.com"), 9);
        assert_eq!(count(&rows, "mkey:0"), 4);
        assert_eq!(rows.iter().filter(|(_, by)| by.starts_with("mkey:")).count(), 4 + 14);
        assert_eq!(rows.last().unwrap().0, 71, "the newest stay");
    }

    #[tokio::test]
    async fn what_is_old_goes_and_decisions_keep_their_order_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder).await;
        act(&store, 1, &["server", "server"], Timestamp::UNIX_EPOCH).await;
        let later = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 11);
        act(&store, 3, &["server"], later).await;
        assert_eq!(rows(&store).await, [(3, "server".to_owned())]);
        let entry = |revision| Entry {
            tailnet: TailnetId(1),
            revision,
            at: later,
            actor: "server",
            command: "Test",
            changes: &[],
            is_act: false,
        };
        for stale in [1, 2, 3, 5] {
            let refused = store.write(&entry(stale)).await.unwrap_err();
            assert!(matches!(refused, StoreError::Overtaken { .. }), "{stale}: {refused}");
        }
        store.write(&entry(4)).await.unwrap();
        assert_eq!(rows(&store).await.len(), 1, "what is no act has no row");
        store.close().await;
        let store = Store::open(&folder.path().join("control.db")).await.unwrap();
        let revision: i64 = sqlx::query_scalar("SELECT revision FROM revisions").fetch_one(&store.pool).await.unwrap();
        assert_eq!(revision, 4);
    }

    #[test]
    fn the_log_is_held_to_its_bounds_at_the_start_by_growth_and_every_day() {
        let growth = LogGrowth::default();
        let bounds = LogBounds { slack: 100, ..BOUNDS };
        let at = Timestamp::UNIX_EPOCH;
        assert!(growth.is_due(&bounds, at, 1));
        growth.note(&Appended { at, bytes: 1, pruned: true });
        assert!(!growth.is_due(&bounds, at, 100));
        growth.note(&Appended { at, bytes: 60, pruned: false });
        assert!(!growth.is_due(&bounds, at, 40) && growth.is_due(&bounds, at, 41));
        assert!(growth.is_due(&bounds, at + SignedDuration::from_hours(25), 1));
    }
}
