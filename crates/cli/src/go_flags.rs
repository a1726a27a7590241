//! Arguments as the stock command takes them: Go's flags have one dash or two, and a switch's value behind `=`.

use std::ffi::OsString;

use clap::{ArgAction, Command};

/// The name under which the binary takes arguments as the stock command does.
pub const STOCK_NAME: &str = "tailscale";

/// Whether the program was called by the stock command's name.
pub fn is_stock_name(program: &OsString) -> bool {
    std::path::Path::new(program).file_name().is_some_and(|name| name == STOCK_NAME)
}

/// Rewrites arguments from Go's spelling to ours: `-json` to `--json`, `-c 3` to `--c=3`.
///
/// The first argument is the program. What is no flag of the command at hand is left for the parser to refuse.
pub fn rewrite(arguments: impl IntoIterator<Item = OsString>, mut tree: Command) -> Vec<OsString> {
    tree.build();
    let mut command = &tree;
    let mut arguments = arguments.into_iter();
    let mut out: Vec<OsString> = arguments.next().into_iter().collect();
    while let Some(argument) = arguments.next() {
        let Some(text) = argument.to_str() else {
            out.push(argument);
            continue;
        };
        if text == "--" {
            out.push(argument);
            out.extend(arguments);
            return out;
        }
        let name = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).filter(|name| !name.is_empty());
        let Some(name) = name else {
            if let Some(subcommand) = command.find_subcommand(text) {
                command = subcommand;
            }
            out.push(argument);
            continue;
        };
        match known(command, name) {
            // Go takes what follows as the value, whatever it looks like.
            Some(Flag { takes_value: true }) if !name.contains('=') => match arguments.next() {
                Some(value) => {
                    let mut joined = OsString::from(format!("--{name}="));
                    joined.push(value);
                    out.push(joined);
                }
                None => out.push(format!("--{name}").into()),
            },
            // Unknown to Go's parser too; with two dashes ours names it whole.
            None if name.len() == 1 => out.push(argument),
            Some(_) | None => out.push(format!("--{name}").into()),
        }
    }
    out
}

struct Flag {
    takes_value: bool,
}

/// The command's flag of this name, written without dashes and perhaps with a value.
fn known(command: &Command, name: &str) -> Option<Flag> {
    let name = name.split('=').next().unwrap_or_default();
    let argument = command.get_arguments().find(|argument| {
        argument.get_long() == Some(name) || argument.get_all_aliases().unwrap_or_default().contains(&name)
    })?;
    let switch = !matches!(argument.get_action(), ArgAction::Set | ArgAction::Append)
        || argument.get_num_args().is_some_and(|range| range.min_values() == 0);
    Some(Flag { takes_value: !switch })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::node::{NodeCommand, SocketArguments};

    #[derive(Debug, Parser)]
    #[command(name = "tailscale")]
    struct Program {
        #[command(flatten)]
        socket: SocketArguments,
        #[command(subcommand)]
        command: NodeCommand,
    }

    fn rewritten(line: &str) -> String {
        use clap::CommandFactory;
        let arguments = std::iter::once("tailscale").chain(line.split_whitespace()).map(OsString::from);
        let rewritten = rewrite(arguments, Program::command());
        rewritten[1..].iter().map(|argument| argument.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_dash_becomes_two() {
        assert_eq!(rewritten("status -json -peers=false"), "status --json --peers=false");
        assert_eq!(rewritten("ip -4"), "ip --4");
        assert_eq!(
            rewritten("up -accept-routes --auth-key k -authkey=k"),
            "up --accept-routes --auth-key=k --authkey=k"
        );
    }

    #[test]
    fn a_value_of_its_own_belongs_to_its_flag_whatever_it_looks_like() {
        assert_eq!(rewritten("-socket /s ping -c 3 -timeout 1s beta"), "--socket=/s ping --c=3 --timeout=1s beta");
        assert_eq!(rewritten("set --exit-node -x"), "set --exit-node=-x");
    }

    #[test]
    fn a_switch_takes_no_value_of_its_own() {
        assert_eq!(rewritten("status --json true"), "status --json true");
    }

    #[test]
    fn what_is_not_known_is_left_to_be_refused_by_its_whole_name() {
        assert_eq!(rewritten("up -nosuch --neither=1 -x -- -json"), "up --nosuch --neither=1 -x -- -json");
    }

    #[test]
    fn every_spelling_of_a_switch_parses() {
        for line in ["up -accept-routes", "up --accept-routes=true", "up -accept-routes=F", "up --reset --qr=0"] {
            let arguments = std::iter::once("tailscale").chain(line.split_whitespace()).map(OsString::from);
            use clap::CommandFactory;
            Program::try_parse_from(rewrite(arguments, Program::command())).unwrap();
        }
    }
}
