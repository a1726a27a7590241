//! The one binary: which role it plays, on which runtime, and when it stops. Everything else is the roles' own.

#![forbid(unsafe_code)]

mod apiserver_proxy;
mod daemon;
#[cfg(test)]
mod guide;
mod role;

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use clap_complete::Shell;
use cli::admin::ConnectionArguments;
use cli::node::SocketArguments;
use cli::{EXIT_FAILED, Failure, Output, OutputArguments, go_flags};
use telemetry::LogArguments;

use role::Role;

/// A self-hosted private network for Kubernetes and for people
///
/// One binary: servers that run for long (control, derp), commands that ask this machine's daemon (up, status, ping …), and
/// commands of admins, who name the coordination server with --server or log in to it once. Called by the name tailscale,
/// it takes flags as the stock command does, and every failure has exit code 1.
///
/// Exit codes: 0 done; 1 failed; 2 called in a way that makes no sense; 3 refused; 4 a server or daemon was not reached,
/// so that the same command may work later.
#[derive(Debug, Parser)]
#[command(name = "towline", version, propagate_version = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    logs: LogArguments,
    #[command(flatten)]
    output: OutputArguments,
    #[command(flatten)]
    connection: ConnectionArguments,
    #[command(flatten)]
    socket: SocketArguments,
    #[command(subcommand)]
    role: Role,
}

fn main() -> ExitCode {
    // Asked for by kubelet every few seconds in every pod: nothing else of the program is set up.
    if let Some(probe) = proxy::Probe::of_process() {
        return match probe.ask() {
            Ok(()) => ExitCode::SUCCESS,
            Err(unwell) => {
                eprintln!("towline: {unwell}");
                ExitCode::from(EXIT_FAILED)
            }
        };
    }
    let program = std::env::args_os().next().unwrap_or_default();
    if daemon::is_stock_name(&program) {
        return daemon::run();
    }
    let is_stock = go_flags::is_stock_name(&program);
    let arguments = if is_stock { stock_arguments() } else { Arguments::parse() };
    let name = if is_stock { go_flags::STOCK_NAME } else { "towline" };
    let mut output = Output::new(arguments.output.output, std::io::stdout());
    let asked = role::Asked { connection: arguments.connection, socket: arguments.socket, program: name };
    let outcome = match arguments.role {
        Role::Completions { shell } => completions(shell, name, &mut output),
        role => role::run(role, &arguments.logs, asked, &mut output),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                // Nobody is told where nobody reads.
                let _ = writeln!(std::io::stderr(), "{name}: {failure}");
            }
            // The stock command tells failures apart in words only.
            ExitCode::from(if is_stock { EXIT_FAILED } else { failure.code })
        }
    }
}

fn completions<W: Write>(shell: Shell, name: &str, output: &mut Output<W>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), name, &mut script);
    Ok(output.write(&String::from_utf8_lossy(&script))?)
}

/// Reads the arguments as the stock command does; errors and help end the process as they do in `Parser::parse`.
fn stock_arguments() -> Arguments {
    let tree = || Arguments::command().name(go_flags::STOCK_NAME).bin_name(go_flags::STOCK_NAME);
    let matches = tree().get_matches_from(go_flags::rewrite(std::env::args_os(), tree()));
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_tree_is_consistent() {
        Arguments::command().debug_assert();
    }
}
