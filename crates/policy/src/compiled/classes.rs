use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::Compiled;
use super::aliases::AliasId;
use crate::internet;
use crate::{Node, NodeId};

/// The nodes of a tailnet by what a policy tells them apart by: of those in one class, every rule is about all or none, but
/// for those about the devices of one user among themselves.
#[derive(Debug)]
pub(crate) struct NodeClasses {
    by_node: HashMap<NodeId, u32>,
}

/// What rules can tell a node by.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Trait {
    owner: Vec<AliasId>,
    /// Of each address: whether it is of IPv4, and the ranges it lies in.
    addresses: Vec<(bool, Vec<AliasId>)>,
    /// Which of the policy's lists of postures the node has one of.
    postures: Vec<bool>,
    /// A router, where rules with `via` lead to it and by it.
    itself: Option<NodeId>,
}

impl NodeClasses {
    pub(crate) fn new(compiled: &Compiled) -> Self {
        let mut numbers: HashMap<Trait, u32> = HashMap::new();
        let has_via = compiled.destinations.iter().any(|set| !set.via.is_empty());
        // Routes to addresses of nodes, which nobody should have.
        let within = |route: &IpNet| {
            let route = filter::AddressRange::prefix(*route);
            internet::tailnet().iter().any(|range| range.overlaps(&route))
        };
        let inner: Vec<IpNet> = compiled.subnets.keys().copied().filter(|route| has_via && within(route)).collect();
        let mut by_node = HashMap::with_capacity(compiled.topology.nodes.len());
        for (id, node) in &compiled.topology.nodes {
            let routed = || node.is_exit() || node.subnets().next().is_some();
            let reached = || inner.iter().any(|route| node.addresses.iter().any(|address| route.contains(address)));
            let itself = (has_via && (routed() || reached())).then_some(*id);
            let next = numbers.len() as u32;
            by_node.insert(*id, *numbers.entry(compiled.trait_of(node, itself)).or_insert(next));
        }
        Self { by_node }
    }

    /// The class of a node of the tailnet.
    pub(crate) fn of(&self, node: NodeId) -> Option<u32> {
        self.by_node.get(&node).copied()
    }

    /// Two nodes of each class and user among these: a login to the very same device may be another matter than one to its
    /// like.
    pub(crate) fn distinct(&self, nodes: BTreeSet<NodeId>, compiled: &Compiled) -> Vec<NodeId> {
        let mut seen: HashMap<_, usize> = HashMap::new();
        let key = |id: &NodeId| (self.of(*id), compiled.topology.nodes.get(id).and_then(Node::user));
        let is_one_of_two = |id: &NodeId| {
            let count = seen.entry(key(id)).or_default();
            *count += 1;
            *count <= 2
        };
        nodes.into_iter().filter(is_one_of_two).collect()
    }
}

impl Compiled {
    fn trait_of(&self, node: &Node, itself: Option<NodeId>) -> Trait {
        let ranged = |address: &std::net::IpAddr| {
            let mut ids = Vec::new();
            self.aliases.add_ranged(*address, &mut ids);
            ids.sort_unstable();
            (address.is_ipv4(), ids)
        };
        let mut addresses: Vec<(bool, Vec<AliasId>)> = node.addresses.iter().map(ranged).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut owner = self.aliases.of_owner(&node.owner, self.topology.user_of(node));
        owner.sort_unstable();
        owner.dedup();
        let postures = self.eligible.fulfilled(node, &self.policy);
        Trait { owner, addresses, postures, itself }
    }
}
