use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use api::{
    Client, CreateDevices, CreateKey, DeviceCapabilities, InTailnet, Json, Key, KeyCapabilities, KeyQuery, KeyType,
    OfKey, UserQuery,
};
use clap::Subcommand;
use http::StatusCode;
use jiff::Timestamp;

use super::duration;
use crate::moment;
use crate::{Failure, Output, Table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the auth keys of the tailnet, whoever made them, the newest first, without their secrets
    List {
        /// Also those that no longer work: used up, expired or revoked
        #[arg(long)]
        all: bool,
        /// List API access tokens instead, those of logins among them
        #[arg(long)]
        tokens: bool,
    },
    /// Make a key by which a device joins without a login; its secret is shown once
    Create {
        /// Let any number of devices join with it, not just one
        #[arg(long)]
        reusable: bool,
        /// Remove devices that joined with it once they have been away for a while
        #[arg(long)]
        ephemeral: bool,
        /// Tags of the devices that join with it, such as tag:server
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// When it stops working
        #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = duration::parse)]
        expiry: Duration,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Take a key away; devices that joined with it stay
    Revoke {
        /// The key's id, as `keys list` shows it
        id: String,
    },
}

pub(super) async fn run<W: Write>(command: Command, client: &Client, output: &mut Output<W>) -> Result<(), Failure> {
    let own = InTailnet::own();
    let printed = match command {
        Command::List { all, tokens } => {
            let kind = if tokens { KeyType::Api } else { KeyType::Auth };
            let keys: Vec<Key> = of_kind(client, kind).await?.into_iter().filter(|key| all || !key.invalid).collect();
            let logins = logins(client).await?;
            let now = Timestamp::now();
            output.print(&keys, |keys| table(keys, &logins, now).to_string())
        }
        Command::Create { reusable, ephemeral, tags, expiry, description } => {
            let create = CreateDevices { reusable, ephemeral, preauthorized: true, tags };
            let request = CreateKey {
                key_type: KeyType::Auth,
                description,
                capabilities: Some(KeyCapabilities { devices: DeviceCapabilities { create } }),
                expiry_seconds: i64::try_from(expiry.as_secs()).ok(),
                ..CreateKey::default()
            };
            let Json(key) = client.create_key(&own, &Json(request)).await?;
            output.print(&key, |key| key.key.clone())
        }
        Command::Revoke { id } => {
            delete(client, &id, "key", "`towline keys list` shows the ids of those that work").await?;
            output.print(&serde_json::json!({"id": id}), |_| format!("Revoked {id}."))
        }
    };
    Ok(printed.context("printing the answer")?)
}

/// All keys of a kind that the caller may see, the newest first, from one answer: a key that goes meanwhile spoils nothing.
pub(super) async fn of_kind(client: &Client, kind: KeyType) -> Result<Vec<Key>, Failure> {
    let list = |all| async move { client.list_keys(&InTailnet::own(), &KeyQuery { all }).await };
    let Json(list) = match list(true).await {
        // Who may not look at everybody's keys may look at their own tokens.
        Err(error) if kind == KeyType::Api && error.status() == Some(StatusCode::FORBIDDEN) => list(false).await?,
        listed => listed?,
    };
    let mut keys: Vec<Key> = list.keys.into_iter().filter(|key| key.key_type == kind).collect();
    sort(&mut keys);
    Ok(keys)
}

fn sort(keys: &mut [Key]) {
    keys.sort_by(|a, b| (b.created, &a.id).cmp(&(a.created, &b.id)));
}

/// Takes away a key, or what the server keeps as one.
pub(super) async fn delete(client: &Client, id: &str, what: &str, hint: &str) -> Result<(), Failure> {
    let key = OfKey { tailnet: "-".to_owned(), key: id.to_owned() };
    match client.delete_key(&key).await {
        Ok(_) => Ok(()),
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => {
            Err(Failure::refused(format!("there is no {what} {id:?}; {hint}")))
        }
        Err(error) => Err(error.into()),
    }
}

/// The login names of users by their numbers; none where the caller may not look at users.
async fn logins(client: &Client) -> Result<BTreeMap<String, String>, Failure> {
    match client.list_users(&InTailnet::own(), &UserQuery { kind: None, role: None }).await {
        Ok(Json(list)) => Ok(list.users.into_iter().map(|user| (user.id, user.login_name)).collect()),
        Err(error) if error.status() == Some(StatusCode::FORBIDDEN) => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
    }
}

fn table(keys: &[Key], logins: &BTreeMap<String, String>, now: Timestamp) -> Table {
    let mut table = Table::new(["ID", "OWNER", "USE", "STATE", "TAGS", "EXPIRES", "DESCRIPTION"]);
    for key in keys {
        let expires = key.expires.map(moment::second).unwrap_or_default();
        let state = state_of(key, now).to_owned();
        let (owner, used) = (owner_of(key, logins), use_of(key));
        table.row([key.id.clone(), owner, used, state, tags_of(key), expires, key.description.clone()]);
    }
    table
}

/// Who made a key: the login name of a user, or the id of an OAuth client.
fn owner_of(key: &Key, logins: &BTreeMap<String, String>) -> String {
    match (key.client_id.as_str(), key.user_id.as_str()) {
        ("", user) => logins.get(user).cloned().unwrap_or_else(|| user.to_owned()),
        (client, _) => format!("client {client}"),
    }
}

/// Whether a key works, and why not.
fn state_of(key: &Key, now: Timestamp) -> &'static str {
    match (key.invalid, key.revoked, key.expires) {
        (false, ..) => "works",
        (true, Some(_), _) => "revoked",
        (true, None, Some(expires)) if expires <= now => "expired",
        (true, ..) => "used up",
    }
}

