//! `cargo xtask prune`: gives back the cache's disk space that nothing uses any more.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use cache::Cache;
use clap::Parser;

use crate::{Task, print};

/// Remove from the cache what newer inputs have replaced
///
/// Removes made parts that no path shows any more, binaries of earlier builds, logs, and the target folders of checkouts
/// that are gone, once nobody used them for some days. What the cache holds for the present inputs stays.
#[derive(Parser)]
#[command(name = "prune")]
pub(crate) struct Prune {
    /// How many days a part must have been unused
    #[arg(long, value_name = "N", default_value_t = 7)]
    days: u32,
}

impl Task for Prune {
    fn run(self) -> Result<ExitCode> {
        let cache = Cache::locate()?;
        let removed = cache.prune(Duration::from_secs(u64::from(self.days) * 24 * 3600))?;
        for path in &removed {
            print::line(format_args!("removed {}", path.display()))?;
        }
        print::line(format_args!("{} parts removed from {}", removed.len(), cache.root().display()))?;
        Ok(ExitCode::SUCCESS)
    }
}
