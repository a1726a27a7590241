//! The control thread's loop: drives handshakes, paths, measurements and relays by what happens and by time.

mod datagrams;
mod network;
mod queries;
mod tunnel;
mod view;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use crypto::tunnel::Tai64n;
use crypto::{DiscoPublic, NodePublic, SystemEntropy};
use derp::client::Dialer;
use path::{Endpoints, Netcheck, PathChoice, Paths, RegionId, RelayState, Via, Way};
use tokio::sync::{mpsc, oneshot};
use wireguard::{Interface, Moment, Source};

use super::health::Health;
use super::names::{Names, Resolved};
use super::pings::{Pings, Token};
use super::relays::{Relays, Word};
use super::{Inboxes, Note, OrderBox, Query, Shared, Stranger, report};
use crate::event::Backlog;
use crate::flows::FlowLog;
use crate::pipeline::{Outbox, RxOrder};
use crate::sockets::Patience;
use crate::{Config, Event, PingError, Pong};

/// Things that are taken from one queue before what follows from them is done.
const TURN: usize = 64;
/// How often flows are taken from the data threads while packets pass.
const FLOWS_INTERVAL: Duration = Duration::from_secs(5);
/// Between two changes of the network.
const NETWORK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a user waits for a measurement.
const NETCHECK_PATIENCE: Duration = Duration::from_secs(10);
/// How long relay connections have to end.
const CLOSE_TIME: Duration = Duration::from_secs(2);

/// The control thread's state.
pub(super) struct Driver {
    config: Config,
    shared: Arc<Shared>,
    backlog: Arc<Backlog>,
    orders: Arc<OrderBox>,
    wireguard: Interface,
    paths: Paths,
    netcheck: Netcheck,
    endpoints: Endpoints,
    health: Health,
    pings: Pings,
    echo_sequence: u16,
    relays: Relays,
    names: Names,
    words: Option<mpsc::Receiver<Word>>,
    resolved: Option<mpsc::Receiver<Resolved>>,
    outbox: Outbox,
    flows: FlowLog,
    flows_taken: Instant,
    interfaces: Vec<IpAddr>,
    peer_api_port: u16,
    netchecks: Vec<(Instant, oneshot::Sender<Option<Box<crate::Netcheck>>>)>,
    network_changed: Option<Instant>,
    network_due: Option<Instant>,
    rejects: Rejects,
    /// The last handshake message for each peer to which no way was known, and when that was.
    unsent: BTreeMap<NodePublic, (Instant, Vec<u8>)>,
    waiting_for_end: Vec<oneshot::Sender<()>>,
}

/// How many refusals peers are told of: so many at once, and so many a second.
#[derive(Debug)]
struct Rejects {
    left: u32,
    counted: Instant,
}

const REJECTS: u32 = 20;

impl Rejects {
    fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.counted) >= Duration::from_secs(1) {
            (self.left, self.counted) = (REJECTS, now);
        }
        let taken = self.left > 0;
        self.left = self.left.saturating_sub(1);
        taken
    }
}

fn moment() -> Moment {
    Moment { instant: Instant::now(), wall: Tai64n::from(SystemTime::now()) }
}

impl Driver {
    pub(super) fn new(config: Config, shared: Arc<Shared>, backlog: Arc<Backlog>, orders: Arc<OrderBox>) -> Self {
        let now = Instant::now();
        let mut entropy = SystemEntropy;
        let mut dialer = Dialer::new(config.resolver.clone(), &config.roots).with_ledger(config.ledger.clone());
        if let Some(setup) = &config.socket_setup {
            dialer = dialer.with_socket_setup(setup.clone());
        }
        if let Some(proxy) = &config.proxy {
            dialer = dialer.with_proxy(proxy.clone());
        }
        let (relays, words) = Relays::new(config.key.clone(), dialer, config.app_name.clone(), shared.clone());
        let (names, resolved) = Names::new(config.resolver.clone());
        let mut endpoints = Endpoints::new();
        endpoints.handle_explicit(&config.explicit_endpoints, now);
        let mut driver = Self {
            wireguard: Interface::new(config.key.clone(), now, &mut entropy),
            paths: Paths::new(config.key.public(), &mut entropy),
            netcheck: Netcheck::new(),
            endpoints,
            health: Health::default(),
            pings: Pings::default(),
            echo_sequence: 0,
            relays,
            names,
            words: Some(words),
            resolved: Some(resolved),
            outbox: Outbox::new(shared.clone(), Patience::Drop),
            flows: FlowLog::default(),
            flows_taken: now,
            interfaces: Vec::new(),
            peer_api_port: 0,
            netchecks: Vec::new(),
            network_changed: None,
            network_due: None,
            rejects: Rejects { left: REJECTS, counted: now },
            unsent: BTreeMap::new(),
            waiting_for_end: Vec::new(),
            config,
            shared,
            backlog,
            orders,
        };
        driver.take_sockets(now);
        driver
    }

    pub(super) fn disco_key(&self) -> DiscoPublic {
        self.paths.disco_key()
    }

