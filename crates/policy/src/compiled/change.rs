use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use roaring::RoaringBitmap;

use super::aliases::{AliasId, Meaning, Membership};
use super::sets::hash_addresses;
use super::{Compiled, GroupKey};
use crate::{Alias, Node, NodeId, Policy, Service, User, UserId};

/// A change of a tailnet.
#[derive(Clone, Debug)]
pub enum Change {
    /// A node came, or is other than it was.
    Node(NodeId, Box<Node>),
    /// A node went.
    NodeGone(NodeId),
    /// A user came, or is other than they were.
    User(UserId, User),
    /// A user went; nodes that are still theirs are nobody's.
    UserGone(UserId),
    /// Other nodes serve a subnet route, or are preferred to; the first is primary.
    Routers(IpNet, Vec<NodeId>),
    /// A service came, or is other than it was; none if it went.
    Service(Arc<str>, Option<Service>),
    /// Other login domains belong to the tailnet. Only checks of a policy ask for them.
    Domains(BTreeSet<String>),
    /// Nodes get certificates, or no longer do.
    Https(bool),
}

/// Two nodes, the one with the lower number first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair(pub NodeId, pub NodeId);

/// Who has to hear of a change, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Nodes that are other than before, or whose routes are: all their peers are told of them anew.
    pub nodes: BTreeSet<NodeId>,
    /// Nodes that know each other and didn't.
    pub met: BTreeSet<Pair>,
    /// Nodes that knew each other and don't.
    pub parted: BTreeSet<Pair>,
    /// Nodes whose packet filter may be another.
    pub filters: BTreeSet<NodeId>,
    /// Nodes whose SSH rules may be others.
    pub ssh: BTreeSet<NodeId>,
}

/// What a node was before a change.
struct Before {
    membership: Membership,
    addresses: Vec<(IpAddr, u128)>,
    peers: RoaringBitmap,
    own: RoaringBitmap,
}

impl Affected {
    /// Adds whom a later change concerns. Who met and parted again is named as both.
    pub fn join(&mut self, later: Self) {
        self.nodes.extend(later.nodes);
        self.met.extend(later.met);
        self.parted.extend(later.parted);
        self.filters.extend(later.filters);
        self.ssh.extend(later.ssh);
    }

    /// Everybody that is named, without the peers of nodes that are other than before.
    pub fn concerned(&self) -> BTreeSet<NodeId> {
        let pairs = self.met.iter().chain(&self.parted).flat_map(|pair| [pair.0, pair.1]);
        let nodes = self.nodes.iter().chain(&self.filters).chain(&self.ssh);
        nodes.copied().chain(pairs).collect()
    }
}

impl Pair {
    /// Two nodes in either order.
    pub fn new(one: NodeId, other: NodeId) -> Self {
        Self(one.min(other), one.max(other))
    }
}

impl Compiled {
    /// Applies a change to the tailnet and says whom it concerns. The work is in proportion to the rules that name the
    /// changed node, not to the size of the tailnet.
    pub fn apply(&mut self, change: Change) -> Affected {
        let mut affected = Affected::default();
        match change {
            Change::Node(id, node) => self.change_node(id, Some(*node), &mut affected),
            Change::NodeGone(id) => self.change_node(id, None, &mut affected),
            Change::User(id, user) => {
                self.topology.users.insert(id, user);
                self.change_nodes_of(id, &mut affected);
            }
            Change::UserGone(id) => {
                self.topology.users.remove(&id);
                self.change_nodes_of(id, &mut affected);
            }
            Change::Routers(route, routers) => {
                let before = match routers.is_empty() {
                    true => self.topology.routers.remove(&route),
                    false => self.topology.routers.insert(route, routers.clone()),
                };
                let chosen = self.node_ids(&self.choice_of(std::iter::once(route)));
                affected.nodes.extend(before.into_iter().flatten().chain(routers).chain(chosen));
            }
            Change::Service(..) => self.change_service(change, &mut affected),
            Change::Domains(domains) => self.topology.domains = domains,
            Change::Https(https) => {
                self.topology.https = https;
                affected.nodes.extend(self.with_funnel());
            }
        }
        affected
    }

    /// Puts another policy in force and says whom it concerns. Everything is computed anew and compared.
    pub fn replace_policy(&mut self, policy: Arc<Policy>) -> Affected {
        let next = Self::with_slots(policy, self.topology.clone(), self.slots.clone());
        let affected = self.compare(&next);
        *self = next;
        affected
    }

    /// A service's addresses are texts of rules: what names it is computed anew.
    fn change_service(&mut self, change: Change, affected: &mut Affected) {
        let Change::Service(name, service) = change else { return };
        let mut topology = self.topology.clone();
        match service {
            Some(service) => topology.services.insert(name, service),
            None => topology.services.remove(&name),
        };
        let next = Self::with_slots(self.policy.clone(), topology, self.slots.clone());
        *affected = self.compare(&next);
        *self = next;
    }

