use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crypto::{Entropy, NodePublic};
use packet::demux::{Carried, Datagram};
use packet::stun;
use path::{
    PathChoice, PeerConfig, Region, RegionId, RelayMap, RelayNode, RelayState, UserPing, Via, Way, netcheck, paths,
};

use crate::entropy::Seeded;
use crate::nat::{Nat, Router};
use crate::node::{Arrival, Chatter, Node};

/// One way between a node and anything on the internet, and inside a LAN.
const INTERNET: Duration = Duration::from_millis(10);
const LAN: Duration = Duration::from_micros(300);
/// From a change at one node until the others' netmaps show it.
const CONTROL: Duration = Duration::from_millis(200);
/// Packets that wait while a connection to a relay is made.
const RELAY_QUEUE: usize = 32;

/// The internet, what is connected to it, and its clock.
pub(crate) struct World {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    pub(crate) nodes: Vec<Node>,
    pub(crate) routers: Vec<Router>,
    pub(crate) entropy: Seeded,
    /// Of a thousand UDP packets, how many are lost.
    pub(crate) loss: u64,
    /// Whether the control server can be reached.
    pub(crate) control: bool,
    blocked: BTreeSet<(usize, usize)>,
    relays: BTreeMap<RegionId, Relay>,
    queue: BTreeMap<(Instant, u64), Happening>,
    scheduled: u64,
}

struct Relay {
    ip: Ipv4Addr,
    up: bool,
    latency: Duration,
    /// Packets for nodes that are being connected.
    waiting: BTreeMap<usize, Vec<(NodePublic, Vec<u8>)>>,
}

enum Happening {
    Udp { node: usize, source: SocketAddr, payload: Vec<u8> },
    Stun { region: RegionId, source: SocketAddr, payload: Vec<u8> },
    Relayed { node: usize, region: RegionId, source: NodePublic, payload: Vec<u8> },
    Connected { node: usize, region: RegionId },
    ConnectionLost { node: usize, region: RegionId },
    Netmap { node: usize, config: PeerConfig },
    Https { node: usize, region: RegionId },
    Traffic(Flow),
}

/// Packets from one node to another at an interval, each answered by the other if `echo`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flow {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) interval: Duration,
    pub(crate) until: Instant,
    pub(crate) echo: bool,
}

pub(crate) fn region(number: u16) -> RegionId {
    RegionId::new(number).unwrap()
}

impl World {
    /// An internet with two relay regions, the second farther away.
    pub(crate) fn new(seed: u64) -> Self {
        let start = Instant::now();
        let relay = |last, millis| Relay {
            ip: Ipv4Addr::new(203, 0, 113, last),
            up: true,
            latency: Duration::from_millis(millis),
            waiting: BTreeMap::new(),
        };
        Self {
            start,
            now: start,
            nodes: Vec::new(),
            routers: Vec::new(),
            entropy: Seeded(seed),
            loss: 0,
            control: true,
            blocked: BTreeSet::new(),
            relays: BTreeMap::from([(region(1), relay(10, 10)), (region(2), relay(11, 40))]),
            queue: BTreeMap::new(),
            scheduled: 0,
        }
    }

    /// Adds a node behind a router of its own, or with a public address of its own.
    pub(crate) fn add(&mut self, nat: Nat) -> usize {
        let number = u8::try_from(self.routers.len() + 1).unwrap();
        let public = Ipv4Addr::new(198, 51, 100, number);
        self.routers.push(Router::new(public, nat));
        let ip = if nat == Nat::None { public } else { Ipv4Addr::new(192, 168, number, 2) };
        self.add_at(ip, self.routers.len() - 1)
    }

    /// Adds a node to the LAN of another.
    pub(crate) fn add_beside(&mut self, other: usize) -> usize {
        let router = self.nodes[other].router;
        let [a, b, c, d] = self.nodes[other].ip.octets();
        self.add_at(Ipv4Addr::new(a, b, c, d + 1), router)
    }

    fn add_at(&mut self, ip: Ipv4Addr, router: usize) -> usize {
        let index = self.nodes.len();
        let key = NodePublic::from_bytes(self.entropy.bytes32());
        self.nodes.push(Node::new(key, ip, router, self.now, &mut self.entropy));
        let map = self.relay_map();
        self.nodes[index].netcheck.handle_relay_map(map, self.now, &mut self.entropy);
        for other in 0..index {
            self.announce(other, index);
            self.announce(index, other);
        }
        self.drain(index);
        index
    }

