//! The walkthrough, row by row, on a real cluster: `--help` explains who may play, and what.

use std::process::ExitCode;

use clap::Parser;
use e2e::{Arguments, Checks, Stage, rows};

fn main() -> ExitCode {
    Checks::main(|checks| {
        let arguments = Arguments::parse();
        let (cast, acts) = (arguments.cast()?, rows::chosen(&arguments.rows)?);
        let title = "the world is up, with our server, two devices and the images";
        let Some(stage) = checks.timed(title, |marks| Stage::set(&cast, marks)) else { return Ok(()) };
        for (number, act) in acts.into_iter().enumerate() {
            (act.play)(&stage, checks);
            // Without an operator nothing else can go well.
            if number == 0 && checks.any_failed() {
                break;
            }
        }
        if checks.any_failed() {
            stage.tell();
        }
        Ok(())
    })
}
