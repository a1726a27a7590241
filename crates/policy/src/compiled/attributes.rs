use filter::CapMap;
use ipnet::Ipv4Net;

use super::Compiled;
use super::routes::DISABLE_IPV4;
use crate::policy::NodeAttributes;
use crate::{Alias, NodeId, Owner};

/// The attribute that lets a node be reached from the Internet, and what the hosted service tells the node with it.
pub(super) const FUNNEL: &str = "funnel";
const FUNNEL_PORTS: &str = "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000";
const FUNNEL_WITHOUT_HTTPS: &str = "https://tailscale.com/cap/warn-funnel-no-https";

/// What nodes are told of every exit node, whether or not the policy gives it the attribute.
const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";

/// An attribute that matters to other nodes more than to the node itself.
const SUBDOMAIN_RESOLVE: &str = "dns-subdomain-resolve";

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
        if self.attributes(node).has(SUBDOMAIN_RESOLVE) {
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
        self.policy.settings().disable_ipv4 || self.entries_for(slot).any(|entry| entry.attributes.has(DISABLE_IPV4))
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

    fn entries_for(&self, slot: u32) -> impl Iterator<Item = &NodeAttributes> {
        let entries = self.policy.node_attributes().iter();
        entries.filter(move |entry| entry.targets.iter().any(|alias| self.names(alias, slot)))
    }
}
