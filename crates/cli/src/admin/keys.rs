use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use api::{
    Client, CreateDevices, CreateKey, DeviceCapabilities, InTailnet, Json, Key, KeyCapabilities, KeyQuery, KeyType,
    OfKey,
};
use clap::Subcommand;

use super::duration;
use crate::{Failure, Output, Table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List keys, without their secrets
    List {
        /// Also those that are used up, expired or revoked
        #[arg(long)]
        all: bool,
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
        /// The key's id
        id: String,
    },
}

pub(super) async fn run<W: Write>(command: Command, client: &Client, output: &mut Output<W>) -> Result<(), Failure> {
    let own = InTailnet::own();
    let printed = match command {
        Command::List { all } => {
            let Json(list) = client.list_keys(&own, &KeyQuery { all }).await?;
            let mut keys = Vec::new();
            // The list names ids only, as the official one does.
            for key in list.keys {
                let Json(key) = client.get_key(&OfKey { tailnet: "-".to_owned(), key: key.id }).await?;
                keys.push(key);
            }
            output.print(&keys, |keys| {
                let mut table = Table::new(["ID", "KIND", "USE", "TAGS", "EXPIRES", "DESCRIPTION"]);
                for key in keys {
                    let expires = key.expires.map(|at| at.to_string()).unwrap_or_default();
                    let kind = serde_json::to_value(key.key_type).ok();
                    let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or_default().to_owned();
                    table.row([key.id.clone(), kind, use_of(key), tags_of(key), expires, key.description.clone()]);
                }
                table.to_string()
            })
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
            client.delete_key(&OfKey { tailnet: "-".to_owned(), key: id.clone() }).await?;
            output.print(&serde_json::json!({"id": id}), |_| format!("Revoked {id}."))
        }
    };
    Ok(printed.context("printing the answer")?)
}

fn use_of(key: &Key) -> String {
    if key.invalid {
        return "spent".to_owned();
    }
    let Some(capabilities) = &key.capabilities else { return String::new() };
    let create = &capabilities.devices.create;
    let mut words = vec![if create.reusable { "reusable" } else { "one-off" }];
    words.extend(create.ephemeral.then_some("ephemeral"));
    words.join(", ")
}

fn tags_of(key: &Key) -> String {
    let created = key.capabilities.iter().flat_map(|capabilities| &capabilities.devices.create.tags);
    created.chain(&key.tags).cloned().collect::<Vec<_>>().join(",")
}
