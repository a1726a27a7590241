//! The policies that were in force: a list without their texts, and each text by its version.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};
use tailnet::{PolicyRecord, TailnetId};

use super::{Entry, Store, StoreError, number};

/// How many policies a history goes back.
const MOST_POLICIES: i64 = 200;

/// A policy that was put in force, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyInForce {
    /// Its number.
    pub(crate) version: u64,
    /// Who it was.
    pub(crate) who: String,
    /// Why.
    pub(crate) why: String,
    /// When.
    pub(crate) when: Timestamp,
}

impl Store {
    /// Notes a policy that a decision puts in force.
    pub(super) async fn note_policy(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        entry: &Entry<'_>,
        policy: &PolicyRecord,
    ) -> Result<(), StoreError> {
        let query = "INSERT INTO policies (tailnet, revision, version, who, why, at) VALUES (?, ?, ?, ?, ?, ?)";
        sqlx::query(query)
            .bind(number(entry.tailnet.0))
            .bind(number(entry.revision))
            .bind(number(policy.version))
            .bind(&policy.who)
            .bind(&policy.why)
            .bind(policy.when.to_string())
            .execute(&mut **transaction)
            .await
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    /// Reads which policies were put in force, the newest first.
    pub(crate) async fn load_policies(&self, tailnet: TailnetId) -> Result<Vec<PolicyInForce>, StoreError> {
        let query = "SELECT version, who, why, at FROM policies WHERE tailnet = ? ORDER BY revision DESC LIMIT ?";
        let rows: Vec<(i64, String, String, String)> = sqlx::query_as(query)
            .bind(number(tailnet.0))
            .bind(MOST_POLICIES)
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        rows.into_iter()
            .map(|(version, who, why, at)| {
                let when = at.parse().map_err(|error: jiff::Error| unreadable(tailnet, version, &error))?;
                Ok(PolicyInForce { version: version.unsigned_abs(), who, why, when })
            })
            .collect()
    }

    /// Reads a policy that was put in force, with its text.
    pub(crate) async fn load_policy(
        &self,
        tailnet: TailnetId,
        version: u64,
    ) -> Result<Option<PolicyRecord>, StoreError> {
        // A decision that puts a policy in force may change rows besides it.
        let query = "SELECT json_extract(change.value, '$.\"put-policy\"') \
                     FROM policies JOIN log USING (tailnet, revision), json_each(log.changes) AS change \
                     WHERE policies.tailnet = ? AND policies.version = ? \
                     AND json_extract(change.value, '$.\"put-policy\"') IS NOT NULL \
                     ORDER BY policies.revision DESC LIMIT 1";
        let document: Option<String> = sqlx::query_scalar(query)
            .bind(number(tailnet.0))
            .bind(number(version))
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let read = |document: String| serde_json::from_str(&document);
        document.map(read).transpose().map_err(|error| unreadable(tailnet, number(version), &error))
    }
}

fn unreadable(tailnet: TailnetId, version: i64, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Row { table: "policies", tailnet, key: version.to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use tailnet::{Change, TailnetRecord};

    use super::*;

    const TAILNET: TailnetId = TailnetId(1);

    fn policy(version: u64) -> PolicyRecord {
        PolicyRecord {
            text: format!("// {version}\n{{}}"),
            version,
            who: "admin@example.com".to_owned(),
            why: format!("reason {version}"),
            when: Timestamp::UNIX_EPOCH,
        }
    }

    fn listed(version: u64) -> PolicyInForce {
        let PolicyRecord { who, why, when, .. } = policy(version);
        PolicyInForce { version, who, why, when }
    }

    /// A database in which two policies were put in force.
    async fn with_two(folder: &tempfile::TempDir) -> Store {
        let store = Store::open(&folder.path().join("control.db")).await.unwrap();
        let record = TailnetRecord {
            id: TAILNET,
            name: "example.com".to_owned(),
            domain: "example.ts.net".parse().unwrap(),
            created: Timestamp::UNIX_EPOCH,
        };
        let second = vec![Change::PutHighestNumber(7), Change::PutPolicy(policy(2))];
        let changes = [vec![Change::PutTailnet(record)], vec![Change::PutPolicy(policy(1))], second];
        for (changes, revision) in changes.iter().zip(1..) {
            let command = if revision == 1 { "CreateTailnet" } else { "SetPolicy" };
            let at = Timestamp::UNIX_EPOCH;
            let entry = Entry { tailnet: TAILNET, revision, at, actor: "test", command, changes };
            store.write(&entry).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn the_history_has_each_policy_that_was_put_in_force_the_newest_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_two(&folder).await;
        assert_eq!(store.load_policies(TAILNET).await.unwrap(), [listed(2), listed(1)]);
        assert_eq!(store.load_policies(TailnetId(2)).await.unwrap(), []);
        assert_eq!(store.load_policy(TAILNET, 1).await.unwrap(), Some(policy(1)));
        assert_eq!(store.load_policy(TAILNET, 2).await.unwrap(), Some(policy(2)));
        assert_eq!(store.load_policy(TAILNET, 3).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_database_from_before_the_history_had_a_table_gets_one_with_all_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_two(&folder).await;
        for undo in ["DROP TABLE policies", "DELETE FROM _sqlx_migrations WHERE version = 2"] {
            sqlx::query(undo).execute(&store.pool).await.unwrap();
        }
        store.close().await;
        let store = Store::open(&folder.path().join("control.db")).await.unwrap();
        assert_eq!(store.load_policies(TAILNET).await.unwrap(), [listed(2), listed(1)]);
        assert_eq!(store.load_policy(TAILNET, 1).await.unwrap(), Some(policy(1)));
    }

    #[tokio::test]
    async fn listing_the_history_reads_neither_the_log_nor_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_two(&folder).await;
        // Rows of the log never change, but a list that looked at them would miss them.
        for break_it in ["DROP TRIGGER log_rows_stay", "DELETE FROM log"] {
            sqlx::query(break_it).execute(&store.pool).await.unwrap();
        }
        assert_eq!(store.load_policies(TAILNET).await.unwrap(), [listed(2), listed(1)]);
    }
}
