//! The stages that Cargo runs.

use std::fs;

use anyhow::{Context as _, Result};

use crate::test::Context;
use crate::test::stage::Counts;

/// Crates whose tests are stages of their own.
const APART: &[&str] = &["e2e"];

/// How many lines of a failed test run are shown.
const SHOWN_LINES: usize = 200;

pub(super) fn formatting(context: &Context<'_>) -> Result<Counts> {
    one(context, "fmt", &["fmt", "--all", "--check"])
}

pub(super) fn lints(context: &Context<'_>) -> Result<Counts> {
    one(context, "clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// Tests of every crate; the stage's own options go to `cargo test` in place of `--workspace`.
pub(super) fn units(context: &Context<'_>) -> Result<Counts> {
    context.progress.step("unit", |step| {
        let mut cargo = context.checkout.cargo(context.cache, step)?;
        cargo.args(["test", "--no-fail-fast"]);
        if context.options.is_empty() {
            cargo.arg("--workspace");
            let members = context.checkout.members()?;
            for apart in APART.iter().filter(|apart| members.iter().any(|member| member == *apart)) {
                cargo.args(["--exclude", apart]);
            }
        }
        let status = step.status(cargo.args(context.options))?;
        let log = fs::read_to_string(step.log()).with_context(|| format!("reading {}", step.log().display()))?;
        let mut counts = count(&log);
        if !status.success() && counts.failed == 0 {
            // It did not compile, or a test ended its process.
            counts.failed = 1;
        }
        if counts.failed > 0 {
            show_failures(context, &log, &step.log().display().to_string());
        }
        Ok(counts)
    })
}

fn one(context: &Context<'_>, title: &str, arguments: &[&str]) -> Result<Counts> {
    let ran =
        context.progress.step(title, |step| step.run(context.checkout.cargo(context.cache, step)?.args(arguments)));
    if let Err(error) = &ran {
        context.progress.line(&format!("{error:#}"));
    }
    Ok(Counts::one(ran.is_ok()))
}

/// Adds up the results that test programs print.
fn count(log: &str) -> Counts {
    log.lines()
        .filter_map(|line| line.strip_prefix("test result: "))
        .map(|result| Counts { passed: number_before(result, " passed"), failed: number_before(result, " failed") })
        .sum()
}

fn number_before(text: &str, word: &str) -> usize {
    let number = text.split(word).next().and_then(|before| before.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Shows what failed tests printed, and what did not compile: every line from `failures:`, `error` or a panic to the
/// next result, within a bound.
fn show_failures(context: &Context<'_>, log: &str, path: &str) {
    let mut shown = 0;
    let mut showing = false;
    for line in log.lines() {
        showing = match line {
            "failures:" => true,
            line if line.starts_with("error") => true,
            line if line.starts_with("test result: ") || line.starts_with("     Running ") => false,
            _ => showing,
        };
        if showing && shown < SHOWN_LINES {
            context.progress.line(&format!("  | {line}"));
            shown += 1;
        }
    }
    context.progress.line(&format!("the whole log is {path}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_all_test_programs_are_added_up() {
        let log = "running 3 tests\ntest a ... ok\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            test result: ok. 40 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s\n";
        assert_eq!(count(log), Counts { passed: 42, failed: 1 });
    }

    #[test]
    fn a_log_without_results_counts_nothing() {
        assert_eq!(count("error[E0425]: cannot find value"), Counts::default());
    }
}