    /// Lets `span` pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let mut steps_without_time = 0;
        while let Some(next) = self.next().filter(|next| *next <= end) {
            steps_without_time = if next > self.now { 0 } else { steps_without_time + 1 };
            assert!(steps_without_time < 100_000, "a state machine asks for a time-out that changes nothing");
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    pub(crate) fn run_seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    /// Runs until a condition holds; how long that took.
    pub(crate) fn run_until(&mut self, limit: Duration, holds: impl Fn(&Self) -> bool) -> Option<Duration> {
        let begun = self.now;
        while !holds(self) {
            if self.now >= begun + limit {
                return None;
            }
            self.run(Duration::from_millis(10));
        }
        Some(self.now - begun)
    }

    /// Starts traffic; the numbers of its packets are milliseconds since the start of the world.
    pub(crate) fn send(&mut self, from: usize, to: usize, interval: u64, seconds: u64, echo: bool) {
        let until = self.now + Duration::from_secs(seconds);
        let flow = Flow { from, to, interval: Duration::from_millis(interval), until, echo };
        self.schedule(Duration::ZERO, Happening::Traffic(flow));
    }

    /// Drops, or lets through, UDP from one node to another.
    pub(crate) fn block(&mut self, from: usize, to: usize, blocked: bool) {
        if blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
    }

    /// Takes a node into another network. Its relay connections break.
    pub(crate) fn roam(&mut self, node: usize, nat: Nat) {
        let number = u8::try_from(self.routers.len() + 1).unwrap();
        let public = Ipv4Addr::new(198, 51, 100, number);
        self.routers.push(Router::new(public, nat));
        let moved = &mut self.nodes[node];
        moved.router = self.routers.len() - 1;
        moved.ip = if nat == Nat::None { public } else { Ipv4Addr::new(192, 168, number, 2) };
        moved.relays.clear();
        moved.endpoints.handle_network_change(self.now);
        moved.listen(self.now);
        moved.netcheck.handle_network_change(self.now, &mut self.entropy);
        moved.paths.handle_network_change(self.now, &mut self.entropy);
        if let Some(home) = moved.netcheck.home() {
            self.connect(node, home);
        }
        self.drain(node);
    }

    /// Starts a node's process anew, at another port.
    pub(crate) fn restart(&mut self, node: usize) {
        let old = &self.nodes[node];
        let mut fresh = Node::new(old.key, old.ip, old.router, self.now, &mut self.entropy);
        fresh.port = old.port + 1;
        fresh.listen(self.now);
        self.nodes[node] = fresh;
        let map = self.relay_map();
        self.nodes[node].netcheck.handle_relay_map(map, self.now, &mut self.entropy);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.announce(other, node);
            self.announce(node, other);
        }
        self.drain(node);
    }

    /// Kills a relay, or brings it back. Its clients notice at once, as TCP tells them.
    pub(crate) fn set_relay(&mut self, number: u16, up: bool) {
        let region = region(number);
        self.relays.get_mut(&region).unwrap().up = up;
        for node in 0..self.nodes.len() {
            if up {
                if self.nodes[node].netcheck.home() == Some(region) {
                    self.connect(node, region);
                }
            } else if self.nodes[node].relays.remove(&region).is_some() {
                // One more attempt to connect is made before it counts as down.
                self.schedule(Duration::from_millis(100), Happening::ConnectionLost { node, region });
            }
        }
    }

    pub(crate) fn ping(&mut self, from: usize, to: usize) -> UserPing {
        let peer = self.nodes[to].key;
        let ping = self.nodes[from].paths.ping(&peer, self.now, &mut self.entropy).unwrap();
        self.drain(from);
        ping
    }

    pub(crate) fn choice(&self, from: usize, to: usize) -> PathChoice {
        self.nodes[from].paths.choice(&self.nodes[to].key)
    }

    pub(crate) fn is_direct(&self, from: usize, to: usize) -> bool {
        matches!(self.choice(from, to), PathChoice::Direct(_))
    }

