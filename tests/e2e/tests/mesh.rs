//! Two nodes on our coordination server and relays: the rows of the walkthrough that do without Kubernetes.
//!
//! `--laptop` and `--robbinsdale` say whose client runs there; `--help` explains.

use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use e2e::{Arguments, Checks, rows};

fn main() -> ExitCode {
    Checks::main(|checks| {
        let arguments = Arguments::parse();
        ensure!(arguments.rows.is_empty(), "mesh plays its rows together: the program walkthrough plays single ones");
        rows::play(&rows::without_kubernetes(), &arguments.cast()?, checks)
    })
}
