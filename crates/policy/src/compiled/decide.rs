mod ssh;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use filter::{CapMap, PortRange, Protocol};
use roaring::RoaringBitmap;

use super::aliases::Meaning;
use super::{Compiled, Side, has_posture};
use crate::policy::{Effect, Rule};
use crate::{Alias, Autogroup, Node, NodeId, Ports, User, UserId, internet};

/// How many near misses a decision names.
pub(crate) const NEAREST: usize = 5;

/// One side of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Party {
    /// A node of the tailnet, by any of its addresses.
    Node(NodeId),
    /// A device that isn't in the tailnet (yet), and the user that it belongs to, who may not be in it either.
    Device(Node, Option<User>),
    /// An address: a node's, or one beyond a router.
    Address(IpAddr),
}

/// A question: may this packet pass?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Who sends.
    pub source: Party,
    /// Where to.
    pub destination: Party,
    /// By which protocol.
    pub protocol: Protocol,
    /// To which port; 0 where the protocol has none.
    pub port: u16,
}

/// The answer to a [`Query`]. Rules are numbered as in [`crate::Policy::rules`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The rules that allow it; none means that it is refused.
    pub allowed_by: Vec<usize>,
    /// Where it is refused: the rules that come nearest, the nearest first.
    pub near_misses: Vec<NearMiss>,
}

/// A rule that would allow something but for what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule's number.
    pub rule: usize,
    /// What doesn't match; never empty.
    pub lacks: Vec<Lack>,
}

/// A part of a rule that doesn't match. Their order is how near they leave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// It is for other ports.
    Port,
    /// It is for other protocols.
    Protocol,
    /// The account asked for isn't among those of the rule.
    Account,
    /// It doesn't give this capability.
    Capability,
    /// The source's device has none of the postures asked for.
    Posture,
    /// The login has to be confirmed by a user, and the source is nobody's device.
    User,
    /// No router that the rule names serves the destination.
    Via,
    /// It is for other destinations.
    Destination,
    /// It is for other sources.
    Source,
}

/// What capabilities a source has on a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CapabilityDecision {
    /// All of them, with their values.
    pub capabilities: CapMap,
    /// The rules that give them.
    pub given_by: Vec<usize>,
}

/// Whether somebody may log in by SSH. Rules are numbered as in [`crate::Policy::ssh_rules`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshDecision {
    /// By this rule.
    Accept {
        /// The rule's number.
        rule: usize,
    },
    /// By this rule, once the user has confirmed who they are.
    Check {
        /// The rule's number.
        rule: usize,
        /// How long a confirmation holds.
        period: Duration,
    },
    /// No.
    Refuse {
        /// The rules that come nearest.
        near_misses: Vec<NearMiss>,
    },
}

/// What was found of the lists that rules share, for one pair of parties.
#[derive(Default)]
struct Looked {
    sources: HashMap<(u32, Option<IpAddr>), bool>,
    destinations: HashMap<(Option<u32>, Option<IpAddr>), Option<Lack>>,
}

/// A party with what is known of it.
pub(super) struct Known {
    pub(super) slot: Option<u32>,
    pub(super) node: Option<Node>,
    pub(super) user: Option<User>,
    /// The addresses it may act by; a device that isn't there yet has none.
    pub(super) addresses: Vec<Option<IpAddr>>,
}

impl Compiled {
    /// Answers a question about packets, by the rules that filters are made of.
    pub fn decide(&self, query: &Query) -> Decision {
        let allowed_by =
            self.allowing(&self.source_side(&query.source), &self.destination_side(&query.destination), query);
        if !allowed_by.is_empty() {
            return Decision { allowed_by, near_misses: Vec::new() };
        }
        Decision { allowed_by, near_misses: self.nearest_ports(query) }
    }

    /// The rules that allow what a question asks, by the sides of its parties.
    pub(crate) fn allowing(&self, source: &Side, destination: &Side, query: &Query) -> Vec<usize> {
        let allows = |at: &u32| match &self.policy.rules()[*at as usize].effect {
            Effect::Ports(ports) => port_lacks(ports, query.protocol, query.port).is_none(),
            Effect::Capabilities(_) => false,
        };
        self.rules_between(source, destination).iter().filter(allows).map(|at| at as usize).collect()
    }

    /// Whether a rule is about these ports at all, whoever uses them.
    pub(crate) fn rules_of_ports(&self, protocol: Protocol, port: u16) -> RoaringBitmap {
        let fits =
            |rule: &Rule| matches!(&rule.effect, Effect::Ports(all) if port_lacks(all, protocol, port).is_none());
        let rules = self.policy.rules().iter().zip(0..);
        rules.filter(|(rule, _)| fits(rule)).map(|(_, at)| at).collect()
    }

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

