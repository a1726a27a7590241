//! What the network around this node is like, measured by asking STUN servers: its public addresses, the kind of NAT,
//! how far each relay is, and so where the node should wait for its peers (its *home*).
//!
//! A *full* measurement asks every region; the others ask the three nearest and the home. While the node talks to
//! anybody, one follows the other every 20 to 26 s, which also keeps the NAT's mapping for the socket alive. Where no
//! STUN server answers, regions are timed by HTTPS.
//!
//! What it does not do: port mapping, ICMP, captive portals, or look names up.

mod home;
mod plan;
mod report;
mod run;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crypto::Entropy;
use packet::{Malformed, stun};

use crate::{Families, RegionId, RelayMap, RelayState};
use home::Home;
use run::Run;

pub use report::{NatKind, Report};

/// Between full measurements.
const FULL_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Between measurements while the node is active: 20 s, and up to 6 s more by chance. NATs forget after 30 s.
const INTERVAL: Duration = Duration::from_secs(20);
const INTERVAL_SPREAD_MS: u64 = 6_000;
/// How long after the last packet the node counts as active.
const ACTIVE: Duration = Duration::from_secs(45);

/// Measures the network around this node, and chooses its home.
#[derive(Debug)]
pub struct Netcheck {
    map: RelayMap,
    families: Families,
    home: Home,
    run: Option<Run>,
    last: Option<Report>,
    last_full: Option<Instant>,
    next: Option<Instant>,
    active_until: Option<Instant>,
    probes: VecDeque<Probe>,
    events: VecDeque<Event>,
}

/// A STUN request that is to be sent from the socket that also carries WireGuard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The STUN server.
    pub to: SocketAddr,
    /// The datagram.
    pub payload: [u8; stun::REQUEST_LEN],
}

/// What the node is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A measurement is done.
    Report(Report),
    /// The node should wait for its peers in another region from now on.
    HomeChanged(RegionId),
    /// No STUN server answers: the time of an HTTPS request to `/derp/latency-check` in each of these regions is wanted,
    /// by [`Netcheck::handle_https`], within 2 s.
    HttpsWanted(Vec<RegionId>),
}

