//! The stages of the tests: a table.

use std::fmt;
use std::iter::Sum;

use anyhow::Result;

use crate::test::{Context, cargo, scenario};
use crate::{fetch, fuzz, tidy};

/// A stage of the tests.
pub(crate) struct Stage {
    /// What people type.
    pub(crate) name: &'static str,
    /// What it tests, in a few words.
    pub(crate) about: &'static str,
    /// Whether it runs when no stage is named.
    pub(crate) standard: bool,
    /// Runs it and counts. An error counts as one failure.
    pub(crate) run: fn(&Context<'_>) -> Result<Counts>,
}

/// What passed and what failed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

/// All stages, in the order in which they run.
pub(crate) const STAGES: &[Stage] = &[
    Stage { name: "fmt", about: "formatting", standard: true, run: cargo::formatting },
    Stage { name: "clippy", about: "lints, with warnings as errors", standard: true, run: cargo::lints },
    Stage { name: "tidy", about: "the rules of ARCHITECTURE.md", standard: true, run: rules },
    Stage { name: "fetch", about: "what the tests stand on is there, or can be made", standard: true, run: parts },
    Stage { name: "unit", about: "tests of every crate", standard: true, run: cargo::units },
    Stage {
        name: "durability",
        about: "the coordination server forgets nothing when it is killed, or its power is cut",
        standard: true,
        run: scenario::durability,
    },
    Stage {
        name: "cluster",
        about: "the laboratory's Kubernetes on two nodes",
        standard: true,
        run: scenario::cluster,
    },
    Stage {
        name: "up",
        about: "the README's first command as a user types it: cut off, completed, typed again, taken down",
        standard: true,
        run: scenario::up,
    },
    Stage {
        name: "mesh",
        about: "stock nodes on our coordination server and relays",
        standard: true,
        run: scenario::mesh,
    },
    Stage {
        name: "node",
        about: "our node with stock nodes and its like, under our command line and the stock one",
        standard: true,
        run: scenario::node,
    },
    Stage {
        name: "stock-operator",
        about: "the stock Kubernetes operator and its proxies on our coordination server",
        standard: true,
        run: scenario::stock_operator,
    },
    Stage {
        name: "operator",
        about: "our Kubernetes operator and its proxies, with our clients: the walkthrough, row by row",
        standard: true,
        run: scenario::operator,
    },
    Stage {
        name: "clients",
        about: "our Kubernetes operator and its proxies, with stock clients on one side or on both",
        standard: true,
        run: scenario::clients,
    },
    Stage {
        name: "walkthrough",
        about: "the walkthrough, or rows of it: --row 8 --operator, --laptop, --robbinsdale towline|stock",
        standard: false,
        run: scenario::walkthrough,
    },
    Stage {
        name: "captures",
        about: "recorded answers of the hosted service, in the file that TOWLINE_CAPTURES names",
        standard: false,
        run: cargo::captures,
    },
    Stage {
        name: "long",
        about: "what takes too long for every day: the coordination server is killed hundreds of times, fuzzers",
        standard: false,
        run: long,
    },
];

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, next| Self {
            passed: sum.passed + next.passed,
            failed: sum.failed + next.failed,
        })
    }
}

impl Counts {
    /// Counts one thing that passed or failed.
    pub(crate) fn one(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed) }
    }
}

/// How long each fuzzer runs in the long tier.
const FUZZED_SECONDS: u64 = 600;

fn long(context: &Context<'_>) -> Result<Counts> {
    let targets: Vec<_> = fuzz::TARGETS.iter().collect();
    let outcomes = fuzz::fuzz(context.cache, context.checkout, context.progress, &targets, FUZZED_SECONDS);
    let fuzzed: Counts = match outcomes {
        Ok(outcomes) => {
            outcomes.iter().for_each(|outcome| context.progress.line(&format!("  {outcome}")));
            outcomes.iter().map(|outcome| Counts::one(outcome.holds())).sum()
        }
        Err(error) => {
            context.progress.line(&format!("fuzzers: {error:#}"));
            Counts::one(false)
        }
    };
    Ok([fuzzed, scenario::long(context)?].into_iter().sum())
}

fn parts(context: &Context<'_>) -> Result<Counts> {
    fetch::everything(context.cache, context.checkout, context.progress)?;
    Ok(Counts::one(true))
}

fn rules(context: &Context<'_>) -> Result<Counts> {
    let violations = tidy::check(context.checkout)?;
    for violation in &violations {
        context.progress.line(&violation.to_string());
    }
    Ok(Counts::one(violations.is_empty()))
}
