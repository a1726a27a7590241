use filter::AddressRange;
use ipnet::IpNet;

use super::Compiled;
use super::aliases::Meaning;
use crate::NodeId;
use crate::policy::Effect;

/// The node attribute that takes a node's IPv4 address away.
pub(super) const DISABLE_IPV4: &str = "disable-ipv4";

/// What a node is told of another's addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedIps {
    /// Everything that goes to the peer: its own addresses, then its routes.
    pub allowed: Vec<IpNet>,
    /// The subnet routes for which the peer is primary, as far as the viewer gets them.
    pub primary: Vec<IpNet>,
}

impl Compiled {
    /// What `viewer` is told of the addresses of `peer`, which it knows.
    ///
    /// A subnet route goes to viewers that a rule lets use it, to those that hear from it, and to those that serve it
    /// too; from its primary router, or from the first of the routers that a `via` names. Exit routes go to viewers that
    /// may use the Internet by this exit node.
    pub fn allowed_ips(&self, viewer: NodeId, peer: NodeId) -> AllowedIps {
        let (Some(viewer), Some(peer)) = (self.slot_of.get(&viewer), self.slot_of.get(&peer)) else {
            return AllowedIps::default();
        };
        let Some(node) = self.node_at(*peer) else {
            return AllowedIps::default();
        };
        let without_ipv4 = self.lacks_ipv4(*viewer) || self.lacks_ipv4(*peer);
        let own = node.addresses.iter().filter(|address| !(without_ipv4 && address.is_ipv4()));
        let mut told = AllowedIps { allowed: own.map(|address| IpNet::from(*address)).collect(), primary: Vec::new() };
        told.primary = node.subnets().filter(|route| self.gets_route(*viewer, *peer, route)).collect();
        told.allowed.extend(&told.primary);
        if self.may_exit(*viewer, *peer) {
            told.allowed.extend(node.exit_routes());
        }
        told
    }

    /// What a node is told of its own addresses: itself and all routes that it serves.
    pub fn own_allowed_ips(&self, node: NodeId) -> Vec<IpNet> {
        let Some((slot, node)) = self.slot_of.get(&node).and_then(|slot| Some((*slot, self.node_at(*slot)?))) else {
            return Vec::new();
        };
        let without_ipv4 = self.lacks_ipv4(slot);
        let own = node.addresses.iter().filter(|address| !(without_ipv4 && address.is_ipv4()));
        own.map(|address| IpNet::from(*address)).chain(node.subnets()).chain(node.exit_routes()).collect()
    }

    fn gets_route(&self, viewer: u32, peer: u32, route: &IpNet) -> bool {
        let primary = self.topology.routers.get(route).and_then(|routers| routers.first());
        let primary = primary.and_then(|node| self.slot_of.get(node)).copied();
        if primary == Some(peer) {
            return self.is_entitled(viewer, peer, route);
        }
        // A route that the global primary gives wins over one through a `via`.
        let from_primary = primary.is_some_and(|primary| self.is_entitled(viewer, primary, route));
        !from_primary && self.is_via_primary(viewer, peer, route)
    }

    /// Whether the viewer has anything to do with a route that the router serves.
    fn is_entitled(&self, viewer: u32, router: u32, route: &IpNet) -> bool {
        let range = AddressRange::prefix(*route);
        self.subnets.get(route).is_some_and(|servers| servers.contains(viewer))
            || self.may_use(viewer, router, &range)
            || self.hears_from(viewer, &range)
    }

    /// Whether a rule at the router lets the viewer into the range.
    fn may_use(&self, viewer: u32, router: u32, range: &AddressRange) -> bool {
        self.rules_for(router).iter().any(|rule| {
            let compiled = &self.rules[rule as usize];
            self.sources[compiled.source as usize].covers.contains(viewer) && self.destination_overlaps(rule, range)
        })
    }

    /// Whether the viewer's own filter lets packets from the range in.
    fn hears_from(&self, viewer: u32, range: &AddressRange) -> bool {
        self.rules_for(viewer).iter().any(|rule| {
            let set = &self.sources[self.rules[rule as usize].source as usize];
            set.everything || set.literals.iter().any(|(literal, _)| literal.overlaps(range))
        })
    }

    fn destination_overlaps(&self, rule: u32, range: &AddressRange) -> bool {
        let Some(destination) = self.rules[rule as usize].destination else {
            return false;
        };
        let capabilities = matches!(self.policy.rules()[rule as usize].effect, Effect::Capabilities(_));
        self.destinations[destination as usize].aliases.iter().any(|id| {
            let meaning = &self.aliases.entry(*id).meaning;
            // On `*` a capability holds for nodes' own addresses.
            !(capabilities && *meaning == Meaning::Everyone) && meaning.overlaps(range)
        })
    }

    /// Whether a `via` sends the viewer to this router for the route: among the routers that it names, the one that is
    /// preferred.
    fn is_via_primary(&self, viewer: u32, router: u32, route: &IpNet) -> bool {
        let range = AddressRange::prefix(*route);
        let servers = self.subnets.get(route);
        let preferred =
            self.topology.routers.get(route).into_iter().flatten().filter_map(|node| self.slot_of.get(node));
        let preferred: Vec<u32> = preferred.copied().collect();
        self.rules_for(router).iter().any(|rule| {
            let compiled = &self.rules[rule as usize];
            let Some(destination) = compiled.destination.map(|id| &self.destinations[id as usize]) else {
                return false;
            };
            if destination.via.is_empty()
                || !self.sources[compiled.source as usize].covers.contains(viewer)
                || !self.destination_overlaps(rule, &range)
            {
                return false;
            }
            let candidates = servers.map(|servers| servers & &destination.receivers).unwrap_or_default();
            let first = preferred.iter().copied().find(|slot| candidates.contains(*slot)).or_else(|| {
                // By number, not by slot: the choice must not depend on who came first.
                candidates.iter().min_by_key(|slot| self.slots[*slot as usize])
            });
            first == Some(router)
        })
    }

    /// Whether the viewer may reach some of the Internet through the exit node.
    fn may_exit(&self, viewer: u32, exit: u32) -> bool {
        self.exit_nodes.contains(exit)
            && self.rules_for(exit).iter().any(|rule| {
                let compiled = &self.rules[rule as usize];
                let Some(destination) = compiled.destination.map(|id| &self.destinations[id as usize]) else {
                    return false;
                };
                let ports = matches!(self.policy.rules()[rule as usize].effect, Effect::Ports(_));
                let public = destination.aliases.iter().any(|id| {
                    let entry = self.aliases.entry(*id);
                    match entry.meaning {
                        Meaning::Everyone => destination.via.is_empty(),
                        // By a `via`, a network is what lies behind the node and overlaps it.
                        Meaning::Ranges { public, .. } => {
                            public && (destination.via.is_empty() || entry.routed.contains(exit))
                        }
                        _ => entry.meaning.is_public(),
                    }
                });
                ports && public && self.sources[compiled.source as usize].covers.contains(viewer)
            })
    }
}
