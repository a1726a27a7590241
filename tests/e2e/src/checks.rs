use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// Named scenarios, run one after the other: what one leaves behind, the next begins with.
#[derive(Debug, Default)]
pub struct Checks {
    failed: u32,
}

impl Checks {
    /// Runs a scenario and says how it ended; later ones run all the same.
    pub fn check(&mut self, name: &str, scenario: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        let ended = scenario();
        let took = started.elapsed().as_secs_f32();
        match ended {
            Ok(()) => println!("ok     {name} ({took:.1} s)"),
            Err(error) => {
                println!("FAILED {name} ({took:.1} s)\n{error:#}");
                self.failed += 1;
            }
        }
    }

    /// The exit code of the test program.
    pub fn exit(self) -> ExitCode {
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// The binary under test, which the environment names.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::var_os("TOWLINE_BINARY").map(PathBuf::from);
    let path = path.context("TOWLINE_BINARY must name our binary: run this as a stage of `cargo xtask test`")?;
    ensure!(path.is_file(), "TOWLINE_BINARY names {}, which is no file", path.display());
    Ok(path)
}
