//! The one binary: which role it plays, on which runtime, and when it stops. Everything else is the roles' own.

#![forbid(unsafe_code)]

mod apiserver_proxy;
mod daemon;
#[cfg(test)]
mod deployed;
#[cfg(test)]
mod guide;
mod misuse;
mod role;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Command, CommandFactory, FromArgMatches, Parser};
use clap_complete::Shell;
use cli::admin::ConnectionArguments;
use cli::node::SocketArguments;
use cli::{EXIT_FAILED, EXIT_USAGE, Failure, Output, OutputArguments, go_flags};
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
    let name = if is_stock { go_flags::STOCK_NAME } else { "towline" };
    let typed = std::env::args_os();
    let typed = if is_stock { go_flags::rewrite(typed, command(name)) } else { typed.collect() };
    let arguments = match read(typed, name) {
        Ok(arguments) => arguments,
        Err(error) => match misuse::explain(&error) {
            Some(text) => {
                eprintln!("{name}: {text}");
                return ExitCode::from(EXIT_USAGE);
            }
            None => error.exit(),
        },
    };
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

fn completions<W: Write>(shell: Shell, name: &'static str, output: &mut Output<W>) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(name), name, &mut script);
    Ok(output.write(&String::from_utf8_lossy(&script))?)
}

/// The arguments that the program takes under a name. What every command takes besides how its answer is printed stands
/// together at the end of its long help, and not in the short one.
fn command(name: &'static str) -> Command {
    let tree = Arguments::command().name(name).bin_name(name);
    tree.mut_args(|option| match option.is_global_set() && option.get_id() != "output" {
        true => option.help_heading("Options of every command").hide_short_help(true),
        false => option,
    })
}

fn read(typed: Vec<OsString>, name: &'static str) -> Result<Arguments, clap::Error> {
    Arguments::from_arg_matches(&command(name).try_get_matches_from(typed)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_argument_tree_is_consistent() {
        command("towline").debug_assert();
    }

    #[test]
    fn the_options_of_every_command_stand_under_one_heading_of_the_long_help_alone() {
        let help = |flag| {
            let asked = command("towline").try_get_matches_from(["towline", "up", flag]);
            asked.unwrap_err().to_string()
        };
        let (short, long) = (help("-h"), help("--help"));
        assert!(
            !short.contains("--api-key") && short.contains("--login-server") && short.contains("--output"),
            "{short}"
        );
        let (_, everywhere) = long.split_once("Options of every command:").unwrap();
        for option in ["--log ", "--api-key", "--socket"] {
            assert!(everywhere.contains(option), "{option} is missing: {long}");
        }
        assert!(!["Logging:", "Server:", "Daemon:"].iter().any(|heading| long.contains(heading)), "{long}");
    }
}
