//! A policy joined with a tailnet: what each node may do, computed by sets of nodes and never by pairs of them.
//!
//! Every alias is a bitmap of node slots. Rules are (source set, destination set, effect); sets are shared between rules.
//! The rules of a node are those whose destination set has it; the peers of a node are the sources of its rules, and the
//! receivers of rules whose source set has it.

mod aliases;
mod approval;
mod attributes;
mod by_address;
mod change;
mod classes;
mod compare;
mod decide;
mod eligible;
mod filters;
mod interning;
mod nearest;
mod reach;
mod routes;
mod sets;
mod ssh;
mod visibility;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use filter::{AddressRange, Protocol};
use ipnet::IpNet;
use roaring::RoaringBitmap;

pub use approval::OwnerIdentity;
pub use change::{Affected, Change, Pair};
pub(crate) use classes::{Mark, NodeClasses};
pub use decide::{CapabilityDecision, Decision, Lack, NearMiss, Party, Query, SshDecision};
pub(crate) use nearest::NEAREST;
pub(crate) use reach::Side;
pub use routes::AllowedIps;
pub use ssh::SshGrant;

use crate::policy::Effect;
use crate::{Alias, Autogroup, Node, NodeId, Policy, Tag, Topology, UserId};
use aliases::{AliasTable, Membership};
use attributes::AttributeTable;
use by_address::ByAddress;
use eligible::Eligible;
use sets::{DestinationSet, SourceSet};
use ssh::SshTable;

/// A policy compiled against a tailnet.
#[derive(Clone, Debug)]
pub struct Compiled {
    policy: Arc<Policy>,
    topology: Topology,
    /// The node of each slot; a slot is freed when its node goes.
    slots: Vec<Option<NodeId>>,
    slot_of: HashMap<NodeId, u32>,
    membership: Vec<Membership>,
    aliases: AliasTable,
    sources: Vec<SourceSet>,
    destinations: Vec<DestinationSet>,
    /// One for each rule of the policy, in its order.
    rules: Vec<CompiledRule>,
    /// Rules about the devices of one user among themselves.
    own_rules: RoaringBitmap,
    exit_nodes: RoaringBitmap,
    by_user: BTreeMap<UserId, RoaringBitmap>,
    by_tag: BTreeMap<Tag, RoaringBitmap>,
    /// Nodes that have a posture of a list that rules ask for.
    eligible: Eligible,
    /// Who serves each subnet route.
    subnets: BTreeMap<IpNet, RoaringBitmap>,
    /// The rules whose ports belong together in a filter, by what makes them so: equal sources and protocol.
    groups: BTreeMap<GroupKey, BTreeSet<u32>>,
    at_address: ByAddress,
    ssh_table: SshTable,
    attribute_table: AttributeTable,
}

/// What rules must share to be one rule of a filter.
type GroupKey = (u128, Option<Protocol>);

/// A rule by the numbers of its sets.
#[derive(Clone, Debug)]
struct CompiledRule {
    source: u32,
    /// None for rules about a user's own devices.
    destination: Option<u32>,
    /// For capabilities that have a counterpart in the other direction: the destinations as sources.
    reverse: Option<u32>,
}

impl Compiled {
    /// Compiles a policy for a tailnet.
    pub fn new(policy: Arc<Policy>, topology: Topology) -> Self {
        let slots = topology.nodes.keys().copied().map(Some).collect();
        Self::with_slots(policy, topology, slots)
    }

    fn with_slots(policy: Arc<Policy>, topology: Topology, slots: Vec<Option<NodeId>>) -> Self {
        let mut compiled = Self {
            policy,
            slot_of: slots.iter().zip(0..).filter_map(|(node, slot)| Some(((*node)?, slot))).collect(),
            membership: vec![Membership::default(); slots.len()],
            slots,
            topology,
            aliases: AliasTable::default(),
            sources: Vec::new(),
            destinations: Vec::new(),
            rules: Vec::new(),
            own_rules: RoaringBitmap::new(),
            exit_nodes: RoaringBitmap::new(),
            by_user: BTreeMap::new(),
            by_tag: BTreeMap::new(),
            eligible: Eligible::default(),
            subnets: BTreeMap::new(),
            groups: BTreeMap::new(),
            at_address: ByAddress::default(),
            ssh_table: SshTable::default(),
            attribute_table: AttributeTable::default(),
        };
        compiled.intern_rules();
        compiled.intern_others();
        compiled.aliases.seal();
        for slot in 0..compiled.slots.len() as u32 {
            compiled.enter(slot);
        }
        compiled.resolve_all();
        compiled
    }

