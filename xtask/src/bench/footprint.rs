use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};

use super::Context;
use crate::{build, fetch, print, world};

/// Measure what operator, proxies and nodes cost, ours beside the stock ones
///
/// Both systems take turns on one cluster and one coordination server, in an order that changes by round and begins by chance;
/// each leaves before the next enters. Expect ten minutes a round on two cores, and other programs on the machine in the figures.
#[derive(Parser)]
#[command(name = "cargo xtask bench footprint")]
struct Footprint {
    /// How often each system is measured; ratios are of values of the same round. Even, so that each goes first as often
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,

    /// How many Services are exposed at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    services: u64,

    /// Which system to measure
    #[arg(long, value_enum, default_value_t = Which::Both)]
    system: Which,

    /// Measure only a part
    #[arg(long, value_enum)]
    only: Option<Part>,

    /// Seconds in which nobody does anything, while calls and writes are counted
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    idle: u64,

    /// Seconds of TCP, at each rate
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    transfer: u64,

    /// How to print the report
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    Stock,
    Towline,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Nodes,
    Kubernetes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

pub(super) fn run(context: &Context<'_>) -> Result<ExitCode> {
    let options = std::iter::once("footprint").chain(context.options.iter().map(String::as_str));
    // Ends the process where help is asked for or an option is wrong, as for any task.
    let options = Footprint::parse_from(options);
    let Context { cache, checkout, progress, .. } = *context;
    fetch::everything(cache, checkout, progress)?;
    let built = build::build(cache, checkout, progress, true)?;
    let sources = fetch::stock_sources(cache, checkout, progress)?;
    let init = world::init(cache, checkout, progress)?;
    let (report, status) = progress.step("footprint", |step| {
        let environment: [(&str, &Path); 3] =
            [("TOWLINE_BINARY", &built.binary), ("STOCK_SOURCES", &sources), ("LAB_INIT", &init)];
        let mut cargo = checkout.cargo(cache, step)?;
        cargo.envs(environment).args(["test", "--quiet", "--package=e2e", "--test=footprint", "--"]);
        cargo.args(options.arguments());
        let mut report: Option<String> = None;
        let status = step.lines(&mut cargo, |line| match &mut report {
            None if line == "report" => report = Some(String::new()),
            None => step.say(line),
            Some(report) => {
                report.push_str(line);
                report.push('\n');
            }
        })?;
        match report {
            Some(report) => Ok((report, status)),
            None => bail!("the measuring program ended with {status}, without a report"),
        }
    })?;
    print::answer(report)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Footprint {
    /// The options as the measuring program takes them.
    fn arguments(&self) -> Vec<String> {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        let mut arguments = vec![
            format!("--rounds={}", self.rounds),
            format!("--services={}", self.services),
            format!("--idle={}", self.idle),
            format!("--transfer={}", self.transfer),
            format!("--system={}", name(&|| self.system.to_possible_value())),
            format!("--output={}", name(&|| self.output.to_possible_value())),
        ];
        if let Some(part) = self.only {
            arguments.push(format!("--only={}", name(&|| part.to_possible_value())));
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_measuring_program_is_told_every_option() {
        Footprint::command().debug_assert();
        let options = ["footprint", "--rounds", "2", "--system", "towline", "--only", "nodes", "-o", "json"];
        let arguments = Footprint::try_parse_from(options).unwrap().arguments();
        let expected = [
            "--rounds=2",
            "--services=50",
            "--idle=60",
            "--transfer=10",
            "--system=towline",
            "--output=json",
            "--only=nodes",
        ];
        assert_eq!(arguments, expected);
    }

    #[test]
    fn nothing_cannot_be_measured() {
        for wrong in ["--rounds=0", "--services=0", "--system=other"] {
            assert!(Footprint::try_parse_from(["footprint", wrong]).is_err(), "{wrong}");
        }
    }
}
