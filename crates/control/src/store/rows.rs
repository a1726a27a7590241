//! Changes as rows: which statement writes each, and the JSON that stands in it.

use serde_json::{Map, Value};
use tailnet::{Change, Table};

/// The name that a change which puts a row into a table has in JSON.
fn tag(table: Table) -> &'static str {
    match table {
        Table::Tailnet => "put-tailnet",
        Table::Numbers => "put-highest-number",
        Table::Settings => "put-settings",
        Table::Dns => "put-dns",
        Table::Policy => "put-policy",
        Table::Users => "put-user",
        Table::Nodes => "put-node",
        Table::AuthKeys => "put-auth-key",
        Table::OAuthClients => "put-o-auth-client",
        Table::ApiTokens => "put-api-token",
        Table::Services => "put-service",
    }
}

/// The record that a change puts, as it stands in its row.
pub(super) fn document(change: &Change) -> Result<String, serde_json::Error> {
    match serde_json::to_value(change)? {
        Value::Object(tagged) => serde_json::to_string(&tagged.values().next()),
        other => serde_json::to_string(&other),
    }
}

/// The change that put a row.
pub(super) fn put(table: Table, document: &str) -> Result<Change, serde_json::Error> {
    let record = serde_json::from_str(document)?;
    serde_json::from_value(Value::Object(Map::from_iter([(tag(table).to_owned(), record)])))
}

macro_rules! statement {
    ($(#[$doc:meta])* $name:ident, $before:literal, $after:literal) => {
        $(#[$doc])*
        pub(super) fn $name(table: Table) -> &'static str {
            match table {
                Table::Tailnet => concat!($before, "tailnet", $after),
                Table::Numbers => concat!($before, "numbers", $after),
                Table::Settings => concat!($before, "settings", $after),
                Table::Dns => concat!($before, "dns", $after),
                Table::Policy => concat!($before, "policy", $after),
                Table::Users => concat!($before, "users", $after),
                Table::Nodes => concat!($before, "nodes", $after),
                Table::AuthKeys => concat!($before, "auth_keys", $after),
                Table::OAuthClients => concat!($before, "oauth_clients", $after),
                Table::ApiTokens => concat!($before, "api_tokens", $after),
                Table::Services => concat!($before, "services", $after),
            }
        }
    };
}

statement!(
    /// Reads all rows of a tailnet.
    select,
    "SELECT key, document FROM ",
    " WHERE tailnet = ? ORDER BY key"
);
statement!(
    /// Writes a row.
    upsert,
    "INSERT INTO ",
    " (tailnet, key, document) VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET document = excluded.document"
);
statement!(
    /// Takes a row out.
    delete,
    "DELETE FROM ",
    " WHERE tailnet = ?1 AND key = ?2"
);
