use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use filter::{Flow, Protocol};

use super::cut::Cut;
use super::{Outbox, SUPER_PACKET, VnetHeader, summarize};
use crate::control::{Note, Shared};
use crate::counters::{count, count_many};
use crate::flows::Volume;
use crate::slots::{Peer, due};
use crate::sockets::Patience;
use crate::{Device, VNET_HEADER};

/// Super-packets between two departures of trains, when more and more come.
const DRAIN: usize = 64;
/// How often the control thread hears that packets are sent to a peer, in milliseconds.
const SENT_INTERVAL: u64 = 500;
/// How often it hears that a key is wanted.
const WANTED_INTERVAL: u64 = 200;
/// How often the other thread hears of a flow whose answers it is to let in.
const FLOW_INTERVAL: u64 = 5000;
/// Flows that it was told of, as many as this thread remembers.
const FLOWS: usize = 4096;

/// The thread that takes packets from the device and sends them to peers.
pub(crate) struct Transmitter {
    shared: Arc<Shared>,
    device: Arc<dyn Device>,
    outbox: Outbox,
    told_flows: ToldFlows,
}

impl Transmitter {
    pub(crate) fn new(shared: Arc<Shared>, device: Arc<dyn Device>) -> Self {
        let outbox = Outbox::new(shared.clone(), Patience::Wait);
        Self { shared, device, outbox, told_flows: ToldFlows::default() }
    }

    /// Runs until the engine stops or the device is gone.
    pub(crate) fn run(mut self) {
        let mut buffer = vec![0; SUPER_PACKET].into_boxed_slice();
        while !self.shared.is_stopping() {
            match self.device.read(&mut buffer) {
                Ok(length) => self.take(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.shared.note(Note::DeviceFailed(format!("packets can't be read from the device: {error}")));
                    return;
                }
            }
            for _ in 1..DRAIN {
                let Ok(length) = self.device.try_read(&mut buffer) else { break };
                self.take(&buffer[..length]);
            }
            self.outbox.flush();
        }
    }

    fn take(&mut self, super_packet: &[u8]) {
        let Some((header, packet)) = super_packet.split_first_chunk::<VNET_HEADER>() else { return };
        let counters = self.shared.counters.clone();
        let Some(flow) = summarize(packet) else { return count(&counters.unreadable) };
        let Ok(header) = VnetHeader::decode(header) else { return count(&counters.unreadable) };
        let Ok(cut) = Cut::new(&header, packet) else { return count(&counters.unreadable) };
        let shared = self.shared.clone();
        let table = shared.table.load();
        let Some(peer) = table.route(flow.destination.ip()) else { return count(&counters.unroutable) };

        let now = Instant::now();
        let tick = self.shared.clock.tick(now);
        peer.slot.last_sent.store(tick, Relaxed);
        if due(&peer.slot.sent_told, tick, SENT_INTERVAL) {
            self.shared.note(Note::Sent(peer.slot.node));
        }
        if matches!(flow.protocol, Protocol::UDP | Protocol::SCTP) && self.told_flows.is_due(&flow, tick) {
            self.shared.new_flows.push_over(flow);
        }
        let pieces = cut.count();
        let bytes: usize = (0..pieces).map(|piece| cut.length(piece)).sum();
        let volume = Volume { packets: pieces as u64, bytes: bytes as u64 };
        self.outbox.recorder.mesh(&peer.slot.node, &flow, volume, None);

        let mtu = usize::from(table.view.mtu);
        let sent = peer.slot.ready().is_some_and(|key| self.outbox.send(peer, &key, &cut, mtu, now).is_ok());
        if !sent {
            self.wait(peer, &cut, mtu, now);
        }
    }

    /// Keeps a packet until there are a key and a path.
    fn wait(&mut self, peer: &Peer, cut: &Cut<'_>, mtu: usize, now: Instant) {
        for piece in 0..cut.count() {
            let mut packet = vec![0; cut.length(piece)].into_boxed_slice();
            cut.write(piece, &mut packet);
            let dropped = peer.slot.wait(packet, &self.shared.waiting);
            count_many(&self.shared.counters.unsent_waiting, dropped);
        }
        // Both may have come while the packet was put there, and then nobody else looks again.
        if let Some(key) = peer.slot.ready() {
            self.outbox.send_waiting(peer, &key, mtu, now);
        }
        if due(&peer.slot.wanted_told, self.shared.clock.tick(now), WANTED_INTERVAL) {
            self.shared.note(Note::Wanted(peer.slot.node));
        }
    }
}

/// When the other thread was last told of a flow: a cache of one place for each hash.
#[derive(Debug)]
struct ToldFlows {
    places: Box<[(u64, u64)]>,
    hasher: std::hash::RandomState,
}

impl Default for ToldFlows {
    fn default() -> Self {
        Self { places: vec![(0, 0); FLOWS].into(), hasher: std::hash::RandomState::new() }
    }
}

impl ToldFlows {
    fn is_due(&mut self, flow: &Flow, tick: u64) -> bool {
        use std::hash::BuildHasher;
        let hash = self.hasher.hash_one((flow.protocol, flow.source, flow.destination));
        let place = &mut self.places[hash as usize % FLOWS];
        let due = place.0 != hash || tick.saturating_sub(place.1) >= FLOW_INTERVAL;
        if due {
            *place = (hash, tick);
        }
        due
    }
}
