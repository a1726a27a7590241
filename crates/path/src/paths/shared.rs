use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use crypto::{DiscoPublic, Entropy, NodePublic};
use packet::disco::{CallMeMaybe, Message, Ping, Pong, TransactionId};

use super::keys::DiscoKeys;
use super::relays::Relays;
use super::timing::{ENDPOINTS_CERTAIN, ENDPOINTS_FRESH, ENDPOINTS_PATIENCE, MAX_TRANSMITS};
use super::{Counters, Event};
use crate::address::{MAX_ENDPOINTS, is_endpoint};
use crate::{Families, RegionId, Transmit, Way};

/// What the protocol puts for the address of a relay; the port is the region's number.
const RELAY_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 3, 3, 40);

/// What the peers of one node have in common.
pub(super) struct Shared {
    pub(super) node: NodePublic,
    pub(super) keys: DiscoKeys,
    pub(super) relays: Relays,
    pub(super) families: Families,
    pub(super) endpoints: OwnEndpoints,
    pub(super) transmits: VecDeque<Transmit>,
    pub(super) events: VecDeque<Event>,
    /// Peers whose choice differs from what was last told.
    pub(super) changed: BTreeSet<NodePublic>,
    pub(super) counters: Counters,
}

/// Where this node can be reached, and which peers wait to be told.
#[derive(Debug, Default)]
pub(super) struct OwnEndpoints {
    pub(super) list: Vec<SocketAddr>,
    learned: Option<Instant>,
    asked: Option<Instant>,
    pub(super) waiting: BTreeSet<NodePublic>,
}

impl OwnEndpoints {
    /// Takes the endpoints of now; returns the peers that waited for them.
    pub(super) fn learn(&mut self, endpoints: &[SocketAddr], now: Instant) -> BTreeSet<NodePublic> {
        self.list = endpoints.iter().copied().take(MAX_ENDPOINTS).collect();
        (self.learned, self.asked) = (Some(now), None);
        std::mem::take(&mut self.waiting)
    }

    /// The network is another: what was learned before is not to be told any more.
    pub(super) fn outdate(&mut self) {
        (self.learned, self.asked) = (None, None);
    }

    fn are_certain(&self, now: Instant) -> bool {
        self.learned.is_some_and(|at| now < at + ENDPOINTS_CERTAIN)
    }

    fn are_fresh(&self, now: Instant) -> bool {
        self.learned.is_some_and(|at| now < at + ENDPOINTS_FRESH)
    }

    /// Whether it is time to ask for them, and notes that it was done.
    fn ask(&mut self, now: Instant) -> bool {
        let due = self.asked.is_none_or(|at| at + ENDPOINTS_PATIENCE <= now);
        if due {
            self.asked = Some(now);
        }
        due
    }
}

impl Shared {
    /// Whether a datagram to an endpoint can reach who is meant: its family has a socket here.
    ///
    /// Loopback is somebody only to a node that lives on loopback itself.
    pub(super) fn reaches(&self, endpoint: &SocketAddr) -> bool {
        self.families.reach(endpoint) && (!endpoint.ip().is_loopback() || self.lives_on_loopback())
    }

    fn lives_on_loopback(&self) -> bool {
        self.endpoints.list.iter().any(|own| own.ip().is_loopback())
    }
}

/// What can be endpoints among `named`, each once, no more than a peer may have.
pub(super) fn admitted(named: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut admitted = Vec::new();
    for address in named {
        let address = canonical(*address);
        if admitted.len() < MAX_ENDPOINTS && is_endpoint(&address) && !admitted.contains(&address) {
            admitted.push(address);
        }
    }
    admitted
}

/// An IPv4 address in its own form, even if a socket for both families gave it.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// One call's time and randomness, and what the peers share.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    pub(super) entropy: &'a mut dyn Entropy,
    pub(super) shared: &'a mut Shared,
}

impl Turn<'_> {
    /// Sends a ping; `None` when there is no way to.
    pub(super) fn ping(&mut self, way: Way, key: &DiscoPublic) -> Option<TransactionId> {
        let transaction = TransactionId::generate(self.entropy);
        let ping = Ping { transaction, node_key: Some(self.shared.node), padding: 0 };
        let sent = self.send(way, key, &Message::Ping(ping));
        self.shared.counters.pings_sent += u64::from(sent);
        sent.then_some(transaction)
    }

    pub(super) fn pong(&mut self, way: Way, key: &DiscoPublic, transaction: TransactionId) {
        let observed = match way {
            Way::Udp(address) => address,
            Way::Relay { region, .. } => SocketAddr::from((RELAY_ADDRESS, region.get())),
        };
        let sent = self.send(way, key, &Message::Pong(Pong { transaction, observed }));
        self.shared.counters.pongs_sent += u64::from(sent);
    }

    /// Asks a peer to ping this node's endpoints; if they may be outdated, after they were learned anew.
    pub(super) fn call(&mut self, node: NodePublic, key: &DiscoPublic, region: RegionId) {
        if !self.shared.endpoints.are_fresh(self.now) {
            self.shared.endpoints.waiting.insert(node);
            self.ask_for_endpoints();
            return;
        }
        let endpoints = self.shared.endpoints.list.clone();
        if !endpoints.is_empty() {
            let message = Message::CallMeMaybe(CallMeMaybe { endpoints });
            let sent = self.send(Way::Relay { region, node }, key, &message);
            self.shared.counters.calls_sent += u64::from(sent);
        }
    }

    /// A path to a peer does not work, and the NAT may be why: it may have forgotten its mapping, and made another. Has this
    /// node's endpoints learned anew, unless that was a moment ago, and the peer told them then.
    pub(super) fn learn_endpoints_for(&mut self, node: NodePublic) {
        if !self.shared.endpoints.are_certain(self.now) {
            self.shared.endpoints.waiting.insert(node);
            self.ask_for_endpoints();
        }
    }

    pub(super) fn ask_for_endpoints(&mut self) {
        if self.shared.endpoints.ask(self.now) {
            self.shared.events.push_back(Event::EndpointsWanted);
        }
    }

    fn send(&mut self, way: Way, key: &DiscoPublic, message: &Message) -> bool {
        if matches!(way, Way::Udp(address) if !self.shared.reaches(&address)) {
            return false;
        }
        if self.shared.transmits.len() >= MAX_TRANSMITS {
            self.shared.counters.dropped += 1;
            return false;
        }
        let Some(payload) = self.shared.keys.seal(key, message, self.entropy) else { return false };
        self.shared.transmits.push_back(Transmit { way, payload });
        true
    }
}
