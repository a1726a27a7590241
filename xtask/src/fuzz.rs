//! `cargo xtask fuzz`: the fuzzers of the folder `fuzz`, each for a while.

mod report;
mod seeds;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use cache::Cache;
use clap::Parser;

use crate::Task;
use crate::checkout::Checkout;
use crate::print;
use crate::progress::Progress;
use report::Report;

/// Run the fuzzers
///
/// Without a name all of them run, one after another. What they learn is kept in the cache, so that the next run goes on from
/// there; the policy's begin with the examples of docs/policy.md and of the tests, that of the control protocol's JSON with
/// fuzz/seeds. An input that breaks something is kept under fuzz/artifacts and named at the end, with the command that plays
/// it again.
#[derive(Parser)]
#[command(name = "fuzz", after_long_help = "Examples:\n  cargo xtask fuzz\n  cargo xtask fuzz filter --seconds 600")]
pub(crate) struct Fuzz {
    /// List the fuzzers
    #[arg(long)]
    list: bool,

    /// Run only these
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How long each runs
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

/// A fuzzer.
pub(crate) struct Target {
    name: &'static str,
    about: &'static str,
    reads: Input,
    /// The longest input, in bytes.
    longest: u32,
}

/// What a fuzzer begins with.
#[derive(Clone, Copy)]
enum Input {
    /// Nothing: any bytes lead somewhere.
    Bytes,
    /// The words and examples of policies.
    Policies,
    /// The words and messages of the control protocol.
    Messages,
}

/// All fuzzers.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "policy_parse",
        about: "any text as HuJSON and as a policy, and edits of it",
        reads: Input::Policies,
        // Long enough for lists whose product is bounded.
        longest: 65_536,
    },
    Target { name: "policy_tailnet", about: "any policy on a small tailnet", reads: Input::Policies, longest: 4096 },
    Target {
        name: "policy_compile",
        about: "any grants on any tailnet, beside the policy read word by word",
        reads: Input::Bytes,
        longest: 512,
    },
    Target { name: "filter", about: "any bytes as packets, under any rules", reads: Input::Bytes, longest: 1024 },
    Target {
        name: "wires",
        about: "any bytes as datagrams, packets and the frames of a relay",
        reads: Input::Bytes,
        longest: 1024,
    },
    Target {
        name: "control_json",
        about: "any text as the control protocol's messages and frames",
        reads: Input::Messages,
        longest: 8192,
    },
    Target {
        name: "map_stream",
        about: "any sequence of a coordination server's messages",
        reads: Input::Bytes,
        longest: 2048,
    },
];

/// What fuzzing needs besides the compiler of the project, and how one gets it.
const NEEDED: [(&[&str], &str, &str); 2] = [
    (&["--version"], "a nightly compiler", "rustup toolchain install nightly --profile minimal"),
    (&["fuzz", "--version"], "cargo-fuzz", "cargo install cargo-fuzz --locked"),
];

/// What became of a fuzzer.
pub(crate) struct Outcome {
    name: &'static str,
    report: Report,
    /// Inputs that broke something in this run.
    crashes: Vec<PathBuf>,
    ended_well: bool,
}

