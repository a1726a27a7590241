use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use filter::{AddressRange, CapGrant, CapMap, DstPort, Rule};
use ipnet::IpNet;
use roaring::RoaringBitmap;

use super::Compiled;
use super::aliases::{AliasEntry, Meaning};
use crate::policy::Effect;
use crate::{Node, NodeId, Ports, internet};

/// Capabilities that also mean something in the other direction: the destination of the first has the second on the
/// source.
const COUNTERPARTS: [(&str, &str); 2] = [
    ("tailscale.com/cap/drive", "tailscale.com/cap/drive-sharer"),
    ("tailscale.com/cap/relay", "tailscale.com/cap/relay-target"),
];

/// The capabilities that destinations get on the sources of these.
pub(super) fn counterparts(capabilities: &CapMap) -> impl Iterator<Item = &'static str> {
    COUNTERPARTS.into_iter().filter(|(forward, _)| capabilities.has(forward)).map(|(_, reverse)| reverse)
}

/// Where a rule of a filter stands: by the rule of the policy that it came from first, then within that.
type Place = (u32, u32);

/// A filter while it is gathered.
#[derive(Default)]
struct Gathered {
    ports: BTreeMap<super::GroupKey, (Place, Rule)>,
    capabilities: Vec<(Place, Rule)>,
    /// What the receiver answers for of each destination set that was met: many rules share one.
    destinations: HashMap<u32, Arc<[String]>>,
    /// The devices of the receiver's user among each source set that was met, with the fingerprint of their texts.
    own: HashMap<u32, OwnSources>,
}

/// Devices of one user that are sources.
#[derive(Clone)]
struct OwnSources {
    slots: RoaringBitmap,
    texts: Arc<[String]>,
    fingerprint: u128,
}

/// A node and what destinations are compared with.
struct Receiver<'a> {
    slot: u32,
    node: &'a Node,
    own: Vec<AddressRange>,
    subnets: Vec<AddressRange>,
    exit: bool,
}

impl Compiled {
    /// The packet filter of a node, rule by rule as the hosted service writes it: grants before ACLs, rules with equal
    /// sources and protocol merged into the first of them, destinations cut down to what the node answers for.
    pub fn filter(&self, node: NodeId) -> Vec<Rule> {
        let Some(receiver) = self.receiver(node) else {
            return Vec::new();
        };
        let mut gathered = Gathered::default();
        for rule in self.rules_for(receiver.slot) {
            self.gather_rule(rule, &receiver, &mut gathered);
        }
        for rule in &self.own_rules {
            self.gather_own(rule, &receiver, &mut gathered);
        }
        for rule in self.reversed_rules_for(receiver.slot) {
            self.gather_reversed(rule, &receiver, &mut gathered);
        }
        let mut rules: Vec<(Place, Rule)> = gathered.ports.into_values().chain(gathered.capabilities).collect();
        rules.sort_by_key(|(place, _)| *place);
        rules.into_iter().map(|(_, rule)| rule).collect()
    }

    /// The rules whose destinations have the slot; not those about own devices.
    pub(super) fn rules_for(&self, slot: u32) -> RoaringBitmap {
        let Some(membership) = self.membership.get(slot as usize) else {
            return RoaringBitmap::new();
        };
        let mut rules = RoaringBitmap::new();
        let mut take = |entry: &AliasEntry| {
            for set in &entry.destination_sets {
                let set = &self.destinations[*set as usize];
                if set.receivers.contains(slot) {
                    rules.extend(set.rules.iter().copied());
                }
            }
        };
        membership.named.iter().chain(&membership.routed).for_each(|id| take(self.aliases.entry(*id)));
        if self.exit_nodes.contains(slot) {
            self.aliases.entries.iter().filter(|entry| entry.meaning.is_public()).for_each(take);
        }
        rules
    }

    /// Rules of capabilities with a counterpart, for which the slot is a source.
    fn reversed_rules_for(&self, slot: u32) -> RoaringBitmap {
        let mut rules = RoaringBitmap::new();
        for id in &self.membership[slot as usize].named {
            for set in &self.aliases.entry(*id).source_sets {
                let set = &self.sources[*set as usize];
                if set.covers.contains(slot) {
                    let reversed = set.rules.iter().filter(|rule| self.rules[**rule as usize].reverse.is_some());
                    rules.extend(reversed.copied());
                }
            }
        }
        rules
    }

