//! Addresses of relays that the relay map only names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dial::Resolve;
use path::{Region, RegionId, RelayMap, RelayNode};
use tailcfg::{DerpAddress, DerpMap, DerpNode};
use tokio::sync::mpsc;

/// Names that are looked up at a time, and most of a map's names that are looked up at all.
const MOST_NAMES: usize = 256;
/// How long a name server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a name had no answer it is asked for again.
const RETRY: Duration = Duration::from_secs(10);

/// A name that was looked up.
#[derive(Debug)]
pub(super) struct Resolved {
    host: String,
    addresses: Vec<IpAddr>,
}

/// The relay map with the addresses of its names, as far as they are known.
pub(super) struct Names {
    resolver: Arc<dyn Resolve>,
    known: BTreeMap<String, Vec<IpAddr>>,
    asked: BTreeSet<String>,
    /// When names that had no answer are asked again.
    again: Option<Instant>,
    answers: mpsc::Sender<Resolved>,
}

impl Names {
    pub(super) fn new(resolver: Arc<dyn Resolve>) -> (Self, mpsc::Receiver<Resolved>) {
        let (answers, resolved) = mpsc::channel(MOST_NAMES);
        (Self { resolver, known: BTreeMap::new(), asked: BTreeSet::new(), again: None, answers }, resolved)
    }

    /// Looks up the names of a map; needs a runtime.
    pub(super) fn look_up(&mut self, map: &DerpMap) {
        self.again = None;
        let nodes = map.regions.iter().flat_map(|regions| regions.values()).flat_map(|region| &region.nodes);
        let unknown = |node: &&DerpNode| {
            let is_name = node.host_name.parse::<IpAddr>().is_err() && node.stun_test_ip.is_empty();
            is_name && (node.ipv4_address() == DerpAddress::Lookup || node.ipv6_address() == DerpAddress::Lookup)
        };
        let hosts: BTreeSet<String> =
            nodes.filter(unknown).map(|node| node.host_name.clone()).take(MOST_NAMES).collect();
        self.known.retain(|host, _| hosts.contains(host));
        for host in hosts {
            if self.known.contains_key(&host) || self.asked.len() >= MOST_NAMES || !self.asked.insert(host.clone()) {
                continue;
            }
            let (resolver, answers) = (self.resolver.clone(), self.answers.clone());
            tokio::spawn(async move {
                let looked_up = tokio::time::timeout(PATIENCE, resolver.resolve(&host)).await;
                let addresses = looked_up.map_or_else(|_| Vec::new(), Result::unwrap_or_default);
                // The engine may be gone by now.
                let _gone = answers.send(Resolved { host, addresses }).await;
            });
        }
    }

    /// Takes an answer; false when it is none, so that nothing has changed.
    pub(super) fn take(&mut self, Resolved { host, addresses }: Resolved, now: Instant) -> bool {
        self.asked.remove(&host);
        if addresses.is_empty() {
            self.again.get_or_insert(now + RETRY);
            return false;
        }
        self.known.insert(host, addresses);
        true
    }

    /// When names are to be looked up again.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.again
    }

    /// The network is another: names may mean others.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    /// The map as a measurement sees it.
    pub(super) fn relay_map(&self, map: &DerpMap) -> RelayMap {
        let scores = map.home_params.as_ref().map(|params| &params.region_score);
        let mut regions = BTreeMap::new();
        for (number, region) in map.regions.iter().flatten() {
            let Some(id) = RegionId::new(number.0) else { continue };
            let score = scores.and_then(|scores| scores.get(number)).copied().unwrap_or(1.0);
            let nodes = region.nodes.iter().map(|node| self.relay_node(node)).collect();
            let (avoid, no_measure_no_home) = (region.avoid, region.no_measure_no_home);
            regions.insert(id, Region { score, avoid, no_measure_no_home, nodes });
        }
        RelayMap { regions }
    }

    fn relay_node(&self, node: &DerpNode) -> RelayNode {
        let literal = node.host_name.parse::<IpAddr>().ok();
        let test = node.stun_test_ip.parse::<IpAddr>().ok();
        let known = self.known.get(&node.host_name).into_iter().flatten().copied().chain(literal);
        let (mut v4, mut v6): (Option<Ipv4Addr>, Option<Ipv6Addr>) = (None, None);
        for address in test.into_iter().chain(known) {
            match address {
                IpAddr::V4(address) => v4 = v4.or(Some(address)),
                IpAddr::V6(address) => v6 = v6.or(Some(address)),
            }
        }
        if test.is_none() {
            v4 = chosen(node.ipv4_address(), v4);
            v6 = chosen(node.ipv6_address(), v6);
        }
        RelayNode { ipv4: v4, ipv6: v6, stun_port: node.stun(), stun_only: node.stun_only }
    }
}

fn chosen<A>(said: DerpAddress<A>, found: Option<A>) -> Option<A> {
    match said {
        DerpAddress::At(address) => Some(address),
        DerpAddress::Lookup => found,
        DerpAddress::Unused => None,
    }
}
