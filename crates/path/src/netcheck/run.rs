use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use crypto::Entropy;
use packet::stun::{self, TransactionId};

use super::plan::Planned;
use super::{Probe, Report};
use crate::RegionId;

/// How long STUN servers have to answer, and the whole measurement may take.
const STUN_PHASE: Duration = Duration::from_secs(3);
const WHOLE: Duration = Duration::from_secs(5);
/// Answers from so many regions are enough …
const ENOUGH_REGIONS: usize = 3;
/// … and from so many servers, to tell whether the NAT gives each its own mapping.
const ENOUGH_SERVERS: usize = 2;
/// Once that is there, late answers are waited for as long as the slowest so far took, within these bounds.
const MIN_GRACE: Duration = Duration::from_millis(20);
const MAX_GRACE: Duration = Duration::from_millis(150);

/// One measurement while it goes on.
#[derive(Debug)]
pub(super) struct Run {
    full: bool,
    started: Instant,
    plan: VecDeque<Planned>,
    home: Option<RegionId>,
    regions: BTreeSet<RegionId>,
    /// What each region may still answer: (region, over IPv6).
    open: BTreeSet<(RegionId, bool)>,
    servers_v4: BTreeSet<SocketAddr>,
    sent: BTreeMap<TransactionId, Sent>,
    answers: Vec<Answered>,
    enough_since: Option<Instant>,
    https: Https,
}

#[derive(Debug)]
struct Sent {
    region: RegionId,
    server: SocketAddr,
    at: Instant,
}

#[derive(Debug)]
struct Answered {
    region: RegionId,
    server: SocketAddr,
    mapped: SocketAddr,
    latency: Duration,
}

#[derive(Debug, Default)]
struct Https {
    wanted: bool,
    open: BTreeSet<RegionId>,
    latency: BTreeMap<RegionId, Duration>,
}

impl Run {
    pub(super) fn new(plan: Vec<Planned>, full: bool, home: Option<RegionId>, now: Instant) -> Self {
        let regions: BTreeSet<RegionId> = plan.iter().map(|planned| planned.region).collect();
        Self {
            full,
            started: now,
            home: home.filter(|home| regions.contains(home)),
            regions,
            open: plan.iter().map(|planned| (planned.region, planned.server.is_ipv6())).collect(),
            servers_v4: plan.iter().map(|planned| planned.server).filter(SocketAddr::is_ipv4).collect(),
            plan: plan.into(),
            sent: BTreeMap::new(),
            answers: Vec::new(),
            enough_since: None,
            https: Https::default(),
        }
    }

    /// The requests that are due.
    pub(super) fn probes(&mut self, now: Instant, entropy: &mut dyn Entropy) -> Vec<Probe> {
        let mut probes = Vec::new();
        while let Some(planned) = self.plan.pop_front_if(|planned| self.started + planned.after <= now) {
            if !self.is_needed(&planned) {
                continue;
            }
            let transaction = TransactionId::generate(entropy);
            self.sent.insert(transaction, Sent { region: planned.region, server: planned.server, at: now });
            probes.push(Probe { to: planned.server, payload: stun::request(transaction) });
        }
        probes
    }

    /// Takes an answer; false when it answers no request of this run.
    pub(super) fn answer(&mut self, transaction: TransactionId, mapped: SocketAddr, now: Instant) -> bool {
        let Some(Sent { region, server, at }) = self.sent.remove(&transaction) else { return false };
        let latency = now.saturating_duration_since(at);
        self.answers.push(Answered { region, server, mapped, latency });
        self.open.remove(&(region, server.is_ipv6()));
        if self.enough_since.is_none() && self.is_enough() {
            self.enough_since = Some(now);
        }
        true
    }

    pub(super) fn answer_https(&mut self, region: RegionId, latency: Option<Duration>) {
        if self.https.open.remove(&region) {
            self.https.latency.extend(latency.map(|latency| (region, latency)));
        }
    }

    /// The regions to time by HTTPS, told once: when the time for STUN is over and nothing was answered.
    pub(super) fn https_wanted(
        &mut self,
        now: Instant,
        regions: impl FnOnce() -> Vec<RegionId>,
    ) -> Option<Vec<RegionId>> {
        if self.https.wanted || now < self.stun_end() || !self.answers.is_empty() {
            return None;
        }
        let regions = regions();
        self.https.wanted = true;
        self.https.open.extend(&regions);
        Some(regions).filter(|regions| !regions.is_empty())
    }

    pub(super) fn is_done(&self, now: Instant) -> bool {
        if self.https.wanted {
            return self.https.open.is_empty() || self.started + WHOLE <= now;
        }
        self.stun_end() <= now
    }

    /// When something is to be done.
    pub(super) fn deadline(&self) -> Instant {
        if self.https.wanted {
            return self.started + WHOLE;
        }
        let next = self.plan.front().map(|planned| self.started + planned.after);
        next.map_or(self.stun_end(), |next| next.min(self.stun_end()))
    }

