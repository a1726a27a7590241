use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::{Filter, Flow, FlowTable, Payload, PortRange, Protocol};

/// The one link-local destination that packets may have: where clouds serve metadata and names.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// What the filter made of a packet, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it in.
    Accept(Pass),
    /// Drop it.
    Drop(Refusal),
}

/// Why a packet is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The rule with this place in the list that the filter was compiled from.
    Rule(usize),
    /// It belongs to a flow that this node began: an answer in UDP or SCTP.
    Answer,
    /// A TCP segment that opens nothing; without a connection it meets a reset.
    TcpLater,
    /// An ICMP answer or error.
    IcmpAnswer,
    /// A fragment whose first one was judged.
    LaterFragment,
    /// A message between nodes (TSMP).
    NodeMessage,
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its headers can't be read.
    Unreadable,
    /// Its source and destination are of two families.
    MixedFamilies,
    /// It goes to a group of receivers.
    Multicast,
    /// Its destination is link-local.
    LinkLocal,
    /// This node doesn't answer for its destination.
    NotLocal,
    /// The node's user lets nothing in (shields up).
    ShieldsUp,
    /// The sender may only answer (a peer shared into this tailnet).
    Jailed,
    /// No rule allows it.
    NoRule,
}

/// What the asking node knows about the sender and itself, and the filter doesn't.
#[derive(Clone, Copy)]
pub struct Standing<'a> {
    /// The node lets only answers in.
    pub shields_up: bool,
    /// The sender may only answer.
    pub jailed: bool,
    /// Whether the sender's node has a node capability: for rules whose source is `cap:…`.
    pub has_capability: &'a dyn Fn(&str) -> bool,
}

impl Default for Standing<'_> {
    fn default() -> Self {
        Self { shields_up: false, jailed: false, has_capability: &|_| false }
    }
}

impl fmt::Debug for Standing<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shields_up, jailed, .. } = self;
        formatter
            .debug_struct("Standing")
            .field("shields_up", shields_up)
            .field("jailed", jailed)
            .finish_non_exhaustive()
    }
}

impl Verdict {
    /// Whether the packet is let in.
    pub const fn is_accept(self) -> bool {
        matches!(self, Self::Accept(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unreadable => "its headers can't be read",
            Self::MixedFamilies => "its addresses are of two families",
            Self::Multicast => "its destination is a multicast address",
            Self::LinkLocal => "its destination is link-local",
            Self::NotLocal => "this node doesn't answer for its destination",
            Self::ShieldsUp => "this node's shields are up",
            Self::Jailed => "the sender may only answer",
            Self::NoRule => "no rule allows it",
        })
    }
}

impl Filter {
    /// Judges a packet that came in. `answers` knows the flows that this node began.
    pub fn judge(&self, flow: &Flow, answers: &mut FlowTable, standing: &Standing<'_>) -> Verdict {
        match self.before_rules(flow) {
            Ok(None) => {}
            Ok(Some(pass)) => return Verdict::Accept(pass),
            Err(refusal) => return Verdict::Drop(refusal),
        }
        if matches!(flow.protocol, Protocol::UDP | Protocol::SCTP) && answers.expects(flow) {
            return Verdict::Accept(Pass::Answer);
        }
        if standing.shields_up {
            return Verdict::Drop(Refusal::ShieldsUp);
        }
        if standing.jailed {
            return Verdict::Drop(Refusal::Jailed);
        }
        match self.allowing_rule(flow, standing.has_capability) {
            Some(rule) => Verdict::Accept(Pass::Rule(rule)),
            None => Verdict::Drop(Refusal::NoRule),
        }
    }

    /// What can be said before rules are looked at: `None` leaves it to them.
    pub(crate) fn before_rules(&self, flow: &Flow) -> Result<Option<Pass>, Refusal> {
        let destination = flow.destination.ip();
        if flow.payload == Payload::Unreadable {
            return Err(Refusal::Unreadable);
        }
        if flow.source.is_ipv4() != flow.destination.is_ipv4() {
            return Err(Refusal::MixedFamilies);
        }
        if destination.is_multicast() {
            return Err(Refusal::Multicast);
        }
        if is_link_local(destination) && destination != METADATA {
            return Err(Refusal::LinkLocal);
        }
        if flow.payload == Payload::LaterFragment {
            return Ok(Some(Pass::LaterFragment));
        }
        if !self.local.contains(destination) {
            return Err(Refusal::NotLocal);
        }
        Ok(match (flow.protocol, flow.payload) {
            (Protocol::ICMPV4 | Protocol::ICMPV6, Payload::EchoReply | Payload::IcmpError) => Some(Pass::IcmpAnswer),
            (Protocol::TCP, Payload::TcpLater) => Some(Pass::TcpLater),
            (Protocol::TSMP, _) => Some(Pass::NodeMessage),
            _ => None,
        })
    }

    /// The first rule that allows a flow which is no answer.
    pub(crate) fn allowing_rule(&self, flow: &Flow, has_capability: &dyn Fn(&str) -> bool) -> Option<usize> {
        let (source, destination) = (flow.source.ip(), flow.destination.ip());
        let rule_of = |atom: usize| self.atoms[atom].rule as usize;
        let names_protocol = |atom: usize| self.rules[rule_of(atom)].protocols.contains(flow.protocol);
        let atom = if is_icmp_of_family(flow) {
            // Whoever may use any port may also ping it.
            self.matching(source, destination, None, has_capability, |_| true)
        } else if flow.protocol.has_ports() {
            self.matching(source, destination, Some(flow.destination.port()), has_capability, names_protocol)
        } else {
            let all_ports = |atom: usize| names_protocol(atom) && self.atoms[atom].ports == PortRange::ALL;
            self.matching(source, destination, None, has_capability, all_ports)
        };
        atom.map(rule_of)
    }
}

pub(crate) fn is_icmp_of_family(flow: &Flow) -> bool {
    flow.protocol == if flow.destination.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_is_told_without_its_function() {
        let told = format!("{:?}", Standing { jailed: true, ..Standing::default() });
        assert_eq!(told, "Standing { shields_up: false, jailed: true, .. }");
    }

    #[test]
    fn every_refusal_says_what_is_wrong() {
        assert_eq!(Refusal::NoRule.to_string(), "no rule allows it");
        assert_eq!(Refusal::Jailed.to_string(), "the sender may only answer");
    }
}
