//! What the data threads are shown: the view with an index over it, and one slot for each peer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use crypto::{DiscoPublic, NodePublic};
use filter::Filter;
use mesh::{PeerView, Routes, View};
use path::PathChoice;
use wireguard::SendKey;

/// Packets that may wait for one peer's handshake, and their bytes.
const MOST_WAITING: usize = 128;
const MOST_WAITING_BYTES: usize = 256 << 10;
/// Bytes that may wait for all handshakes together.
const MOST_WAITING_ALTOGETHER: usize = 8 << 20;

/// Things that one peer can hand the control thread in 128 ms beside handshakes and its ways.
const MOST_WORDS: u64 = 64;

/// What the data threads must know of a peer beyond the view: each part is swapped alone.
#[derive(Debug)]
pub(crate) struct PeerSlot {
    pub(crate) node: NodePublic,
    key: ArcSwapOption<SendKey>,
    path: ArcSwap<PathChoice>,
    waiting: Mutex<Waiting>,
    /// When the control thread was last told that packets were sent; ticks of [`Clock`].
    pub(crate) sent_told: AtomicU64,
    /// When it was last told that a key is wanted.
    pub(crate) wanted_told: AtomicU64,
    /// How many other things that the peer caused it was handed lately.
    words: AtomicU64,
    /// When the peer was last heard and sent to, for the status.
    pub(crate) last_heard: AtomicU64,
    pub(crate) last_sent: AtomicU64,
    /// Bytes of messages, for the status.
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    packets: VecDeque<Box<[u8]>>,
    bytes: usize,
}

/// Bytes of all packets that wait for a handshake.
#[derive(Debug, Default)]
pub(crate) struct WaitingBytes(AtomicUsize);

impl PeerSlot {
    pub(crate) fn new(node: NodePublic) -> Self {
        Self {
            node,
            key: ArcSwapOption::empty(),
            path: ArcSwap::from_pointee(PathChoice::Nowhere),
            waiting: Mutex::default(),
            sent_told: AtomicU64::new(0),
            wanted_told: AtomicU64::new(0),
            words: AtomicU64::new(0),
            last_heard: AtomicU64::new(0),
            last_sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn key(&self) -> Option<Arc<SendKey>> {
        self.key.load_full()
    }

    /// The key, when packets can go: there is one, and a way to the peer is known.
    pub(crate) fn ready(&self) -> Option<Arc<SendKey>> {
        if self.path() == PathChoice::Nowhere { None } else { self.key() }
    }

    pub(crate) fn set_key(&self, key: Option<Arc<SendKey>>) {
        self.key.store(key);
    }

    /// Drops the key of a session that is over, unless another is in its place.
    pub(crate) fn end_session(&self, session: u32) {
        if self.key.load().as_ref().is_some_and(|key| key.session() == session) {
            self.key.store(None);
        }
    }

    pub(crate) fn path(&self) -> PathChoice {
        **self.path.load()
    }

    pub(crate) fn set_path(&self, choice: PathChoice) {
        self.path.store(Arc::new(choice));
    }

    /// Whether the control thread may be handed one more thing that the peer caused: 64 in each 128 ms. For one thread.
    pub(crate) fn admits_word(&self, tick: u64) -> bool {
        let window = tick >> 7;
        let before = self.words.load(Relaxed);
        let count = if before >> 16 == window { before & 0xffff } else { 0 };
        let admits = count < MOST_WORDS;
        if admits {
            self.words.store(window << 16 | (count + 1), Relaxed);
        }
        admits
    }

    /// Keeps a packet until there are a key and a path; returns how many older ones were dropped for it.
    pub(crate) fn wait(&self, packet: Box<[u8]>, altogether: &WaitingBytes) -> usize {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        waiting.bytes += packet.len();
        altogether.0.fetch_add(packet.len(), Relaxed);
        waiting.packets.push_back(packet);
        while waiting.packets.len() > MOST_WAITING
            || waiting.bytes > MOST_WAITING_BYTES
            || altogether.0.load(Relaxed) > MOST_WAITING_ALTOGETHER
        {
            let Some(oldest) = waiting.packets.pop_front() else { break };
            waiting.bytes -= oldest.len();
            altogether.0.fetch_sub(oldest.len(), Relaxed);
            dropped += 1;
        }
        dropped
    }

    /// Takes all packets that wait.
    pub(crate) fn take_waiting(&self, altogether: &WaitingBytes) -> VecDeque<Box<[u8]>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        altogether.0.fetch_sub(waiting.bytes, Relaxed);
        waiting.bytes = 0;
        std::mem::take(&mut waiting.packets)
    }
}

/// Milliseconds since the engine started, plus one: zero is never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn tick(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.0).as_millis() as u64 + 1
    }

    /// The moment of a tick; `None` for never.
    pub(crate) fn moment(&self, tick: u64) -> Option<Instant> {
        tick.checked_sub(1).map(|millis| self.0 + std::time::Duration::from_millis(millis))
    }
}

