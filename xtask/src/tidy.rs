//! `cargo xtask tidy`: the rules of ARCHITECTURE.md and CONTRIBUTING.md that a program can check.

mod crates;
mod files;
mod mutants;
mod table;

use std::fmt;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::checkout::Checkout;
use crate::{Task, print};
use table::Table;

/// Check the rules that hold the project together
///
/// Which crate may depend on which and who may name which library stands in ARCHITECTURE.md, in the blocks `edges` and
/// `only`. Besides: of what is shipped only the tests name what supports tests; pure crates do no I/O; no mod.rs; a lib.rs
/// has at most 100 lines, any other file of production code 800; no crate is called common, core, utils, types or errors;
/// every crate takes the workspace's lints; tests await events and do not sleep; no file names a path of somebody's machine
/// or the host of a package registry; .cargo/mutants.toml alters every file of the policy and the packet filter, or leaves
/// it out with a reason.
///
/// Where a rule about a line does not apply, say so on it or on the line before: `tidy: sleep, <reason>`, `tidy: path,
/// <reason>` or `tidy: host, <reason>`.
#[derive(Parser)]
#[command(name = "tidy")]
pub(crate) struct Tidy {}

impl Task for Tidy {
    fn run(self) -> Result<ExitCode> {
        let violations = check(&Checkout::find()?)?;
        for violation in &violations {
            print::line(violation)?;
        }
        match violations.len() {
            0 => {
                print::line("tidy")?;
                Ok(ExitCode::SUCCESS)
            }
            many => {
                print::line(format_args!("{many} rules broken"))?;
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// A rule that a line breaks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Violation {
    file: String,
    /// Counted from one.
    line: usize,
    message: String,
}

impl Violation {
    fn new(file: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.into(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Every rule that the checkout breaks, in the order of files and lines.
pub(crate) fn check(checkout: &Checkout) -> Result<Vec<Violation>> {
    let path = checkout.path(table::FILE);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("reading {}, which says what may depend on what", path.display()))?;
    let (table, mut violations) = Table::parse(&text);
    let crates = crates::Crates::read(checkout)?;
    violations.extend(crates.check(&table));
    violations.extend(files::check(checkout, &table)?);
    violations.extend(mutants::check(checkout)?);
    violations.sort();
    violations.dedup();
    Ok(violations)
}
