//! `cargo xtask bench`: benchmarks, each a row in a table.

mod footprint;

use std::process::ExitCode;

use anyhow::{Result, bail};
use cache::Cache;
use clap::Parser;

use crate::checkout::Checkout;
use crate::progress::Progress;
use crate::{Task, interrupt, print};

/// Run a benchmark: what our system costs beside the stock one
///
/// A benchmark measures a release build on a world of its own and prints a table. Missed targets are marked in it and are no
/// failure. Its own options follow its name.
#[derive(Parser)]
#[command(
    name = "bench",
    arg_required_else_help = true,
    after_long_help = "Examples:\n  cargo xtask bench --list\n  cargo xtask bench footprint\n  cargo xtask bench footprint --rounds 1 --system stock -o json"
)]
pub(crate) struct Bench {
    /// List the benchmarks
    #[arg(long)]
    list: bool,

    /// Run this benchmark, with its options after it
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCHMARK")]
    benchmark: Vec<String>,
}

/// A benchmark.
struct Benchmark {
    /// What people type.
    name: &'static str,
    /// What it measures, in a few words.
    about: &'static str,
    /// Runs it, with its own options as they were typed.
    run: fn(&Context<'_>) -> Result<ExitCode>,
}

/// What a benchmark works with.
struct Context<'a> {
    cache: &'a Cache,
    checkout: &'a Checkout,
    progress: &'a Progress,
    options: &'a [String],
}

/// All benchmarks.
const BENCHMARKS: &[Benchmark] = &[Benchmark {
    name: "footprint",
    about: "memory, processor, time and traffic of operator, proxies and nodes",
    run: footprint::run,
}];

impl Task for Bench {
    fn run(self) -> Result<ExitCode> {
        let Some((name, options)) = self.benchmark.split_first() else {
            for benchmark in BENCHMARKS {
                print::line(format_args!("{:16} {}", benchmark.name, benchmark.about))?;
            }
            return Ok(ExitCode::SUCCESS);
        };
        let Some(benchmark) = BENCHMARKS.iter().find(|benchmark| benchmark.name == name) else {
            bail!("there is no benchmark called {name}: `cargo xtask bench --list` names them");
        };
        let (cache, checkout) = (Cache::locate()?, Checkout::find()?);
        let progress = Progress::start(&cache, "bench")?;
        interrupt::watch(interrupt::sweep)?;
        (benchmark.run)(&Context { cache: &cache, checkout: &checkout, progress: &progress, options })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_after_a_benchmark_are_its_own() {
        let bench = Bench::try_parse_from(["bench", "footprint", "--rounds", "2", "--list"]).unwrap();
        assert_eq!(bench.benchmark, ["footprint", "--rounds", "2", "--list"]);
        assert!(!bench.list);
    }
}
