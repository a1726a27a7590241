//! The one binary: which role it plays, on which runtime, and when it stops. Everything else is the roles' own.

#![forbid(unsafe_code)]

mod role;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use cli::admin::ConnectionArguments;
use cli::{Output, OutputArguments};
use telemetry::LogArguments;

use role::Role;

/// A self-hosted private network for Kubernetes and for people
///
/// One binary: servers that run for long (control, derp), and commands for people, who name the coordination server with
/// --server or log in to it once.
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
    #[command(subcommand)]
    role: Role,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Role::Completions { shell } = arguments.role {
        clap_complete::generate(shell, &mut Arguments::command(), "towline", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    let mut output = Output::new(arguments.output.output, std::io::stdout());
    match role::run(arguments.role, &arguments.logs, arguments.connection, &mut output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("towline: {failure}");
            ExitCode::from(failure.code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_tree_is_consistent() {
        Arguments::command().debug_assert();
    }
}
