use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Named scenarios, run one after the other: what one leaves behind, the next begins with.
#[derive(Debug, Default)]
pub struct Checks {
    failed: u32,
}

/// When in the course of a scenario what was reached.
#[derive(Debug)]
pub struct Marks {
    started: Instant,
    reached: Vec<(String, Duration)>,
}

impl Checks {
    /// Runs a test program's scenarios and makes its exit code; `run` fails when there is no stage to run them on.
    pub fn main(run: impl FnOnce(&mut Self) -> Result<()>) -> ExitCode {
        let mut checks = Self::default();
        if let Err(error) = run(&mut checks) {
            println!("FAILED to set the stage\n{error:#}");
            checks.failed += 1;
        }
        if checks.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Whether a scenario has failed.
    pub fn any_failed(&self) -> bool {
        self.failed > 0
    }

    /// Runs a scenario and says how it ended; later ones run all the same.
    pub fn check(&mut self, name: &str, scenario: impl FnOnce() -> Result<()>) {
        self.timed(name, |_| scenario());
    }

    /// As [`Checks::check`], for a scenario that notes when it reached what, counted from its begin; returns what it made.
    pub fn timed<T>(&mut self, name: &str, scenario: impl FnOnce(&mut Marks) -> Result<T>) -> Option<T> {
        let mut marks = Marks { started: Instant::now(), reached: Vec::new() };
        let ended = scenario(&mut marks);
        let times = marks.end();
        match ended {
            Ok(made) => {
                println!("ok     {name} ({times})");
                Some(made)
            }
            Err(error) => {
                println!("FAILED {name} ({times})\n{error:#}");
                self.failed += 1;
                None
            }
        }
    }
}

impl Marks {
    /// Notes that something is reached now.
    pub fn reached(&mut self, what: impl Into<String>) {
        self.reached.push((what.into(), self.started.elapsed()));
    }

    fn end(self) -> String {
        let mut times = String::new();
        for (what, after) in &self.reached {
            // Writing to a string cannot fail.
            let _ = write!(times, "{what} {:.1} s, ", after.as_secs_f32());
        }
        let _ = write!(times, "{:.1} s", self.started.elapsed().as_secs_f32());
        times
    }
}

/// The binary under test, which the environment names.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("TOWLINE_BINARY").map(PathBuf::from);
    let path = path.context("TOWLINE_BINARY must name our binary: run this as a stage of `cargo xtask test`")?;
    ensure!(path.is_file(), "TOWLINE_BINARY names {}, which is no file", path.display());
    Ok(path)
}

/// The image that holds the binary under test: `cargo xtask build` packs it beside the binary.
pub fn image() -> Result<PathBuf> {
    let binary = binary()?;
    let folder = binary.with_file_name("image");
    ensure!(folder.is_dir(), "{} has no image beside it: `cargo xtask build` packs one", binary.display());
    Ok(folder)
}
