use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use sqlx::migrate::{Migrate, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Row, Sqlite, Transaction};
use tailcfg::NodeId;
use tailnet::{Change, Table, TailnetId};

mod history;
mod log;
mod rows;
mod sessions;
mod watch;

pub(crate) use history::PolicyInForce;
pub(crate) use sessions::{EndedSessions, StoredSession};

use log::{LogBounds, LogGrowth};
use rows::{document, put};
use watch::LastWrite;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// How long a write waits for somebody else's, such as a backup, before it gives up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why something was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the database.
    #[error("the database is locked by another process; trying again helps once that is done")]
    Locked,
    /// There is no room left.
    #[error("the disk of the database is full: make room in {folder:?}")]
    Full {
        /// Where it stands.
        folder: PathBuf,
    },
    /// What was decided does not follow what is written: somebody else has written to the database.
    #[error("tailnet {tailnet} has changed in the database behind this server's back; restart the server")]
    Overtaken {
        /// The tailnet.
        tailnet: TailnetId,
    },
    /// A row can't be read; the server must not go on as if it weren't there.
    #[error("row {key:?} of table {table} in tailnet {tailnet} can't be read: {reason}")]
    Row {
        /// The table.
        table: &'static str,
        /// The tailnet.
        tailnet: TailnetId,
        /// The row's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else.
    #[error("the database {path:?} can't be used: {source}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: sqlx::Error,
    },
    /// The database was made by a newer version, or a migration failed.
    #[error("the database {path:?} can't be brought to this version: {reason}")]
    Migration {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

impl StoreError {
    /// Whether trying again later helps without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Locked | Self::Full { .. })
    }
}

/// One decision as it is written down.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    /// The tailnet that decided.
    pub(crate) tailnet: TailnetId,
    /// The revision that this leads to.
    pub(crate) revision: u64,
    /// When.
    pub(crate) at: Timestamp,
    /// Who asked for it.
    pub(crate) actor: &'a str,
    /// What was asked for.
    pub(crate) command: &'a str,
    /// What changed.
    pub(crate) changes: &'a [Change],
    /// Whether the log is to tell of it.
    pub(crate) is_act: bool,
}

/// A tailnet as it was read.
#[derive(Debug, PartialEq)]
pub(crate) struct Stored {
    pub(crate) tailnet: TailnetId,
    pub(crate) revision: u64,
    pub(crate) changes: Vec<Change>,
    /// Where devices were last seen, as JSON.
    pub(crate) presence: Vec<(NodeId, String)>,
}

/// Everything that the server must not forget, in one SQLite database.
///
/// What a write has returned for survives a crash of the process, the kernel and the power.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: SqlitePool,
    path: PathBuf,
    last_write: LastWrite,
    log_bounds: LogBounds,
    log_growth: LogGrowth,
}

