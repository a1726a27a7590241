use std::net::Ipv6Addr;

use super::Echo;
use crate::Malformed;
use crate::checksum::Checksum;
use crate::ip::{self, Protocol};

/// RFC 4443, section 3: an error quotes as much as fits in the least MTU of IPv6.
const MOST_QUOTED: usize = 1280 - 40 - 8;

/// A message of ICMP for IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmpv6<'a> {
    /// A ping.
    EchoRequest(Echo<'a>),
    /// The answer to a ping.
    EchoReply(Echo<'a>),
    /// A packet did not arrive.
    Unreachable {
        /// Why (RFC 4443): 0 no route, 1 administratively prohibited, 3 address, 4 port.
        code: u8,
        /// The start of that packet.
        quoted: &'a [u8],
    },
    /// A packet was too long for the next hop.
    PacketTooBig {
        /// What the next hop takes, in bytes.
        mtu: u32,
        /// The start of that packet.
        quoted: &'a [u8],
    },
    /// A packet's hop limit ran out (code 0), or its fragments did not arrive in time (1).
    TimeExceeded {
        /// Which of the two.
        code: u8,
        /// The start of that packet.
        quoted: &'a [u8],
    },
    /// Any other message, neighbour discovery among them.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

impl<'a> Icmpv6<'a> {
    /// Reads a message that fills `bytes`; its checksum over these addresses must be right.
    pub fn parse(bytes: &'a [u8], source: Ipv6Addr, destination: Ipv6Addr) -> Result<Self, Malformed> {
        const FORMAT: &str = "ICMPv6 message";
        let (header, data) =
            bytes.split_first_chunk::<8>().ok_or(Malformed::new(FORMAT, "it is shorter than its header"))?;
        let sum = Checksum::pseudo(source.into(), destination.into(), Protocol::ICMPV6, bytes.len());
        if !sum.with(bytes).is_right() {
            return Err(Malformed::new(FORMAT, "its checksum is wrong"));
        }
        let [kind, code, _, _, rest @ ..] = *header;
        Ok(match (kind, code) {
            (128, 0) => Self::EchoRequest(Echo::read(rest, data)),
            (129, 0) => Self::EchoReply(Echo::read(rest, data)),
            (1, code) => Self::Unreachable { code, quoted: data },
            (2, _) => Self::PacketTooBig { mtu: u32::from_be_bytes(rest), quoted: data },
            (3, code) => Self::TimeExceeded { code, quoted: data },
            (kind, code) => Self::Other { kind, code },
        })
    }

    /// Whether this reports an error about another packet: types below 128 do.
    pub fn is_error(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::PacketTooBig { .. } | Self::TimeExceeded { .. } => true,
            Self::Other { kind, .. } => *kind < 128,
            Self::EchoRequest(_) | Self::EchoReply(_) => false,
        }
    }

    /// The start of the packet that this error is about.
    pub fn quoted(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Unreachable { quoted, .. }
            | Self::PacketTooBig { quoted, .. }
            | Self::TimeExceeded { quoted, .. } => Some(quoted),
            _ => None,
        }
    }
}

/// A message of ICMP for IPv6 to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icmpv6Repr<'a> {
    /// A ping.
    EchoRequest(Echo<'a>),
    /// The answer to a ping.
    EchoReply(Echo<'a>),
    /// A packet did not arrive.
    Unreachable {
        /// Why: 0 no route, 1 administratively prohibited, 3 address, 4 port.
        code: u8,
        /// That packet; only its start is sent.
        packet: &'a [u8],
    },
    /// A packet is too long.
    PacketTooBig {
        /// What would fit, in bytes.
        mtu: u32,
        /// That packet; only its start is sent.
        packet: &'a [u8],
    },
    /// A packet's hop limit ran out.
    TimeExceeded {
        /// That packet; only its start is sent.
        packet: &'a [u8],
    },
}

impl Icmpv6Repr<'_> {
    /// A whole IPv6 packet with this message.
    ///
    /// # Panics
    ///
    /// If the data of an echo would make it exceed 65535 bytes.
    pub fn packet(&self, source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
        let (kind, code, rest, data) = match self {
            Self::EchoRequest(echo) => (128, 0, echo.rest(), echo.data),
            Self::EchoReply(echo) => (129, 0, echo.rest(), echo.data),
            Self::Unreachable { code, packet } => (1, *code, [0; 4], quote(packet)),
            Self::PacketTooBig { mtu, packet } => (2, 0, mtu.to_be_bytes(), quote(packet)),
            Self::TimeExceeded { packet } => (3, 0, [0; 4], quote(packet)),
        };
        let (source, destination) = (source.into(), destination.into());
        let mut header = [kind, code, 0, 0, rest[0], rest[1], rest[2], rest[3]];
        let sum = Checksum::pseudo(source, destination, Protocol::ICMPV6, header.len() + data.len());
        let sum = sum.with(&header).with(data).finish();
        header[2..4].copy_from_slice(&sum.to_be_bytes());
        ip::assemble(source, destination, Protocol::ICMPV6, &header, data)
    }
}

fn quote(packet: &[u8]) -> &[u8] {
    &packet[..packet.len().min(MOST_QUOTED)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::Packet;

    const A: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 1);
    const B: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2);

    #[test]
    fn a_ping_and_its_answer_read_back() {
        let echo = Echo { identifier: 0x1234, sequence: 9, data: b"ping" };
        let bytes = Icmpv6Repr::EchoRequest(echo).packet(A, B);
        assert_eq!(Icmpv6::parse(&bytes[40..], A, B), Ok(Icmpv6::EchoRequest(echo)));
        let bytes = Icmpv6Repr::EchoReply(echo).packet(B, A);
        assert_eq!(Icmpv6::parse(&bytes[40..], B, A), Ok(Icmpv6::EchoReply(echo)));
    }

    #[test]
    fn the_checksum_covers_the_addresses() {
        let bytes = Icmpv6Repr::EchoRequest(Echo { identifier: 1, sequence: 1, data: b"" }).packet(A, B);
        assert_eq!(Icmpv6::parse(&bytes[40..], A, A).unwrap_err().rule, "its checksum is wrong");
    }

    #[test]
    fn packet_too_big_quotes_no_more_than_fits_in_1280_bytes() {
        let ping = Icmpv6Repr::EchoRequest(Echo { identifier: 1, sequence: 2, data: &[7; 3000] }).packet(A, B);
        let error = Icmpv6Repr::PacketTooBig { mtu: 1280, packet: &ping }.packet(B, A);
        assert_eq!(error.len(), 1280);
        let message = Icmpv6::parse(&error[40..], B, A).unwrap();
        assert!(matches!(message, Icmpv6::PacketTooBig { mtu: 1280, .. }) && message.is_error());
        assert_eq!(Packet::parse_quoted(message.quoted().unwrap()).unwrap().source(), A);
    }
}