    fn change_nodes_of(&mut self, user: UserId, affected: &mut Affected) {
        let nodes = self.by_user.get(&user).map(|slots| self.node_ids(slots)).unwrap_or_default();
        for id in nodes {
            let node = self.topology.nodes.get(&id).cloned();
            self.change_node(id, node, affected);
        }
    }

    fn change_node(&mut self, id: NodeId, node: Option<Node>, affected: &mut Affected) {
        let slot = match self.slot_of.get(&id) {
            Some(slot) => *slot,
            None if node.is_none() => return,
            None => self.new_slot(id),
        };
        let before = self.before(slot);
        let routes = self.subnets.keys().copied().collect::<Vec<_>>();
        let was_exit = self.exit_nodes.contains(slot);
        let mut ssh = self.ssh_reach(slot);
        let mut fellows = self.fellow_routers(slot);
        self.withdraw(slot);
        let gone = node.is_none();
        match node {
            Some(node) => {
                self.topology.nodes.insert(id, node);
                self.enter(slot);
            }
            None => {
                self.topology.nodes.remove(&id);
            }
        }
        self.update_destinations(slot, &before, was_exit);
        let mut concerned = self.update_sources(slot, &before);
        if !self.subnets.keys().eq(routes.iter()) {
            concerned |= self.update_star();
        }
        if !self.own_rules.is_empty() {
            concerned |= &before.own;
            concerned |= self.own_slots(slot);
        }
        concerned.insert(slot);
        ssh |= self.ssh_reach(slot);
        fellows |= self.fellow_routers(slot);
        let peers = self.peer_slots(slot);
        let pairs = |slots: RoaringBitmap, compiled: &Self| {
            slots.iter().filter_map(|peer| Some(Pair::new(id, compiled.slots[peer as usize]?))).collect::<Vec<_>>()
        };
        affected.met.extend(pairs(&peers - &before.peers, self));
        affected.parted.extend(pairs(&before.peers - &peers, self));
        if gone {
            self.slot_of.remove(&id);
            self.slots[slot as usize] = None;
        }
        affected.nodes.extend(self.node_ids(&fellows));
        affected.nodes.insert(id);
        affected.filters.extend(self.node_ids(&concerned));
        affected.ssh.extend(self.node_ids(&ssh));
        if gone {
            affected.nodes.remove(&id);
        }
    }

