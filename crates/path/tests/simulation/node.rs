use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crypto::{Entropy, NodePublic};
use path::{Endpoints, Families, Netcheck, PathChoice, Paths, PeerConfig, RegionId, Report, Sockets, Via};

/// How often a node's data threads report what they do: the slowest that the contract allows.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

/// A packet of traffic that arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    pub(crate) number: u64,
    pub(crate) at: Instant,
    pub(crate) via: Via,
}

/// What a node puts on the wire besides traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chatter {
    Stun,
    DiscoUdp,
    DiscoRelay,
}

/// A node as its owner would run it: the three state machines, one socket, connections to relays.
pub(crate) struct Node {
    pub(crate) key: NodePublic,
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) router: usize,
    pub(crate) paths: Paths,
    pub(crate) netcheck: Netcheck,
    pub(crate) endpoints: Endpoints,
    pub(crate) told_endpoints: Vec<SocketAddr>,
    pub(crate) relays: BTreeMap<RegionId, bool>,
    pub(crate) choices: Vec<(Instant, NodePublic, PathChoice)>,
    pub(crate) reports: Vec<Report>,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) chatter: Vec<(Instant, Chatter)>,
    pub(crate) events: Vec<(Instant, path::paths::Event)>,
    pub(crate) https_wanted: u32,
    reported_sent: BTreeMap<NodePublic, Instant>,
    reported_received: BTreeMap<(NodePublic, Via), Instant>,
}

impl Node {
    pub(crate) fn new(key: NodePublic, ip: Ipv4Addr, router: usize, now: Instant, entropy: &mut dyn Entropy) -> Self {
        let mut node = Self {
            key,
            ip,
            port: 41_641,
            router,
            paths: Paths::new(key, entropy),
            netcheck: Netcheck::new(),
            endpoints: Endpoints::new(),
            told_endpoints: Vec::new(),
            relays: BTreeMap::new(),
            choices: Vec::new(),
            reports: Vec::new(),
            arrivals: Vec::new(),
            chatter: Vec::new(),
            events: Vec::new(),
            https_wanted: 0,
            reported_sent: BTreeMap::new(),
            reported_received: BTreeMap::new(),
        };
        node.paths.handle_families(Families { v4: true, v6: false }, now, entropy);
        node.netcheck.handle_families(Families { v4: true, v6: false }, now, entropy);
        node.netcheck.handle_control(true);
        node.listen(now);
        node
    }

    /// Tells the endpoints of its socket and interface.
    pub(crate) fn listen(&mut self, now: Instant) {
        let sockets = Sockets { v4_port: Some(self.port), v6_port: None, port_is_fixed: false };
        self.endpoints.handle_sockets(sockets, now);
        self.endpoints.handle_interfaces(&[self.ip.into()], now);
    }

    /// What the control server tells others of it.
    pub(crate) fn config(&self) -> PeerConfig {
        PeerConfig {
            node: self.key,
            disco: self.paths.disco_key(),
            home: self.netcheck.home(),
            endpoints: self.told_endpoints.clone(),
            wireguard_only: false,
        }
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.ip.into(), self.port)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        [self.paths.poll_timeout(), self.netcheck.poll_timeout(), self.endpoints.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.paths.handle_timeout(now, entropy);
        self.netcheck.handle_timeout(now, entropy);
        self.endpoints.handle_timeout(now);
    }

    /// A data thread sends a packet.
    pub(crate) fn report_sent(&mut self, peer: &NodePublic, now: Instant, entropy: &mut dyn Entropy) {
        if self.reported_sent.get(peer).is_none_or(|at| *at + REPORT_INTERVAL <= now) {
            self.reported_sent.insert(*peer, now);
            self.paths.handle_sent(peer, now, entropy);
            self.netcheck.handle_activity(now, entropy);
        }
    }

    /// A data thread opened a packet.
    pub(crate) fn report_received(&mut self, peer: &NodePublic, via: Via, now: Instant, entropy: &mut dyn Entropy) {
        if self.reported_received.get(&(*peer, via)).is_none_or(|at| *at + REPORT_INTERVAL <= now) {
            self.reported_received.insert((*peer, via), now);
            self.paths.handle_received(peer, via, now, entropy);
        }
    }

    /// The most disco and STUN packets that this node sent in any second from `since` on.
    pub(crate) fn busiest_second(&self, since: Instant) -> usize {
        let times: Vec<Instant> = self.chatter.iter().map(|(at, _)| *at).filter(|at| *at >= since).collect();
        let mut first = 0;
        let mut most = 0;
        for (last, at) in times.iter().enumerate() {
            while times[first] + Duration::from_secs(1) <= *at {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    pub(crate) fn sent_since(&self, since: Instant, kind: Chatter) -> usize {
        self.chatter.iter().filter(|(at, what)| *at >= since && *what == kind).count()
    }
}