    pub(super) fn report(&self, now: Instant) -> Report {
        let seen = self.seen_v4();
        let most = seen.iter().map(|(_, count)| *count).max();
        let latency_v4 = self.latencies(SocketAddr::is_ipv4);
        let latency_v6 = self.latencies(SocketAddr::is_ipv6);
        let mut latency = self.latencies(|_| true);
        latency.extend(&self.https.latency);
        Report {
            at: now,
            full: self.full,
            udp: !self.answers.is_empty(),
            global_v4: seen.iter().find(|(_, count)| Some(*count) == most).map(|(mapped, _)| *mapped),
            global_v6: self.seen_v6(),
            mapping_varies: self.mapping_varies(),
            seen_v4: seen.into_iter().collect(),
            latency,
            latency_v4,
            latency_v6,
            home: None,
        }
    }

    /// Whether a planned request would tell anything new: of a region that has not answered, or of the NAT.
    fn is_needed(&self, planned: &Planned) -> bool {
        let server_answered = self.answers.iter().any(|answer| answer.server == planned.server);
        let region_open = self.open.contains(&(planned.region, planned.server.is_ipv6()));
        !server_answered && (region_open || (planned.server.is_ipv4() && self.answered_v4() < ENOUGH_SERVERS))
    }

    fn is_enough(&self) -> bool {
        let regions: BTreeSet<RegionId> = self.answers.iter().map(|answer| answer.region).collect();
        regions.len() >= self.regions.len().min(ENOUGH_REGIONS)
            && self.home.is_none_or(|home| regions.contains(&home))
            && self.answered_v4() >= self.servers_v4.len().min(ENOUGH_SERVERS)
    }

    fn stun_end(&self) -> Instant {
        let latest = self.started + STUN_PHASE;
        if self.regions.is_empty() {
            return self.started;
        }
        let Some(since) = self.enough_since else { return latest };
        if self.open.is_empty() {
            return since;
        }
        let slowest = self.answers.iter().map(|answer| answer.latency).max().unwrap_or_default();
        latest.min(since + slowest.clamp(MIN_GRACE, MAX_GRACE))
    }

    fn answered_v4(&self) -> usize {
        self.answered_by_server_v4().len()
    }

    fn answered_by_server_v4(&self) -> BTreeMap<SocketAddr, SocketAddr> {
        let over_v4 = self.answers.iter().filter(|answer| answer.server.is_ipv4());
        over_v4.map(|answer| (answer.server, answer.mapped)).collect()
    }

    fn mapping_varies(&self) -> Option<bool> {
        let by_server = self.answered_by_server_v4();
        let mappings: BTreeSet<&SocketAddr> = by_server.values().collect();
        (by_server.len() >= 2).then_some(mappings.len() > 1)
    }

    /// The IPv4 endpoints that were seen, the earliest first, and how many answers told each.
    fn seen_v4(&self) -> Vec<(SocketAddrV4, u32)> {
        let mut seen: Vec<(SocketAddrV4, u32)> = Vec::new();
        for answer in &self.answers {
            let SocketAddr::V4(mapped) = answer.mapped else { continue };
            match seen.iter_mut().find(|(known, _)| *known == mapped) {
                Some((_, count)) => *count += 1,
                None => seen.push((mapped, 1)),
            }
        }
        seen
    }

    fn seen_v6(&self) -> Option<SocketAddrV6> {
        self.answers.iter().find_map(|answer| match answer.mapped {
            SocketAddr::V6(mapped) => Some(mapped),
            SocketAddr::V4(_) => None,
        })
    }