    /// Tells what capabilities a source has on a destination.
    pub fn decide_capabilities(&self, source: &Party, destination: &Party) -> CapabilityDecision {
        let mut decision = CapabilityDecision::default();
        for at in self.rules_between(&self.source_side(source), &self.destination_side(destination)) {
            let rule = &self.policy.rules()[at as usize];
            let Effect::Capabilities(capabilities) = &rule.effect else { continue };
            if rule.via.is_empty() {
                decision.capabilities.merge(capabilities);
                decision.given_by.push(at as usize);
            }
        }
        decision
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

    /// The rules that come nearest to letting two parties know each other, in either direction.
    pub(crate) fn nearest_reach(&self, one: &Party, other: &Party) -> Vec<NearMiss> {
        let (one, other) = (self.known(one), self.known(other));
        let mut looked_back = Looked::default();
        let (mut misses, mut looked) = (Nearest::default(), Looked::default());
        for (at, rule) in self.policy.rules().iter().enumerate() {
            let there = self.address_lacks((at, rule), &one, &other, &mut looked);
            let back = self.address_lacks((at, rule), &other, &one, &mut looked_back);
            misses.add(at, if nearness(&back) < nearness(&there) { back } else { there });
        }
        misses.take()
    }

    /// The rules of which a user's devices are a source: those that the user has, and any that they might have.
    pub fn rules_of_user(&self, user: UserId) -> Vec<usize> {
        let Some(known) = self.topology.users.get(&user) else { return Vec::new() };
        let devices = self.by_user.get(&user).map(|slots| self.node_ids(slots)).unwrap_or_default();
        let any = crate::verify::users_device(known.clone());
        let parties = devices.into_iter().map(Party::Node).chain([any]);
        let rules = parties.map(|party| self.rules_from(&party)).fold(RoaringBitmap::new(), |all, some| all | some);
        rules.iter().map(|rule| rule as usize).collect()
    }

    /// The rules that let packets of some protocol with ports through to an address and port, whoever sends them.
    pub fn rules_to_address(&self, address: IpAddr, port: u16) -> Vec<usize> {
        let fits = |rule: &usize| match &self.policy.rules()[*rule].effect {
            Effect::Ports(ports) => {
                [Protocol::TCP, Protocol::UDP].iter().any(|protocol| port_lacks(ports, *protocol, port).is_none())
            }
            Effect::Capabilities(_) => false,
        };
        let rules = self.rules_to(&Party::Address(address));
        rules.iter().map(|rule| rule as usize).filter(fits).collect()
    }

    /// The login of the user that a party belongs to.
    pub(crate) fn login_of(&self, party: &Party) -> Option<String> {
        self.known(party).user.map(|user| user.login.to_string())
    }

    pub(super) fn known(&self, party: &Party) -> Known {
        match party {
            Party::Node(id) => {
                let node = self.topology.nodes.get(id);
                let addresses = node.iter().flat_map(|node| node.addresses.iter().copied().map(Some)).collect();
                self.known_node(Some(*id), addresses)
            }
            Party::Device(node, user) => {
                let own = node.addresses.iter().copied().map(Some);
                let nowhere = node.addresses.is_empty().then_some(None);
                let user = user.clone().or_else(|| self.topology.user_of(node).cloned());
                Known { slot: None, addresses: own.chain(nowhere).collect(), node: Some(node.clone()), user }
            }
            Party::Address(address) => {
                self.known_node(self.node_by_address(*address).map(|(id, _)| id), vec![Some(*address)])
            }
        }
    }

    fn known_node(&self, id: Option<NodeId>, addresses: Vec<Option<IpAddr>>) -> Known {
        let node = id.and_then(|id| self.topology.nodes.get(&id)).cloned();
        let user = node.as_ref().and_then(|node| self.topology.user_of(node)).cloned();
        Known { slot: id.and_then(|id| self.slot_of.get(&id)).copied(), node, user, addresses }
    }

    /// Whether an alias means a party by who it belongs to.
    fn means(&self, alias: &Alias, party: &Known) -> bool {
        match (&party.user, &party.node) {
            (Some(user), _) => self.is_alias_of_user(alias, user),
            (None, Some(node)) => self.is_alias_of(alias, &node.owner),
            (None, None) => false,
        }
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

    pub(super) fn is_in_star(&self, address: IpAddr) -> bool {
        internet::tailnet().iter().any(|range| range.contains(address))
            || self.subnets.keys().any(|route| route.contains(&address))
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

fn same_user(one: &Known, other: &Known) -> bool {
    let login = |party: &Known| party.user.as_ref().map(|user| user.login.clone());
    login(one).is_some() && login(one) == login(other)
}

fn port_lacks(ports: &[Ports], protocol: Protocol, port: u16) -> Option<Lack> {
    // Whoever may use any port may also ping.
    if matches!(protocol, Protocol::ICMPV4 | Protocol::ICMPV6) {
        return None;
    }
    let of_protocol = |ports: &&Ports| match ports.protocol {
        Some(named) => named == protocol,
        None => Protocol::DEFAULT.contains(&protocol),
    };
    let mut named = ports.iter().filter(of_protocol).peekable();
    if named.peek().is_none() {
        return Some(Lack::Protocol);
    }
    let fits = |range: &PortRange| if protocol.has_ports() { range.contains(port) } else { range.is_all() };
    (!named.flat_map(|ports| &ports.ranges).any(fits)).then_some(Lack::Port)
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

fn keep_nearest(misses: &mut Vec<NearMiss>) {
    misses.sort_by_key(|miss| nearness(&miss.lacks));
    misses.truncate(NEAREST);
}
