//! What operator, proxies and nodes cost, beside the stock ones on the same cluster.
//!
//! Prints lines of progress, then a line `report`, and the report behind it. Options, each with its value after an equals sign:
//! `--system` (`stock`, `towline` or `both`), `--rounds`, `--services`, `--idle` and `--transfer` (seconds), `--only` (`nodes` or
//! `kubernetes`), `--output` (`table` or `json`).

use std::hash::BuildHasher;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::measure::{Extent, Figures, Ground, Report, SYSTEMS, System};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let systems = systems(&option("--system").unwrap_or_else(|| "both".to_owned()))?;
    let rounds = usize::try_from(number("--rounds", 4)?)?;
    let only = option("--only");
    ensure!(matches!(only.as_deref(), None | Some("nodes" | "kubernetes")), "--only is nodes or kubernetes");
    let extent = Extent {
        services: usize::try_from(number("--services", 50)?)?,
        idle: Duration::from_secs(number("--idle", 60)?),
        transfer: Duration::from_secs(number("--transfer", 10)?),
        nodes: only.as_deref() != Some("kubernetes"),
        kubernetes: only.as_deref() != Some("nodes"),
    };

    println!("the world is made");
    let ground = Ground::set_up()?;
    let mut figures = Figures::default();
    let measured = measure(&ground, &systems, rounds, &extent, &mut figures);
    let report = Report { figures, extent, rounds };
    println!("report");
    match option("--output").as_deref() {
        Some("json") => println!("{}", serde_json::to_string_pretty(&report.to_json())?),
        _ => print!("{report}"),
    }
    measured.context("the rest could not be measured")
}

/// Gives the systems their turns. Who goes first in the first round is left to chance, and changes by round from then on: where
/// the rounds are odd in number, nobody is always the one with a turn more at the begin.
fn measure(ground: &Ground, systems: &[System], rounds: usize, extent: &Extent, figures: &mut Figures) -> Result<()> {
    let mut is_reversed = std::hash::RandomState::new().hash_one(rounds) % 2 == 1;
    for round in 1..=rounds {
        figures.begin(round);
        let mut order: Vec<&System> = systems.iter().collect();
        if is_reversed {
            order.reverse();
        }
        is_reversed = !is_reversed;
        for system in order {
            println!("round {round} of {rounds}: {}", system.name);
            ground.measure(system, extent, figures)?;
        }
    }
    Ok(())
}

fn systems(wanted: &str) -> Result<Vec<System>> {
    let systems: Vec<System> = SYSTEMS.into_iter().filter(|system| wanted == "both" || wanted == system.name).collect();
    if systems.is_empty() {
        bail!("there is no system {wanted:?} to be measured");
    }
    Ok(systems)
}

fn option(name: &str) -> Option<String> {
    std::env::args().find_map(|argument| Some(argument.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

fn number(name: &str, usual: u64) -> Result<u64> {
    match option(name) {
        None => Ok(usual),
        Some(text) => text.parse().ok().filter(|number| *number > 0).with_context(|| format!("{name} is {text:?}")),
    }
}
