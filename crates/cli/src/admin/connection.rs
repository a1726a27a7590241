use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::{Client, ClientConfig, ClientCredential, SecretText};
use clap::Args;
use dial::{Resolve, Roots};

use super::credential::Credential;
use crate::Failure;

/// Which server to ask, and by what right.
#[derive(Debug, Clone, Args)]
pub struct ConnectionArguments {
    /// The coordination server's URL; otherwise that of the last `towline admin login`
    #[arg(long, global = true, env = "TOWLINE_SERVER", value_name = "URL", help_heading = "Server")]
    pub server: Option<String>,
    /// An API access token; otherwise the one of the last `towline admin login`
    #[arg(
        long,
        global = true,
        env = "TOWLINE_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Server"
    )]
    pub api_key: Option<SecretText>,
    /// A file of PEM certificates to trust besides the system's
    #[arg(long, global = true, env = "TOWLINE_CA_FILE", value_name = "FILE", help_heading = "Server")]
    pub ca_file: Option<PathBuf>,
}

/// How commands reach their server.
#[derive(Clone)]
pub struct Connection {
    arguments: ConnectionArguments,
    resolver: Arc<dyn Resolve>,
}

impl Connection {
    /// Reaches the server that the arguments name, by a name that `resolver` knows.
    pub fn new(arguments: ConnectionArguments, resolver: Arc<dyn Resolve>) -> Self {
        Self { arguments, resolver }
    }

    /// The server that the arguments name.
    pub(crate) fn named_server(&self) -> Option<String> {
        self.arguments.server.clone()
    }

    /// Who knows the addresses of names.
    pub(crate) fn resolver(&self) -> &dyn Resolve {
        self.resolver.as_ref()
    }

    /// The authorities to trust: the public web's, the system's, and those of `--ca-file`.
    pub(crate) fn roots(&self) -> Result<Roots, Failure> {
        let roots = Roots::system().context("reading the system's trusted certificates")?;
        match &self.arguments.ca_file {
            Some(path) => Ok(roots.and_file(path).context("reading --ca-file")?),
            None => Ok(roots),
        }
    }

    /// The client for commands that need an admin's right.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        let stored = Credential::load()?;
        let server = self.named_server().or_else(|| stored.as_ref().map(|stored| stored.server.clone()));
        let server = server.ok_or_else(|| {
            Failure::usage(
                "no coordination server is known: run `towline admin login --server URL --user NAME`, or set TOWLINE_SERVER \
                 and TOWLINE_API_KEY",
            )
        })?;
        let token = match (&self.arguments.api_key, stored) {
            (Some(key), _) => key.clone(),
            (None, Some(stored)) if stored.server == server => stored.token(),
            (None, _) => {
                return Err(Failure::usage(format!(
                    "there is no login for {server}: run `towline admin login --server {server} --user NAME`, or set \
                     TOWLINE_API_KEY"
                )));
            }
        };
        self.connect(server, ClientCredential::Token(token))
    }

    /// A client with this right.
    pub(super) fn connect(&self, server: String, credential: ClientCredential) -> Result<Client, Failure> {
        Ok(Client::new(ClientConfig {
            base_url: server,
            credential,
            roots: self.roots()?,
            resolver: self.resolver.clone(),
            user_agent: concat!("towline/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: Duration::from_secs(60),
        })?)
    }
}