/// What an auth key is for; of a token, its scopes.
fn use_of(key: &Key) -> String {
    let Some(capabilities) = &key.capabilities else { return key.scopes.join(",") };
    let create = &capabilities.devices.create;
    let mut words = vec![if create.reusable { "reusable" } else { "one-off" }];
    words.extend(create.ephemeral.then_some("ephemeral"));
    words.join(", ")
}

fn tags_of(key: &Key) -> String {
    let created = key.capabilities.iter().flat_map(|capabilities| &capabilities.devices.create.tags);
    created.chain(&key.tags).cloned().collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_key_is_listed_first() {
        let key = |id: &str, created: &str| Key { id: id.to_owned(), created: created.parse().ok(), ..Key::default() };
        let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let mut keys = [key("b", old), key("c", new), key("a", old)];
        sort(&mut keys);
        assert_eq!(keys.map(|key| key.id), ["c", "a", "b"]);
    }

    #[test]
    fn a_table_tells_times_to_the_second() {
        let expires = "2026-03-01T00:00:00.123456789Z".parse().ok();
        let shown = table(&[Key { expires, ..Key::default() }], &BTreeMap::new(), Timestamp::UNIX_EPOCH).to_string();
        assert!(shown.contains("  2026-03-01T00:00:00Z  "), "{shown}");
    }

    #[test]
    fn a_row_says_whose_a_key_is_and_why_it_does_not_work() {
        let now: Timestamp = "2026-02-01T00:00:00Z".parse().unwrap();
        let (past, future) = ("2026-01-01T00:00:00Z".parse().ok(), "2026-03-01T00:00:00Z".parse().ok());
        let key =
            |expires, revoked, invalid| Key { expires, revoked, invalid, user_id: "7".to_owned(), ..Key::default() };
        let logins = BTreeMap::from([("7".to_owned(), "alice@example.com".to_owned())]);
        for (key, state) in [
            (key(future, None, false), "works"),
            (key(future, None, true), "used up"),
            (key(past, None, true), "expired"),
            (key(past, past, true), "revoked"),
        ] {
            assert_eq!(state_of(&key, now), state);
            assert_eq!(owner_of(&key, &logins), "alice@example.com");
            assert_eq!(owner_of(&key, &BTreeMap::new()), "7");
        }
        let made = Key { client_id: "kCNTRL".to_owned(), ..Key::default() };
        assert_eq!(owner_of(&made, &logins), "client kCNTRL");
    }
}