impl Store {
    /// Opens the database, making it if there is none, and brings it to this version.
    ///
    /// Before an existing database is changed, a copy of it is put beside it.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, &MIGRATIONS).await
    }

    async fn open_with(path: &Path, migrations: &Migrator) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
            // Statements hold names, addresses and hashes, which have no place in logs.
            .disable_statement_logging();
        // One connection: writes come one after the other anyway, and reads are from memory.
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let pool = pool.map_err(|source| failed(path, source))?;
        let store = Self {
            pool,
            path: path.to_owned(),
            last_write: LastWrite::default(),
            log_bounds: LogBounds::default(),
            log_growth: LogGrowth::default(),
        };
        store.migrate(migrations).await?;
        Ok(store)
    }

    /// Whether a database has a tailnet in it; one that was only begun has not. Nothing is changed in it.
    pub(crate) async fn has_tailnet(path: &Path) -> Result<bool, StoreError> {
        let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(PATIENCE);
        let mut connection = options.connect().await.map_err(|source| failed(path, source))?;
        let table = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'tailnet'";
        let made: i64 =
            sqlx::query_scalar(table).fetch_one(&mut connection).await.map_err(|source| failed(path, source))?;
        let tailnets: i64 = match made {
            0 => 0,
            _ => {
                let counted = sqlx::query_scalar("SELECT count(*) FROM tailnet").fetch_one(&mut connection).await;
                counted.map_err(|source| failed(path, source))?
            }
        };
        // Nothing was written, so there is nothing to lose.
        let _ = connection.close().await;
        Ok(tailnets > 0)
    }

    /// Ends all work; what was written is safe without it.
    pub(crate) async fn close(self) {
        self.pool.close().await;
    }

    async fn migrate(&self, migrations: &Migrator) -> Result<(), StoreError> {
        let failed = |reason: String| StoreError::Migration { path: self.path.clone(), reason };
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(error))?;
        let table = &migrations.table_name;
        connection.ensure_migrations_table(table).await.map_err(|error| failed(error.to_string()))?;
        let applied = connection.list_applied_migrations(table).await.map_err(|error| failed(error.to_string()))?;
        drop(connection);
        let newest = applied.iter().map(|migration| migration.version).max();
        let pending = migrations.iter().any(|migration| newest.is_some_and(|newest| migration.version > newest));
        if let Some(version) = newest.filter(|_| pending) {
            let copy = self.back_up(version).await?;
            tracing::info!(copy = %copy.display(), "copied the database before changing it");
        }
        migrations.run(&self.pool).await.map_err(|error| failed(error.to_string()))
    }

    /// Copies the database as a whole to a file beside it that is named after its version.
    async fn back_up(&self, version: i64) -> Result<PathBuf, StoreError> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let stamp = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let copy = self.path.with_file_name(format!("{name}.version-{version}.{stamp}"));
        let target = copy.to_string_lossy().into_owned();
        sqlx::query("VACUUM INTO ?").bind(target).execute(&self.pool).await.map_err(|error| self.failed(error))?;
        Ok(copy)
    }

    /// Reads everything.
    pub(crate) async fn load(&self) -> Result<Vec<Stored>, StoreError> {
        let query = "SELECT tailnet.tailnet, coalesce(revision, 0) FROM tailnet LEFT JOIN revisions USING (tailnet) \
                     ORDER BY tailnet.tailnet";
        let tailnets: Vec<(i64, i64)> =
            sqlx::query_as(query).fetch_all(&self.pool).await.map_err(|error| self.failed(error))?;
        let mut stored = Vec::new();
        for (id, revision) in tailnets {
            let tailnet = TailnetId(id.unsigned_abs());
            let mut changes = Vec::new();
            for table in Table::ALL {
                changes.extend(self.load_table(tailnet, table).await?);
            }
            let presence = self.load_presence(tailnet).await?;
            stored.push(Stored { tailnet, revision: revision.unsigned_abs(), changes, presence });
        }
        Ok(stored)
    }

    async fn load_table(&self, tailnet: TailnetId, table: Table) -> Result<Vec<Change>, StoreError> {
        let query = rows::select(table);
        let rows = sqlx::query(query).bind(number(tailnet.0)).fetch_all(&self.pool).await;
        rows.map_err(|error| self.failed(error))?
            .iter()
            .map(|row| {
                let (key, document): (String, String) = (row.get(0), row.get(1));
                let broken =
                    |reason: String| StoreError::Row { table: table.name(), tailnet, key: key.clone(), reason };
                let change = put(table, &document).map_err(|error| broken(error.to_string()))?;
                if change.row() != (table, key.clone()) {
                    return Err(broken("it is another row's".to_owned()));
                }
                Ok(change)
            })
            .collect()
    }

    async fn load_presence(&self, tailnet: TailnetId) -> Result<Vec<(NodeId, String)>, StoreError> {
        let query = "SELECT node, document FROM presence WHERE tailnet = ? ORDER BY node";
        let rows: Vec<(i64, String)> = sqlx::query_as(query)
            .bind(number(tailnet.0))
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        Ok(rows.into_iter().map(|(node, document)| (NodeId(node.unsigned_abs()), document)).collect())
    }

    /// Writes one decision, as a whole or not at all.
    pub(crate) async fn write(&self, entry: &Entry<'_>) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(error))?;
        let written = self.write_on(&mut connection, entry).await;
        self.give_back(connection, written).await
    }

    async fn write_on(&self, connection: &mut SqliteConnection, entry: &Entry<'_>) -> Result<(), StoreError> {
        // The lock is taken at once: a transaction that finds it taken half way can't wait for it.
        let begun = connection.begin_with("BEGIN IMMEDIATE").await;
        let mut transaction = begun.map_err(|error| self.failed(error))?;
        for change in entry.changes {
            self.apply(&mut transaction, entry.tailnet, change).await?;
            if let Change::PutPolicy(policy) = change {
                self.note_policy(&mut transaction, entry, policy).await?;
            }
            if let Change::DeleteNode(node) = change {
                let query = sqlx::query("DELETE FROM presence WHERE tailnet = ? AND node = ?");
                let query = query.bind(number(entry.tailnet.0)).bind(number(node.0));
                query.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
            }
        }
        self.follow(&mut transaction, entry).await?;
        let appended = match entry.is_act {
            true => Some(self.append(&mut transaction, entry).await?),
            false => None,
        };
        transaction.commit().await.map_err(|error| self.failed(error))?;
        self.note_appended(appended);
        Ok(())
    }

    async fn apply(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        tailnet: TailnetId,
        change: &Change,
    ) -> Result<(), StoreError> {
        let (table, key) = change.row();
        let query = if change.is_deletion() {
            sqlx::query(rows::delete(table)).bind(number(tailnet.0)).bind(key)
        } else {
            let document = document(change).map_err(|error| StoreError::Row {
                table: table.name(),
                tailnet,
                key: key.clone(),
                reason: error.to_string(),
            })?;
            sqlx::query(rows::upsert(table)).bind(number(tailnet.0)).bind(key).bind(document)
        };
        query.execute(&mut **transaction).await.map(drop).map_err(|error| self.failed(error))
    }

    /// Gives a connection back after a write, or ends it when the write failed.
    ///
    /// On a full disk SQLite itself ends the transaction. The count of open ones that sqlx keeps does not follow that, and
    /// every later write on the connection would be refused.
    async fn give_back(
        &self,
        connection: PoolConnection<Sqlite>,
        written: Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.last_write.note(&written);
        if written.is_err()
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "a connection to the database did not end well");
        }
        written
    }

    /// Writes where devices were last seen.
    pub(crate) async fn write_presence(&self, tailnet: TailnetId, seen: &[(NodeId, String)]) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await.map_err(|error| self.failed(error))?;
        let written = self.write_presence_on(&mut connection, tailnet, seen).await;
        self.give_back(connection, written).await
    }

    async fn write_presence_on(
        &self,
        connection: &mut SqliteConnection,
        tailnet: TailnetId,
        seen: &[(NodeId, String)],
    ) -> Result<(), StoreError> {
        let begun = connection.begin().await;
        let mut transaction = begun.map_err(|error| self.failed(error))?;
        for (node, document) in seen {
            let query = "INSERT INTO presence (tailnet, node, document) VALUES (?1, ?2, ?3) \
                         ON CONFLICT DO UPDATE SET document = excluded.document";
            let query = sqlx::query(query).bind(number(tailnet.0)).bind(number(node.0)).bind(document);
            query.execute(&mut *transaction).await.map_err(|error| self.failed(error))?;
        }
        transaction.commit().await.map_err(|error| self.failed(error))
    }

    fn failed(&self, source: sqlx::Error) -> StoreError {
        failed(&self.path, source)
    }
}