impl Task for Fuzz {
    fn run(self) -> Result<ExitCode> {
        if self.list {
            for target in TARGETS {
                print::line(format_args!("{:16} {}", target.name, target.about))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let targets = choose(&self.targets)?;
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let progress = Progress::start(&cache, "fuzz")?;
        let outcomes = fuzz(&cache, &checkout, &progress, &targets, self.seconds)?;
        print::line(format_args!(
            "{:16}{:>14}{:>12}{:>12}{:>10}",
            "target", "executions", "coverage", "inputs", "crashes"
        ))?;
        outcomes.iter().try_for_each(print::line)?;
        let broken: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.holds()).collect();
        for outcome in &broken {
            for crash in &outcome.crashes {
                print::line(format_args!(
                    "again: cargo +nightly fuzz run --sanitizer none {} {}",
                    outcome.name,
                    crash.display()
                ))?;
            }
        }
        Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Outcome {
    /// Whether nothing was found.
    pub(crate) fn holds(&self) -> bool {
        self.ended_well && self.crashes.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { executions, coverage, inputs } = self.report;
        write!(formatter, "{:16}{executions:>14}{coverage:>12}{inputs:>12}{:>10}", self.name, self.crashes.len())?;
        if !self.ended_well && self.crashes.is_empty() { formatter.write_str("  it broke off") } else { Ok(()) }
    }
}

fn choose(names: &[String]) -> Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| {
        let known = TARGETS.iter().find(|target| target.name == name);
        known.with_context(|| format!("there is no fuzzer called {name}: `cargo xtask fuzz --list` names them"))
    };
    names.iter().map(find).collect()
}

/// Builds the fuzzers and runs each for so many seconds.
///
/// # Errors
/// What fuzzing needs isn't there, or the fuzzers don't build.
pub(crate) fn fuzz(
    cache: &Cache,
    checkout: &Checkout,
    progress: &Progress,
    targets: &[&'static Target],
    seconds: u64,
) -> Result<Vec<Outcome>> {
    check_needed()?;
    let folders = Folders::new(cache, checkout)?;
    progress.step("building the fuzzers", |step| {
        let mut build = nightly(&["fuzz", "build", "--sanitizer", "none", "--target-dir"]);
        step.run(build.arg(&folders.build).current_dir(checkout.root()))
    })?;
    seeds::write(checkout, &folders.seeds)?;
    targets.iter().map(|target| run(target, checkout, progress, &folders, seconds)).collect()
}

/// Where the fuzzers' things lie.
struct Folders {
    build: PathBuf,
    corpus: PathBuf,
    seeds: PathBuf,
}

impl Folders {
    fn new(cache: &Cache, checkout: &Checkout) -> Result<Self> {
        let target = cache.cargo_target(checkout.root(), &checkout.members()?, &mut |_| {})?;
        let own = cache.root().join("fuzz");
        Ok(Self { build: target.join("fuzz"), corpus: own.join("corpus"), seeds: own.join("seeds") })
    }
}

fn check_needed() -> Result<()> {
    for (arguments, what, how) in NEEDED {
        let output = nightly(arguments).stdin(Stdio::null()).output();
        let works = output.is_ok_and(|output| output.status.success());
        ensure!(works, "fuzzing needs {what}, which isn't here; `{how}` installs it");
    }
    Ok(())
}

/// Cargo of the nightly toolchain, without what the Cargo around this process said of itself.
fn nightly(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(arguments);
    for name in ["CARGO", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR" {
            command.env_remove(name);
        }
    }
    command
}

fn run(
    target: &'static Target,
    checkout: &Checkout,
    progress: &Progress,
    folders: &Folders,
    seconds: u64,
) -> Result<Outcome> {
    let corpus = folders.corpus.join(target.name);
    fs::create_dir_all(&corpus).with_context(|| format!("making {}", corpus.display()))?;
    let artifacts = checkout.path("fuzz/artifacts").join(target.name);
    fs::create_dir_all(&artifacts).with_context(|| format!("making {}", artifacts.display()))?;
    let before = files(&artifacts)?;
    progress.step(&format!("fuzzing {}", target.name), |step| {
        let mut command = nightly(&["fuzz", "run", "--sanitizer", "none", "--target-dir"]);
        command.arg(&folders.build).arg(target.name).arg(&corpus).current_dir(checkout.root());
        let start = match target.reads {
            Input::Bytes => None,
            Input::Policies => Some(("policy.dict", folders.seeds.clone())),
            Input::Messages => Some(("messages.dict", checkout.path("fuzz/seeds/messages"))),
        };
        command.args(start.iter().map(|(_, seeds)| seeds));
        command.arg("--").args([format!("-max_total_time={seconds}"), format!("-max_len={}", target.longest)]);
        command.args(["-print_final_stats=1", "-timeout=20"]);
        if let Some((words, _)) = start {
            command.arg(format!("-dict={}", checkout.path("fuzz/dictionaries").join(words).display()));
        }
        let status = step.status(&mut command)?;
        let log = fs::read_to_string(step.log()).with_context(|| format!("reading {}", step.log().display()))?;
        let crashes: Vec<PathBuf> = files(&artifacts)?.into_iter().filter(|file| !before.contains(file)).collect();
        if !status.success() {
            report::complaint(&log).iter().for_each(|line| progress.line(&format!("  | {line}")));
            progress.line(&format!("the whole log is {}", step.log().display()));
        }
        let report = Report::read(&log);
        if status.success() && report.executions == 0 {
            bail!("{} tried nothing; its log is {}", target.name, step.log().display());
        }
        Ok(Outcome { name: target.name, report, crashes, ended_well: status.success() })
    })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> std::io::Result<Vec<PathBuf>> { fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect() };
    list().with_context(|| format!("reading {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fuzzer_is_in_the_table() {
        let manifest = include_str!("../../fuzz/Cargo.toml");
        let mut built: Vec<&str> = manifest
            .split("[[bin]]")
            .skip(1)
            .filter_map(|bin| bin.split_once("name = \"")?.1.split_once('"').map(|(name, _)| name))
            .collect();
        let mut listed: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        built.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, built);
    }

    #[test]
    fn an_unknown_fuzzer_is_named() {
        let message = choose(&["polcy".to_owned()]).err().unwrap().to_string();
        assert!(message.contains("polcy") && message.contains("--list"), "{message}");
        assert_eq!(choose(&[]).unwrap().len(), TARGETS.len());
    }

    #[test]
    fn a_row_says_what_ran_and_what_was_found() {
        let report = Report { executions: 1000, coverage: 200, inputs: 30 };
        let mut outcome = Outcome { name: "filter", report, crashes: Vec::new(), ended_well: true };
        assert_eq!(outcome.to_string(), "filter                    1000         200          30         0");
        assert!(outcome.holds());
        outcome.ended_well = false;
        assert!(outcome.to_string().ends_with("it broke off") && !outcome.holds());
    }
}