    fn gather_rule(&self, at: u32, receiver: &Receiver<'_>, gathered: &mut Gathered) {
        let rule = &self.policy.rules()[at as usize];
        let compiled = &self.rules[at as usize];
        let Some(destination) = compiled.destination else { return };
        let aliases = self.destinations[destination as usize].aliases.iter().map(|id| self.aliases.entry(*id));
        let set = &self.sources[compiled.source as usize];
        match &rule.effect {
            Effect::Ports(ports) if !set.is_empty() => {
                let texts = gathered.destinations.entry(destination).or_insert_with(|| {
                    aliases.flat_map(|entry| receiver.destinations(entry, !rule.via.is_empty())).collect()
                });
                let texts = Arc::clone(texts);
                let sources = self.source_texts(compiled.source);
                for (ports, part) in ports.iter().zip(0..) {
                    let key = (set.fingerprint, ports.protocol);
                    let place = self.place(&key, (at, part), ports);
                    gathered.add_ports(key, place, &sources, &texts, ports);
                }
            }
            Effect::Capabilities(capabilities) if rule.via.is_empty() && !rule.sources.is_empty() => {
                let grants: Vec<CapGrant> =
                    aliases.filter_map(|entry| grant(receiver.capability_prefixes(entry), capabilities)).collect();
                gathered.add_capabilities((at, 0), self.source_texts(compiled.source), grants);
            }
            _ => {}
        }
    }

    /// Rules about the devices of the receiver's user among themselves.
    fn gather_own(&self, at: u32, receiver: &Receiver<'_>, gathered: &mut Gathered) {
        let Some(mine) = receiver.node.user().and_then(|user| self.by_user.get(&user)) else { return };
        let rule = &self.policy.rules()[at as usize];
        let source = self.rules[at as usize].source;
        let from = gathered.own.entry(source).or_insert_with(|| self.own_sources(source, mine)).clone();
        if from.slots.is_empty() {
            return;
        }
        match &rule.effect {
            Effect::Ports(ports) => {
                let texts = gathered.own_destinations(receiver);
                for (ports, part) in ports.iter().zip(0..) {
                    let key = (from.fingerprint, ports.protocol);
                    let place = self.place(&key, (at, part), ports);
                    gathered.add_ports(key, place, &from.texts, &texts, ports);
                }
            }
            Effect::Capabilities(capabilities) => {
                let own = receiver.own_prefixes();
                gathered.add_capabilities((at, 0), from.texts, grant(own.clone(), capabilities).into_iter().collect());
                if from.slots.contains(receiver.slot) {
                    for (counterpart, part) in counterparts(capabilities).zip(1..) {
                        let grants = vec![grant_name(own.clone(), counterpart)];
                        gathered.add_capabilities((at, part), self.texts_of(mine), grants);
                    }
                }
            }
        }
    }

    fn own_sources(&self, source: u32, mine: &RoaringBitmap) -> OwnSources {
        let slots = &self.sources[source as usize].covers & mine;
        let texts = self.texts_of(&slots);
        let fingerprint = texts.iter().map(|text| super::sets::hash(text)).fold(0, u128::wrapping_add);
        OwnSources { slots, texts, fingerprint }
    }

    fn gather_reversed(&self, at: u32, receiver: &Receiver<'_>, gathered: &mut Gathered) {
        let Effect::Capabilities(capabilities) = &self.policy.rules()[at as usize].effect else { return };
        let compiled = &self.rules[at as usize];
        let Some(reverse) = compiled.reverse else { return };
        let sources = &self.sources[compiled.source as usize];
        let covered: Vec<IpNet> = match sources.listed.contains(receiver.slot) || sources.everything {
            true => receiver.own_prefixes(),
            false => receiver.own_prefixes_in(sources.literals.iter().map(|(range, _)| range)),
        };
        if covered.is_empty() {
            return;
        }
        for (counterpart, part) in counterparts(capabilities).zip(1..) {
            let grants = vec![grant_name(covered.clone(), counterpart)];
            gathered.add_capabilities((at, part), self.source_texts(reverse), grants);
        }
    }

    /// Where ports stand in a filter: where the first rule of their group does, be that rule the node's or not.
    fn place(&self, key: &super::GroupKey, own: Place, ports: &Ports) -> Place {
        let Some(first) = self.groups.get(key).and_then(|rules| rules.first()).copied().filter(|first| *first < own.0)
        else {
            return own;
        };
        let part = match &self.policy.rules()[first as usize].effect {
            Effect::Ports(all) => all.iter().position(|known| known.protocol == ports.protocol).unwrap_or(0),
            Effect::Capabilities(_) => 0,
        };
        (first, part as u32)
    }

    fn texts_of(&self, slots: &RoaringBitmap) -> Arc<[String]> {
        let mut addresses: Vec<_> = slots.iter().flat_map(|slot| self.addresses(slot)).collect();
        addresses.sort();
        addresses.into_iter().map(|address| address.to_string()).collect()
    }

    fn receiver(&self, node: NodeId) -> Option<Receiver<'_>> {
        let slot = *self.slot_of.get(&node)?;
        let node = self.node_at(slot)?;
        Some(Receiver {
            slot,
            node,
            own: node.own_ranges().collect(),
            subnets: node.subnets().map(AddressRange::prefix).collect(),
            exit: node.is_exit(),
        })
    }
}