    /// Runs until the engine is to stop; returns who waits for that.
    pub(super) async fn run(
        mut self,
        mut queries: mpsc::Receiver<Query>,
        mut inboxes: Inboxes,
    ) -> Vec<oneshot::Sender<()>> {
        let (Some(mut words), Some(mut resolved)) = (self.words.take(), self.resolved.take()) else {
            return self.waiting_for_end;
        };
        let orders = self.orders.clone();
        loop {
            self.pump();
            let due = self.deadline();
            let goes_on = tokio::select! {
                query = queries.recv() => query.is_some_and(|query| self.query(query)),
                () = orders.changed() => {
                    self.take_orders();
                    true
                }
                Some(note) = inboxes.notes.recv() => {
                    self.note(note);
                    drain(&mut inboxes.notes, |note| self.note(note));
                    true
                }
                Some(word) = words.recv() => {
                    self.word(word);
                    drain(&mut words, |word| self.word(word));
                    true
                }
                Some(answer) = resolved.recv() => {
                    self.resolved(answer);
                    true
                }
                Some(stranger) = inboxes.by_relay.recv() => {
                    self.stranger(&stranger);
                    drain(&mut inboxes.by_relay, |stranger| self.stranger(&stranger));
                    true
                }
                Some(stranger) = inboxes.by_udp.recv() => {
                    self.stranger(&stranger);
                    drain(&mut inboxes.by_udp, |stranger| self.stranger(&stranger));
                    true
                }
                () = sleep_until(due) => true,
            };
            if !goes_on {
                break;
            }
            self.handle_timeouts();
            if self.network_due.is_some_and(|due| due <= Instant::now()) {
                self.change_network().await;
            }
        }
        self.relays.close(CLOSE_TIME).await;
        self.waiting_for_end
    }

    fn deadline(&self) -> Option<Instant> {
        let asked = self.netchecks.iter().map(|(at, _)| *at + NETCHECK_PATIENCE).min();
        let machines = [
            self.wireguard.poll_timeout(),
            self.paths.poll_timeout(),
            self.netcheck.poll_timeout(),
            self.endpoints.poll_timeout(),
            self.pings.poll_timeout(),
            self.names.poll_timeout(),
            self.network_due,
            asked,
        ];
        machines.into_iter().flatten().min()
    }