    /// The policy.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// The tailnet that the policy was compiled for, with the changes applied since.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Enters a slot's node into every bitmap that is about single nodes; sets are not touched.
    fn enter(&mut self, slot: u32) {
        let Some(node) = self.node_at(slot).cloned() else { return };
        self.at_address.forget();
        let mut membership = self.aliases.membership(&node, &self.topology);
        self.add_services(slot, &mut membership);
        for id in &membership.named {
            self.aliases.entries[*id as usize].named.insert(slot);
        }
        for id in &membership.routed {
            self.aliases.entries[*id as usize].routed.insert(slot);
        }
        self.ssh_table.forget(&membership.named);
        self.membership[slot as usize] = membership;
        if node.is_exit() {
            self.exit_nodes.insert(slot);
        }
        if let Some(user) = node.user() {
            self.by_user.entry(user).or_default().insert(slot);
        }
        for tag in node.tags() {
            self.by_tag.entry(tag.clone()).or_default().insert(slot);
        }
        for subnet in node.subnets() {
            self.subnets.entry(subnet).or_default().insert(slot);
        }
        self.eligible.enter(slot, &node, &self.policy);
        self.attribute_table.enter(slot, &self.membership[slot as usize].named);
    }

    /// Takes a slot's node out of every bitmap that is about single nodes.
    fn withdraw(&mut self, slot: u32) {
        self.at_address.forget();
        let membership = std::mem::take(&mut self.membership[slot as usize]);
        self.ssh_table.forget(&membership.named);
        for id in &membership.named {
            self.aliases.entries[*id as usize].named.remove(slot);
        }
        for id in &membership.routed {
            self.aliases.entries[*id as usize].routed.remove(slot);
        }
        self.exit_nodes.remove(slot);
        self.eligible.withdraw(slot);
        self.attribute_table.withdraw(slot);
        let bitmaps = self.by_user.values_mut().chain(self.by_tag.values_mut());
        for bitmap in bitmaps.chain(self.subnets.values_mut()) {
            bitmap.remove(slot);
        }
        self.by_user.retain(|_, nodes| !nodes.is_empty());
        self.by_tag.retain(|_, nodes| !nodes.is_empty());
        self.subnets.retain(|_, nodes| !nodes.is_empty());
    }

    fn add_services(&self, slot: u32, membership: &mut Membership) {
        let Some(id) = self.slots[slot as usize] else { return };
        let hosted = self.topology.services.iter().filter(|(_, service)| service.hosts.contains(&id));
        membership.named.extend(hosted.filter_map(|(name, _)| self.aliases.id(&Alias::Service(name.clone()))));
        membership.named.sort_unstable();
        membership.named.dedup();
    }

    fn resolve_all(&mut self) {
        for id in 0..self.destinations.len() as u32 {
            self.resolve_destination(id);
        }
        let routes = self.star_routes();
        for id in 0..self.sources.len() as u32 {
            self.resolve_source(id, &routes);
            self.resolve_reach(id);
        }
    }

    fn resolve_destination(&mut self, id: u32) {
        let set = &self.destinations[id as usize];
        let tagged = (!set.via.is_empty()).then(|| self.tagged(&set.via));
        let set = &mut self.destinations[id as usize];
        set.resolve(&self.aliases, &self.exit_nodes, tagged.as_ref());
    }

    /// Takes a source set's members anew, and moves its rules to the groups that they now belong to. Gives the groups that
    /// have a new first rule.
    fn resolve_source(&mut self, id: u32, routes: &[(AddressRange, Arc<str>)]) -> Vec<GroupKey> {
        let mut led = self.leave_groups(id);
        let eligible = self.eligible.get(&self.sources[id as usize].postures);
        let (slots, topology) = (&self.slots, &self.topology);
        self.sources[id as usize].resolve(&self.aliases, eligible, routes, |slot| addresses(slots, topology, slot));
        led.extend(self.join_groups(id));
        led
    }