/// SQLite's numbers are signed; ours count up from one and never come near the end.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn failed(path: &Path, source: sqlx::Error) -> StoreError {
    /// SQLite's primary result codes, in the low byte of what it reports.
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const FULL: u32 = 13;
    /// There is no room for the index of the log (an extended code): the other face of a full disk.
    const NO_ROOM_FOR_INDEX: u32 = 10 | 19 << 8;
    let code = source.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    match code.map(|code| if code == NO_ROOM_FOR_INDEX { FULL } else { code & 0xff }) {
        Some(BUSY | LOCKED) => StoreError::Locked,
        Some(FULL) => StoreError::Full { folder: path.parent().unwrap_or(Path::new(".")).to_owned() },
        _ => StoreError::Database { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(revision: u64, actor: &'a str) -> Entry<'a> {
        let (tailnet, at) = (TailnetId(1), Timestamp::UNIX_EPOCH);
        Entry { tailnet, revision, at, actor, command: "Test", changes: &[], is_act: true }
    }

    /// What SQLite calls waiting for the disk with each commit.
    const FULL: i64 = 2;

    async fn waits_for_the_disk(store: &Store) {
        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.pool).await.unwrap();
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.pool).await.unwrap();
        assert_eq!((journal.as_str(), synchronous), ("wal", FULL));
    }

    #[tokio::test]
    async fn every_connection_waits_for_the_disk_before_a_write_returns() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("control.db")).await.unwrap();
        sqlx::query("INSERT INTO tailnet VALUES (1, '', '{}')").execute(&store.pool).await.unwrap();
        waits_for_the_disk(&store).await;
        // The one that failed is ended, and another takes its place.
        store.write(&entry(7, "somebody")).await.unwrap_err();
        waits_for_the_disk(&store).await;
    }

    #[tokio::test]
    async fn a_write_for_which_there_is_no_room_spoils_none_that_follows() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("control.db")).await.unwrap();
        sqlx::query("INSERT INTO tailnet VALUES (1, '', '{}')").execute(&store.pool).await.unwrap();
        // SQLite then takes the file as it is for all the room that there is.
        sqlx::query("PRAGMA max_page_count = 1").execute(&store.pool).await.unwrap();
        let refused = store.write(&entry(1, &"x".repeat(1 << 20))).await.unwrap_err();
        assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
        assert!(refused.to_string().starts_with("the disk of the database is full: make room in"), "{refused}");
        store.write(&entry(1, "somebody")).await.unwrap();
        let again = store.write(&entry(1, "somebody")).await.unwrap_err();
        assert!(matches!(again, StoreError::Overtaken { .. }), "{again}");
        store.write(&entry(2, "somebody")).await.unwrap();
    }
}
