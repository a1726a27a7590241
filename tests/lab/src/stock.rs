//! The stock node and relay, as peers of ours: `tailscaled` with its CLI, and `derper`.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

use crate::command::Command;
use crate::daemon::Daemon;
use crate::lab_box::LabBox;
use crate::readiness::Ready;

const DAEMON: &str = "tailscaled";
const STATE: &str = "/var/lib/tailscale";
const SOCKET: &str = "/run/tailscale/tailscaled.sock";

/// The UDP port at which a stock node listens for its peers.
pub const STOCK_PORT: u16 = 41641;

/// A stock `tailscaled` in a box, not logged in when it starts for the first time.
#[derive(Clone, Debug)]
pub struct StockNode {
    lab_box: LabBox,
}

impl StockNode {
    /// Starts it, with its state in `/var/lib/tailscale` of the box.
    ///
    /// # Errors
    /// When it does not start; with the end of its log.
    pub fn start(lab_box: &LabBox) -> Result<Self> {
        lab_box.shell(&format!("mkdir -p {STATE}"))?;
        lab_box
            .daemon(
                DAEMON,
                [
                    DAEMON.to_owned(),
                    format!("--statedir={STATE}"),
                    format!("--socket={SOCKET}"),
                    format!("--port={STOCK_PORT}"),
                    // Its makers' log collector is not part of the laboratory.
                    "--no-logs-no-support".to_owned(),
                ],
            )
            .ready(Ready::File(SOCKET.to_owned()))
            .start()?;
        Ok(Self { lab_box: lab_box.clone() })
    }

    /// The daemon: to restart, kill or read.
    ///
    /// # Errors
    /// When its record is gone.
    pub fn daemon(&self) -> Result<Daemon> {
        let found = self.lab_box.find_daemon(DAEMON)?;
        found.with_context(|| format!("box {}: {DAEMON} was stopped", self.lab_box.name()))
    }

    /// Begins a command of the stock CLI, which talks to this daemon.
    pub fn cli<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Command<'_> {
        let program = ["tailscale".to_owned(), format!("--socket={SOCKET}")];
        self.lab_box.command(program.into_iter().chain(arguments.into_iter().map(Into::into)))
    }
}

/// Starts a stock relay in a box, with the certificate that the box has for `name`; it answers STUN too.
///
/// # Errors
/// When it does not start; with the end of its log.
pub fn start_stock_relay(lab_box: &LabBox, name: &str, port: u16) -> Result<Daemon> {
    let arguments = [
        "derper".to_owned(),
        format!("--hostname={name}"),
        format!("--a=:{port}"),
        "--certmode=manual".to_owned(),
        "--certdir=/etc/towline/tls".to_owned(),
        "--http-port=-1".to_owned(),
        "--c=/var/lib/derper.key".to_owned(),
        "--stun".to_owned(),
    ];
    lab_box.daemon("derper", arguments).ready(Ready::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))).start()
}
