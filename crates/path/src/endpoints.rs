//! Where this node says it can be reached: the list that the control server and, by call-me-maybe, the peers are told.
//!
//! What it does not do: find any of that out. Interfaces, sockets, reports and port mappings are handed in.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::Report;
use crate::address::{MAX_ENDPOINTS, is_endpoint, is_link_local, is_mesh};

/// A change is told when nothing else changed for this long, …
const SETTLE: Duration = Duration::from_millis(200);
/// … or this long after the first, if changes don't end.
const MAX_SETTLE: Duration = Duration::from_secs(1);
/// How long the first list waits for the first report: a measurement takes no longer.
const FIRST_REPORT: Duration = Duration::from_secs(5);
/// How long an endpoint that a STUN server saw is told on, while newer reports are without one.
const STUN_KEPT: Duration = Duration::from_secs(60);

/// What vouches for an endpoint; the control protocol's `EndpointType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndpointKind {
    /// An interface has the address.
    Local,
    /// A STUN server saw it.
    Stun,
    /// A router maps it to this node.
    PortMapped,
    /// A guess: the public address that a STUN server saw, with this node's own port, behind a NAT whose mappings
    /// vary. Right where the router forwards the port by a rule.
    StunLocalPort,
    /// The user says so.
    Explicit,
}

impl EndpointKind {
    /// Its number in the control protocol.
    pub const fn number(self) -> u8 {
        match self {
            Self::Local => 1,
            Self::Stun => 2,
            Self::PortMapped => 3,
            Self::StunLocalPort => 4,
            Self::Explicit => 5,
        }
    }
}

/// An address at which this node may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address and UDP port.
    pub address: SocketAddr,
    /// What vouches for it.
    pub kind: EndpointKind,
}

/// The sockets that this node listens at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sockets {
    /// The port of the IPv4 socket, if there is one.
    pub v4_port: Option<u16>,
    /// The port of the IPv6 socket, if there is one.
    pub v6_port: Option<u16>,
    /// Whether the user chose the port, so that a router may have been told to forward it.
    pub port_is_fixed: bool,
}

/// A router's promise to send what reaches an outer address to this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortMapped {
    /// The outer address.
    pub address: SocketAddr,
    /// When the promise ends, unless it is renewed.
    pub until: Instant,
}

/// The endpoints of this node.
#[derive(Debug, Default)]
pub struct Endpoints {
    sockets: Sockets,
    interfaces: Vec<IpAddr>,
    explicit: Vec<SocketAddr>,
    mapped: Option<PortMapped>,
    measured: bool,
    seen_v4: Seen,
    seen_v6: Seen,
    mapping_varies: bool,
    told: Vec<Endpoint>,
    unsettled: Option<Unsettled>,
    event: Option<Vec<Endpoint>>,
}

/// The endpoints of one family that STUN servers saw.
#[derive(Debug, Default)]
struct Seen {
    endpoints: Vec<SocketAddr>,
    until: Option<Instant>,
}

#[derive(Debug)]
struct Unsettled {
    first: Instant,
    last: Instant,
    list: Vec<Endpoint>,
}

impl Endpoints {
    /// A node of which nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the sockets.
    pub fn handle_sockets(&mut self, sockets: Sockets, now: Instant) {
        self.sockets = sockets;
        self.settle(now);
    }

    /// Takes the addresses of all interfaces.
    pub fn handle_interfaces(&mut self, addresses: &[IpAddr], now: Instant) {
        self.interfaces = addresses.to_vec();
        self.settle(now);
    }

    /// Takes the endpoints that the user says lead here.
    pub fn handle_explicit(&mut self, endpoints: &[SocketAddr], now: Instant) {
        self.explicit = endpoints.to_vec();
        self.settle(now);
    }

    /// Takes what a router maps to this node, or that it does no more.
    pub fn handle_port_mapped(&mut self, mapped: Option<PortMapped>, now: Instant) {
        self.mapped = mapped;
        self.settle(now);
    }

    /// Takes what STUN servers saw.
    pub fn handle_report(&mut self, report: &Report, now: Instant) {
        self.measured = true;
        self.mapping_varies = report.mapping_varies.unwrap_or(self.mapping_varies);
        // Besides the one that most servers saw, a mapping that several saw is one that others may use.
        let often = report.seen_v4.iter().filter(|(_, count)| **count > 1).map(|(endpoint, _)| *endpoint);
        let seen_v4 = report.global_v4.into_iter().chain(often).map(SocketAddr::V4);
        self.seen_v4.see(seen_v4.collect(), now);
        self.seen_v6.see(report.global_v6.into_iter().map(SocketAddr::V6).collect(), now);
        self.settle(now);
    }

