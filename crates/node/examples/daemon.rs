//! The node as a program of its own: `cargo run -p node --example daemon -- --help`.

use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use telemetry::Shutdown;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let command = telemetry::LogArguments::augment_args(node::Arguments::augment_args(Command::new("daemon")));
    let matches = command.get_matches();
    telemetry::LogArguments::from_arg_matches(&matches)?.install()?;
    let config = node::Arguments::from_arg_matches(&matches)?.resolve()?;
    node::run(config, Shutdown::on_signals(Duration::from_secs(10))?).await
}
