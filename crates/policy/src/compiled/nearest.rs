//! Rules that don't allow what is asked for, and what each lacks: the answer to why not.

use std::collections::HashMap;
use std::net::IpAddr;

use roaring::RoaringBitmap;

use super::aliases::Meaning;
use super::decide::{Known, port_lacks, same_user};
use super::{Compiled, Lack, NearMiss, Party, Query, has_posture};
use crate::policy::{Effect, Rule};
use crate::{Alias, Autogroup, NodeId, internet};

/// How many near misses a decision names.
pub(crate) const NEAREST: usize = 5;

/// What was found of the lists that rules share, for one pair of parties.
#[derive(Default)]
struct Looked {
    sources: HashMap<(u32, Option<IpAddr>), bool>,
    destinations: HashMap<(Option<u32>, Option<IpAddr>), Option<Lack>>,
}

impl Compiled {
    /// The rules that come nearest to letting a packet through that none lets through.
    pub(crate) fn nearest_ports(&self, query: &Query) -> Vec<NearMiss> {
        let (source, destination) = (self.known(&query.source), self.known(&query.destination));
        let (mut misses, mut looked) = (Nearest::default(), Looked::default());
        for (at, rule) in self.policy.rules().iter().enumerate() {
            let Effect::Ports(ports) = &rule.effect else { continue };
            let mut lacks = self.address_lacks((at, rule), &source, &destination, &mut looked);
            lacks.extend(port_lacks(ports, query.protocol, query.port));
            misses.add(at, lacks);
        }
        misses.take()
    }

    /// The rules that come nearest to giving a capability that [`Compiled::decide_capabilities`] doesn't have.
    pub fn nearest_capability(&self, source: &Party, destination: &Party, name: &str) -> Vec<NearMiss> {
        let (source, destination) = (self.known(source), self.known(destination));
        let (mut misses, mut looked) = (Nearest::default(), Looked::default());
        for (at, rule) in self.policy.rules().iter().enumerate() {
            let Effect::Capabilities(capabilities) = &rule.effect else { continue };
            let mut lacks = self.address_lacks((at, rule), &source, &destination, &mut looked);
            if !rule.via.is_empty() && !lacks.contains(&Lack::Via) {
                lacks.push(Lack::Via);
            }
            if !capabilities.has(name) {
                lacks.push(Lack::Capability);
            }
            misses.add(at, lacks);
        }
        misses.take()
    }

    /// The rules that come nearest to letting two parties know each other; those that do so from the other to the one are
    /// marked.
    pub(crate) fn nearest_reach(&self, one: &Party, other: &Party) -> Vec<(NearMiss, bool)> {
        let (one, other) = (self.known(one), self.known(other));
        let (mut turned, mut looked_back) = (RoaringBitmap::new(), Looked::default());
        let (mut misses, mut looked) = (Nearest::default(), Looked::default());
        for (at, rule) in self.policy.rules().iter().enumerate() {
            let there = self.address_lacks((at, rule), &one, &other, &mut looked);
            let back = self.address_lacks((at, rule), &other, &one, &mut looked_back);
            if nearness(&back) < nearness(&there) {
                turned.insert(at as u32);
                misses.add(at, back);
            } else {
                misses.add(at, there);
            }
        }
        let marked = |miss: NearMiss| {
            let is_turned = turned.contains(miss.rule as u32);
            (miss, is_turned)
        };
        misses.take().into_iter().map(marked).collect()
    }

    /// How much there is to look at to find what comes near: each list of sources or destinations once, and each rule.
    pub(crate) fn looks_for_nearest(&self) -> usize {
        let sources: usize = self.sources.iter().map(|set| set.aliases.len()).sum();
        let destinations: usize = self.destinations.iter().map(|set| set.aliases.len()).sum();
        self.rules.len() + sources + destinations
    }

    /// What of a rule's addresses doesn't match, by the pair of addresses that comes nearest.
    fn address_lacks(
        &self,
        (at, rule): (usize, &Rule),
        source: &Known,
        destination: &Known,
        looked: &mut Looked,
    ) -> Vec<Lack> {
        let pairs = source.addresses.iter().flat_map(|from| destination.addresses.iter().map(move |to| (*from, *to)));
        let of_one_family = pairs.filter(|(from, to)| match (from, to) {
            (Some(from), Some(to)) => from.is_ipv4() == to.is_ipv4(),
            _ => true,
        });
        let lacks =
            of_one_family.map(|(from, to)| self.pair_lacks((at, rule), (source, from), (destination, to), looked));
        lacks.min_by_key(|lacks| nearness(lacks)).unwrap_or_else(|| vec![Lack::Destination, Lack::Source])
    }

    fn pair_lacks(
        &self,
        (at, rule): (usize, &Rule),
        (source, from): (&Known, Option<IpAddr>),
        (destination, to): (&Known, Option<IpAddr>),
        looked: &mut Looked,
    ) -> Vec<Lack> {
        let sets = &self.rules[at];
        let mut lacks = Vec::new();
        let is_source =
            || rule.sources.iter().any(|alias| self.is_source(alias, source, from, !rule.postures.is_empty()));
        if !*looked.sources.entry((sets.source, from)).or_insert_with(is_source) {
            lacks.push(Lack::Source);
        }
        if !self.has_posture(rule, source) {
            lacks.push(Lack::Posture);
        }
        if rule.is_own_devices() {
            if !same_user(source, destination) {
                lacks.push(Lack::Destination);
            }
        } else {
            let lack = || match rule.via.is_empty() {
                true if rule.destinations.iter().any(|alias| self.is_destination(alias, destination, to)) => None,
                true => Some(Lack::Destination),
                false => self.via_lack(at, rule, destination, to),
            };
            lacks.extend(*looked.destinations.entry((sets.destination, to)).or_insert_with(lack));
        }
        lacks
    }