    /// This node has another address, or another way out: what servers and routers said holds no more.
    pub fn handle_network_change(&mut self, now: Instant) {
        (self.seen_v4, self.seen_v6) = (Seen::default(), Seen::default());
        (self.mapped, self.measured, self.mapping_varies) = (None, false, false);
        self.settle(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.settle(now);
    }

    /// When [`Self::handle_timeout`] is to be called; `None` while nothing changes.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ends = [self.mapped.map(|mapped| mapped.until), self.seen_v4.until, self.seen_v6.until];
        let told = self.unsettled.as_ref().map(|unsettled| self.told_at(unsettled));
        ends.into_iter().chain([told]).flatten().min()
    }

    /// The new list for the control server, once it has settled; differs from the last in more than order.
    pub fn poll_event(&mut self) -> Option<Vec<Endpoint>> {
        self.event.take()
    }

    /// The list as it is now, the most promising first: what peers are told.
    pub fn current(&self) -> Vec<Endpoint> {
        let seen = self.seen_v4.endpoints.iter().chain(&self.seen_v6.endpoints);
        let candidates = self
            .mapped
            .iter()
            .map(|mapped| (mapped.address, EndpointKind::PortMapped))
            .chain(seen.map(|address| (*address, EndpointKind::Stun)))
            .chain(self.guess().map(|address| (address, EndpointKind::StunLocalPort)))
            .chain(self.explicit.iter().map(|address| (*address, EndpointKind::Explicit)))
            .chain(self.local().into_iter().map(|address| (address, EndpointKind::Local)));
        let mut list: Vec<Endpoint> = Vec::new();
        for (address, kind) in candidates {
            let new = is_endpoint(&address) && list.iter().all(|known| known.address != address);
            if new && list.len() < MAX_ENDPOINTS {
                list.push(Endpoint { address, kind });
            }
        }
        list
    }

    /// The addresses of [`Self::current`].
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.current().into_iter().map(|endpoint| endpoint.address).collect()
    }

    /// Lets go of what has ended, and tells the list if it changed and has settled.
    fn settle(&mut self, now: Instant) {
        self.mapped = self.mapped.filter(|mapped| now < mapped.until);
        self.seen_v4.expire(now);
        self.seen_v6.expire(now);
        let list = self.current();
        if is_same(&list, &self.told) {
            self.unsettled = None;
            return;
        }
        let unsettled = self.unsettled.get_or_insert_with(|| Unsettled { first: now, last: now, list: list.clone() });
        if !is_same(&unsettled.list, &list) {
            (unsettled.last, unsettled.list) = (now, list.clone());
        }
        if self.unsettled.as_ref().is_some_and(|unsettled| self.told_at(unsettled) <= now) {
            self.unsettled = None;
            self.told.clone_from(&list);
            self.event = Some(list);
        }
    }

    fn told_at(&self, unsettled: &Unsettled) -> Instant {
        if self.measured {
            (unsettled.last + SETTLE).min(unsettled.first + MAX_SETTLE)
        } else {
            unsettled.first + FIRST_REPORT
        }
    }

    fn guess(&self) -> Option<SocketAddr> {
        let port = self.sockets.v4_port.filter(|_| self.sockets.port_is_fixed && self.mapping_varies)?;
        self.seen_v4.endpoints.first().map(|seen| SocketAddr::new(seen.ip(), port))
    }

    /// The interfaces' addresses; link-local and loopback ones only where there is nothing else.
    fn local(&self) -> Vec<SocketAddr> {
        let local: Vec<SocketAddr> = self.interfaces.iter().filter_map(|ip| self.listening_at(*ip)).collect();
        let ordinary = |address: &SocketAddr| !address.ip().is_loopback() && !is_link_local(address.ip());
        let link_local = |address: &SocketAddr| is_link_local(address.ip());
        let classes: [&dyn Fn(&SocketAddr) -> bool; 3] = [&ordinary, &link_local, &|_| true];
        let of_class = classes.map(|class| local.iter().copied().filter(class).collect::<Vec<_>>());
        of_class.into_iter().find(|addresses| !addresses.is_empty()).unwrap_or_default()
    }

    fn listening_at(&self, ip: IpAddr) -> Option<SocketAddr> {
        let port = if ip.is_ipv4() { self.sockets.v4_port } else { self.sockets.v6_port };
        let address = SocketAddr::new(ip, port?);
        (!is_mesh(ip) && is_endpoint(&address)).then_some(address)
    }
}

