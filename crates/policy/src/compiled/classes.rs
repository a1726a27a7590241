use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

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
    /// Whether some rules lead by certain routers only.
    has_via: bool,
}

/// What rules can tell a party by, but for the user it belongs to: all parties with one mark are alike on either side of
/// every rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    /// A node by its class, and whether it is a user's.
    Node(Option<u32>, bool),
    /// A device that isn't there: the aliases of its owner, and whether that is a user.
    Device(Vec<AliasId>, bool),
    /// An address that is no node's.
    Address(Address),
}

/// What rules can tell an address by that is no node's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    is_ipv4: bool,
    /// The aliases that have it.
    named: Vec<AliasId>,
    /// Whether `*` as a source and `autogroup:internet` mean it.
    starred: bool,
    public: bool,
    /// Where rules have `via`: the routes and the services that routers may lead to it by.
    routes: Vec<IpNet>,
    services: Vec<Arc<str>>,
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
        Self::among(compiled, compiled.topology.nodes.keys().copied())
    }

    /// The classes of some of the nodes.
    pub(crate) fn among(compiled: &Compiled, nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut numbers: HashMap<Trait, u32> = HashMap::new();
        let has_via = compiled.destinations.iter().any(|set| !set.via.is_empty());
        // Routes to addresses of nodes, which nobody should have.
        let within = |route: &IpNet| {
            let route = filter::AddressRange::prefix(*route);
            internet::tailnet().iter().any(|range| range.overlaps(&route))
        };
        let inner: Vec<IpNet> = compiled.subnets.keys().copied().filter(|route| has_via && within(route)).collect();
        let mut by_node = HashMap::new();
        for id in nodes {
            let Some(node) = compiled.topology.nodes.get(&id) else { continue };
            let routed = || node.is_exit() || node.subnets().next().is_some();
            let reached = || inner.iter().any(|route| node.addresses.iter().any(|address| route.contains(address)));
            let itself = (has_via && (routed() || reached())).then_some(id);
            let next = numbers.len() as u32;
            by_node.insert(id, *numbers.entry(compiled.trait_of(node, itself)).or_insert(next));
        }
        Self { by_node, has_via }
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
    /// The mark of a node of the tailnet.
    pub(crate) fn mark_of_node(&self, id: NodeId, classes: &NodeClasses) -> Mark {
        let node = self.topology.nodes.get(&id);
        Mark::Node(classes.of(id), node.is_some_and(|node| self.topology.user_of(node).is_some()))
    }

    /// The mark of a device without addresses that isn't there.
    pub(crate) fn mark_of_device(&self, node: &Node) -> Mark {
        let user = self.topology.user_of(node);
        let mut owner = self.aliases.of_owner(&node.owner, user);
        owner.sort_unstable();
        owner.dedup();
        Mark::Device(owner, user.is_some())
    }

    /// The mark of an address that is no node's.
    pub(crate) fn mark_of_address(&self, address: IpAddr, classes: &NodeClasses) -> Mark {
        let mut named = Vec::new();
        self.aliases.add_ranged(address, &mut named);
        self.aliases.add_services(address, &mut named);
        named.sort_unstable();
        named.dedup();
        let has_via = classes.has_via;
        let routes = self.subnets.keys().copied().filter(|route| has_via && route.contains(&address));
        let services = self.topology.services.iter();
        let services = services.filter(|(_, service)| has_via && service.addresses.contains(&address));
        Mark::Address(Address {
            is_ipv4: address.is_ipv4(),
            named,
            starred: self.is_in_star(address),
            public: internet::contains(&filter::AddressRange::single(address)),
            routes: routes.collect(),
            services: services.map(|(name, _)| name.clone()).collect(),
        })
    }

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
