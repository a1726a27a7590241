//! What a person asks of this machine's daemon, over its LocalAPI: ours or the stock one.

use std::io::Write;

use clap::Subcommand;

mod bus;
mod configure;
mod down;
mod duration;
mod exit_node;
mod flows;
mod get;
mod ip;
mod local_api;
mod login;
mod lookup;
mod netcheck;
mod ping;
mod prefs;
mod profiles;
mod set;
mod settings;
mod socket;
mod state;
mod status;
mod up;
mod version;
mod whois;

pub(crate) use local_api::query_value;
pub use local_api::{LocalApi, LocalApiError};
pub use socket::{OUR_SOCKET, STOCK_SOCKET, SocketArguments};

use crate::admin::Connection;
use crate::go_flags::STOCK_NAME;
use crate::{Failure, Output, trust};

/// The commands of whoever uses this machine.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Connect this machine to its tailnet, logging in if needed
    Up(Box<up::Arguments>),
    /// Disconnect this machine from its tailnet; it stays logged in
    Down(down::Arguments),
    /// Log in, as somebody else or to another tailnet
    Login(Box<login::Arguments>),
    /// Disconnect and end this machine's key: it has to log in again
    Logout(down::LogoutArguments),
    /// Change settings and leave the others
    Set(Box<set::Arguments>),
    /// Show settings
    Get(get::Arguments),
    /// Show this machine and its peers
    Status(status::Arguments),
    /// Ping a peer and show which way the answer came
    Ping(ping::Arguments),
    /// Measure the network around this machine: NAT, relays, address families
    Netcheck(netcheck::Arguments),
    /// Show the addresses of this machine or of a peer
    Ip(ip::Arguments),
    /// Show which machine and user an address belongs to
    Whois(whois::Arguments),
    /// Show or change the account that this machine uses
    Switch(profiles::Arguments),
    /// Show the exit nodes of the tailnet
    #[command(subcommand, name = "exit-node")]
    ExitNode(exit_node::Command),
    /// Set up other programs of this machine for the tailnet
    #[command(subcommand)]
    Configure(configure::Command),
    /// Trust the tailnet's own certificates
    #[command(subcommand)]
    Trust(trust::Command),
    /// Show what flows through this node: which peers and ports, and by which way
    Flows(flows::Arguments),
    /// Show the version of this command, and with --daemon that of the daemon
    Version(version::Arguments),
}

/// Whom the commands ask, and what they call themselves.
#[derive(Clone)]
pub struct Session {
    socket: SocketArguments,
    connection: Connection,
    program: &'static str,
}

impl Session {
    /// Asks the daemon that `socket` names, and servers by `connection`; `program` is the name to show in commands to type.
    pub fn new(socket: SocketArguments, connection: Connection, program: &'static str) -> Self {
        Self { socket, connection, program }
    }

    /// The daemon that runs.
    pub(crate) async fn api(&self) -> Result<LocalApi, LocalApiError> {
        Ok(LocalApi::at(self.socket.find().await?))
    }

    /// How servers are reached.
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The name by which the command was called.
    pub(crate) fn program(&self) -> &'static str {
        self.program
    }

    /// Whether the stock command's words are wanted: it was called by that name, and scripts read what that one says.
    pub(crate) fn is_stock(&self) -> bool {
        self.program == STOCK_NAME
    }

    /// What the network is called in sentences.
    pub(crate) fn network(&self) -> &'static str {
        if self.is_stock() { "Tailscale" } else { "Towline" }
    }

    /// The domain of the tailnet that the daemon is in, if it is in one.
    pub(crate) async fn domain(&self) -> Result<Option<String>, Failure> {
        let status: state::Status = self.api().await?.get("status?peers=false").await?;
        Ok(Some(status.suffix.trim_matches('.').to_owned()).filter(|suffix| !suffix.is_empty()))
    }

    /// The URL of the coordination server that the daemon is set to; an error tells how to name it otherwise.
    pub(crate) async fn control_url(&self) -> Result<String, Failure> {
        let prefs = prefs::Prefs::load(&self.api().await?).await?;
        match prefs.text("ControlURL") {
            "" => Err(Failure::failed(
                "the daemon has no coordination server yet: log in with `towline up --login-server=URL` first, or name the server with --server URL",
            )),
            url => Ok(url.to_owned()),
        }
    }
}

impl NodeCommand {
    /// Runs the command and prints its answer.
    pub async fn run<W: Write>(self, session: &Session, output: &mut Output<W>) -> Result<(), Failure> {
        match self {
            Self::Up(arguments) => up::run(*arguments, session, output).await,
            Self::Down(arguments) => down::run(arguments, session, output).await,
            Self::Login(arguments) => login::run(*arguments, session, output).await,
            Self::Logout(arguments) => down::log_out(arguments, session, output).await,
            Self::Set(arguments) => set::run(*arguments, session, output).await,
            Self::Get(arguments) => get::run(arguments, session, output).await,
            Self::Status(arguments) => status::run(arguments, session, output).await,
            Self::Ping(arguments) => ping::run(arguments, session, output).await,
            Self::Netcheck(arguments) => netcheck::run(arguments, session, output).await,
            Self::Ip(arguments) => ip::run(arguments, session, output).await,
            Self::Whois(arguments) => whois::run(arguments, session, output).await,
            Self::Switch(arguments) => profiles::run(arguments, session, output).await,
            Self::ExitNode(command) => exit_node::run(command, session, output).await,
            Self::Configure(command) => configure::run(command, session, output).await,
            Self::Trust(command) => trust::run(command, session, output).await,
            Self::Flows(arguments) => flows::run(arguments, session, output).await,
            Self::Version(arguments) => version::run(arguments, session, output).await,
        }
    }
}
