use std::time::Duration;

use anyhow::{Context, Result};
use lab::Usage;
use serde_json::Value;

use crate::{Client, PATIENCE, eventually};

/// How far and how dear TCP went from one node to another.
#[derive(Clone, Debug)]
pub(super) struct Throughput {
    /// What arrived, in Gb/s.
    pub(super) rate: f64,
    /// Processor time of the sender's daemon, in seconds per GB.
    pub(super) sender: f64,
    /// Processor time of the receiver's daemon, in seconds per GB.
    pub(super) receiver: f64,
    /// The sender's TCP congestion control.
    pub(super) congestion_control: String,
}

/// Sends TCP from one node to the other for `time`, by name and directly, as fast as it goes or at `rate` (such as `500M`).
pub(super) fn send(from: &Client, to: &Client, time: Duration, rate: Option<&str>) -> Result<Throughput> {
    let mut server = to.lab_box().command(["iperf3", "--server", "--one-off", "--forceflush"]).spawn()?;
    server.wait_for("Server listening", PATIENCE)?;
    let usage = || -> Result<(Usage, Usage)> { Ok((from.daemon()?.usage()?, to.daemon()?.usage()?)) };
    let before = usage()?;
    let time_option = format!("--time={}", time.as_secs().max(1));
    let command = ["iperf3", "--json", "--get-server-output", &time_option, "--client", to.lab_box().name()];
    let command = command.into_iter().chain(rate.into_iter().flat_map(|rate| ["--bitrate", rate]));
    let said = from.lab_box().command(command).within(time + PATIENCE).run()?.stdout;
    let after = usage()?;
    server.finish(PATIENCE)?;

    let report: Value = serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))?;
    let end = &report["end"];
    let received = |field: &str| {
        end["sum_received"][field].as_f64().filter(|value| *value > 0.0).with_context(|| format!("no {field} in {end}"))
    };
    let gigabytes = received("bytes")? / 1e9;
    let per_gigabyte = |before: Usage, after: Usage| -> Result<f64> {
        let used = after.processor.checked_sub(before.processor);
        Ok(used.context("a daemon was started again while TCP was sent")?.as_secs_f64() / gigabytes)
    };
    Ok(Throughput {
        rate: received("bits_per_second")? / 1e9,
        sender: per_gigabyte(before.0, after.0)?,
        receiver: per_gigabyte(before.1, after.1)?,
        congestion_control: end["sender_tcp_congestion"].as_str().unwrap_or("unknown").to_owned(),
    })
}

/// Waits until the nodes reach each other without a relay.
pub(super) fn direct(from: &Client, to: &Client, router: &str) -> Result<()> {
    let way = format!("via {router}:");
    eventually("a direct path", PATIENCE, || from.ping(to.lab_box().name(), &way))
}
