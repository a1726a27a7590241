use std::fmt;

use ipnet::IpNet;

use super::{Chain, Expression, Hook, Rule, Ruleset};
use crate::firewall::FIREWALL_TABLE;
use crate::routes::{Family, MARK_MASK};

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table inet {FIREWALL_TABLE} {{")?;
        writeln!(f, "\tcomment \"{}\"", self.fingerprint())?;
        for (position, chain) in self.chains.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{chain}")?;
        }
        writeln!(f, "}}")
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.translates { "nat" } else { "filter" };
        writeln!(f, "\tchain {} {{", self.name)?;
        writeln!(f, "\t\ttype {kind} hook {} priority {}; policy accept;", self.hook, self.priority)?;
        for rule in &self.rules {
            writeln!(f, "\t\t{rule}")?;
        }
        writeln!(f, "\t}}")
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut expressions = self.expressions.iter().peekable();
        while let Some(expression) = expressions.next() {
            // `nft` leaves the family out where the address says it.
            let said = matches!(expressions.peek(), Some(Expression::Source(_) | Expression::Destination(_)));
            if !(said && matches!(expression, Expression::Family(_))) {
                write!(f, "{expression} ")?;
            }
        }
        write!(f, "comment \"{}\"", self.comment)
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |network: &IpNet| if network.addr().is_ipv4() { "ip" } else { "ip6" };
        match self {
            Self::InputInterface(name, true) => write!(f, "iifname \"{name}\""),
            Self::InputInterface(name, false) => write!(f, "iifname != \"{name}\""),
            Self::OutputInterface(name) => write!(f, "oifname \"{name}\""),
            Self::Family(Family::V4) => write!(f, "meta nfproto ipv4"),
            Self::Family(Family::V6) => write!(f, "meta nfproto ipv6"),
            Self::Source(network) => write!(f, "{} saddr {}", ip(network), Short(network)),
            Self::Destination(network) => write!(f, "{} daddr {}", ip(network), Short(network)),
            Self::UdpPort(port) => write!(f, "udp dport {port}"),
            Self::TcpSyn => write!(f, "tcp flags syn / syn,rst"),
            Self::Mark(mark) => write!(f, "meta mark & {MARK_MASK:#010x} == {mark:#010x}"),
            Self::ConnectionMark(mark) => write!(f, "ct mark & {MARK_MASK:#010x} == {mark:#010x}"),
            Self::Established(true) => write!(f, "ct state established,related"),
            Self::Established(false) => write!(f, "ct state ! established,related"),
            Self::SetMark(mark) => write!(f, "meta mark set meta mark & {:#010x} | {mark:#010x}", !MARK_MASK | mark),
            Self::SetConnectionMark(mark) => {
                write!(f, "ct mark set ct mark & {:#010x} | {mark:#010x}", !MARK_MASK | mark)
            }
            Self::ClampSegments => write!(f, "tcp option maxseg size set rt mtu"),
            Self::Masquerade => write!(f, "masquerade"),
            Self::SourceNat(address) => write!(f, "snat {} to {address}", ip(&(*address).into())),
            Self::DestinationNat(address) => write!(f, "dnat {} to {address}", ip(&(*address).into())),
            Self::Accept => write!(f, "accept"),
            Self::Drop => write!(f, "drop"),
            Self::Return => write!(f, "return"),
        }
    }
}

/// A network, or the address alone when it is one.
struct Short<'a>(&'a IpNet);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            write!(f, "{}", self.0.addr())
        } else {
            write!(f, "{}", self.0)
        }
    }
}
