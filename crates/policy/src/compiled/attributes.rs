use std::collections::HashMap;

use filter::CapMap;
use ipnet::Ipv4Net;
use roaring::RoaringBitmap;

use super::Compiled;
use super::aliases::AliasId;
use super::routes::DISABLE_IPV4;
use crate::policy::NodeAttributes;
use crate::{Alias, NodeId, Owner};

/// The attribute that lets a node be reached from the Internet, and what the hosted service tells the node with it.
const FUNNEL: &str = "funnel";
const FUNNEL_PORTS: &str = "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000";
const FUNNEL_WITHOUT_HTTPS: &str = "https://tailscale.com/cap/warn-funnel-no-https";

/// What nodes are told of every exit node, whether or not the policy gives it the attribute.
const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";

/// An attribute that matters to other nodes more than to the node itself.
const SUBDOMAIN_RESOLVE: &str = "dns-subdomain-resolve";

/// The entries of `nodeAttrs` by whom they are for, and the nodes that have what is asked for at every turn.
#[derive(Clone, Debug, Default)]
pub(super) struct AttributeTable {
    /// The numbers of the entries that have an alias among their targets.
    by_target: HashMap<AliasId, RoaringBitmap>,
    entries: u32,
    /// What entries give of the attributes below, and the nodes that have it.
    given: [(RoaringBitmap, RoaringBitmap); WATCHED.len()],
}

/// Attributes that are asked of all nodes, or of pairs of them.
const WATCHED: [&str; 3] = [FUNNEL, SUBDOMAIN_RESOLVE, DISABLE_IPV4];

impl AttributeTable {
    /// Adds the next entry.
    pub(super) fn add(&mut self, entry: &NodeAttributes, targets: &[AliasId]) {
        for target in targets {
            self.by_target.entry(*target).or_default().insert(self.entries);
        }
        for (name, (givers, _)) in WATCHED.iter().zip(&mut self.given) {
            if entry.attributes.has(name) {
                givers.insert(self.entries);
            }
        }
        self.entries += 1;
    }

    /// Enters a node that some aliases mean.
    pub(super) fn enter(&mut self, slot: u32, aliases: &[AliasId]) {
        let entries = self.entries_of(aliases);
        for (givers, nodes) in &mut self.given {
            if !entries.is_disjoint(givers) {
                nodes.insert(slot);
            }
        }
    }

    pub(super) fn withdraw(&mut self, slot: u32) {
        for (_, nodes) in &mut self.given {
            nodes.remove(slot);
        }
    }

    /// The nodes that some entry gives a watched attribute.
    fn with(&self, watched: &str) -> impl Iterator<Item = &RoaringBitmap> {
        WATCHED.iter().zip(&self.given).filter(move |(name, _)| **name == watched).map(|(_, (_, nodes))| nodes)
    }

    fn entries_of(&self, aliases: &[AliasId]) -> RoaringBitmap {
        let mut entries = RoaringBitmap::new();
        aliases.iter().filter_map(|alias| self.by_target.get(alias)).for_each(|some| entries |= some);
        entries
    }
}

impl Compiled {
    /// The capabilities that the policy gives a node about itself. What every node of a server has is not among them.
    pub fn attributes(&self, node: NodeId) -> CapMap {
        let mut all = CapMap::default();
        let Some(slot) = self.slot_of.get(&node).copied() else {
            return all;
        };
        self.entries_for(slot).for_each(|entry| all.merge(&entry.attributes));
        let settings = self.policy.settings();
        if settings.randomize_client_port {
            all.grant("randomize-client-port");
        }
        if settings.disable_ipv4 {
            all.grant(DISABLE_IPV4);
        }
        if let Some(always) = settings.one_cgnat_route {
            all.grant(format!("one-cgnat?v={always}"));
        }
        if all.has(FUNNEL) {
            all.grant(FUNNEL_PORTS);
            if !self.topology.https {
                all.grant(FUNNEL_WITHOUT_HTTPS);
            }
        }
        all
    }

    /// The capabilities of a node that its peers are told of.
    pub fn peer_attributes(&self, node: NodeId) -> CapMap {
        let mut told = CapMap::default();
        if self.slot_of.get(&node).is_some_and(|slot| self.exit_nodes.contains(*slot)) {
            told.grant(SUGGEST_EXIT_NODE);
        }
        if self.slot_of.get(&node).is_some_and(|slot| self.is_given(*slot, SUBDOMAIN_RESOLVE)) {
            told.grant(SUBDOMAIN_RESOLVE);
        }
        told
    }

    /// The networks that a node's IPv4 address should be from; none means any.
    pub fn address_pools(&self, node: NodeId) -> Vec<Ipv4Net> {
        let slot = self.slot_of.get(&node).copied();
        slot.into_iter().flat_map(|slot| self.entries_for(slot)).flat_map(|entry| entry.pools.iter().copied()).collect()
    }

    /// [`Compiled::address_pools`] for a node that isn't in the tailnet yet and has no address.
    pub fn address_pools_of(&self, owner: &Owner) -> Vec<Ipv4Net> {
        let entries = self.policy.node_attributes().iter();
        let named = entries.filter(|entry| entry.targets.iter().any(|alias| self.is_alias_of(alias, owner)));
        named.flat_map(|entry| entry.pools.iter().copied()).collect()
    }

    pub(super) fn lacks_ipv4(&self, slot: u32) -> bool {
        self.policy.settings().disable_ipv4 || self.is_given(slot, DISABLE_IPV4)
    }

    /// The nodes that may be reached from the Internet.
    pub(super) fn with_funnel(&self) -> impl Iterator<Item = NodeId> {
        self.attribute_table.with(FUNNEL).flatten().filter_map(|slot| self.slots[slot as usize])
    }

    fn is_given(&self, slot: u32, watched: &str) -> bool {
        self.attribute_table.with(watched).any(|nodes| nodes.contains(slot))
    }

    /// Whether an alias that the policy uses names a slot's node, or has one of its addresses.
    pub(super) fn names(&self, alias: &Alias, slot: u32) -> bool {
        self.aliases.id(alias).is_some_and(|id| self.aliases.entry(id).named.contains(slot))
    }

    /// Whether an entry's targets mean a node.
    pub(crate) fn is_target(&self, entry: &NodeAttributes, node: NodeId) -> bool {
        let slot = self.slot_of.get(&node).copied();
        slot.is_some_and(|slot| entry.targets.iter().any(|alias| self.names(alias, slot)))
    }

    /// The numbers of the entries that are for a slot's node: nodes with the same have the same attributes.
    pub(super) fn attribute_entries(&self, slot: u32) -> RoaringBitmap {
        self.attribute_table.entries_of(&self.membership[slot as usize].named)
    }

    fn entries_for(&self, slot: u32) -> impl Iterator<Item = &NodeAttributes> {
        let entries = self.attribute_entries(slot).into_iter();
        entries.map(|at| &self.policy.node_attributes()[at as usize])
    }
}
