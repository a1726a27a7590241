mod ssh;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use filter::{CapMap, PortRange, Protocol};
use roaring::RoaringBitmap;

use super::{Compiled, Side};
use crate::policy::{Effect, Rule};
use crate::{Alias, Node, NodeId, Ports, User, UserId, internet};

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

    /// The devices of a user.
    pub(crate) fn nodes_of_user(&self, user: UserId) -> BTreeSet<NodeId> {
        self.by_user.get(&user).map(|slots| self.node_ids(slots)).unwrap_or_default()
    }

    /// The rules of which a user's devices are a source: those that the user has, and any that they might have, with the
    /// posture that a rule asks for.
    pub fn rules_of_user(&self, user: UserId) -> Vec<usize> {
        let Some(known) = self.topology.users.get(&user) else { return Vec::new() };
        let devices = self.nodes_of_user(user);
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
    pub(super) fn means(&self, alias: &Alias, party: &Known) -> bool {
        match (&party.user, &party.node) {
            (Some(user), _) => self.is_alias_of_user(alias, user),
            (None, Some(node)) => self.is_alias_of(alias, &node.owner),
            (None, None) => false,
        }
    }

    pub(super) fn is_in_star(&self, address: IpAddr) -> bool {
        internet::tailnet().iter().any(|range| range.contains(address))
            || self.subnets.keys().any(|route| route.contains(&address))
    }
}

pub(super) fn same_user(one: &Known, other: &Known) -> bool {
    let login = |party: &Known| party.user.as_ref().map(|user| user.login.clone());
    login(one).is_some() && login(one) == login(other)
}

pub(super) fn port_lacks(ports: &[Ports], protocol: Protocol, port: u16) -> Option<Lack> {
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
