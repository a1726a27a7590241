//! The stages that need a world of boxes: test programs that print `ok` or `FAILED` for each thing that they prove.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::test::Context;
use crate::test::stage::Counts;
use crate::{build, world};

/// The laboratory's own cluster, without anything of ours in it.
pub(super) fn cluster(context: &Context<'_>) -> Result<Counts> {
    program(context, "cluster", &["test", "--package=lab", "--test=cluster", "--"], None)
}

/// Stock nodes on our coordination server and relays.
pub(super) fn mesh(context: &Context<'_>) -> Result<Counts> {
    let built = build::build(context.cache, context.checkout, context.progress, false)?;
    program(context, "mesh", &["test", "--package=e2e", "--test=mesh", "--"], Some(&built.binary))
}

/// Runs a test program by Cargo, shows what it says of each scenario, and counts that.
fn program(context: &Context<'_>, title: &str, arguments: &[&str], binary: Option<&Path>) -> Result<Counts> {
    let init = world::init(context.cache, context.checkout, context.progress)?;
    context.progress.step(title, |step| {
        let mut cargo = context.checkout.cargo(context.cache, step)?;
        if let Some(binary) = binary {
            cargo.env("TOWLINE_BINARY", binary);
        }
        let status = step.status(cargo.args(arguments).args(context.options).env("LAB_INIT", init))?;
        let log = fs::read_to_string(step.log()).with_context(|| format!("reading {}", step.log().display()))?;
        log.lines().filter(|line| verdict(line).is_some()).for_each(|line| context.progress.line(&format!("  {line}")));
        let mut counts: Counts = log.lines().filter_map(verdict).map(Counts::one).sum();
        if !status.success() && counts.failed == 0 {
            // It broke off before a scenario could fail.
            counts.failed = 1;
        }
        if counts.failed > 0 {
            let last: Vec<&str> = log.lines().rev().take(60).collect();
            last.iter().rev().for_each(|line| context.progress.line(&format!("  | {line}")));
            context.progress.line(&format!("the whole log is {}", step.log().display()));
        }
        Ok(counts)
    })
}

/// What a line says of a scenario.
fn verdict(line: &str) -> Option<bool> {
    if line.starts_with("ok     ") {
        Some(true)
    } else if line.starts_with("FAILED ") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_verdicts_count() {
        assert_eq!(verdict("ok     a pod answers"), Some(true));
        assert_eq!(verdict("FAILED a pod answers"), Some(false));
        assert_eq!(verdict("test result: ok. 1 passed; 0 failed"), None);
    }
}
