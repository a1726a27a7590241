use std::net::Ipv4Addr;

use super::Echo;
use crate::ip::{self, Protocol};
use crate::{Malformed, checksum};

/// RFC 1812, section 4.3.2.3: an error quotes as much as fits in a packet of 576 bytes.
const MOST_QUOTED: usize = 576 - 20 - 8;

/// A message of ICMP for IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmpv4<'a> {
    /// A ping.
    EchoRequest(Echo<'a>),
    /// The answer to a ping.
    EchoReply(Echo<'a>),
    /// A packet did not arrive.
    Unreachable {
        /// Why (RFC 792, RFC 1812): 1 host, 3 port, 13 administratively prohibited.
        code: u8,
        /// The start of that packet.
        quoted: &'a [u8],
    },
    /// A packet that must not be fragmented was too long for the next hop.
    FragmentationNeeded {
        /// What the next hop takes, in bytes; 0 from a router older than RFC 1191.
        mtu: u16,
        /// The start of that packet.
        quoted: &'a [u8],
    },
    /// A packet's time to live ran out (code 0), or its fragments did not arrive in time (1).
    TimeExceeded {
        /// Which of the two.
        code: u8,
        /// The start of that packet.
        quoted: &'a [u8],
    },
    /// Any other message.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

impl<'a> Icmpv4<'a> {
    /// Reads a message that fills `bytes`; its checksum must be right.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        const FORMAT: &str = "ICMP message";
        let (header, data) =
            bytes.split_first_chunk::<8>().ok_or(Malformed::new(FORMAT, "it is shorter than its header"))?;
        if checksum::checksum(bytes) != 0 {
            return Err(Malformed::new(FORMAT, "its checksum is wrong"));
        }
        let [kind, code, _, _, rest @ ..] = *header;
        Ok(match (kind, code) {
            (0, 0) => Self::EchoReply(Echo::read(rest, data)),
            (8, 0) => Self::EchoRequest(Echo::read(rest, data)),
            (3, 4) => Self::FragmentationNeeded { mtu: u16::from_be_bytes([rest[2], rest[3]]), quoted: data },
            (3, code) => Self::Unreachable { code, quoted: data },
            (11, code) => Self::TimeExceeded { code, quoted: data },
            (kind, code) => Self::Other { kind, code },
        })
    }

    /// Whether this reports an error about another packet.
    pub fn is_error(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::FragmentationNeeded { .. } | Self::TimeExceeded { .. } => true,
            Self::Other { kind, .. } => matches!(kind, 4 | 5 | 12),
            Self::EchoRequest(_) | Self::EchoReply(_) => false,
        }
    }

    /// The start of the packet that this error is about.
    pub fn quoted(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Unreachable { quoted, .. }
            | Self::FragmentationNeeded { quoted, .. }
            | Self::TimeExceeded { quoted, .. } => Some(quoted),
            _ => None,
        }
    }
}

/// A message of ICMP for IPv4 to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmpv4Repr<'a> {
    /// A ping.
    EchoRequest(Echo<'a>),
    /// The answer to a ping.
    EchoReply(Echo<'a>),
    /// A packet did not arrive.
    Unreachable {
        /// Why: 1 host, 3 port, 13 administratively prohibited.
        code: u8,
        /// That packet; only its start is sent.
        packet: &'a [u8],
    },
    /// A packet that must not be fragmented is too long.
    FragmentationNeeded {
        /// What would fit, in bytes.
        mtu: u16,
        /// That packet; only its start is sent.
        packet: &'a [u8],
    },
    /// A packet's time to live ran out.
    TimeExceeded {
        /// That packet; only its start is sent.
        packet: &'a [u8],
    },
}

impl Icmpv4Repr<'_> {
    /// A whole IPv4 packet with this message.
    ///
    /// # Panics
    ///
    /// If the data of an echo would make it exceed 65535 bytes.
    pub fn packet(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
        let (kind, code, rest, data) = match self {
            Self::EchoReply(echo) => (0, 0, echo.rest(), echo.data),
            Self::EchoRequest(echo) => (8, 0, echo.rest(), echo.data),
            Self::Unreachable { code, packet } => (3, *code, [0; 4], quote(packet)),
            Self::FragmentationNeeded { mtu, packet } => (3, 4, u32::from(*mtu).to_be_bytes(), quote(packet)),
            Self::TimeExceeded { packet } => (11, 0, [0; 4], quote(packet)),
        };
        let mut header = [kind, code, 0, 0, rest[0], rest[1], rest[2], rest[3]];
        let sum = checksum::Checksum::new().with(&header).with(data).finish();
        header[2..4].copy_from_slice(&sum.to_be_bytes());
        ip::assemble(source.into(), destination.into(), Protocol::ICMP, &header, data)
    }
}

fn quote(packet: &[u8]) -> &[u8] {
    &packet[..packet.len().min(MOST_QUOTED)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Packet;
    use proptest::prelude::*;

    const A: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

    #[test]
    fn a_ping_is_written_as_the_wire_has_it() {
        let bytes = Icmpv4Repr::EchoRequest(Echo { identifier: 1, sequence: 2, data: b"ab" }).packet(A, B);
        assert_eq!(hex::encode(&bytes[20..]), "0800969a000100026162");
    }

    #[test]
    fn a_wrong_checksum_is_refused() {
        let mut bytes = Icmpv4Repr::EchoRequest(Echo { identifier: 1, sequence: 2, data: b"ab" }).packet(A, B);
        bytes[25] ^= 1;
        assert_eq!(Icmpv4::parse(&bytes[20..]).unwrap_err().rule, "its checksum is wrong");
    }

    #[test]
    fn an_error_quotes_the_packet_it_is_about() {
        let ping = Icmpv4Repr::EchoRequest(Echo { identifier: 1, sequence: 2, data: &[7; 1000] }).packet(A, B);
        let error = Icmpv4Repr::FragmentationNeeded { mtu: 500, packet: &ping }.packet(B, A);
        let message = Icmpv4::parse(Packet::parse(&error).unwrap().upper_layer().payload).unwrap();
        assert!(message.is_error());
        assert!(matches!(message, Icmpv4::FragmentationNeeded { mtu: 500, .. }));
        let quoted = Packet::parse_quoted(message.quoted().unwrap()).unwrap();
        assert_eq!(quoted.destination(), B);
        assert_eq!(error.len(), 576);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            if bytes.len() >= 8 {
                bytes[2..4].fill(0);
                let sum = checksum::checksum(&bytes);
                bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            }
            if let Ok(message) = Icmpv4::parse(&bytes) {
                message.quoted().map(Packet::parse_quoted);
            }
        }
    }
}
