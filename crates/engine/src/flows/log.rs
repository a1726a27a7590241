use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Instant, SystemTime};

use crypto::NodePublic;

use super::{Batch, Direction, Ends, Flow, Initiator, MeshFlow, PhysicalFlow, Refused, Volume};

/// Flows that are told apart; beyond, the longest idle ones of each peer become one.
const MOST_FLOWS: usize = 16_384;

/// All flows since the start: no byte leaves it.
#[derive(Debug, Default)]
pub(crate) struct FlowLog {
    flows: BTreeMap<(NodePublic, Ends), Record>,
}

#[derive(Debug)]
struct Record {
    sent: Volume,
    received: Volume,
    refused: Refused,
    initiator: Initiator,
    /// When the packet that made it the initiator was seen.
    began: Instant,
    first: SystemTime,
    last: SystemTime,
}

impl FlowLog {
    /// Takes what a thread counted. Whichever thread saw the earliest packet tells who began.
    pub(crate) fn take(&mut self, batch: &Batch, now: SystemTime) {
        let initiator = match batch.direction {
            Direction::Sent => Initiator::Local,
            Direction::Received => Initiator::Remote,
        };
        for (key, tally) in batch.take() {
            let record = self.flows.entry(key).or_insert_with(|| Record {
                sent: Volume::default(),
                received: Volume::default(),
                refused: Refused::default(),
                initiator,
                began: tally.since,
                first: now,
                last: now,
            });
            record.last = now;
            if tally.since < record.began {
                (record.initiator, record.began) = (initiator, tally.since);
            }
            record.refused.add(&tally.refused);
            match batch.direction {
                Direction::Sent => record.sent.add(tally.passed),
                Direction::Received => record.received.add(tally.passed),
            }
        }
        if self.flows.len() > MOST_FLOWS {
            self.fold();
        }
    }

    /// All flows, the busiest first.
    pub(crate) fn flows(&self) -> Vec<Flow> {
        let mut all: Vec<(&(NodePublic, Ends), &Record)> = self.flows.iter().collect();
        all.sort_by_key(|(_, record)| std::cmp::Reverse(record.sent.bytes + record.received.bytes));
        all.into_iter().map(|((peer, ends), record)| flow(*peer, ends, record)).collect()
    }

    /// Makes room: a quarter of the mesh flows, those that are idle longest, become one for each peer.
    fn fold(&mut self) {
        let mut by_age: Vec<(SystemTime, (NodePublic, Ends))> = self
            .flows
            .iter()
            .filter(|((_, ends), _)| !matches!(ends, Ends::OtherMesh))
            .map(|(key, record)| (record.last, *key))
            .collect();
        by_age.sort();
        for (_, key) in by_age.into_iter().take(MOST_FLOWS / 4) {
            let Some(old) = self.flows.remove(&key) else { continue };
            let other = self.flows.entry((key.0, Ends::OtherMesh)).or_insert_with(|| Record {
                sent: Volume::default(),
                received: Volume::default(),
                refused: Refused::default(),
                ..old
            });
            other.sent.add(old.sent);
            other.received.add(old.received);
            other.refused.add(&old.refused);
            other.first = other.first.min(old.first);
            other.last = other.last.max(old.last);
        }
    }
}

fn flow(peer: NodePublic, ends: &Ends, record: &Record) -> Flow {
    let Record { sent, received, refused, initiator, began: _, first, last } = *record;
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let (protocol, local, remote) = match *ends {
        Ends::Physical(via) => return Flow::Physical(PhysicalFlow { peer, via, sent, received, first, last }),
        Ends::Mesh { protocol, local, remote } => (protocol, local, remote),
        Ends::OtherMesh => (0, unspecified, unspecified),
    };
    Flow::Mesh(MeshFlow { peer, protocol, local, remote, initiator, sent, received, refused, first, last })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::Recorder;
    use super::*;

    fn volume(bytes: u64) -> Volume {
        Volume { packets: 1, bytes }
    }

    fn flow_to(port: u16) -> filter::Flow {
        let at = |host: u8, port: u16| SocketAddr::from(([100, 64, 0, host], port));
        filter::Flow::udp(at(1, 5000), at(2, port))
    }

    fn sum(log: &FlowLog) -> u64 {
        let bytes = |flow: Flow| match flow {
            Flow::Mesh(flow) => flow.sent.bytes + flow.received.bytes,
            Flow::Physical(_) => 0,
        };
        log.flows().into_iter().map(bytes).sum()
    }

    /// The one flow that the log has after what two recorders, for sent and for received packets, were told.
    fn the_flow(told: impl FnOnce(&mut Recorder, &mut Recorder)) -> MeshFlow {
        let (sent, received) = (Arc::new(Batch::new(Direction::Sent)), Arc::new(Batch::new(Direction::Received)));
        let (mut tx, mut rx) = (Recorder::new(sent.clone()), Recorder::new(received.clone()));
        told(&mut tx, &mut rx);
        tx.flush();
        rx.flush();
        let mut log = FlowLog::default();
        log.take(&sent, SystemTime::UNIX_EPOCH);
        log.take(&received, SystemTime::UNIX_EPOCH);
        let mut flows = log.flows();
        match (flows.pop(), flows.is_empty()) {
            (Some(Flow::Mesh(flow)), true) => flow,
            (last, _) => panic!("one flow, not {flows:?} and {last:?}"),
        }
    }

    fn back(flow: &filter::Flow) -> filter::Flow {
        filter::Flow { source: flow.destination, destination: flow.source, ..*flow }
    }

    #[test]
    fn both_directions_of_a_flow_are_one_flow() {
        let peer = NodePublic::from_bytes([1; 32]);
        let out = flow_to(53);
        let flow = the_flow(|tx, rx| {
            tx.mesh(&peer, &out, volume(10), None);
            tx.mesh(&peer, &out, volume(10), None);
            rx.mesh(&peer, &back(&out), volume(7), None);
        });
        assert_eq!((flow.sent, flow.received), (Volume { packets: 2, bytes: 20 }, volume(7)));
        assert_eq!(flow.initiator, Initiator::Local);
    }

    #[test]
    fn who_was_seen_first_is_the_initiator_whichever_thread_is_asked_first() {
        let peer = NodePublic::from_bytes([1; 32]);
        let answer = flow_to(53);
        let flow = the_flow(|tx, rx| {
            rx.mesh(&peer, &back(&answer), volume(7), None);
            tx.mesh(&peer, &answer, volume(10), None);
        });
        assert_eq!(flow.initiator, Initiator::Remote);
    }

    #[test]
    fn no_byte_is_lost_when_flows_are_too_many() {
        let peer = NodePublic::from_bytes([1; 32]);
        let batch = Arc::new(Batch::new(Direction::Sent));
        let mut recorder = Recorder::new(batch.clone());
        let mut log = FlowLog::default();
        let mut now = SystemTime::UNIX_EPOCH;
        for port in 0..40_000u16 {
            recorder.mesh(&peer, &flow_to(port), volume(3), None);
            if port % 3000 == 0 {
                recorder.flush();
                now += Duration::from_secs(1);
                log.take(&batch, now);
            }
        }
        recorder.flush();
        log.take(&batch, now);
        assert_eq!(sum(&log), 3 * 40_000);
        assert!(log.flows().len() <= MOST_FLOWS + 1);
    }
}
