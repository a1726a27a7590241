//! `cargo xtask mutants`: whether the tests notice when the code that decides who reaches what is altered.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use cache::Cache;
use clap::Parser;
use serde_json::Value;

use crate::Task;
use crate::checkout::Checkout;
use crate::print;
use crate::progress::Progress;

/// Alter the policy's evaluation and the packet filter, one place at a time, and see which alterations the tests notice
///
/// Which files are altered, and which alterations mean the same as the code does, stands in .cargo/mutants.toml. All of them
/// take hours on two cores; a shard is a sample. At the end stands a row for each file, and every alteration that no test
/// noticed. It fails where less than 90 % are noticed.
#[derive(Parser)]
#[command(
    name = "mutants",
    after_long_help = "Examples:\n  cargo xtask mutants filter\n  cargo xtask mutants policy --shard 0/8"
)]
pub(crate) struct Mutants {
    /// Only of this crate
    #[arg(value_name = "CRATE")]
    package: Option<String>,

    /// Only this part of all alterations, counted from 0
    #[arg(long, value_name = "K/N")]
    shard: Option<String>,

    /// Only of these files
    #[arg(long, value_name = "GLOB")]
    file: Vec<String>,
}

/// The crates that are altered, with the fastest set of tests that covers each.
const PACKAGES: [(&str, &[&str]); 2] =
    [("filter", &["--lib", "--test=verdicts"]), ("policy", &["--lib", "--test=policy"])];

/// How many cases each property is tried with: with fewer, an alteration of what is rare goes unnoticed.
const CASES: &str = "64";

/// The least part of the alterations that tests must notice, in percent.
const LEAST: usize = 90;

/// What became of the alterations of one file.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
struct Row {
    caught: usize,
    missed: usize,
    /// The tests did not end any more, which is noticed too.
    timeout: usize,
    /// They did not compile.
    unviable: usize,
}

impl Task for Mutants {
    fn run(self) -> Result<ExitCode> {
        let known = |name: &String| PACKAGES.iter().any(|(package, _)| package == name);
        ensure!(self.package.as_ref().is_none_or(known), "mutants are made of filter and policy only");
        let works = Command::new("cargo").args(["mutants", "--version"]).stdin(Stdio::null()).output();
        let works = works.is_ok_and(|output| output.status.success());
        ensure!(
            works,
            "this needs cargo-mutants, which isn't here; `cargo install cargo-mutants --locked` installs it"
        );
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let progress = Progress::start(&cache, "mutants")?;
        let mut rows = BTreeMap::new();
        for (package, tests) in
            PACKAGES.iter().filter(|(name, _)| self.package.as_ref().is_none_or(|only| only == name))
        {
            let folder = progress.logs().join(package);
            self.alter(package, tests, &cache, &checkout, &progress, &folder)?;
            let path = folder.join("mutants.out/outcomes.json");
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let outcomes = serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
            count(&outcomes, &mut rows);
            for missed in missed(&outcomes) {
                print::line(format_args!("unnoticed: {missed}"))?;
            }
        }
        print::line(format_args!("{:44}{:>8}{:>8}{:>10}{:>10}", "", "caught", "missed", "timeout", "unviable"))?;
        for (file, row) in &rows {
            print::line(format_args!("{file:44}{row}"))?;
        }
        let all = rows.values().copied().fold(Row::default(), Row::with);
        let Some(percent) = all.percent() else {
            bail!("no alteration was tried that compiles: choose other files, or another shard");
        };
        print::line(format_args!("{:44}{all}\n{percent} % noticed, {LEAST} % is the least", "all"))?;
        Ok(if percent >= LEAST { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Mutants {
    fn alter(
        &self,
        package: &str,
        tests: &[&str],
        cache: &Cache,
        checkout: &Checkout,
        progress: &Progress,
        folder: &Path,
    ) -> Result<()> {
        progress.step(&format!("mutants of {package}"), |step| {
            fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
            let mut command = checkout.cargo(cache, step)?;
            command.env("PROPTEST_CASES", CASES).env("CARGO_PROFILE_DEV_DEBUG", "0");
            // What it compiles is no use to other tasks.
            command.env("CARGO_TARGET_DIR", cache.root().join("mutants"));
            command.args(["mutants", "--package", package, "--no-times", "--output"]).arg(folder);
            command.args(self.shard.iter().flat_map(|shard| ["--shard", shard.as_str(), "--sharding=round-robin"]));
            command.args(self.file.iter().flat_map(|file| ["--file", file.as_str()]));
            let status = step.status(command.arg("--").args(tests))?;
            // 2 and 3 say that some were missed, or timed out.
            ensure!(matches!(status.code(), Some(0 | 2 | 3)), "cargo mutants ended with {status}");
            Ok(())
        })
    }
}

impl Row {
    fn with(self, other: Self) -> Self {
        Self {
            caught: self.caught + other.caught,
            missed: self.missed + other.missed,
            timeout: self.timeout + other.timeout,
            unviable: self.unviable + other.unviable,
        }
    }

    /// How many of those that compile were noticed, rounded down; nothing where none did.
    fn percent(self) -> Option<usize> {
        let noticed = self.caught + self.timeout;
        (100 * noticed).checked_div(noticed + self.missed)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caught, missed, timeout, unviable } = self;
        write!(formatter, "{caught:>8}{missed:>8}{timeout:>10}{unviable:>10}")
    }
}

/// Counts outcomes by file.
fn count(outcomes: &Value, rows: &mut BTreeMap<String, Row>) {
    for (mutant, summary) in mutants(outcomes) {
        let row = rows.entry(mutant["file"].as_str().unwrap_or_default().to_owned()).or_default();
        match summary {
            "CaughtMutant" => row.caught += 1,
            "MissedMutant" => row.missed += 1,
            "Timeout" => row.timeout += 1,
            "Unviable" => row.unviable += 1,
            _ => {}
        }
    }
}

fn missed(outcomes: &Value) -> impl Iterator<Item = &str> {
    let missed = mutants(outcomes).filter(|(_, summary)| *summary == "MissedMutant");
    missed.filter_map(|(mutant, _)| mutant["name"].as_str())
}

fn mutants(outcomes: &Value) -> impl Iterator<Item = (&Value, &str)> {
    let all = outcomes["outcomes"].as_array().into_iter().flatten();
    all.filter_map(|outcome| Some((outcome["scenario"].get("Mutant")?, outcome["summary"].as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_file_and_the_missed_are_named() {
        let mutant = |name: &str, summary: &str| serde_json::json!({"scenario": {"Mutant": {"file": "a.rs", "name": name}}, "summary": summary});
        let outcomes = serde_json::json!({"outcomes": [
            {"scenario": "Baseline", "summary": "Success"},
            mutant("one", "CaughtMutant"),
            mutant("two", "MissedMutant"),
            mutant("three", "Timeout"),
            mutant("four", "Unviable"),
        ]});
        let mut rows = BTreeMap::new();
        count(&outcomes, &mut rows);
        assert_eq!(rows["a.rs"], Row { caught: 1, missed: 1, timeout: 1, unviable: 1 });
        assert_eq!(rows["a.rs"].percent(), Some(66));
        assert_eq!(missed(&outcomes).collect::<Vec<_>>(), ["two"]);
        assert_eq!(Row { unviable: 3, ..Row::default() }.percent(), None, "no test was asked anything");
    }
}
