use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};

use super::counters::Counters;
use super::ground::Nodes;
use super::memory::{MemoryWatch, Peak};
use super::throughput::{self, Throughput};
use super::{Extent, Figures, Ground, Row, let_be};

const ROWS: [Row; 11] = [
    Row::IdleNodeMemory,
    Row::IdleNodeResident,
    Row::IdleNodeCalls,
    Row::BusyNodeMemory,
    Row::BusyNodeResident,
    Row::FullRate,
    Row::FullSender,
    Row::FullReceiver,
    Row::PacedRate,
    Row::PacedSender,
    Row::PacedReceiver,
];

/// How much is sent where it is not as much as goes.
const PACE: &str = "500M";

/// How long after they joined the nodes have come to rest.
const REST: Duration = Duration::from_secs(10);

/// Notes that nothing could be measured.
pub(super) fn failed(system: &'static str, error: &Error, figures: &mut Figures) {
    ROWS.into_iter().for_each(|row| figures.note(row, system, Err(anyhow!("{error:#}"))));
}

/// Lets the nodes be; returns what servers count while there is no operator.
pub(super) fn idle(
    ground: &Ground,
    nodes: &Nodes,
    system: &'static str,
    extent: &Extent,
    figures: &mut Figures,
) -> Result<Counters> {
    println!("{system}: its nodes are let be for {} s", (REST + extent.idle).as_secs());
    let watch = watch(nodes);
    let_be(REST);
    let counted = count_while_idle(ground, extent);
    let peak = watch.and_then(MemoryWatch::peaks).and_then(|peaks| largest(nodes, &peaks));
    if extent.nodes {
        figures.note_all([Row::IdleNodeMemory, Row::IdleNodeResident], system, peak);
        let calls = counted.as_ref().map(|counted| per_minute(counted.calls(), extent));
        figures.note(Row::IdleNodeCalls, system, calls.map_err(|error| anyhow!("{error:#}")));
    }
    if let Ok(counted) = &counted {
        println!("{system}: with nodes only: {counted}");
    }
    counted
}

/// Sends TCP from the laptop to robbinsdale, through both NATs.
pub(super) fn busy(nodes: &Nodes, system: &'static str, extent: &Extent, figures: &mut Figures) {
    println!("{system}: TCP for {} s at full rate, and as long at {PACE}", extent.transfer.as_secs());
    let (from, to) = (&nodes.laptop, &nodes.robbinsdale);
    let send = |rate| -> Result<Throughput> {
        throughput::direct(from, to, &lab::CABIN_ROUTER.to_string())?;
        throughput::send(from, to, extent.transfer, rate)
    };
    let watch = watch(nodes);
    let full = send(None);
    let peak = watch.and_then(MemoryWatch::peaks).and_then(|peaks| largest(nodes, &peaks));
    figures.note_all([Row::BusyNodeMemory, Row::BusyNodeResident], system, peak);
    if let Ok(full) = &full {
        figures.congestion_control(&full.congestion_control);
    }
    let paced = send(Some(PACE));
    let values = |sent: Throughput| [sent.rate, sent.sender, sent.receiver];
    figures.note_all([Row::FullRate, Row::FullSender, Row::FullReceiver], system, full.map(values));
    figures.note_all([Row::PacedRate, Row::PacedSender, Row::PacedReceiver], system, paced.map(values));
}

/// What servers count while nobody does anything.
pub(super) fn count_while_idle(ground: &Ground, extent: &Extent) -> Result<Counters> {
    let before = Counters::read(ground)?;
    let_be(extent.idle);
    Counters::read(ground)?.since(&before)
}

/// What was counted in the idle time, as a rate. What is left of a count by subtraction may be below zero.
pub(super) fn per_minute(count: f64, extent: &Extent) -> f64 {
    count * 60.0 / extent.idle.as_secs_f64()
}

fn watch(nodes: &Nodes) -> Result<MemoryWatch> {
    Ok(MemoryWatch::daemons(vec![nodes.laptop.daemon()?, nodes.robbinsdale.daemon()?]))
}

fn largest(nodes: &Nodes, peaks: &BTreeMap<String, Peak>) -> Result<[f64; 2]> {
    let of = |name: &str| peaks.get(name).copied().with_context(|| format!("the memory of {name}'s node was not seen"));
    let largest = of(nodes.laptop.lab_box().name())?.or(of(nodes.robbinsdale.lab_box().name())?);
    Ok([largest.working_set, largest.resident])
}
