use std::io::Write;

use clap::Args;
use serde_json::json;

use super::Session;
use super::settings::parse_bool;
use super::state::Status;
use crate::{Failure, Output};

/// This command's version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Shows the version of this command; with --daemon also the one of the daemon that it talks to.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Show the daemon's version too
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, default_value_t = false, value_name = "true|false")]
    daemon: bool,
    /// Print JSON
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_bool, default_value_t = false, value_name = "true|false")]
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