    fn new_slot(&mut self, id: NodeId) -> u32 {
        let free = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.membership.push(Membership::default());
            self.slots.len() - 1
        });
        self.slots[free] = Some(id);
        self.slot_of.insert(id, free as u32);
        free as u32
    }

    fn before(&self, slot: u32) -> Before {
        Before {
            membership: self.membership[slot as usize].clone(),
            addresses: hash_addresses(&self.addresses(slot)),
            peers: self.peer_slots(slot),
            own: self.own_slots(slot),
        }
    }

    /// The devices of the same user.
    pub(super) fn own_slots(&self, slot: u32) -> RoaringBitmap {
        let user = self.node_at(slot).and_then(Node::user);
        user.and_then(|user| self.by_user.get(&user)).cloned().unwrap_or_default()
    }

    /// Those who serve a subnet route that a slot serves too, as far as it matters to them.
    fn fellow_routers(&self, slot: u32) -> RoaringBitmap {
        self.choice_of(self.node_at(slot).into_iter().flat_map(Node::subnets))
    }

    /// Those who serve one of some routes, where a `via` chooses among them: as one changes, the choice may fall on another.
    fn choice_of(&self, routes: impl Iterator<Item = IpNet>) -> RoaringBitmap {
        let serving = routes.filter_map(|route| self.subnets.get(&route));
        let serving = serving.fold(RoaringBitmap::new(), |all, some| all | some);
        let chosen = !serving.is_empty() && self.destinations.iter().any(|set| !set.via.is_empty());
        if chosen { serving } else { RoaringBitmap::new() }
    }

    /// The aliases that meant a slot, or do now.
    fn touched(&self, slot: u32, before: &Before) -> BTreeSet<AliasId> {
        let after = &self.membership[slot as usize];
        let all = before.membership.named.iter().chain(&before.membership.routed);
        all.chain(&after.named).chain(&after.routed).copied().collect()
    }

    /// Sets a slot's bit in every destination set anew, and with it in the reach of their sources.
    fn update_destinations(&mut self, slot: u32, before: &Before, was_exit: bool) {
        let mut sets: BTreeSet<u32> = BTreeSet::new();
        for id in self.touched(slot, before) {
            sets.extend(&self.aliases.entry(id).destination_sets);
        }
        if was_exit || self.exit_nodes.contains(slot) {
            let public = self.aliases.entries.iter().filter(|entry| entry.meaning.is_public());
            sets.extend(public.flat_map(|entry| &entry.destination_sets));
        }
        let mut sources = BTreeSet::new();
        for id in sets {
            let receives = self.receives(id, slot);
            let set = &mut self.destinations[id as usize];
            if set_bit(&mut set.receivers, slot, receives) {
                sources.extend(set.rules.iter().map(|rule| self.rules[*rule as usize].source));
            }
        }
        for id in sources {
            let reaches = self.sources[id as usize].rules.iter().any(|rule| {
                let destination = self.rules[*rule as usize].destination;
                destination.is_some_and(|id| self.destinations[id as usize].receivers.contains(slot))
            });
            let set = &mut self.sources[id as usize];
            set_bit(&mut set.reach, slot, reaches);
        }
    }

    fn receives(&self, destination: u32, slot: u32) -> bool {
        let set = &self.destinations[destination as usize];
        let tagged = |tag| self.by_tag.get(tag).is_some_and(|nodes: &RoaringBitmap| nodes.contains(slot));
        let exit = self.exit_nodes.contains(slot);
        if !set.via.is_empty() {
            let leads = set.aliases.iter().any(|id| {
                let entry = self.aliases.entry(*id);
                if entry.meaning == Meaning::Internet { exit } else { entry.routed.contains(slot) }
            });
            return leads && set.via.iter().any(tagged);
        }
        set.aliases.iter().any(|id| {
            let entry = self.aliases.entry(*id);
            entry.named.contains(slot)
                || entry.routed.contains(slot)
                || (set.exits && exit && entry.meaning.is_public())
        })
    }

    /// Sets a slot's bit in every source set anew. Gives the slots whose filters are concerned.
    fn update_sources(&mut self, slot: u32, before: &Before) -> RoaringBitmap {
        let addresses = hash_addresses(&self.addresses(slot));
        let mut sets: BTreeSet<u32> = BTreeSet::new();
        for id in self.touched(slot, before) {
            sets.extend(&self.aliases.entry(id).source_sets);
        }
        let mut concerned = RoaringBitmap::new();
        for id in sets {
            if self.sources[id as usize].has_node_literals(&self.aliases) {
                let led = self.resolve_source(id, &[]);
                concerned |= self.concerned_by(id, &led);
                continue;
            }
            let (listed, covers) = self.source_bits(id, slot);
            let set = &mut self.sources[id as usize];
            set_bit(&mut set.covers, slot, covers);
            let was_listed = set.listed.contains(slot);
            let old = if was_listed { set.node_hash(&before.addresses) } else { 0 };
            let new = if listed { set.node_hash(&addresses) } else { 0 };
            if was_listed == listed && old == new {
                continue;
            }
            let mut led = self.leave_groups(id);
            let set = &mut self.sources[id as usize];
            set_bit(&mut set.listed, slot, listed);
            set.fingerprint = set.fingerprint.wrapping_sub(old).wrapping_add(new);
            set.texts = Default::default();
            led.extend(self.join_groups(id));
            concerned |= self.concerned_by(id, &led);
        }
        concerned
    }

    fn source_bits(&self, source: u32, slot: u32) -> (bool, bool) {
        let set = &self.sources[source as usize];
        let entries = || set.aliases.iter().map(|id| self.aliases.entry(*id));
        let named = entries().any(|entry| entry.named.contains(slot));
        if let Some(eligible) = self.eligible.get(&set.postures) {
            let counts = named && eligible.contains(slot);
            return (counts, counts);
        }
        let listed = entries().any(|entry| entry.meaning == Meaning::Nodes && entry.named.contains(slot));
        (listed, named || entries().any(|entry| entry.routed.contains(slot)))
    }

    /// Takes source sets that have `*` anew: the routes that are part of it are others.
    fn update_star(&mut self) -> RoaringBitmap {
        let Some(id) = self.aliases.id(&Alias::Anyone) else {
            return RoaringBitmap::new();
        };
        let routes = self.star_routes();
        let mut concerned = RoaringBitmap::new();
        for set in self.aliases.entry(id).source_sets.clone() {
            if self.sources[set as usize].postures.is_empty() {
                let led = self.resolve_source(set, &routes);
                concerned |= self.concerned_by(set, &led);
            }
        }
        concerned
    }

    /// The slots whose filters have a text of a source set, or rules in another order because of it.
    fn concerned_by(&self, source: u32, led: &[GroupKey]) -> RoaringBitmap {
        let set = &self.sources[source as usize];
        let mut concerned = set.reach.clone();
        for rule in &set.reversed_by {
            concerned |= &self.sources[self.rules[*rule as usize].source as usize].covers;
        }
        for rule in set.rules.iter().filter(|rule| self.rules[**rule as usize].reverse.is_some()) {
            concerned |= &self.sources[self.rules[*rule as usize].source as usize].covers;
        }
        for rule in led.iter().filter_map(|key| self.groups.get(key)).flatten() {
            if let Some(destination) = self.rules[*rule as usize].destination {
                concerned |= &self.destinations[destination as usize].receivers;
            }
        }
        concerned
    }
}

/// Gives whether the bit was otherwise before.
fn set_bit(bits: &mut RoaringBitmap, slot: u32, on: bool) -> bool {
    if on { bits.insert(slot) } else { bits.remove(slot) }
}