impl Netcheck {
    /// A node that knows no relays yet.
    pub fn new() -> Self {
        Self {
            map: RelayMap::default(),
            families: Families::ALL,
            home: Home::default(),
            run: None,
            last: None,
            last_full: None,
            next: None,
            active_until: None,
            probes: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes the relays, and measures them all if they are not those of before.
    pub fn handle_relay_map(&mut self, map: RelayMap, now: Instant, entropy: &mut dyn Entropy) {
        if map == self.map {
            return;
        }
        self.map = map;
        self.measure_anew(now, entropy);
    }

    /// Takes the address families that this node can send in; until then, both are tried.
    pub fn handle_families(&mut self, families: Families, now: Instant, entropy: &mut dyn Entropy) {
        if families != self.families {
            self.families = families;
            self.measure_anew(now, entropy);
        }
    }

    /// This node has another address, or another way out: measures everything.
    pub fn handle_network_change(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.home.forget_measurements();
        self.measure_anew(now, entropy);
    }

    /// Somebody wants a report: measures, unless that is going on already, or no relays are known.
    pub fn handle_wanted(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if self.run.is_none() {
            self.measure(now, entropy);
        }
    }

    /// The node sent a packet to a peer: its mapping is worth keeping.
    pub fn handle_activity(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.active_until = Some(now + ACTIVE);
        if self.next.is_none() {
            self.schedule(now, entropy);
        }
    }

    /// Takes what a STUN server answered. False when it answers none of this node's requests.
    pub fn handle_stun(&mut self, datagram: &[u8], now: Instant, entropy: &mut dyn Entropy) -> Result<bool, Malformed> {
        let (transaction, mapped) = stun::parse_response(datagram)?;
        let taken = self.run.as_mut().is_some_and(|run| run.answer(transaction, mapped, now));
        self.advance(now, entropy);
        Ok(taken)
    }

    /// Takes how long an HTTPS request to a region took; `None` when it failed.
    pub fn handle_https(
        &mut self,
        region: RegionId,
        latency: Option<Duration>,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) {
        if let Some(run) = &mut self.run {
            run.answer_https(region, latency);
        }
        self.advance(now, entropy);
    }

    /// Takes what the connection to a region is doing. A home that went down is left at once, and any region that did is
    /// passed over for five minutes, unless it is seen to be up before.
    pub fn handle_relay(&mut self, region: RegionId, state: RelayState, now: Instant, entropy: &mut dyn Entropy) {
        self.home.handle_relay(region, state, now);
        if state == RelayState::Down && self.home.current() == Some(region) {
            self.choose_home(None, now, entropy);
        }
    }

    /// A frame came from a region: it is there, even if no measurement says so.
    pub fn handle_relay_heard(&mut self, region: RegionId, now: Instant) {
        self.home.heard(region, now);
    }

    /// Whether the control server can be told of a new home; while it can't, the node stays where peers look for it.
    pub fn handle_control(&mut self, connected: bool) {
        self.home.set_announced(connected);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if self.next.is_some_and(|next| next <= now) {
            self.next = None;
            if self.is_active(now) {
                self.handle_wanted(now, entropy);
            }
        }
        self.advance(now, entropy);
    }

    /// When [`Self::handle_timeout`] is to be called; `None` while nothing is going on.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.run.iter().map(Run::deadline).chain(self.next).min()
    }

    /// The next probe to send.
    pub fn poll_transmit(&mut self) -> Option<Probe> {
        self.probes.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The region where this node waits for its peers.
    pub fn home(&self) -> Option<RegionId> {
        self.home.current()
    }

    /// What was measured last.
    pub fn last_report(&self) -> Option<&Report> {
        self.last.as_ref()
    }

    fn is_active(&self, now: Instant) -> bool {
        self.active_until.is_some_and(|until| now < until)
    }

    fn measure_anew(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.run = None;
        self.last_full = None;
        self.probes.clear();
        self.measure(now, entropy);
    }

    fn measure(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        if self.map.regions.is_empty() {
            return;
        }
        let home = self.home.current();
        let full = self.last_full.is_none_or(|at| at + FULL_INTERVAL <= now);
        let last = self.last.as_ref().filter(|last| !full && !last.latency.is_empty());
        let plan = match last {
            Some(last) => plan::incremental(&self.map, self.families, home, last),
            None => plan::full(&self.map, self.families, home),
        };
        self.run = Some(Run::new(plan, last.is_none(), home, now));
        self.advance(now, entropy);
    }

    /// Lets the measurement go on, and takes its report when it is done.
    fn advance(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        let Some(run) = &mut self.run else { return };
        self.probes.extend(run.probes(now, entropy));
        if let Some(regions) = run.https_wanted(now, || plan::https(&self.map, self.home.current(), self.last.as_ref()))
        {
            self.events.push_back(Event::HttpsWanted(regions));
        }
        if !run.is_done(now) {
            return;
        }
        let mut report = run.report(now);
        self.run = None;
        self.choose_home(Some(&report), now, entropy);
        report.home = self.home.current();
        if report.full {
            self.last_full = Some(now);
        }
        self.events.push_back(Event::Report(report.clone()));
        self.last = Some(report);
        if self.is_active(now) {
            self.schedule(now, entropy);
        }
    }

    fn choose_home(&mut self, report: Option<&Report>, now: Instant, entropy: &mut dyn Entropy) {
        let before = self.home.current();
        let chosen = self.home.choose(&self.map, report.map(|report| &report.latency), now, entropy);
        if let Some(region) = chosen.filter(|_| chosen != before) {
            self.events.push_back(Event::HomeChanged(region));
        }
    }

    fn schedule(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.next = Some(now + INTERVAL + Duration::from_millis(entropy.below(INTERVAL_SPREAD_MS)));
    }
}

impl Default for Netcheck {
    fn default() -> Self {
        Self::new()
    }
}