impl Gathered {
    /// The receiver's own addresses, which no destination set has as its number.
    fn own_destinations(&mut self, receiver: &Receiver<'_>) -> Arc<[String]> {
        let own = || receiver.node.addresses.iter().map(ToString::to_string).collect();
        Arc::clone(self.destinations.entry(u32::MAX).or_insert_with(own))
    }

    fn add_ports(&mut self, key: super::GroupKey, place: Place, sources: &Arc<[String]>, to: &[String], ports: &Ports) {
        if to.is_empty() {
            return;
        }
        let (known, rule) = self.ports.entry(key).or_insert_with(|| {
            let protocols = ports.protocol.iter().map(|protocol| i64::from(protocol.0)).collect();
            (place, Rule { sources: sources.clone(), protocols, ..Rule::default() })
        });
        *known = place.min(*known);
        for ip in to {
            rule.destinations.extend(ports.ranges.iter().map(|range| DstPort {
                ip: ip.clone(),
                bits: None,
                ports: *range,
            }));
        }
    }

    fn add_capabilities(&mut self, place: Place, sources: Arc<[String]>, grants: Vec<CapGrant>) {
        if !grants.is_empty() {
            self.capabilities.push((place, Rule { sources, grants, ..Rule::default() }));
        }
    }
}

impl Receiver<'_> {
    /// The texts of an alias's addresses that this node answers for.
    fn destinations(&self, entry: &AliasEntry, via: bool) -> Vec<String> {
        match &entry.meaning {
            Meaning::Everyone if via && self.subnets.is_empty() => Vec::new(),
            Meaning::Everyone => vec!["*".to_owned()],
            Meaning::Internet if self.exit => internet::TEXTS.map(str::to_owned).into(),
            Meaning::Nodes if !via && entry.named.contains(self.slot) => {
                self.node.addresses.iter().map(ToString::to_string).collect()
            }
            Meaning::Ranges { ranges, .. } if via => {
                let served = ranges.iter().any(|(range, _)| self.serves(range));
                ranges.iter().filter(|_| served).map(|(_, text)| text.to_string()).collect()
            }
            Meaning::Ranges { ranges, .. } => {
                ranges.iter().filter(|(range, _)| self.answers(range)).map(|(_, text)| text.to_string()).collect()
            }
            Meaning::Service(addresses) if !via && entry.named.contains(self.slot) => {
                addresses.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The prefixes on which capabilities for an alias hold here: the node's own addresses among it, or the alias's own
    /// prefixes where only a route leads to them.
    fn capability_prefixes(&self, entry: &AliasEntry) -> Vec<IpNet> {
        match &entry.meaning {
            Meaning::Everyone => self.own_prefixes(),
            Meaning::Nodes if entry.named.contains(self.slot) => self.own_prefixes(),
            Meaning::Ranges { ranges, .. } => {
                let mut prefixes = self.own_prefixes_in(ranges.iter().map(|(range, _)| range));
                for (range, _) in ranges {
                    if self.serves(range) && !self.own.iter().any(|own| own.overlaps(range)) {
                        prefixes.extend(range.prefixes());
                    }
                }
                prefixes.dedup();
                prefixes
            }
            Meaning::Service(addresses) if entry.named.contains(self.slot) => {
                addresses.iter().map(|range| IpNet::from(range.first())).collect()
            }
            _ => Vec::new(),
        }
    }

    fn own_prefixes(&self) -> Vec<IpNet> {
        self.node.addresses.iter().map(|address| IpNet::from(*address)).collect()
    }

    fn own_prefixes_in<'r>(&self, ranges: impl Iterator<Item = &'r AddressRange> + Clone) -> Vec<IpNet> {
        let mine = self.node.addresses.iter();
        let covered = mine.filter(|address| ranges.clone().any(|range| range.contains(**address)));
        covered.map(|address| IpNet::from(*address)).collect()
    }

    fn serves(&self, range: &AddressRange) -> bool {
        self.subnets.iter().any(|subnet| subnet.overlaps(range))
    }

    fn answers(&self, range: &AddressRange) -> bool {
        self.own.iter().any(|own| own.overlaps(range)) || self.serves(range) || (self.exit && internet::contains(range))
    }
}

fn grant(destinations: Vec<IpNet>, capabilities: &CapMap) -> Option<CapGrant> {
    (!destinations.is_empty()).then(|| CapGrant {
        destinations,
        capabilities: capabilities.clone(),
        ..CapGrant::default()
    })
}

fn grant_name(destinations: Vec<IpNet>, name: &str) -> CapGrant {
    let mut capabilities = CapMap::default();
    capabilities.grant(name);
    CapGrant { destinations, capabilities, ..CapGrant::default() }
}