    /// The longest time, from `since` on, during which no packet that `from` sent reached `to`.
    pub(crate) fn outage(&self, to: usize, since: Instant, until: Instant) -> Duration {
        let sent = |arrival: &Arrival| self.start + Duration::from_millis(arrival.number);
        let within = |at: &Instant| (since..=until).contains(at);
        let mut times: Vec<Instant> = self.nodes[to].arrivals.iter().map(sent).filter(within).collect();
        times.extend([since, until]);
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    fn next(&self) -> Option<Instant> {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        self.nodes.iter().map(Node::poll_timeout).chain([queued]).flatten().min()
    }

    fn step(&mut self) {
        if self.queue.first_key_value().is_some_and(|((at, _), _)| *at <= self.now) {
            let (_, happening) = self.queue.pop_first().unwrap();
            self.happen(happening);
            return;
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].poll_timeout().is_some_and(|at| at <= self.now) {
                self.nodes[node].handle_timeout(self.now, &mut self.entropy);
                self.drain(node);
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Udp { node, source, payload } => self.receive_udp(node, source, &payload),
            Happening::Stun { region, source, payload } => self.answer_stun(region, source, &payload),
            Happening::Relayed { node, region, source, payload } => {
                if self.nodes[node].relays.get(&region) == Some(&true) {
                    self.receive_relayed(node, region, source, &payload);
                }
            }
            Happening::Connected { node, region } => self.connected(node, region),
            Happening::ConnectionLost { node, region } => {
                let lost = &mut self.nodes[node];
                lost.paths.handle_relay(region, RelayState::Down, self.now, &mut self.entropy);
                lost.netcheck.handle_relay(region, RelayState::Down, self.now, &mut self.entropy);
                self.drain(node);
            }
            Happening::Netmap { node, config } => {
                self.nodes[node].paths.handle_peer(&config, self.now, &mut self.entropy);
                self.drain(node);
            }
            Happening::Https { node, region } => {
                let latency = self.relays[&region].latency * 4;
                self.nodes[node].netcheck.handle_https(region, Some(latency), self.now, &mut self.entropy);
                self.drain(node);
            }
            Happening::Traffic(flow) => self.send_traffic(flow),
        }
    }

    fn send_traffic(&mut self, flow: Flow) {
        let peer = self.nodes[flow.to].key;
        let number = u64::try_from((self.now - self.start).as_millis()).unwrap();
        self.send_data(flow.from, peer, number, flow.echo);
        if self.now + flow.interval < flow.until {
            self.schedule(flow.interval, Happening::Traffic(flow));
        }
    }

    /// Sends a packet as a data thread does: where the published choice says.
    fn send_data(&mut self, from: usize, peer: NodePublic, number: u64, echo: bool) {
        let mut payload = vec![4, 0, 0, 0, u8::from(echo)];
        payload.extend_from_slice(self.nodes[from].key.as_bytes());
        payload.extend_from_slice(&number.to_be_bytes());
        let choice = self.nodes[from].paths.choice(&peer);
        if let Some(address) = choice.direct() {
            self.send_udp(from, address, payload.clone());
        }
        if let Some(region) = choice.relay() {
            self.send_relayed(from, region, peer, payload);
        }
        self.nodes[from].report_sent(&peer, self.now, &mut self.entropy);
        self.drain(from);
    }

    fn receive_data(&mut self, node: usize, via: Via, payload: &[u8]) {
        let source = NodePublic::from_bytes(payload[5..37].try_into().unwrap());
        let number = u64::from_be_bytes(payload[37..45].try_into().unwrap());
        let at = self.now;
        // The replay window lets only the first of two copies through; either shows that its way works.
        let seen = self.nodes[node].arrivals.iter().rev().take(200).any(|arrival| arrival.number == number);
        self.nodes[node].report_received(&source, via, at, &mut self.entropy);
        if !seen {
            self.nodes[node].arrivals.push(Arrival { number, at, via });
            if payload[4] == 1 {
                self.send_data(node, source, number, false);
            }
        }
        self.drain(node);
    }

    fn send_udp(&mut self, from: usize, to: SocketAddr, payload: Vec<u8>) {
        let inside = self.nodes[from].socket();
        let router = self.nodes[from].router;
        let beside = self.nodes.iter().position(|node| node.socket() == to && node.router == router);
        if let Some(node) = beside {
            self.schedule(LAN, Happening::Udp { node, source: inside, payload });
            return;
        }
        if self.entropy.below(1000) < self.loss || matches!(to, SocketAddr::V4(to) if to.ip().is_private()) {
            return;
        }
        let Some(source) = self.routers[router].outbound(inside, to, self.now) else { return };
        if let Some((region, relay)) = self.relays.iter().find(|(_, relay)| relay.ip == to.ip()) {
            let (region, latency) = (*region, relay.latency);
            self.schedule(latency, Happening::Stun { region, source, payload });
            return;
        }
        let Some(far) = self.routers.iter().position(|router| router.public == to.ip()) else { return };
        if far == router {
            return;
        }
        let Some(inside) = self.routers[far].inbound(source, to, self.now) else { return };
        let Some(node) = self.nodes.iter().position(|node| node.socket() == inside && node.router == far) else {
            return;
        };
        if !self.blocked.contains(&(from, node)) {
            self.schedule(INTERNET, Happening::Udp { node, source, payload });
        }
    }

    fn answer_stun(&mut self, region: RegionId, source: SocketAddr, payload: &[u8]) {
        let relay = &self.relays[&region];
        let Ok(transaction) = stun::parse_request(payload) else { return };
        let server = SocketAddr::new(relay.ip.into(), 3478);
        let latency = relay.latency;
        if !relay.up {
            return;
        }
        let Some(far) = self.routers.iter().position(|router| router.public == source.ip()) else { return };
        let Some(inside) = self.routers[far].inbound(server, source, self.now) else { return };
        let Some(node) = self.nodes.iter().position(|node| node.socket() == inside) else { return };
        let payload = stun::response(transaction, source);
        self.schedule(latency, Happening::Udp { node, source: server, payload });
    }

    fn receive_udp(&mut self, node: usize, source: SocketAddr, payload: &[u8]) {
        match Datagram::classify(payload) {
            Datagram::Stun(answer) => {
                self.nodes[node].netcheck.handle_stun(answer, self.now, &mut self.entropy).unwrap();
                self.drain(node);
            }
            Datagram::Direct(Carried::Disco(envelope)) => {
                let paths = &mut self.nodes[node].paths;
                // What comes for the process that was here before is refused, as it should be.
                let _ = paths.handle_disco(&envelope, Way::Udp(source), self.now, &mut self.entropy);
                self.drain(node);
            }
            Datagram::Direct(Carried::WireGuard(packet)) => self.receive_data(node, Via::Direct(source), packet),
            Datagram::Relayed { .. } | Datagram::Unknown => panic!("nobody sends such a thing"),
        }
    }

    fn send_relayed(&mut self, from: usize, region: RegionId, to: NodePublic, payload: Vec<u8>) {
        match self.nodes[from].relays.get(&region) {
            Some(true) => self.forward(from, region, to, payload),
            Some(false) => self.wait_for_relay(from, region, to, payload),
            None => {
                self.connect(from, region);
                self.wait_for_relay(from, region, to, payload);
            }
        }
    }

    fn wait_for_relay(&mut self, from: usize, region: RegionId, to: NodePublic, payload: Vec<u8>) {
        let waiting = self.relays.get_mut(&region).unwrap().waiting.entry(from).or_default();
        if waiting.len() < RELAY_QUEUE {
            waiting.push((to, payload));
        }
    }

    fn forward(&mut self, from: usize, region: RegionId, to: NodePublic, payload: Vec<u8>) {
        let source = self.nodes[from].key;
        let relay = &self.relays[&region];
        let Some(node) = self.nodes.iter().position(|node| node.key == to) else { return };
        if relay.up && self.nodes[node].relays.get(&region) == Some(&true) {
            let latency = relay.latency * 2;
            self.schedule(latency, Happening::Relayed { node, region, source, payload });
        }
    }

    fn receive_relayed(&mut self, node: usize, region: RegionId, source: NodePublic, payload: &[u8]) {
        self.nodes[node].netcheck.handle_relay_heard(region, self.now);
        match Carried::classify(payload) {
            Some(Carried::Disco(envelope)) => {
                let way = Way::Relay { region, node: source };
                let _ = self.nodes[node].paths.handle_disco(&envelope, way, self.now, &mut self.entropy);
                self.drain(node);
            }
            Some(Carried::WireGuard(packet)) => self.receive_data(node, Via::Relay(region), packet),
            None => panic!("nobody sends such a thing"),
        }
    }

    /// Makes a connection: TCP, TLS and the relay's own handshake take three round trips.
    fn connect(&mut self, node: usize, region: RegionId) {
        if self.relays[&region].up && !self.nodes[node].relays.contains_key(&region) {
            self.nodes[node].relays.insert(region, false);
            let latency = self.relays[&region].latency * 6;
            self.schedule(latency, Happening::Connected { node, region });
        }
    }

    fn connected(&mut self, node: usize, region: RegionId) {
        if !self.relays[&region].up || self.nodes[node].relays.get(&region) != Some(&false) {
            return;
        }
        self.nodes[node].relays.insert(region, true);
        self.nodes[node].paths.handle_relay(region, RelayState::Up, self.now, &mut self.entropy);
        self.nodes[node].netcheck.handle_relay(region, RelayState::Up, self.now, &mut self.entropy);
        let waiting = self.relays.get_mut(&region).unwrap().waiting.remove(&node);
        for (to, payload) in waiting.into_iter().flatten() {
            self.forward(node, region, to, payload);
        }
        self.drain(node);
    }

    /// Sends what a node's machines want sent, and passes on what they tell.
    fn drain(&mut self, index: usize) {
        while self.drain_once(index) {}
    }

    fn drain_once(&mut self, index: usize) -> bool {
        let now = self.now;
        let mut busy = false;
        while let Some(probe) = self.nodes[index].netcheck.poll_transmit() {
            busy = true;
            self.nodes[index].chatter.push((now, Chatter::Stun));
            self.send_udp(index, probe.to, probe.payload.to_vec());
        }
        while let Some(transmit) = self.nodes[index].paths.poll_transmit() {
            busy = true;
            match transmit.way {
                Way::Udp(address) => {
                    self.nodes[index].chatter.push((now, Chatter::DiscoUdp));
                    self.send_udp(index, address, transmit.payload);
                }
                Way::Relay { region, node } => {
                    self.nodes[index].chatter.push((now, Chatter::DiscoRelay));
                    self.send_relayed(index, region, node, transmit.payload);
                }
            }
        }
        while let Some(event) = self.nodes[index].netcheck.poll_event() {
            busy = true;
            self.netcheck_event(index, event);
        }
        while let Some(event) = self.nodes[index].paths.poll_event() {
            busy = true;
            if let paths::Event::PathChanged { node, choice, .. } = event {
                self.nodes[index].choices.push((now, node, choice));
            }
            if event == paths::Event::EndpointsWanted {
                self.nodes[index].netcheck.handle_wanted(now, &mut self.entropy);
            }
            self.nodes[index].events.push((now, event));
        }
        if let Some(list) = self.nodes[index].endpoints.poll_event() {
            busy = true;
            self.nodes[index].told_endpoints = list.into_iter().map(|endpoint| endpoint.address).collect();
            self.announce_to_all(index);
        }
        busy
    }

    fn netcheck_event(&mut self, index: usize, event: netcheck::Event) {
        let now = self.now;
        match event {
            netcheck::Event::Report(report) => {
                let node = &mut self.nodes[index];
                node.endpoints.handle_report(&report, now);
                node.reports.push(report);
                let addresses = node.endpoints.addresses();
                node.paths.handle_own_endpoints(&addresses, now, &mut self.entropy);
            }
            netcheck::Event::HomeChanged(home) => {
                self.nodes[index].paths.handle_own_home(Some(home), now, &mut self.entropy);
                self.connect(index, home);
                self.announce_to_all(index);
            }
            netcheck::Event::HttpsWanted(regions) => {
                self.nodes[index].https_wanted += 1;
                for region in regions {
                    let latency = self.relays[&region].latency * 4;
                    self.schedule(latency, Happening::Https { node: index, region });
                }
            }
        }
    }

    fn announce_to_all(&mut self, index: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != index) {
            self.announce(index, other);
        }
    }

    fn announce(&mut self, of: usize, to: usize) {
        if self.control {
            let config = self.nodes[of].config();
            self.schedule(CONTROL, Happening::Netmap { node: to, config });
        }
    }

    fn schedule(&mut self, after: Duration, happening: Happening) {
        self.scheduled += 1;
        self.queue.insert((self.now + after, self.scheduled), happening);
    }

    fn relay_map(&self) -> RelayMap {
        let regions = self.relays.iter().map(|(region, relay)| {
            let node = RelayNode { ipv4: Some(relay.ip), ipv6: None, stun_port: Some(3478), stun_only: false };
            (*region, Region { score: 1.0, avoid: false, no_measure_no_home: false, nodes: vec![node] })
        });
        RelayMap { regions: regions.collect() }
    }
}
