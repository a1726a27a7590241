use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crypto::NodePublic;
use filter::{Flow, Refusal};
use path::Via;

use super::{Refused, Volume};

/// Flows that a batch tells apart; the rest of a peer's flows become one until the batch is taken.
const MOST_FLOWS: usize = 4096;

/// Between what a flow goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ends {
    Mesh {
        protocol: u8,
        local: SocketAddr,
        remote: SocketAddr,
    },
    /// Flows of a peer that are not told apart any more.
    OtherMesh,
    Physical(Via),
}

/// Which way packets go that a thread sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    Sent,
    Received,
}

/// What one thread counted of a flow.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tally {
    /// When its first packet was seen: what tells who asked from who answered.
    pub(crate) since: Instant,
    pub(crate) passed: Volume,
    pub(crate) refused: Refused,
}

/// What one thread counted since the batch was taken last.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) direction: Direction,
    flows: Mutex<BTreeMap<(NodePublic, Ends), Tally>>,
}

/// The counting side of a batch: runs of packets of one flow cost an addition each.
#[derive(Debug)]
pub(crate) struct Recorder {
    batch: Arc<Batch>,
    mesh: Option<Run>,
    physical: Option<Run>,
}

#[derive(Debug)]
struct Run {
    key: (NodePublic, Ends),
    tally: Tally,
}

impl Batch {
    pub(crate) fn new(direction: Direction) -> Self {
        Self { direction, flows: Mutex::default() }
    }

    /// Takes what was counted; its holder waits for no longer than an exchange of pointers.
    pub(crate) fn take(&self) -> BTreeMap<(NodePublic, Ends), Tally> {
        std::mem::take(&mut *self.flows.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, run: Run) {
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        let (node, ends) = run.key;
        let is_new = matches!(ends, Ends::Mesh { .. }) && flows.len() >= MOST_FLOWS && !flows.contains_key(&run.key);
        let ends = if is_new { Ends::OtherMesh } else { ends };
        flows.entry((node, ends)).and_modify(|tally| tally.add(&run.tally)).or_insert(run.tally);
    }
}

impl Recorder {
    pub(crate) fn new(batch: Arc<Batch>) -> Self {
        Self { batch, mesh: None, physical: None }
    }

    /// Counts packets of a mesh flow that passed, or that the filter refused.
    pub(crate) fn mesh(&mut self, node: &NodePublic, flow: &Flow, volume: Volume, refusal: Option<Refusal>) {
        let (local, remote) = match self.batch.direction {
            Direction::Sent => (flow.source, flow.destination),
            Direction::Received => (flow.destination, flow.source),
        };
        let (passed, refused) = match refusal {
            None => (volume, Refused::default()),
            Some(_) => (Volume::default(), Refused { volume, reason: refusal }),
        };
        let key = (*node, Ends::Mesh { protocol: flow.protocol.0, local, remote });
        Self::count(&self.batch, &mut self.mesh, key, passed, refused);
    }

    /// Counts messages of a physical flow.
    pub(crate) fn physical(&mut self, node: &NodePublic, via: Via, volume: Volume) {
        let key = (*node, Ends::Physical(via));
        Self::count(&self.batch, &mut self.physical, key, volume, Refused::default());
    }

    /// Makes all that was counted visible: to be called before waiting.
    pub(crate) fn flush(&mut self) {
        for run in [self.mesh.take(), self.physical.take()].into_iter().flatten() {
            self.batch.add(run);
        }
    }

    fn count(batch: &Batch, current: &mut Option<Run>, key: (NodePublic, Ends), passed: Volume, refused: Refused) {
        match current {
            Some(run) if run.key == key => {
                run.tally.passed.add(passed);
                run.tally.refused.add(&refused);
            }
            _ => {
                let tally = Tally { since: Instant::now(), passed, refused };
                if let Some(before) = current.replace(Run { key, tally }) {
                    batch.add(before);
                }
            }
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.passed.add(other.passed);
        self.refused.add(&other.refused);
    }
}

impl Refused {
    pub(super) fn add(&mut self, other: &Self) {
        self.volume.add(other.volume);
        self.reason = other.reason.or(self.reason);
    }
}

impl Volume {
    pub(super) fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}
