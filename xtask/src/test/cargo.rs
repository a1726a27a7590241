//! The stages that Cargo runs.

use std::env;
use std::fs;
use std::path::{self, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::test::Context;
use crate::test::stage::Counts;

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
            // Test programs that need a world are no part of it: their packages say so.
            cargo.arg("--workspace");
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

/// The variable that names the recorded answers of the hosted service.
const CAPTURES: &str = "TOWLINE_CAPTURES";

/// The recorded answers of the hosted service, which are no part of the project: every kind of capture and aspect is one thing
/// that passes, and every answer that differs without a known reason one that fails.
pub(super) fn captures(context: &Context<'_>) -> Result<Counts> {
    let named = env::var_os(CAPTURES).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let named = named.with_context(|| {
        format!("{CAPTURES} must name a file of recorded answers of the hosted service, one JSON object a line")
    })?;
    let file = path::absolute(&named).with_context(|| format!("{CAPTURES} names {}", named.display()))?;
    ensure!(file.is_file(), "{CAPTURES} names {}, which is no file", file.display());
    context.progress.step("captures", |step| {
        let mut cargo = context.checkout.cargo(context.cache, step)?;
        cargo.env(CAPTURES, &file).args([
            "test",
            "--package=policy",
            "--test=policy",
            "--",
            "captures::",
            "--nocapture",
        ]);
        let status = step.status(cargo.args(context.options))?;
        let log = fs::read_to_string(step.log()).with_context(|| format!("reading {}", step.log().display()))?;
        let report = replayed(&log);
        report.iter().for_each(|line| context.progress.line(&format!("  {line}")));
        let mut counts: Counts = report.iter().filter_map(|line| judged(line)).map(Counts::one).sum();
        if !status.success() && counts.failed == 0 {
            // It did not compile, or an exception is none any more.
            counts.failed = 1;
        }
        if counts.failed > 0 {
            show_failures(context, &log, &step.log().display().to_string());
        }
        Ok(counts)
    })
}

/// The report of the replay, as the test prints it: the table, and below it the answers that differ.
fn replayed(log: &str) -> Vec<&str> {
    let lines = log.lines().skip_while(|line| !line.ends_with(" captures"));
    lines.take_while(|line| !line.starts_with("test ") && !line.is_empty()).collect()
}

/// What a line of the report says: a row of the table that something was replayed, another that an answer differs for no
/// known reason.
fn judged(line: &str) -> Option<bool> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [.., "NOT", "EXPECTED"] => Some(false),
        [_, _, right, wrong] if right.parse::<u32>().is_ok() && wrong.parse::<u32>().is_ok() => Some(true),
        _ => None,
    }
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
    fn a_replay_counts_its_rows_and_the_answers_that_differ_for_no_known_reason() {
        let log = "running 1 test\n\
            3 captures\n\
            kind         aspect         right  wrong\n\
            acl          Accept             2      1\n\
            acl          Filter            40      0\n\
            ssh-e1: Refusal (1): the recording's literal was altered after the answer\n\
            acl-a1: Accept (1): NOT EXPECTED\n\
            test the_answers ... FAILED\n";
        let report = replayed(log);
        assert_eq!(report.len(), 6);
        let counts: Counts = report.iter().filter_map(|line| judged(line)).map(Counts::one).sum();
        assert_eq!(counts, Counts { passed: 2, failed: 1 });
    }

    #[test]
    fn a_log_without_results_counts_nothing() {
        assert_eq!(count("error[E0425]: cannot find value"), Counts::default());
    }
}