/// Whether something is due that happens once in `interval` milliseconds; notes that it happens now.
pub(crate) fn due(last: &AtomicU64, tick: u64, interval: u64) -> bool {
    let before = last.load(Relaxed);
    let due = before == 0 || tick.saturating_sub(before) >= interval;
    if due {
        last.store(tick, Relaxed);
    }
    due
}

/// A view with what the data threads look up in it.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) view: View,
    peers: BTreeMap<NodePublic, Peer>,
    /// Which peer owns a source address: the one with the longest prefix.
    owners: Routes,
    /// Every peer's disco key: datagrams under any other need no look.
    discos: BTreeSet<DiscoPublic>,
}

/// A peer of the view, and its slot.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) slot: Arc<PeerSlot>,
    pub(crate) view: PeerView,
}

impl Table {
    /// A table of nobody that lets nothing in.
    pub(crate) fn empty() -> Self {
        let view = View {
            addresses: Vec::new(),
            peers: BTreeMap::new(),
            routes: Routes::default(),
            filter: Arc::new(Filter::blocking(filter::Local::default())),
            shields_up: false,
            relays: Arc::default(),
            mtu: 1280,
        };
        Self { view, peers: BTreeMap::new(), owners: Routes::default(), discos: BTreeSet::new() }
    }

    /// Indexes a view; slots of peers that stay are kept.
    pub(crate) fn new(view: View, before: &Self) -> Self {
        let peers: BTreeMap<NodePublic, Peer> = view
            .peers
            .iter()
            .map(|(node, peer)| {
                let kept = before.peers.get(node).map(|peer| peer.slot.clone());
                let slot = kept.unwrap_or_else(|| Arc::new(PeerSlot::new(*node)));
                (*node, Peer { slot, view: peer.clone() })
            })
            .collect();
        let allowed = |(node, peer): (&NodePublic, &PeerView)| {
            let node = *node;
            peer.allowed.clone().into_iter().map(move |prefix| (prefix, node))
        };
        let owners = Routes::new(view.peers.iter().flat_map(allowed));
        let discos = view.peers.values().map(|peer| peer.disco).filter(|key| !key.is_zero()).collect();
        Self { view, peers, owners, discos }
    }

    pub(crate) fn peer(&self, node: &NodePublic) -> Option<&Peer> {
        self.peers.get(node)
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.peers.values()
    }

    /// The peer that an outgoing packet goes to.
    pub(crate) fn route(&self, destination: IpAddr) -> Option<&Peer> {
        self.peers.get(self.view.routes.lookup(destination)?)
    }

    /// Whether an incoming packet of a peer may carry this source address.
    pub(crate) fn owns(&self, node: &NodePublic, source: IpAddr) -> bool {
        self.owners.lookup(source) == Some(node)
    }

    pub(crate) fn knows_disco(&self, key: &DiscoPublic) -> bool {
        self.discos.contains(key)
    }
}

impl Peer {
    /// The address as which the peer knows this node, when not the node's own.
    pub(crate) fn masquerade(&self, is_v4: bool) -> Option<IpAddr> {
        if is_v4 { self.view.masquerade_v4 } else { self.view.masquerade_v6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_packet_makes_room_for_the_newest() {
        let slot = PeerSlot::new(NodePublic::from_bytes([1; 32]));
        let altogether = WaitingBytes::default();
        let dropped: usize = (0..200u8).map(|n| slot.wait(Box::new([n]), &altogether)).sum();
        assert_eq!(dropped, 200 - MOST_WAITING);
        assert_eq!(altogether.0.load(Relaxed), MOST_WAITING);
        let waiting = slot.take_waiting(&altogether);
        assert_eq!(waiting.front().map(|packet| packet[0]), Some(72));
        assert_eq!(altogether.0.load(Relaxed), 0);
    }

    #[test]
    fn many_large_packets_are_bounded_by_their_bytes() {
        let slot = PeerSlot::new(NodePublic::from_bytes([1; 32]));
        let altogether = WaitingBytes::default();
        (0..64).for_each(|_| {
            slot.wait(vec![0; 9000].into(), &altogether);
        });
        assert!(altogether.0.load(Relaxed) <= MOST_WAITING_BYTES);
    }

    #[test]
    fn a_peer_that_causes_too_much_is_not_heard_for_a_while() {
        let slot = PeerSlot::new(NodePublic::from_bytes([1; 32]));
        assert_eq!((0..1000).filter(|_| slot.admits_word(7)).count() as u64, MOST_WORDS);
        assert!(slot.admits_word(128));
    }

    #[test]
    fn what_is_due_once_in_a_while_is_due_at_once_the_first_time() {
        let last = AtomicU64::new(0);
        assert!(due(&last, 1, 500));
        assert!(!due(&last, 500, 500));
        assert!(due(&last, 501, 500));
    }
}
