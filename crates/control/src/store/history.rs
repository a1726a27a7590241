//! The policies that were in force: a list without their texts, and each text by its version.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};
use tailnet::{PolicyRecord, TailnetId};

use super::{Entry, Store, StoreError, number};

/// How many policies a history goes back.
const MOST_POLICIES: i64 = 200;

/// How many bytes the texts of a history have; the one in force counts, and always stays.
const MOST_TEXT: i64 = 64 << 20;

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
    /// Notes a policy that a decision puts in force, in place of the oldest where there are too many.
    pub(super) async fn note_policy(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        entry: &Entry<'_>,
        policy: &PolicyRecord,
    ) -> Result<(), StoreError> {
        let (tailnet, revision) = (number(entry.tailnet.0), number(entry.revision));
        let noted =
            sqlx::query("INSERT INTO policies (tailnet, revision, version, who, why, at) VALUES (?, ?, ?, ?, ?, ?)")
                .bind(tailnet)
                .bind(revision)
                .bind(number(policy.version))
                .bind(&policy.who)
                .bind(&policy.why)
                .bind(policy.when.to_string());
        noted.execute(&mut **transaction).await.map_err(|error| self.failed(error))?;
        let text = sqlx::query("INSERT INTO policy_texts (tailnet, revision, text) VALUES (?, ?, ?)");
        let text = text.bind(tailnet).bind(revision).bind(&policy.text);
        text.execute(&mut **transaction).await.map_err(|error| self.failed(error))?;
        self.forget_policies(transaction, tailnet, MOST_TEXT).await
    }

    /// Takes out of a history what is beyond its bounds.
    async fn forget_policies(
        &self,
        transaction: &mut Transaction<'_, Sqlite>,
        tailnet: i64,
        most_text: i64,
    ) -> Result<(), StoreError> {
        let surplus = "DELETE FROM policies WHERE tailnet = ?1 AND revision IN ( \
                         SELECT revision FROM ( \
                           SELECT revision, row_number() OVER newest AS place, \
                                  sum(octet_length(text)) OVER newest AS bytes \
                           FROM policy_texts WHERE tailnet = ?1 WINDOW newest AS (ORDER BY revision DESC)) \
                         WHERE place > ?2 OR (place > 1 AND bytes > ?3))";
        let surplus = sqlx::query(surplus).bind(tailnet).bind(MOST_POLICIES).bind(most_text);
        surplus.execute(&mut **transaction).await.map_err(|error| self.failed(error))?;
        let texts = "DELETE FROM policy_texts WHERE tailnet = ?1 \
                     AND revision NOT IN (SELECT revision FROM policies WHERE tailnet = ?1)";
        let texts = sqlx::query(texts).bind(tailnet);
        texts.execute(&mut **transaction).await.map(drop).map_err(|error| self.failed(error))
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
        let query = "SELECT text, version, who, why, at FROM policies JOIN policy_texts USING (tailnet, revision) \
                     WHERE tailnet = ? AND version = ? ORDER BY revision DESC LIMIT 1";
        let row: Option<(String, i64, String, String, String)> = sqlx::query_as(query)
            .bind(number(tailnet.0))
            .bind(number(version))
            .fetch_optional(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let read = |(text, version, who, why, at): (String, i64, String, String, String)| {
            let when = at.parse().map_err(|error: jiff::Error| unreadable(tailnet, version, &error))?;
            Ok(PolicyRecord { text, version: version.unsigned_abs(), who, why, when })
        };
        row.map(read).transpose()
    }
}

