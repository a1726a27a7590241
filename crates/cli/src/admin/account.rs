use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use api::{ClientCredential, CreateKey, InTailnet, Json, KeyType, OfKey, SecretText};
use clap::Subcommand;

use super::credential::Credential;
use super::{Connection, duration, names};
use crate::moment;
use crate::{Failure, Output};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log in by name and password, and keep an API access token for the next commands
    Login {
        /// The user's login name, such as admin@example.com
        #[arg(long, value_name = "NAME")]
        user: String,
        /// A file that holds the password; otherwise it is asked for on standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// How long the login lasts
        #[arg(long = "for", value_name = "DURATION", default_value = "12h", value_parser = duration::parse)]
        lifetime: Duration,
    },
    /// Revoke the token of the last login and forget it
    Logout,
    /// Show what the tailnet is called, or give it another name or domain
    Names(names::Arguments),
}

pub(super) async fn run<W: Write>(
    command: Command,
    connection: &Connection,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    match command {
        Command::Login { user, password_file, lifetime } => {
            let server = connection.named_server();
            let server = server.ok_or_else(|| Failure::usage("name the coordination server with --server URL"))?;
            let password = match password_file {
                Some(path) => std::fs::read_to_string(&path)
                    .with_context(|| format!("reading the password from {}", path.display()))?,
                None => ask(&format!("Password of {user} at {server}: "))?,
            };
            let password = SecretText::new(password.trim_end_matches(['\r', '\n']).to_owned());
            let login = connection.connect(server.clone(), ClientCredential::Nothing)?.log_in(&user, &password).await?;
            let right = ClientCredential::Token(SecretText::new(login.access_token));
            let request = CreateKey {
                key_type: KeyType::Api,
                description: format!("towline admin login of {user}"),
                expiry_seconds: i64::try_from(lifetime.as_secs()).ok(),
                ..CreateKey::default()
            };
            let client = connection.connect(server.clone(), right)?;
            let Json(key) = client.create_key(&InTailnet::own(), &Json(request)).await?;
            let path = Credential::new(server.clone(), user.clone(), key.id, key.key).store()?;
            let answer = serde_json::json!({"server": server, "user": user, "expires": key.expires});
            let until = key.expires.map(|until| format!(" until {}", moment::second(until))).unwrap_or_default();
            output.print(&answer, |_| format!("Logged in to {server} as {user}{until}; kept in {}.", path.display()))
        }
        Command::Logout => {
            let Some(stored) = Credential::load()? else {
                return Err(Failure::usage("nobody is logged in"));
            };
            let client = connection.connect(stored.server.clone(), ClientCredential::Token(stored.token()))?;
            let key = OfKey { tailnet: "-".to_owned(), key: stored.key_id.clone() };
            match client.delete_key(&key).await {
                Ok(_) => {}
                // A token that the server no longer takes needs no revoking.
                Err(error) if error.status().is_some_and(|status| matches!(status.as_u16(), 401 | 404)) => {}
                Err(error) => return Err(error.into()),
            }
            Credential::forget()?;
            let answer = serde_json::json!({"server": stored.server, "user": stored.login_name});
            output.print(&answer, |_| format!("Logged {} out of {}.", stored.login_name, stored.server))
        }
        Command::Names(arguments) => return names::run(arguments, &connection.client()?, output).await,
    }
    .context("printing the answer")
    .map_err(Failure::from)
}

/// Reads a line that the terminal does not show.
fn ask(question: &str) -> Result<String, Failure> {
    let input = std::io::stdin();
    let shown = rustix::termios::tcgetattr(&input).ok();
    if let Some(shown) = &shown {
        eprint!("{question}");
        let mut hidden = shown.clone();
        hidden.local_modes.remove(rustix::termios::LocalModes::ECHO);
        rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Flush, &hidden)
            .context("hiding the password on the terminal")?;
    }
    let mut line = String::new();
    let read = input.lock().read_line(&mut line);
    if let Some(shown) = &shown {
        let restored = rustix::termios::tcsetattr(&input, rustix::termios::OptionalActions::Flush, shown);
        eprintln!();
        restored.context("showing the terminal's input again")?;
    }
    read.context("reading the password")?;
    Ok(line)
}
