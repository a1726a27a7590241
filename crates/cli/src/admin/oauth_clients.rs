use std::io::Write;

use anyhow::Context;
use api::{Client, CreateKey, InTailnet, Json, KeyType};
use clap::Subcommand;

use super::keys;
use crate::{Failure, Output, Table};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List OAuth clients, the newest first, without their secrets
    List,
    /// Make an OAuth client; its secret is shown once
    ///
    /// The Kubernetes operator needs:
    /// towline oauth-clients create --scope devices:core --scope auth_keys --scope services --tag tag:k8s-operator
    Create {
        /// What it may do, such as devices:core or auth_keys:read
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// Tags that it may give to devices, and those that these tags own
        #[arg(long = "tag", value_name = "TAG")]
        tags: Vec<String>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Remove an OAuth client; its tokens stop working
    Delete {
        /// The client's id
        id: String,
    },
}

pub(super) async fn run<W: Write>(command: Command, client: &Client, output: &mut Output<W>) -> Result<(), Failure> {
    let own = InTailnet::own();
    let printed = match command {
        Command::List => {
            let mut clients = keys::of_kind(client, KeyType::Client).await?;
            // The server lists those that were removed for a while longer; they get no tokens any more.
            clients.retain(|client| !client.invalid);
            output.print(&clients, |clients| {
                let mut table = Table::new(["ID", "SCOPES", "TAGS", "DESCRIPTION"]);
                for client in clients {
                    let (scopes, tags) = (client.scopes.join(","), client.tags.join(","));
                    table.row([client.id.clone(), scopes, tags, client.description.clone()]);
                }
                table.to_string()
            })
        }
        Command::Create { scopes, tags, description } => {
            let request = CreateKey { key_type: KeyType::Client, description, scopes, tags, ..CreateKey::default() };
            let Json(key) = client.create_key(&own, &Json(request)).await?;
            output.print(&key, |key| format!("client id:     {}\nclient secret: {}", key.id, key.key))
        }
        Command::Delete { id } => {
            keys::delete(client, &id, "OAuth client", "`towline oauth-clients list` shows all").await?;
            output.print(&serde_json::json!({"id": id}), |_| format!("Removed {id}."))
        }
    };
    Ok(printed.context("printing the answer")?)
}