impl Seen {
    fn see(&mut self, endpoints: Vec<SocketAddr>, now: Instant) {
        if !endpoints.is_empty() {
            (self.endpoints, self.until) = (endpoints, None);
        } else if !self.endpoints.is_empty() {
            self.until.get_or_insert(now + STUN_KEPT);
        }
    }

    fn expire(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            *self = Self::default();
        }
    }
}

fn is_same(one: &[Endpoint], other: &[Endpoint]) -> bool {
    one.len() == other.len() && one.iter().all(|endpoint| other.contains(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::SocketAddrV4;

    fn report(seen: &[(&str, u32)], varies: Option<bool>, now: Instant) -> Report {
        let seen: Vec<(SocketAddrV4, u32)> =
            seen.iter().map(|(endpoint, count)| (endpoint.parse().unwrap(), *count)).collect();
        Report {
            at: now,
            full: true,
            udp: !seen.is_empty(),
            global_v4: seen.first().map(|(endpoint, _)| *endpoint),
            global_v6: None,
            mapping_varies: varies,
            seen_v4: seen.into_iter().collect(),
            latency: BTreeMap::new(),
            latency_v4: BTreeMap::new(),
            latency_v6: BTreeMap::new(),
            home: None,
        }
    }

    fn node(now: Instant) -> Endpoints {
        let mut endpoints = Endpoints::new();
        let sockets = Sockets { v4_port: Some(41641), v6_port: Some(41642), port_is_fixed: true };
        endpoints.handle_sockets(sockets, now);
        let interfaces = ["127.0.0.1", "192.168.50.10", "100.64.0.7", "fe80::1", "2001:db8::5", "169.254.3.3"];
        endpoints.handle_interfaces(&interfaces.map(|ip| ip.parse().unwrap()), now);
        endpoints
    }

    fn shown(list: &[Endpoint]) -> Vec<String> {
        list.iter().map(|endpoint| format!("{} {:?}", endpoint.address, endpoint.kind)).collect()
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_most_promising_endpoints_come_first() {
        let now = Instant::now();
        let mut endpoints = node(now);
        endpoints.handle_explicit(&["198.51.100.9:5".parse().unwrap()], now);
        let address = "203.0.113.20:7".parse().unwrap();
        endpoints.handle_port_mapped(Some(PortMapped { address, until: now + millis(1000) }), now);
        let seen = [("203.0.113.20:1000", 1), ("203.0.113.20:1001", 1), ("203.0.113.20:1002", 2)];
        endpoints.handle_report(&report(&seen, Some(true), now), now);
        assert_eq!(
            shown(&endpoints.current()),
            [
                "203.0.113.20:7 PortMapped",
                "203.0.113.20:1000 Stun",
                "203.0.113.20:1002 Stun",
                "203.0.113.20:41641 StunLocalPort",
                "198.51.100.9:5 Explicit",
                "192.168.50.10:41641 Local",
                "[2001:db8::5]:41642 Local",
            ]
        );
        let numbers = endpoints.current().iter().map(|endpoint| endpoint.kind.number()).collect::<Vec<_>>();
        assert_eq!(numbers, [3, 2, 2, 4, 5, 1, 1]);
    }

    #[test]
    fn the_port_is_guessed_only_if_it_is_fixed_and_the_nat_is_hard() {
        let now = Instant::now();
        for (fixed, varies, guessed) in [(true, true, true), (false, true, false), (true, false, false)] {
            let mut endpoints = node(now);
            let sockets = Sockets { v4_port: Some(41641), v6_port: None, port_is_fixed: fixed };
            endpoints.handle_sockets(sockets, now);
            endpoints.handle_report(&report(&[("203.0.113.20:1000", 1)], Some(varies), now), now);
            let kinds = endpoints.current();
            assert_eq!(kinds.iter().any(|endpoint| endpoint.kind == EndpointKind::StunLocalPort), guessed);
        }
    }

    #[test]
    fn loopback_is_told_only_by_a_node_that_has_nothing_else() {
        let now = Instant::now();
        let mut endpoints = node(now);
        endpoints.handle_interfaces(&["127.0.0.1".parse().unwrap(), "169.254.3.3".parse().unwrap()], now);
        assert_eq!(shown(&endpoints.current()), ["169.254.3.3:41641 Local"]);
        endpoints.handle_interfaces(&["127.0.0.1".parse().unwrap(), "fe80::1".parse().unwrap()], now);
        assert_eq!(shown(&endpoints.current()), ["127.0.0.1:41641 Local"]);
    }

    #[test]
    fn the_first_list_waits_for_the_first_report_and_is_told_once() {
        let start = Instant::now();
        let mut endpoints = node(start);
        endpoints.handle_timeout(start + millis(900));
        assert_eq!(endpoints.poll_event(), None);
        endpoints.handle_report(&report(&[("203.0.113.20:1000", 1)], None, start), start + millis(900));
        assert_eq!(endpoints.poll_timeout(), Some(start + millis(1000)));
        endpoints.handle_timeout(start + millis(1000));
        assert_eq!(endpoints.poll_event().unwrap().len(), 3);
        assert_eq!((endpoints.poll_event(), endpoints.poll_timeout()), (None, None));
    }

    #[test]
    fn without_a_report_the_first_list_is_told_after_five_seconds() {
        let start = Instant::now();
        let mut endpoints = node(start);
        assert_eq!(endpoints.poll_timeout(), Some(start + FIRST_REPORT));
        endpoints.handle_timeout(start + FIRST_REPORT);
        assert_eq!(endpoints.poll_event().unwrap().len(), 2);
    }

    #[test]
    fn a_change_that_is_taken_back_before_it_settled_is_not_told() {
        let start = Instant::now();
        let mut endpoints = node(start);
        let seen = report(&[("203.0.113.20:1000", 1)], None, start);
        endpoints.handle_report(&seen, start);
        endpoints.handle_timeout(start + SETTLE);
        assert!(endpoints.poll_event().is_some());
        let later = start + millis(5000);
        endpoints.handle_report(&report(&[("203.0.113.20:1001", 1)], None, later), later);
        assert_eq!(endpoints.poll_timeout(), Some(later + SETTLE));
        endpoints.handle_report(&seen, later + millis(100));
        assert_eq!((endpoints.poll_event(), endpoints.poll_timeout()), (None, None));
    }

    #[test]
    fn another_order_is_no_change() {
        let start = Instant::now();
        let mut endpoints = Endpoints::new();
        endpoints.handle_sockets(Sockets { v4_port: Some(1), v6_port: None, port_is_fixed: false }, start);
        let mut interfaces: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        endpoints.handle_interfaces(&interfaces, start);
        endpoints.handle_timeout(start + FIRST_REPORT);
        assert!(endpoints.poll_event().is_some());
        interfaces.reverse();
        endpoints.handle_interfaces(&interfaces, start + FIRST_REPORT);
        assert_eq!(endpoints.poll_timeout(), None);
    }

    #[test]
    fn changes_without_end_are_told_each_second() {
        let start = Instant::now();
        let mut endpoints = node(start);
        let mut told = 0;
        for tick in 0..40 {
            let now = start + millis(tick * 100);
            let endpoint = format!("203.0.113.20:{}", 1000 + tick);
            endpoints.handle_report(&report(&[(&endpoint, 1)], None, now), now);
            told += usize::from(endpoints.poll_event().is_some());
        }
        assert_eq!(told, 3);
    }

    #[test]
    fn what_servers_saw_is_told_for_a_minute_after_they_fell_silent() {
        let start = Instant::now();
        let mut endpoints = node(start);
        endpoints.handle_report(&report(&[("203.0.113.20:1000", 1)], None, start), start);
        endpoints.handle_timeout(start + SETTLE);
        for seconds in [10, 40] {
            let now = start + Duration::from_secs(seconds);
            endpoints.handle_report(&report(&[], None, now), now);
        }
        assert_eq!(endpoints.poll_timeout(), Some(start + Duration::from_secs(70)));
        assert_eq!(endpoints.current().len(), 3);
        endpoints.handle_timeout(start + Duration::from_secs(70));
        assert_eq!(endpoints.current().len(), 2);
    }

    #[test]
    fn a_port_mapping_ends_unless_it_is_renewed() {
        let start = Instant::now();
        let mut endpoints = node(start);
        let address = "203.0.113.20:7".parse().unwrap();
        let until = start + Duration::from_secs(7200);
        endpoints.handle_port_mapped(Some(PortMapped { address, until }), start);
        assert_eq!(endpoints.current()[0].kind, EndpointKind::PortMapped);
        endpoints.handle_timeout(until);
        assert!(endpoints.current().iter().all(|endpoint| endpoint.kind == EndpointKind::Local));
    }

    #[test]
    fn no_more_than_32_endpoints_are_told() {
        let now = Instant::now();
        let mut endpoints = node(now);
        let many: Vec<IpAddr> = (1..=200).map(|host| IpAddr::from([10, 0, 0, host])).collect();
        endpoints.handle_interfaces(&many, now);
        assert_eq!(endpoints.current().len(), MAX_ENDPOINTS);
    }
}
