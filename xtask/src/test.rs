//! `cargo xtask test`: stages in a row, and one line that counts them.

mod cargo;
pub(crate) mod scenario;
mod stage;
mod told;

use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::{Result, bail, ensure};
use cache::Cache;
use clap::Parser;

use crate::checkout::Checkout;
use crate::progress::Progress;
use crate::{Task, interrupt, print};
use stage::{Counts, STAGES, Stage};

/// Run the tests: formatting, lints, rules, unit tests, scenarios
///
/// Every stage runs, whatever became of the one before; the last line counts what passed and what failed. Without a
/// name, all stages of the standard tier run. A stage's own options follow its name.
#[derive(Parser)]
#[command(
    name = "test",
    after_long_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only clippy --only tidy\n  cargo xtask test unit -p packet"
)]
pub(crate) struct Test {
    /// Run only this stage; may be given several times
    #[arg(long, value_name = "STAGE")]
    only: Vec<String>,

    /// List the stages
    #[arg(long)]
    list: bool,

    /// Run this stage, with its options after it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "STAGE")]
    pub(crate) stage: Vec<String>,
}

/// What a stage works with.
pub(crate) struct Context<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) checkout: &'a Checkout,
    pub(crate) progress: &'a Progress,
    /// The stage's own options, as they were typed.
    pub(crate) options: &'a [String],
}

impl Task for Test {
    fn run(self) -> Result<ExitCode> {
        if self.list {
            for stage in STAGES {
                let tier = if stage.standard { "" } else { " (only by name)" };
                print::line(format_args!("{:16} {}{tier}", stage.name, stage.about))?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        let stages = self.stages()?;
        refuse_updates(std::env::var_os(UPDATE).as_deref())?;
        let options = self.stage.split_first().map_or([].as_slice(), |(_, options)| options);
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let progress = Progress::start(&cache, "test")?;
        interrupt::watch(interrupt::sweep)?;
        let context = Context { cache: &cache, checkout: &checkout, progress: &progress, options };
        let counts = stages.iter().map(|stage| run_stage(stage, &context)).sum::<Counts>();
        print::line(counts)?;
        Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl Test {
    /// The stages that it names.
    pub(crate) fn stages(&self) -> Result<Vec<&'static Stage>> {
        choose(self.only.iter().chain(self.stage.first()))
    }
}

/// With this variable set, tests write down as right what they would compare.
const UPDATE: &str = "TOWLINE_UPDATE";

/// What writes its own expectations can't fail.
fn refuse_updates(set: Option<&OsStr>) -> Result<()> {
    ensure!(
        set.is_none(),
        "{UPDATE} is set, by which tests write down as right what they would compare: unset it here, and run \
         `{UPDATE}=1 cargo test -p operator` where that is what you want"
    );
    Ok(())
}

/// The stages with these names; without any, the standard tier.
fn choose<'a>(names: impl Iterator<Item = &'a String>) -> Result<Vec<&'static Stage>> {
    let mut chosen = Vec::new();
    for name in names {
        match STAGES.iter().find(|stage| stage.name == name) {
            Some(stage) => chosen.push(stage),
            None => bail!("there is no stage called {name}: `cargo xtask test --list` names them"),
        }
    }
    if chosen.is_empty() {
        chosen.extend(STAGES.iter().filter(|stage| stage.standard));
    }
    Ok(chosen)
}

/// Runs a stage; one that breaks off counts as one more failure.
fn run_stage(stage: &Stage, context: &Context<'_>) -> Counts {
    let counts = (stage.run)(context).unwrap_or_else(|error| {
        context.progress.line(&format!("{}: {error:#}", stage.name));
        Counts { passed: 0, failed: 1 }
    });
    context.progress.line(&format!("{}: {counts}", stage.name));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_reads_as_it_must() {
        let counts: Counts = [Counts { passed: 1, failed: 0 }, Counts { passed: 40, failed: 2 }].into_iter().sum();
        assert_eq!(counts.to_string(), "41 passed, 2 failed");
    }

    #[test]
    fn an_unknown_stage_is_named() {
        let message = choose([&"unti".to_owned()].into_iter()).err().unwrap().to_string();
        assert!(message.contains("unti") && message.contains("--list"), "{message}");
    }

    #[test]
    fn tests_that_write_their_own_expectations_are_refused() {
        refuse_updates(None).unwrap();
        let message = refuse_updates(Some(OsStr::new("1"))).unwrap_err().to_string();
        assert!(message.contains("TOWLINE_UPDATE is set"), "{message}");
    }

    #[test]
    fn without_names_the_standard_tier_runs() {
        let names: Vec<&str> = choose([].iter()).unwrap().iter().map(|stage| stage.name).collect();
        assert!(names.starts_with(&["fmt", "clippy", "tidy", "fetch", "unit"]), "{names:?}");
    }

    #[test]
    fn options_after_a_stage_are_the_stages_own() {
        let test = Test::try_parse_from(["test", "unit", "-p", "packet", "--only"]).unwrap();
        assert_eq!(test.stage, ["unit", "-p", "packet", "--only"]);
        assert!(test.only.is_empty());
    }
}
