//! Measurements as the owner of the socket sees them, with servers that answer after a given time.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crypto::SystemEntropy;
use packet::stun;
use path::netcheck::Event;
use path::{Families, NatKind, Netcheck, Region, RegionId, RelayMap, RelayNode, RelayState, Report};

fn region(number: u8) -> RegionId {
    RegionId::new(number.into()).unwrap()
}

/// A node, and STUN servers of which number N is at 203.0.113.N and answers after some milliseconds, or never.
struct Bench {
    netcheck: Netcheck,
    now: Instant,
    start: Instant,
    latency: BTreeMap<u8, u64>,
    /// What each server sees; by default one endpoint for all.
    mapped: BTreeMap<u8, SocketAddr>,
    answers: BTreeMap<(Instant, usize), Vec<u8>>,
    asked: Vec<(Instant, u8)>,
    reports: Vec<(Instant, Report)>,
    homes: Vec<RegionId>,
    https: Vec<Vec<RegionId>>,
}

impl Bench {
    fn new(latency: &[(u8, u64)]) -> Self {
        let now = Instant::now();
        let mut bench = Self {
            netcheck: Netcheck::new(),
            now,
            start: now,
            latency: latency.iter().copied().collect(),
            mapped: BTreeMap::new(),
            answers: BTreeMap::new(),
            asked: Vec::new(),
            reports: Vec::new(),
            homes: Vec::new(),
            https: Vec::new(),
        };
        bench.netcheck.handle_families(Families { v4: true, v6: false }, now, &mut SystemEntropy);
        bench.netcheck.handle_control(true);
        bench
    }

    fn with_map(latency: &[(u8, u64)]) -> Self {
        let mut bench = Self::new(latency);
        bench.netcheck.handle_relay_map(bench.map(), bench.now, &mut SystemEntropy);
        bench.drain();
        bench
    }

    fn map(&self) -> RelayMap {
        let node = |number| RelayNode {
            ipv4: Some(Ipv4Addr::new(203, 0, 113, number)),
            ipv6: None,
            stun_port: Some(3478),
            stun_only: false,
        };
        let found = |number| Region { score: 1.0, avoid: false, no_measure_no_home: false, nodes: vec![node(number)] };
        RelayMap { regions: self.latency.keys().map(|number| (region(*number), found(*number))).collect() }
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let answer = self.answers.first_key_value().map(|((at, _), _)| *at);
            let next = [answer, self.netcheck.poll_timeout()].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if answer == Some(next) {
                let (_, datagram) = self.answers.pop_first().unwrap();
                self.netcheck.handle_stun(&datagram, self.now, &mut SystemEntropy).unwrap();
            } else {
                self.netcheck.handle_timeout(self.now, &mut SystemEntropy);
            }
            self.drain();
        }
        self.now = end;
    }

    /// Passes time with traffic going on.
    fn pass_busy(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.netcheck.handle_activity(self.now, &mut SystemEntropy);
            self.pass(Duration::from_secs(1));
        }
    }

    fn drain(&mut self) {
        while let Some(probe) = self.netcheck.poll_transmit() {
            let IpAddr::V4(server) = probe.to.ip() else { panic!("IPv6 can't be sent") };
            let number = server.octets()[3];
            self.asked.push((self.now, number));
            let transaction = stun::parse_request(&probe.payload).unwrap();
            let same = SocketAddr::from(([198, 51, 100, 1], 1000));
            let seen = self.mapped.get(&number).copied().unwrap_or(same);
            if let Some(latency) = self.latency.get(&number).filter(|latency| **latency > 0) {
                let at = self.now + Duration::from_millis(*latency);
                self.answers.insert((at, self.asked.len()), stun::response(transaction, seen));
            }
        }
        while let Some(event) = self.netcheck.poll_event() {
            match event {
                Event::Report(report) => self.reports.push((self.now, report)),
                Event::HomeChanged(home) => self.homes.push(home),
                Event::HttpsWanted(regions) => self.https.push(regions),
            }
        }
    }

    fn asked_since(&self, since: Instant) -> BTreeMap<u8, usize> {
        let mut counts = BTreeMap::new();
        for (_, number) in self.asked.iter().filter(|(at, _)| *at >= since) {
            *counts.entry(*number).or_default() += 1;
        }
        counts
    }
}

#[test]
fn the_first_map_is_measured_at_once_and_the_nearest_region_becomes_home() {
    let mut bench = Bench::with_map(&[(1, 80), (2, 20), (3, 50), (4, 300)]);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.homes, [region(2)]);
    let (at, report) = &bench.reports[0];
    assert_eq!(bench.reports.len(), 1);
    assert!(*at <= bench.start + Duration::from_millis(200), "three answers are enough");
    assert_eq!((report.full, report.udp, report.home), (true, true, Some(region(2))));
    assert_eq!(report.nat(&[]), NatKind::Easy);
    assert_eq!(bench.netcheck.poll_timeout(), None, "an idle node measures no more");
}

#[test]
fn a_busy_node_measures_every_20_to_26_seconds_and_everything_after_five_minutes() {
    let mut bench = Bench::with_map(&[(1, 80), (2, 20), (3, 50), (4, 300), (5, 400), (6, 500)]);
    bench.pass_busy(400);
    let gaps: Vec<Duration> = bench.reports.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let regular = Duration::from_secs(20)..Duration::from_millis(26_700);
    assert!(gaps.len() >= 14 && gaps.iter().all(|gap| regular.contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap != gaps[0]), "chance spreads them");
    let full: Vec<usize> =
        bench.reports.iter().enumerate().filter(|(_, (_, report))| report.full).map(|(index, _)| index).collect();
    assert_eq!(full.len(), 2);
    assert!(bench.reports[full[1]].0 >= bench.start + Duration::from_secs(300));
    let (before_last, last) = (bench.reports[full[1] - 2].0, bench.reports[full[1] - 1].0);
    let between = |(at, _): &&(Instant, u8)| *at > before_last && *at <= last;
    let asked: Vec<u8> = bench.asked.iter().filter(between).map(|(_, number)| *number).collect();
    assert!(asked.iter().all(|number| [1, 2, 3].contains(number)), "only the nearest: {asked:?}");
}

