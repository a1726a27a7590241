//! What an admin does with the coordination server, over its REST API v2.

use clap::Subcommand;

mod account;
mod connection;
mod credential;
mod device;
mod devices;
mod duration;
mod keys;
mod names;
mod oauth_clients;
mod policy;
mod routes;
mod users;
mod why;

pub use connection::{Connection, ConnectionArguments};

use crate::{Failure, Output};

/// The commands of an admin.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Log in to a coordination server as an admin, and out again; name the tailnet
    #[command(subcommand)]
    Admin(account::Command),
    /// Show, make and remove users
    #[command(subcommand)]
    Users(users::Command),
    /// Show, make and revoke keys by which devices join
    #[command(subcommand)]
    Keys(keys::Command),
    /// Show, name, tag, expire and remove devices
    #[command(subcommand)]
    Devices(devices::Command),
    /// Show and approve the routes that devices offer
    #[command(subcommand)]
    Routes(routes::Command),
    /// Show, make and remove OAuth clients, such as the Kubernetes operator's
    #[command(subcommand, name = "oauth-clients")]
    OauthClients(oauth_clients::Command),
    /// Show, check, compare and set the policy
    #[command(subcommand)]
    Policy(policy::Command),
    /// Tell why something is allowed or not: the line and rule, or the nearest rules and what each lacks
    Why(why::Arguments),
}

impl AdminCommand {
    /// Runs the command and prints its answer.
    pub async fn run<W: std::io::Write>(self, connection: &Connection, output: &mut Output<W>) -> Result<(), Failure> {
        match self {
            Self::Admin(command) => account::run(command, connection, output).await,
            Self::Users(command) => users::run(command, &connection.client()?, output).await,
            Self::Keys(command) => keys::run(command, &connection.client()?, output).await,
            Self::Devices(command) => devices::run(command, &connection.client()?, output).await,
            Self::Routes(command) => routes::run(command, &connection.client()?, output).await,
            Self::OauthClients(command) => oauth_clients::run(command, &connection.client()?, output).await,
            Self::Policy(command) => policy::run(command, &connection.client()?, output).await,
            Self::Why(arguments) => why::run(arguments, &connection.client()?, output).await,
        }
    }
}
