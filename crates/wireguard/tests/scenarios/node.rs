//! A node as an engine would run it: the interface, and what its two data threads hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::tunnel::Tai64n;
use crypto::{Entropy, NodePrivate, NodePublic};
use packet::wireguard::TransportHeader;
use wireguard::{Destination, Discard, Event, Interface, Moment, OpenError, PeerConfig, RecvKey, SendKey, Source};

pub(crate) const MTU: usize = 1280;
/// Packets that wait for a key, as in the engine.
const QUEUE: usize = 128;

/// Reproducible bytes (SplitMix64); the same seed makes the same keys.
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Virtual time: both clocks, which only a test moves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    origin: Instant,
    pub(crate) elapsed: Duration,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now(), elapsed: Duration::ZERO }
    }

    pub(crate) fn now(&self) -> Instant {
        self.origin + self.elapsed
    }

    pub(crate) fn moment(&self) -> Moment {
        let wall = Duration::from_secs(1_800_000_000) + self.elapsed;
        Moment { instant: self.now(), wall: Tai64n::from_unix(wall.as_secs(), wall.subsec_nanos()) }
    }

    pub(crate) fn until(&self, instant: Instant) -> Duration {
        instant.saturating_duration_since(self.now())
    }
}

/// Events without the keys in them, to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    Receive,
    Send,
    Ended,
    Authenticated,
    Started(u32),
    Failed(u32),
    Idle,
}

pub(crate) struct Node {
    pub(crate) interface: Interface,
    pub(crate) public: NodePublic,
    pub(crate) entropy: Seeded,
    pub(crate) send: BTreeMap<NodePublic, Arc<SendKey>>,
    pub(crate) receive: BTreeMap<u32, RecvKey>,
    /// Whom an initiation is accepted from; everybody's while empty.
    pub(crate) netmap: BTreeSet<NodePublic>,
    waiting: VecDeque<(NodePublic, Vec<u8>)>,
    /// Datagrams to put on the wire.
    pub(crate) out: VecDeque<(Destination, Vec<u8>)>,
    pub(crate) delivered: Vec<Vec<u8>>,
    pub(crate) events: Vec<(NodePublic, Seen)>,
    pub(crate) discards: Vec<Discard>,
    pub(crate) open_errors: Vec<OpenError>,
    /// Every (session of the receiver, counter) this node has sealed under.
    pub(crate) nonces: BTreeSet<(u32, u64)>,
}

impl Node {
    pub(crate) fn new(seed: u64, clock: &Clock) -> Self {
        let private = NodePrivate::generate(&mut Seeded(seed));
        Self::with_key(private, seed, clock)
    }

    pub(crate) fn with_key(private: NodePrivate, seed: u64, clock: &Clock) -> Self {
        let mut entropy = Seeded(seed.wrapping_mul(0x1234_5678_9abc_def1));
        Self {
            public: private.public(),
            interface: Interface::new(private, clock.now(), &mut entropy),
            entropy,
            send: BTreeMap::new(),
            receive: BTreeMap::new(),
            netmap: BTreeSet::new(),
            waiting: VecDeque::new(),
            out: VecDeque::new(),
            delivered: Vec::new(),
            events: Vec::new(),
            discards: Vec::new(),
            open_errors: Vec::new(),
            nonces: BTreeSet::new(),
        }
    }

    pub(crate) fn configure(&mut self, peer: &NodePublic, config: PeerConfig, clock: &Clock) {
        self.interface.configure(*peer, config, clock.now());
        self.drain(clock);
    }

    pub(crate) fn remove(&mut self, peer: &NodePublic, clock: &Clock) {
        self.netmap.remove(peer);
        self.interface.remove(peer);
        self.drain(clock);
    }

    /// The TX thread has a packet: seals it, or lets it wait and asks for a key.
    pub(crate) fn send(&mut self, peer: &NodePublic, packet: &[u8], clock: &Clock) {
        if !self.seal(peer, packet, clock) {
            if self.waiting.len() < QUEUE {
                self.waiting.push_back((*peer, packet.to_vec()));
            }
            self.interface.handle_wanted(*peer, clock.moment(), &mut self.entropy);
        }
        self.drain(clock);
    }