    fn latencies(&self, among: impl Fn(&SocketAddr) -> bool) -> BTreeMap<RegionId, Duration> {
        let mut latencies: BTreeMap<RegionId, Duration> = BTreeMap::new();
        for answer in self.answers.iter().filter(|answer| among(&answer.server)) {
            let latency = latencies.entry(answer.region).or_insert(answer.latency);
            *latency = answer.latency.min(*latency);
        }
        latencies
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::plan;
    use super::*;
    use crate::{Families, Region, RelayMap, RelayNode};
    use crypto::SystemEntropy;
    use std::net::Ipv4Addr;

    pub(crate) fn region(number: u16) -> RegionId {
        RegionId::new(number).unwrap()
    }

    /// A map of regions by number, each with some servers: server S of region R is 203.0.R.S.
    pub(crate) fn map(regions: &[(u8, u8)]) -> RelayMap {
        let node = |number: u8, server: u8| RelayNode {
            ipv4: Some(Ipv4Addr::new(203, 0, number, server)),
            ipv6: Some(format!("2001:db8:{number}::{server}").parse().unwrap()),
            stun_port: Some(3478),
            stun_only: false,
        };
        let found = |number, count: u8| Region {
            score: 1.0,
            avoid: false,
            no_measure_no_home: false,
            nodes: (1..=count).map(|server| node(number, server)).collect(),
        };
        let regions = regions.iter().map(|(number, count)| (region((*number).into()), found(*number, *count)));
        RelayMap { regions: regions.collect() }
    }

    const V4: Families = Families { v4: true, v6: false };

    fn transaction(probe: &Probe) -> TransactionId {
        stun::parse_request(&probe.payload).unwrap()
    }

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn three_regions_are_enough_and_late_ones_get_a_short_grace() {
        let start = Instant::now();
        let plan = plan::full(&map(&[(1, 1), (2, 1), (3, 1), (4, 1)]), V4, None);
        let mut run = Run::new(plan, true, None, start);
        let probes = run.probes(start, &mut SystemEntropy);
        assert_eq!(probes.len(), 4);
        let mapped = "198.51.100.1:1".parse().unwrap();
        for (index, probe) in probes[..3].iter().enumerate() {
            assert!(!run.is_done(start + millis(40)));
            assert!(run.answer(transaction(probe), mapped, start + millis(10 * (index as u64 + 1))));
        }
        assert_eq!(run.deadline(), start + millis(60));
        assert!(run.is_done(start + millis(60)));
        let report = run.report(start + millis(60));
        assert_eq!(report.latency.values().map(Duration::as_millis).collect::<Vec<_>>(), [10, 20, 30]);
        assert_eq!((report.udp, report.mapping_varies), (true, Some(false)));
        assert_eq!(report.global_v4.map(SocketAddr::V4), Some(mapped));
    }

    #[test]
    fn the_home_is_waited_for_however_many_others_answered() {
        let start = Instant::now();
        let plan = plan::full(&map(&[(1, 1), (2, 1), (3, 1), (4, 1)]), V4, None);
        let mut run = Run::new(plan, true, Some(region(4)), start);
        let probes = run.probes(start, &mut SystemEntropy);
        for probe in &probes[..3] {
            run.answer(transaction(probe), "198.51.100.1:1".parse().unwrap(), start + millis(10));
        }
        assert!(!run.is_done(start + millis(500)));
        run.answer(transaction(&probes[3]), "198.51.100.1:1".parse().unwrap(), start + millis(500));
        assert!(run.is_done(start + millis(500)));
    }

    #[test]
    fn a_region_that_answered_is_asked_again_only_to_learn_of_the_nat() {
        let start = Instant::now();
        let mut run = Run::new(plan::full(&map(&[(1, 2)]), V4, None), true, None, start);
        let first = run.probes(start, &mut SystemEntropy);
        run.answer(transaction(&first[0]), "198.51.100.1:1".parse().unwrap(), start + millis(10));
        let second = run.probes(start + millis(100), &mut SystemEntropy);
        assert_eq!(second[0].to.to_string(), "203.0.1.2:3478");
        run.answer(transaction(&second[0]), "198.51.100.1:2".parse().unwrap(), start + millis(110));
        assert!(run.probes(start + millis(200), &mut SystemEntropy).is_empty());
        assert!(run.is_done(start + millis(200)));
        let report = run.report(start + millis(200));
        assert_eq!(report.mapping_varies, Some(true));
        assert_eq!(report.global_v4.unwrap().port(), 1);
        assert_eq!(report.seen_v4.len(), 2);
    }

    #[test]
    fn one_answer_says_nothing_of_the_nat() {
        let start = Instant::now();
        let mut run = Run::new(plan::full(&map(&[(1, 1)]), V4, None), true, None, start);
        let probe = run.probes(start, &mut SystemEntropy)[0];
        assert!(run.answer(transaction(&probe), "198.51.100.1:1".parse().unwrap(), start + millis(10)));
        assert!(!run.answer(transaction(&probe), "198.51.100.1:1".parse().unwrap(), start + millis(11)));
        assert!(run.is_done(start + millis(10)));
        assert_eq!(run.report(start).mapping_varies, None);
    }

    #[test]
    fn where_no_server_answers_https_is_asked_for_once() {
        let start = Instant::now();
        let mut run = Run::new(plan::full(&map(&[(1, 1), (2, 1)]), V4, None), true, None, start);
        let wanted = || vec![region(1), region(2)];
        run.probes(start, &mut SystemEntropy);
        assert_eq!(run.https_wanted(start + millis(2999), wanted), None);
        assert_eq!(run.https_wanted(start + STUN_PHASE, wanted), Some(wanted()));
        assert_eq!(run.https_wanted(start + STUN_PHASE, wanted), None);
        run.answer_https(region(1), Some(millis(30)));
        assert!(!run.is_done(start + STUN_PHASE));
        run.answer_https(region(2), None);
        assert!(run.is_done(start + STUN_PHASE));
        let report = run.report(start + STUN_PHASE);
        assert_eq!((report.udp, report.latency), (false, BTreeMap::from([(region(1), millis(30))])));
    }
}
