//! The walkthrough, row by row, on a world that is as large as the rows need it: `--help` explains who may play, and what.
//! Without `--row` all rows are played that need a real cluster; the program `mesh` plays the others.

use std::process::ExitCode;

use clap::Parser;
use e2e::{Arguments, Checks, rows};

fn main() -> ExitCode {
    Checks::main(|checks| {
        let arguments = Arguments::parse();
        for words in rows::left_out(&arguments) {
            println!("{words}");
        }
        rows::play(&rows::chosen(&arguments)?, &arguments.cast()?, checks)
    })
}