    fn is_source(&self, alias: &Alias, party: &Known, address: Option<IpAddr>, by_device: bool) -> bool {
        let Some(id) = self.aliases.id(alias) else { return false };
        let entry = self.aliases.entry(id);
        match (&entry.meaning, &party.node) {
            (Meaning::Everything, None) => !by_device,
            (Meaning::Everyone, None) => !by_device && address.is_some_and(|address| self.is_in_star(address)),
            (Meaning::Everyone | Meaning::Everything, Some(_)) => true,
            (Meaning::Nodes, Some(_)) => match party.slot {
                Some(slot) => entry.named.contains(slot),
                None => self.means(alias, party),
            },
            (Meaning::Ranges { ranges, .. }, node) if node.is_some() || !by_device => {
                address.is_some_and(|address| ranges.iter().any(|(range, _)| range.contains(address)))
            }
            _ => false,
        }
    }

    fn is_destination(&self, alias: &Alias, party: &Known, address: Option<IpAddr>) -> bool {
        let Some(id) = self.aliases.id(alias) else { return false };
        let entry = self.aliases.entry(id);
        match (&entry.meaning, &party.node) {
            (Meaning::Everyone, _) => true,
            (Meaning::Nodes, Some(_)) => match party.slot {
                Some(slot) => entry.named.contains(slot),
                None => self.means(alias, party),
            },
            (Meaning::Internet, _) => {
                address.is_some_and(|address| internet::ranges().iter().any(|range| range.contains(address)))
            }
            (Meaning::Ranges { ranges, .. }, _) => {
                address.is_some_and(|address| ranges.iter().any(|(range, _)| range.contains(address)))
            }
            (Meaning::Service(ranges), _) => {
                address.is_some_and(|address| ranges.iter().any(|range| range.contains(address)))
            }
            _ => false,
        }
    }

    fn has_posture(&self, rule: &Rule, source: &Known) -> bool {
        rule.postures.is_empty()
            || source.node.as_ref().is_some_and(|node| has_posture(&self.policy, &rule.postures, node))
    }

    /// What a rule with `via` lacks: a router of its own that leads to the address.
    pub(super) fn via_lack(&self, at: usize, rule: &Rule, destination: &Known, to: Option<IpAddr>) -> Option<Lack> {
        // No router leads to a user's own devices.
        if rule.destinations == [Alias::Auto(Autogroup::OwnDevices)] {
            return Some(Lack::Via);
        }
        if !rule.destinations.iter().any(|alias| self.is_destination(alias, destination, to)) {
            return Some(Lack::Destination);
        }
        let receivers = &self.destinations[self.rules[at].destination? as usize].receivers;
        let leads = |slot: u32| {
            let router = self.slots[slot as usize];
            router.zip(to).is_some_and(|(router, to)| self.is_let_through(rule, router, to))
        };
        (!receivers.iter().any(leads)).then_some(Lack::Via)
    }

    /// Whether a router that a rule names in its `via` lets packets to an address through: those that the rule's
    /// destinations mean *there*. `*` is what lies behind it, and nothing where only the internet does; a range counts
    /// where one of its routes overlaps it.
    fn is_let_through(&self, rule: &Rule, id: NodeId, to: IpAddr) -> bool {
        let Some(router) = self.topology.nodes.get(&id) else { return false };
        let is_public = internet::contains(&filter::AddressRange::single(to));
        let answers = router.addresses.contains(&to)
            || router.subnets().any(|subnet| subnet.contains(&to))
            || (router.is_exit() && is_public)
            || self.topology.services.values().any(|known| known.hosts.contains(&id) && known.addresses.contains(&to));
        let overlaps = |range: &filter::AddressRange| {
            router.subnets().any(|subnet| filter::AddressRange::prefix(subnet).overlaps(range))
        };
        let means = |alias: &Alias| match self.aliases.id(alias).map(|id| &self.aliases.entry(id).meaning) {
            Some(Meaning::Everyone) => router.subnets().next().is_some(),
            Some(Meaning::Internet) => router.is_exit() && is_public,
            Some(Meaning::Ranges { ranges, .. }) => {
                ranges.iter().any(|(range, _)| range.contains(to)) && ranges.iter().any(|(range, _)| overlaps(range))
            }
            _ => false,
        };
        answers && rule.destinations.iter().any(means)
    }
}

/// Fewer lacks are nearer, and then cheaper ones.
fn nearness(lacks: &[Lack]) -> (usize, Option<Lack>) {
    (lacks.len(), lacks.iter().max().copied())
}

/// The nearest of many misses, without all the others.
#[derive(Default)]
struct Nearest(Vec<NearMiss>);

impl Nearest {
    fn add(&mut self, rule: usize, mut lacks: Vec<Lack>) {
        lacks.sort();
        if !lacks.is_empty() {
            self.0.push(NearMiss { rule, lacks });
        }
        if self.0.len() > 64 * NEAREST {
            keep_nearest(&mut self.0);
        }
    }

    fn take(mut self) -> Vec<NearMiss> {
        keep_nearest(&mut self.0);
        self.0
    }
}

pub(super) fn keep_nearest(misses: &mut Vec<NearMiss>) {
    misses.sort_by_key(|miss| nearness(&miss.lacks));
    misses.truncate(NEAREST);
}