    fn resolve_reach(&mut self, id: u32) {
        let mut reach = RoaringBitmap::new();
        for rule in &self.sources[id as usize].rules {
            if let Some(destination) = self.rules[*rule as usize].destination {
                reach |= &self.destinations[destination as usize].receivers;
            }
        }
        self.sources[id as usize].reach = reach;
    }

    /// Enters the rules of a source set into the groups they belong to. Gives the groups that have a new first rule.
    fn join_groups(&mut self, source: u32) -> Vec<GroupKey> {
        let mut led = Vec::new();
        for (key, rule) in self.group_keys(source) {
            let group = self.groups.entry(key).or_default();
            let first = group.first().copied();
            group.insert(rule);
            if first.is_some() && group.first().copied() != first {
                led.push(key);
            }
        }
        led
    }

    /// Takes the rules of a source set out of their groups. Gives the groups that have a new first rule.
    fn leave_groups(&mut self, source: u32) -> Vec<GroupKey> {
        let mut led = Vec::new();
        for (key, rule) in self.group_keys(source) {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            let first = group.first().copied();
            group.remove(&rule);
            if group.is_empty() {
                self.groups.remove(&key);
            } else if group.first().copied() != first {
                led.push(key);
            }
        }
        led
    }

    /// The groups that the rules of a source set belong to. Rules about own devices have sources that differ by user, and
    /// those with `via` are there for some nodes only: they join a group, and don't lead one elsewhere.
    fn group_keys(&self, source: u32) -> Vec<(GroupKey, u32)> {
        let set = &self.sources[source as usize];
        let mut keys = Vec::new();
        for at in &set.rules {
            let rule = &self.policy.rules()[*at as usize];
            if let (Effect::Ports(ports), true, false) = (&rule.effect, rule.via.is_empty(), rule.is_own_devices()) {
                keys.extend(ports.iter().map(|ports| ((set.fingerprint, ports.protocol), *at)));
            }
        }
        keys
    }

    /// The subnet routes that are part of `*` as a source.
    fn star_routes(&self) -> Vec<(AddressRange, Arc<str>)> {
        self.subnets.keys().map(|route| (AddressRange::prefix(*route), route_text(route))).collect()
    }

    fn tagged(&self, tags: &[Tag]) -> RoaringBitmap {
        tags.iter().filter_map(|tag| self.by_tag.get(tag)).fold(RoaringBitmap::new(), |all, nodes| all | nodes)
    }

    /// The nodes that an alias means by who they belong to, ascending.
    pub(crate) fn nodes_of(&self, alias: &Alias) -> BTreeSet<NodeId> {
        let mut slots = RoaringBitmap::new();
        match alias {
            Alias::Tag(tag) => slots.extend(self.by_tag.get(tag).into_iter().flatten()),
            Alias::Auto(Autogroup::Tagged) => {
                return self
                    .topology
                    .nodes
                    .iter()
                    .filter(|(_, node)| node.user().is_none())
                    .map(|(id, _)| *id)
                    .collect();
            }
            _ => {
                for (id, owned) in &self.by_user {
                    if self.topology.users.get(id).is_some_and(|user| self.is_alias_of_user(alias, user)) {
                        slots |= owned;
                    }
                }
            }
        }
        self.node_ids(&slots)
    }

    fn node_at(&self, slot: u32) -> Option<&Node> {
        self.topology.nodes.get(self.slots.get(slot as usize)?.as_ref()?)
    }

    fn addresses(&self, slot: u32) -> Vec<IpAddr> {
        addresses(&self.slots, &self.topology, slot)
    }

    fn source_texts(&self, source: u32) -> Arc<[String]> {
        self.sources[source as usize].texts(|slot| self.addresses(slot))
    }

    fn node_ids(&self, slots: &RoaringBitmap) -> BTreeSet<NodeId> {
        slots.iter().filter_map(|slot| self.slots[slot as usize]).collect()
    }
}

fn addresses(slots: &[Option<NodeId>], topology: &Topology, slot: u32) -> Vec<IpAddr> {
    let node = slots[slot as usize].and_then(|id| topology.nodes.get(&id));
    node.map(|node| node.addresses.clone()).unwrap_or_default()
}

fn has_posture(policy: &Policy, postures: &[Arc<str>], node: &Node) -> bool {
    postures.is_empty() || postures.iter().any(|name| policy.has_posture(name, node))
}

fn route_text(route: &IpNet) -> Arc<str> {
    AddressRange::prefix(*route).to_string().into()
}