    fn handle_timeouts(&mut self) {
        let now = moment();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now.instant);
        if is_due(self.wireguard.poll_timeout()) {
            self.wireguard.handle_timeout(now, &mut SystemEntropy);
        }
        if is_due(self.paths.poll_timeout()) {
            self.paths.handle_timeout(now.instant, &mut SystemEntropy);
        }
        if is_due(self.netcheck.poll_timeout()) {
            self.netcheck.handle_timeout(now.instant, &mut SystemEntropy);
        }
        if is_due(self.endpoints.poll_timeout()) {
            self.endpoints.handle_timeout(now.instant);
        }
        if is_due(self.pings.poll_timeout()) {
            self.pings.handle_timeout(now.instant);
            self.look_for_echoes();
        }
        if is_due(self.names.poll_timeout()) {
            let relays = self.shared.table.load().view.relays.clone();
            self.names.look_up(&relays);
        }
        let late = |(at, _): &mut (Instant, _)| *at + NETCHECK_PATIENCE <= now.instant;
        for (_, reply) in self.netchecks.extract_if(.., late) {
            let _gone = reply.send(None);
        }
    }

    /// Does all that follows from what was taken, until nothing follows any more.
    fn pump(&mut self) {
        // Each round takes what the one before gave; machines answer with less than they were given.
        for _ in 0..TURN {
            let mut quiet = self.pump_wireguard();
            quiet &= self.pump_paths();
            quiet &= self.pump_netcheck();
            if let Some(list) = self.endpoints.poll_event() {
                self.backlog.push(Event::Endpoints(list));
                self.paths.handle_own_endpoints(&self.endpoints.addresses(), Instant::now(), &mut SystemEntropy);
                quiet = false;
            }
            if quiet {
                break;
            }
        }
        self.outbox.flush();
        if let Some(problems) = self.health.poll() {
            self.backlog.push(Event::Health(problems));
        }
    }

    fn pump_paths(&mut self) -> bool {
        let mut quiet = true;
        while let Some(event) = self.paths.poll_event() {
            quiet = false;
            self.path_event(event);
        }
        while let Some(transmit) = self.paths.poll_transmit() {
            quiet = false;
            self.send(transmit.way, transmit.payload);
        }
        quiet
    }

    fn path_event(&mut self, event: path::paths::Event) {
        use path::paths::Event as Told;
        match event {
            Told::PathChanged { node, choice, .. } => {
                let table = self.shared.table.load_full();
                let Some(peer) = table.peer(&node) else { return };
                peer.slot.set_path(choice);
                if let Some(key) = peer.slot.ready() {
                    self.outbox.send_waiting(peer, &key, usize::from(table.view.mtu), Instant::now());
                }
                if choice != PathChoice::Nowhere {
                    self.send_unsent(&node);
                }
                tracing::debug!(peer = %node, ?choice, "packets go another way");
                self.backlog.push(Event::Path { peer: node, choice });
            }
            Told::EndpointsWanted => {
                let now = Instant::now();
                if !self.has_regions() {
                    // There is nobody to ask.
                    self.paths.handle_own_endpoints(&self.endpoints.addresses(), now, &mut SystemEntropy);
                } else {
                    self.netcheck.handle_wanted(now, &mut SystemEntropy);
                }
            }
            Told::PingAnswered { ping, answer, .. } => {
                let path::Answer { via, latency, observed } = answer;
                let pong = Pong { latency, via: Some(via), address: None, observed, peer_api_port: None };
                self.pings.settle_disco(ping, Ok(pong));
            }
            Told::PingUnanswered { ping, .. } => {
                self.pings.settle_disco(ping, Err(PingError::TimedOut(super::pings::PATIENCE)));
            }
        }
    }

    fn pump_netcheck(&mut self) -> bool {
        use path::netcheck::Event as Told;
        let mut quiet = true;
        while let Some(probe) = self.netcheck.poll_transmit() {
            quiet = false;
            self.shared.sockets.load().send_one(&probe.to, &probe.payload);
        }
        while let Some(event) = self.netcheck.poll_event() {
            quiet = false;
            match event {
                Told::Report(report) => self.measured(&report),
                Told::HomeChanged(region) => self.move_home(region),
                Told::HttpsWanted(regions) => {
                    let now = Instant::now();
                    for region in regions {
                        if !self.relays.measure(region) {
                            self.netcheck.handle_https(region, None, now, &mut SystemEntropy);
                        }
                    }
                }
            }
        }
        quiet
    }

    fn measured(&mut self, report: &path::Report) {
        let now = Instant::now();
        self.endpoints.handle_report(report, now);
        self.paths.handle_own_endpoints(&self.endpoints.addresses(), now, &mut SystemEntropy);
        self.health.measured(report);
        let home = self.netcheck.home();
        let has_ipv6 = self.shared.sockets.load().v6.is_some();
        self.backlog.push(Event::NetInfo(Box::new(report::net_info(report, home, has_ipv6))));
        for (_, reply) in self.netchecks.drain(..) {
            let found = report::netcheck(report, home, has_ipv6, &self.interfaces);
            let _gone = reply.send(Some(Box::new(found)));
        }
    }

    fn move_home(&mut self, region: RegionId) {
        tracing::debug!(%region, "another relay is home");
        self.paths.handle_own_home(Some(region), Instant::now(), &mut SystemEntropy);
        self.set_roles();
        self.backlog.push(Event::Home(region));
    }

    /// A word from a relay's task.
    fn word(&mut self, word: Word) {
        let now = Instant::now();
        let entropy = &mut SystemEntropy;
        match word {
            Word::State(region, state, reason) => {
                self.paths.handle_relay(region, state, now, entropy);
                self.netcheck.handle_relay(region, state, now, entropy);
                let down = reason.filter(|_| state == RelayState::Down);
                let text = down.map(|reason| format!("the relay of region {region} can't be used: {reason}"));
                self.health.region(region, "region", text);
                if state != RelayState::Up {
                    self.health.region(region, "says", None);
                }
            }
            Word::Heard(region) => self.netcheck.handle_relay_heard(region, now),
            Word::PeerGone(region, node) => self.paths.handle_peer_gone(&node, region, now, entropy),
            Word::Health(region, problem) => {
                let text = problem.map(|text| {
                    let text: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
                    format!("the relay of region {region} says: {text}")
                });
                self.health.region(region, "says", text);
            }
            Word::Measured(region, latency) => self.netcheck.handle_https(region, latency, now, entropy),
        }
    }

    /// Sends a disco packet.
    fn send(&self, way: Way, payload: Vec<u8>) {
        match way {
            Way::Udp(to) if !self.config.relay_only => self.shared.sockets.load().send_one(&to, &payload),
            Way::Udp(_) => {}
            Way::Relay { region, node } => {
                let length = payload.len();
                self.shared.relay_out(region, node, Bytes::from(payload), length);
            }
        }
    }

    /// Takes flows from the data threads, at most so often as packets make it worth.
    fn take_flows(&mut self, now: Instant, at_once: bool) {
        if at_once || now.duration_since(self.flows_taken) >= FLOWS_INTERVAL {
            self.flows_taken = now;
            let wall = SystemTime::now();
            self.flows.take(&self.shared.sent_flows, wall);
            self.flows.take(&self.shared.received_flows, wall);
        }
    }
}

fn drain<T>(queue: &mut mpsc::Receiver<T>, mut take: impl FnMut(T)) {
    for _ in 1..TURN {
        let Ok(item) = queue.try_recv() else { break };
        take(item);
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// The way by which a datagram came, as paths have it; `None` for one through a peer relay.
fn via(source: &Source) -> Option<Via> {
    match *source {
        Source::Direct(address) => Some(Via::Direct(canonical(address))),
        Source::Derp { region, .. } => u16::try_from(region).ok().and_then(RegionId::new).map(Via::Relay),
        Source::PeerRelay { .. } => None,
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
