use std::io::Write;

use clap::Args;
use serde_json::json;

use super::Session;
use super::settings::Switch;
use super::state::Status;
use crate::{Failure, Output};

/// This command's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shows the version of this command; with --daemon also the one of the daemon that it talks to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show the daemon's version too
    #[arg(long, default_value_t = false, switch())]
    daemon: bool,
    /// Print JSON
    #[arg(long, default_value_t = false, switch())]
    json: bool,
}

pub(super) async fn run<W: Write>(
    arguments: Arguments,
    session: &Session,
    output: &mut Output<W>,
) -> Result<(), Failure> {
    output.prefer_json(arguments.json);
    let mut answer = json!({
        "majorMinorPatch": VERSION, "short": VERSION, "long": VERSION, "cap": tailcfg::CapabilityVersion::OURS,
    });
    if !arguments.daemon {
        output.print(&answer, |_| VERSION.to_owned())?;
        return Ok(());
    }
    let status: Status = session.api().await?.get("status?peers=false").await?;
    answer["daemonLong"] = status.version.clone().into();
    output.print(&answer, |_| format!("Client: {VERSION}\nDaemon: {}", status.version))?;
    Ok(())
}