fn unreadable(tailnet: TailnetId, version: i64, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Row { table: "policies", tailnet, key: version.to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use sqlx::migrate::Migrator;
    use tailnet::{Change, TailnetRecord};

    use super::*;
    use crate::store::MIGRATIONS;

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
            let entry = Entry { tailnet: TAILNET, revision, at, actor: "test", command, changes, is_act: true };
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

    /// Changes as the log had them before it had bounds: whole.
    fn whole(changes: &[Change]) -> String {
        serde_json::to_string(changes).unwrap()
    }

    #[tokio::test]
    async fn a_database_from_before_the_log_had_bounds_keeps_order_and_history_and_loses_what_nobody_did() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let oldest = MIGRATIONS.iter().filter(|migration| migration.version == 1).cloned().collect();
        let store = Store::open_with(&path, &Migrator::with_migrations(oldest)).await.unwrap();
        sqlx::query("INSERT INTO tailnet VALUES (1, '', '{}')").execute(&store.pool).await.unwrap();
        let node = serde_json::json!([{"put-node": {"id": 7, "hostinfo": {"OS": "x".repeat(60_000)}}}]).to_string();
        for (revision, command, changes) in [
            (1_i64, "SetPolicy", whole(&[Change::PutPolicy(policy(1))])),
            (2, "SetPolicy", whole(&[Change::PutHighestNumber(7), Change::PutPolicy(policy(2))])),
            (3, "Register", node.clone()),
            (4, "UpdateHost", node),
        ] {
            let row = sqlx::query("INSERT INTO log VALUES (1, ?, '1970-01-01T00:00:00Z', 'test', ?, ?)");
            row.bind(revision).bind(command).bind(changes).execute(&store.pool).await.unwrap();
        }
        store.close().await;

        let store = Store::open(&path).await.unwrap();
        assert_eq!(store.load_policies(TAILNET).await.unwrap(), [listed(2), listed(1)]);
        assert_eq!(store.load_policy(TAILNET, 1).await.unwrap(), Some(policy(1)));
        assert_eq!(store.load_policy(TAILNET, 2).await.unwrap(), Some(policy(2)));
        let log = "SELECT revision, changes FROM log ORDER BY revision";
        let log: Vec<(i64, String)> = sqlx::query_as(log).fetch_all(&store.pool).await.unwrap();
        let kept = r#"[{"put-highest-number":7},{"put-policy":{"version":2,"who":"admin@example.com","why":"reason 2","when":"1970-01-01T00:00:00Z"}}]"#;
        assert_eq!(log[1], (2, kept.to_owned()));
        assert_eq!(log[2..], [(3, r#"[{"put-node":{"id":7}}]"#.to_owned())]);
        let revision: i64 = sqlx::query_scalar("SELECT revision FROM revisions").fetch_one(&store.pool).await.unwrap();
        assert_eq!(revision, 4);
    }

    #[tokio::test]
    async fn listing_the_history_reads_neither_the_log_nor_a_text() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_two(&folder).await;
        for break_it in ["DELETE FROM log", "DELETE FROM policy_texts"] {
            sqlx::query(break_it).execute(&store.pool).await.unwrap();
        }
        assert_eq!(store.load_policies(TAILNET).await.unwrap(), [listed(2), listed(1)]);
    }

    #[tokio::test]
    async fn a_history_has_bounds_and_what_is_in_force_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = with_two(&folder).await;
        let at = Timestamp::UNIX_EPOCH;
        for version in 3..=202_u64 {
            let (revision, changes) = (version + 1, [Change::PutPolicy(policy(version))]);
            let (command, changes) = ("SetPolicy", &changes[..]);
            let entry = Entry { tailnet: TAILNET, revision, at, actor: "test", command, changes, is_act: true };
            store.write(&entry).await.unwrap();
        }
        assert_eq!(store.load_policy(TAILNET, 2).await.unwrap(), None);
        assert_eq!(store.load_policy(TAILNET, 3).await.unwrap(), Some(policy(3)));
        let count = "SELECT (SELECT count(*) FROM policies) + (SELECT count(*) FROM policy_texts)";
        assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&store.pool).await.unwrap(), 400);

        let mut transaction = store.pool.begin().await.unwrap();
        store.forget_policies(&mut transaction, 1, 0).await.unwrap();
        transaction.commit().await.unwrap();
        assert_eq!(store.load_policies(TAILNET).await.unwrap(), [listed(202)]);
        assert_eq!(store.load_policy(TAILNET, 202).await.unwrap(), Some(policy(202)));
    }
}