#[test]
fn measuring_ends_45_seconds_after_the_last_packet() {
    let mut bench = Bench::with_map(&[(1, 80), (2, 20)]);
    bench.pass_busy(60);
    let quiet = bench.now;
    bench.pass(Duration::from_secs(200));
    let last = bench.reports.last().unwrap().0;
    assert!(last <= quiet + Duration::from_secs(45) && bench.asked_since(quiet + Duration::from_secs(45)).is_empty());
    assert_eq!(bench.netcheck.poll_timeout(), None);
    bench.netcheck.handle_wanted(bench.now, &mut SystemEntropy);
    bench.netcheck.handle_wanted(bench.now, &mut SystemEntropy);
    bench.drain();
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.reports.iter().filter(|(at, _)| *at > quiet + Duration::from_secs(45)).count(), 1);
}

#[test]
fn one_packet_keeps_the_mapping_alive_for_45_seconds() {
    let measured = |_| {
        let mut bench = Bench::with_map(&[(1, 80)]);
        bench.pass(Duration::from_secs(10));
        bench.netcheck.handle_activity(bench.now, &mut SystemEntropy);
        bench.pass(Duration::from_secs(100));
        bench.reports.len() - 1
    };
    let counts: Vec<usize> = (0..100).map(measured).collect();
    assert!(counts.iter().all(|count| [1, 2].contains(count)) && counts.contains(&2), "{counts:?}");
}

#[test]
fn another_network_is_measured_at_once_and_whole() {
    let mut bench = Bench::with_map(&[(1, 80), (2, 20), (3, 50)]);
    bench.pass(Duration::from_secs(10));
    bench.latency = BTreeMap::from([(1, 15), (2, 200), (3, 50)]);
    let moved = bench.now;
    bench.netcheck.handle_network_change(bench.now, &mut SystemEntropy);
    bench.drain();
    assert_eq!(bench.asked_since(moved).len(), 3);
    bench.pass(Duration::from_secs(5));
    assert!(bench.reports.last().unwrap().1.full);
    assert_eq!(bench.homes, [region(2), region(1)], "what was measured elsewhere does not count");
}

#[test]
fn a_home_that_goes_down_is_left_without_a_new_measurement() {
    let mut bench = Bench::with_map(&[(1, 80), (2, 20), (3, 50)]);
    bench.pass(Duration::from_secs(5));
    let lost = bench.now;
    bench.netcheck.handle_relay(region(2), RelayState::Down, bench.now, &mut SystemEntropy);
    bench.drain();
    assert_eq!(bench.homes, [region(2), region(3)]);
    assert!(bench.asked_since(lost).is_empty());
    bench.netcheck.handle_relay(region(1), RelayState::Down, bench.now, &mut SystemEntropy);
    bench.drain();
    assert_eq!(bench.homes.len(), 2, "a region that is not the home may go down");
}

#[test]
fn a_nat_with_a_mapping_for_each_server_is_hard() {
    let mut bench = Bench::new(&[(1, 80), (2, 20)]);
    bench.mapped = BTreeMap::from([(1, "198.51.100.1:2000".parse().unwrap())]);
    bench.netcheck.handle_relay_map(bench.map(), bench.now, &mut SystemEntropy);
    bench.drain();
    bench.pass(Duration::from_secs(5));
    let report = bench.netcheck.last_report().unwrap();
    assert_eq!(report.nat(&[]), NatKind::Hard);
    assert_eq!(report.global_v4.unwrap().to_string(), "198.51.100.1:1000", "the first that was seen");
}

#[test]
fn where_udp_is_blocked_regions_are_timed_by_https() {
    let mut bench = Bench::with_map(&[(1, 0), (2, 0), (3, 0)]);
    bench.pass(Duration::from_secs(3));
    assert_eq!(bench.https, [vec![region(1), region(2), region(3)]]);
    for (number, millis) in [(1, 300), (2, 900), (3, 200)] {
        let latency = Some(Duration::from_millis(millis));
        bench.netcheck.handle_https(region(number), latency, bench.now, &mut SystemEntropy);
    }
    bench.drain();
    let (at, report) = &bench.reports[0];
    assert_eq!((*at, report.udp, report.home), (bench.now, false, Some(region(3))));
    assert_eq!(report.nat(&[]), NatKind::Unknown);
}

#[test]
fn a_lost_answer_is_asked_for_again() {
    let mut bench = Bench::with_map(&[(1, 20), (2, 0)]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.asked_since(bench.start), BTreeMap::from([(1, 1), (2, 3)]));
    bench.pass(Duration::from_secs(3));
    let (at, report) = &bench.reports[0];
    assert_eq!((*at, report.latency.len()), (bench.start + Duration::from_secs(3), 1));
    assert!(bench.https.is_empty(), "UDP is not blocked");
}

#[test]
fn without_relays_nothing_is_measured() {
    let mut bench = Bench::new(&[]);
    bench.netcheck.handle_wanted(bench.now, &mut SystemEntropy);
    bench.pass_busy(60);
    assert!(bench.reports.is_empty() && bench.asked.is_empty());
}
