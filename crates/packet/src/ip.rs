//! IPv4 (RFC 791) and IPv6 (RFC 8200) packets.

mod rewrite;
mod v4;
mod v6;

use std::fmt;
use std::net::IpAddr;

pub use rewrite::{set_destination, set_source};
pub use v4::{Ipv4, Ipv4Repr};
pub use v6::{Ipv6, Ipv6Repr};

use crate::Malformed;

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP for IPv4.
    pub const ICMP: Self = Self(1);
    /// IGMP.
    pub const IGMP: Self = Self(2);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// DCCP.
    pub const DCCP: Self = Self(33);
    /// GRE.
    pub const GRE: Self = Self(47);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
    /// TSMP, the control messages between two nodes of a tailnet; "any private encryption scheme" in IANA's list.
    pub const TSMP: Self = Self(99);
    /// SCTP.
    pub const SCTP: Self = Self(132);
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::IGMP => f.write_str("igmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::DCCP => f.write_str("dccp"),
            Self::GRE => f.write_str("gre"),
            Self::ICMPV6 => f.write_str("ipv6-icmp"),
            Self::TSMP => f.write_str("tsmp"),
            Self::SCTP => f.write_str("sctp"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

/// Which part of its datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first part: the transport header is here, the rest of the payload is not.
    First {
        /// What the parts of one datagram have in common.
        identification: u32,
    },
    /// A later part: there is no transport header to judge it by.
    Later {
        /// What the parts of one datagram have in common.
        identification: u32,
        /// Where in the datagram this part belongs, in bytes.
        offset: u16,
    },
}

/// What an IP packet carries, after all headers of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpperLayer<'a> {
    /// The transport protocol.
    pub protocol: Protocol,
    /// Whether `payload` begins with that protocol's header, and holds all of it.
    pub fragment: Fragment,
    /// Where `payload` begins in the packet.
    pub offset: usize,
    /// Transport header and data, as long as the IP header says: what follows in the buffer is not part of it.
    pub payload: &'a [u8],
}

impl UpperLayer<'_> {
    /// Source and destination port of a protocol that has them; `None` in a later fragment or when they are cut off.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let ported = matches!(self.protocol, Protocol::TCP | Protocol::UDP | Protocol::SCTP | Protocol::DCCP);
        if !ported || matches!(self.fragment, Fragment::Later { .. }) {
            return None;
        }
        let [a, b, c, d] = *self.payload.first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

/// An IP packet of either version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packet<'a> {
    /// An IPv4 packet.
    V4(Ipv4<'a>),
    /// An IPv6 packet.
    V6(Ipv6<'a>),
}

impl<'a> Packet<'a> {
    /// Reads a packet of the version that its first four bits name. Bytes after the packet's own end are not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes, Extent::Whole)
    }

    /// Reads the start of a packet, as an ICMP error quotes it: the payload may end before the header says so.
    pub fn parse_quoted(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes, Extent::Quoted)
    }

    fn read(bytes: &'a [u8], extent: Extent) -> Result<Self, Malformed> {
        match bytes.first().map(|first| first >> 4) {
            Some(4) => Ipv4::read(bytes, extent).map(Self::V4),
            Some(6) => Ipv6::read(bytes, extent).map(Self::V6),
            Some(_) => Err(Malformed::new("IP packet", "the version is neither 4 nor 6")),
            None => Err(Malformed::new("IP packet", "it is empty")),
        }
    }

    /// The source address.
    pub fn source(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.source().into(),
            Self::V6(packet) => packet.source().into(),
        }
    }

    /// The destination address.
    pub fn destination(&self) -> IpAddr {
        match self {
            Self::V4(packet) => packet.destination().into(),
            Self::V6(packet) => packet.destination().into(),
        }
    }

    /// Time to live, or hop limit.
    pub fn hop_limit(&self) -> u8 {
        match self {
            Self::V4(packet) => packet.time_to_live(),
            Self::V6(packet) => packet.hop_limit(),
        }
    }

    /// What the packet carries.
    pub fn upper_layer(&self) -> UpperLayer<'a> {
        match self {
            Self::V4(packet) => packet.upper_layer(),
            Self::V6(packet) => packet.upper_layer(),
        }
    }

    /// The packet's own bytes, without what may follow them in the buffer.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::V4(packet) => packet.bytes(),
            Self::V6(packet) => packet.bytes(),
        }
    }
}

/// Whether all of a packet has to be there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Quoted,
}

/// An IP header, a transport header and data in one packet.
pub(crate) fn assemble(
    source: IpAddr,
    destination: IpAddr,
    protocol: Protocol,
    header: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let length = header.len() + payload.len();
    let mut packet = Vec::with_capacity(40 + length);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            packet.extend_from_slice(&Ipv4Repr::new(source, destination, protocol).header(length));
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            packet.extend_from_slice(&Ipv6Repr::new(source, destination, protocol).header(length));
        }
        _ => panic!("the two addresses of a packet are of one family"),
    }
    packet.extend_from_slice(header);
    packet.extend_from_slice(payload);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_packet_of_version_5_is_refused() {
        let rule = Packet::parse(&[0x50; 60]).unwrap_err().rule;
        assert_eq!(rule, "the version is neither 4 nor 6");
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let upper = UpperLayer {
            protocol: Protocol::UDP,
            fragment: Fragment::Later { identification: 1, offset: 8 },
            offset: 20,
            payload: &[0; 8],
        };
        assert_eq!(upper.ports(), None);
        assert_eq!(UpperLayer { fragment: Fragment::Whole, ..upper }.ports(), Some((0, 0)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..3) {
            if let Some(first) = bytes.first_mut() {
                *first = match version { 0 => *first, 1 => 0x40 | (*first & 0x0f), _ => 0x60 };
            }
            for packet in [Packet::parse(&bytes), Packet::parse_quoted(&bytes)].into_iter().flatten() {
                let upper = packet.upper_layer();
                upper.ports();
                prop_assert_eq!(&packet.bytes()[upper.offset..], upper.payload);
                let _ = crate::tcp::Tcp::parse(upper.payload).map(|tcp| tcp.options().count());
                let _ = crate::udp::Udp::parse(upper.payload);
            }
        }
    }
}
