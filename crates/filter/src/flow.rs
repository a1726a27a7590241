use std::fmt;
use std::net::SocketAddr;

/// An IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Protocol(pub u8);

/// What a packet says about itself, as far as a filter looks.
///
/// Protocols without ports have port 0 at both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The protocol that the last IP header names.
    pub protocol: Protocol,
    /// Where the packet says it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
    /// What of the payload matters.
    pub payload: Payload,
}

/// The part of a packet's payload that changes a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing about it matters: UDP, SCTP, and whatever has no row of its own here.
    Plain,
    /// A TCP segment that opens a connection: SYN without ACK.
    TcpSyn,
    /// Any other TCP segment.
    TcpLater,
    /// An ICMP echo reply.
    EchoReply,
    /// An ICMP error about a packet that this node sent.
    IcmpError,
    /// Any other ICMP message.
    IcmpOther,
    /// A fragment that isn't the first: it has no ports, and its first fragment was judged.
    LaterFragment,
    /// Headers that could not be read.
    Unreadable,
}

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMPV4: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// The mesh's own messages between nodes (IP protocol 99).
    pub const TSMP: Self = Self(99);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// The protocols of a rule that names none.
    pub const DEFAULT: [Self; 4] = [Self::TCP, Self::UDP, Self::ICMPV4, Self::ICMPV6];

    /// Whether packets of this protocol carry ports that rules look at.
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::TCP | Self::UDP | Self::SCTP)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMPV4 => formatter.write_str("icmp"),
            Self::TCP => formatter.write_str("tcp"),
            Self::UDP => formatter.write_str("udp"),
            Self::ICMPV6 => formatter.write_str("ipv6-icmp"),
            Self::SCTP => formatter.write_str("sctp"),
            Self(number) => write!(formatter, "protocol {number}"),
        }
    }
}

impl Flow {
    /// A TCP connection being opened.
    pub const fn tcp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { protocol: Protocol::TCP, source, destination, payload: Payload::TcpSyn }
    }

    /// A UDP datagram.
    pub const fn udp(source: SocketAddr, destination: SocketAddr) -> Self {
        Self { protocol: Protocol::UDP, source, destination, payload: Payload::Plain }
    }

    /// An ICMP echo request of the destination's family.
    pub const fn ping(source: SocketAddr, destination: SocketAddr) -> Self {
        let protocol = if destination.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 };
        Self { protocol, source, destination, payload: Payload::IcmpOther }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} -> {}", self.protocol, self.source, self.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_told_as_people_write_it() {
        let [from, to] = ["100.64.0.1:1000", "100.64.0.2:53"].map(|text| text.parse().unwrap());
        assert_eq!(Flow::udp(from, to).to_string(), "udp 100.64.0.1:1000 -> 100.64.0.2:53");
        let named = [Protocol::ICMPV4, Protocol::TCP, Protocol::ICMPV6, Protocol::SCTP, Protocol(47)];
        let names = named.map(|protocol| protocol.to_string());
        assert_eq!(names, ["icmp", "tcp", "ipv6-icmp", "sctp", "protocol 47"]);
    }

    #[test]
    fn a_ping_is_of_its_destinations_family() {
        let [v4, v6] = ["100.64.0.1:0", "[::1]:0"].map(|text| text.parse().unwrap());
        assert_eq!(Flow::ping(v4, v4).protocol, Protocol::ICMPV4);
        assert_eq!(Flow::ping(v6, v6).protocol, Protocol::ICMPV6);
    }
}
