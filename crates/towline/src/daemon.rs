use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use cli::{EXIT_FAILED, go_flags};
use telemetry::LogArguments;

use crate::role;

/// The name of the stock daemon.
const STOCK_NAME: &str = "tailscaled";

/// The node under the stock daemon's name and with its way of writing flags.
#[derive(Debug, Parser)]
#[command(name = STOCK_NAME, version, max_term_width = 100)]
struct StockDaemon {
    #[command(flatten)]
    logs: LogArguments,
    #[command(flatten)]
    node: node::Arguments,
}

/// Whether the program was called as the stock daemon.
pub(crate) fn is_stock_name(program: &OsStr) -> bool {
    Path::new(program).file_name() == Some(OsStr::new(STOCK_NAME))
}

/// Runs the node with the arguments of the process.
pub(crate) fn run() -> ExitCode {
    let matches =
        StockDaemon::command().get_matches_from(go_flags::rewrite(std::env::args_os(), StockDaemon::command()));
    let arguments = StockDaemon::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match role::run_node(arguments.node, &arguments.logs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{STOCK_NAME}: {failure}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_daemons_flags_are_read_as_it_writes_them() {
        StockDaemon::command().debug_assert();
        let written = ["tailscaled", "-state=mem:", "--socket", "/run/x.sock", "-tun=userspace-networking", "-port=0"];
        let written = go_flags::rewrite(written.iter().map(Into::into), StockDaemon::command());
        assert!(StockDaemon::command().try_get_matches_from(written).is_ok());
        assert!(is_stock_name(OsStr::new("/usr/sbin/tailscaled")) && !is_stock_name(OsStr::new("tailscale")));
    }
}