    /// A datagram arrived: transport goes to the RX thread's keys, the rest to the interface.
    pub(crate) fn receive(&mut self, source: Source, datagram: &[u8], clock: &Clock) {
        match TransportHeader::parse(datagram) {
            Ok(header) => self.open(header, datagram, clock),
            Err(_) => match self.interface.handle_datagram(source, datagram, clock.now(), &mut self.entropy) {
                Ok(Some(pending)) if self.netmap.is_empty() || self.netmap.contains(pending.peer()) => {
                    let accepted = self.interface.accept(pending, clock.now(), &mut self.entropy);
                    self.discards.extend(accepted.err());
                }
                Ok(_) => {}
                Err(discard) => self.discards.push(discard),
            },
        }
        self.drain(clock);
    }

    pub(crate) fn timeout(&mut self, clock: &Clock) {
        self.interface.handle_timeout(clock.moment(), &mut self.entropy);
        self.drain(clock);
    }

    pub(crate) fn established(&self, peer: &NodePublic) -> bool {
        self.interface.status(peer).is_some_and(|status| status.established)
    }

    pub(crate) fn count(&self, what: Seen) -> usize {
        self.events.iter().filter(|(_, seen)| *seen == what).count()
    }

    /// The messages waiting to go out, taken.
    pub(crate) fn take_out(&mut self) -> Vec<Vec<u8>> {
        self.out.drain(..).map(|(_, datagram)| datagram).collect()
    }

    fn seal(&mut self, peer: &NodePublic, packet: &[u8], clock: &Clock) -> bool {
        let Some(key) = self.send.get(peer) else { return false };
        let Ok(mut train) = key.begin(1, clock.now()) else {
            self.send.remove(peer);
            return false;
        };
        let mut slot = vec![0; MTU + 64];
        let length = train.seal_from(&mut slot, packet, MTU).expect("the slot has room");
        drop(train);
        slot.truncate(length);
        self.out.push_back((Destination::Peer(*peer), slot));
        true
    }

    fn open(&mut self, header: TransportHeader, datagram: &[u8], clock: &Clock) {
        let Some(key) = self.receive.get_mut(&header.receiver) else { return };
        let mut datagram = datagram.to_vec();
        let Ok(mut batch) = key.begin(clock.now()) else {
            self.receive.remove(&header.receiver);
            return;
        };
        let opened = batch.open(&mut datagram);
        drop(batch);
        match opened {
            Ok(opened) => {
                if opened.confirms {
                    self.interface.handle_confirmed(header.receiver, clock.now());
                }
                if !opened.is_keepalive() {
                    self.delivered.push(datagram[opened.packet].to_vec());
                }
            }
            Err(error) => self.open_errors.push(error),
        }
    }

    /// Events first, then what is to be sent; then what waited for a key.
    fn drain(&mut self, clock: &Clock) {
        while let Some(event) = self.interface.poll_event() {
            let (peer, seen) = match event {
                Event::Receive { peer, key } => {
                    assert!(
                        self.receive.insert(key.session(), *key).is_none(),
                        "an index of a live session came twice"
                    );
                    (peer, Seen::Receive)
                }
                Event::Send { peer, key } => {
                    self.send.insert(peer, key);
                    (peer, Seen::Send)
                }
                Event::Ended { peer, session } => {
                    self.receive.remove(&session);
                    if self.send.get(&peer).is_some_and(|key| key.session() == session) {
                        self.send.remove(&peer);
                    }
                    (peer, Seen::Ended)
                }
                Event::Authenticated { peer, .. } => (peer, Seen::Authenticated),
                Event::HandshakeStarted { peer, attempt } => (peer, Seen::Started(attempt)),
                Event::HandshakeFailed { peer, attempts } => {
                    self.waiting.retain(|(waits_for, _)| *waits_for != peer);
                    (peer, Seen::Failed(attempts))
                }
                Event::Idle { peer, .. } => (peer, Seen::Idle),
            };
            self.events.push((peer, seen));
        }
        while let Some(transmit) = self.interface.poll_transmit() {
            self.out.push_back((transmit.destination, transmit.message));
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (peer, packet) in waiting {
            if !self.seal(&peer, &packet, clock) {
                self.waiting.push_back((peer, packet));
            }
        }
        for (_, datagram) in &self.out {
            if let Ok(header) = TransportHeader::parse(datagram) {
                self.nonces.insert((header.receiver, header.counter));
            }
        }
    }
}

pub(crate) fn source(text: &str) -> Source {
    Source::Direct(text.parse::<SocketAddr>().expect("an address and port"))
}
