//! Who is signed in with a browser.

use jiff::Timestamp;
use tailcfg::UserId;
use tailnet::TailnetId;

use super::{Store, StoreError, number};

/// A browser's session as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredSession {
    pub(crate) hash: String,
    pub(crate) tailnet: TailnetId,
    pub(crate) user: UserId,
    pub(crate) expires: Timestamp,
}

/// Which sessions end.
#[derive(Debug)]
pub(crate) enum EndedSessions<'a> {
    /// The one with this hash.
    One(&'a str),
    /// All of a user.
    User(UserId),
    /// All whose time is over.
    Expired(Timestamp),
}

impl Store {
    /// Keeps a browser's session.
    pub(crate) async fn put_session(&self, session: &StoredSession) -> Result<(), StoreError> {
        let query = "INSERT INTO sessions (hash, tailnet, user, expires) VALUES (?, ?, ?, ?)";
        sqlx::query(query)
            .bind(&session.hash)
            .bind(number(session.tailnet.0))
            .bind(number(session.user.0))
            .bind(session.expires.as_second())
            .execute(&self.pool)
            .await
            .map(drop)
            .map_err(|error| self.failed(error))
    }

    /// Ends a session, or all of a user.
    pub(crate) async fn end_sessions(&self, which: &EndedSessions<'_>) -> Result<(), StoreError> {
        let query = match which {
            EndedSessions::One(hash) => sqlx::query("DELETE FROM sessions WHERE hash = ?").bind(*hash),
            EndedSessions::User(user) => sqlx::query("DELETE FROM sessions WHERE user = ?").bind(number(user.0)),
            EndedSessions::Expired(now) => sqlx::query("DELETE FROM sessions WHERE expires <= ?").bind(now.as_second()),
        };
        query.execute(&self.pool).await.map(drop).map_err(|error| self.failed(error))
    }

    /// Reads all sessions.
    pub(crate) async fn load_sessions(&self) -> Result<Vec<StoredSession>, StoreError> {
        let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as("SELECT hash, tailnet, user, expires FROM sessions")
            .fetch_all(&self.pool)
            .await
            .map_err(|error| self.failed(error))?;
        let session = |(hash, tailnet, user, expires): (String, i64, i64, i64)| {
            let expires = Timestamp::from_second(expires).ok()?;
            let (tailnet, user) = (TailnetId(tailnet.unsigned_abs()), UserId(user.unsigned_abs()));
            Some(StoredSession { hash, tailnet, user, expires })
        };
        Ok(rows.into_iter().filter_map(session).collect())
    }
}
