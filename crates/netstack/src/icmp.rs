use std::net::IpAddr;
use std::time::{Duration, Instant};

use packet::icmp::{Echo, Icmpv4, Icmpv4Repr, Icmpv6, Icmpv6Repr};
use packet::ip::{Packet, Protocol};

use crate::address::Pair;

/// What an ICMP packet asks for or reports.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A ping.
    EchoRequest(Echo<'a>),
    /// A TCP segment that was sent from here did not arrive.
    Unreachable {
        /// Whose.
        pair: Pair,
        /// Its sequence number: proof that the reporter has seen it.
        sequence: u32,
    },
    /// Nothing that concerns this stack.
    Other,
}

/// Reads the ICMP message that `packet` carries; `None` when it is malformed.
pub(crate) fn read<'a>(packet: &Packet<'a>) -> Option<Message<'a>> {
    let upper = packet.upper_layer();
    let quoted = match (packet, upper.protocol) {
        (Packet::V4(_), Protocol::ICMP) => match Icmpv4::parse(upper.payload).ok()? {
            Icmpv4::EchoRequest(echo) => return Some(Message::EchoRequest(echo)),
            Icmpv4::Unreachable { quoted, .. } => quoted,
            _ => return Some(Message::Other),
        },
        (Packet::V6(v6), Protocol::ICMPV6) => match Icmpv6::parse(upper.payload, v6.source(), v6.destination()).ok()? {
            Icmpv6::EchoRequest(echo) => return Some(Message::EchoRequest(echo)),
            Icmpv6::Unreachable { quoted, .. } => quoted,
            _ => return Some(Message::Other),
        },
        _ => return None,
    };
    Some(unreachable(quoted).unwrap_or(Message::Other))
}

fn unreachable(quoted: &[u8]) -> Option<Message<'static>> {
    let packet = Packet::parse_quoted(quoted).ok()?;
    let upper = packet.upper_layer();
    if upper.protocol != Protocol::TCP {
        return None;
    }
    let (local, remote) = upper.ports()?;
    let pair = Pair { local: (packet.source(), local).into(), remote: (packet.destination(), remote).into() };
    // The quotation may end after eight bytes of the segment: too short for a view of it.
    let sequence = u32::from_be_bytes(*upper.payload.get(4..8)?.first_chunk()?);
    Some(Message::Unreachable { pair, sequence })
}

/// The answer to a ping; `None` for addresses of two families.
pub(crate) fn pong(from: IpAddr, to: IpAddr, echo: Echo<'_>) -> Option<Vec<u8>> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(Icmpv4Repr::EchoReply(echo).packet(from, to)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(Icmpv6Repr::EchoReply(echo).packet(from, to)),
        _ => None,
    }
}

/// Tells the sender of `packet` that nobody has its port open.
pub(crate) fn port_unreachable(packet: &Packet<'_>) -> Vec<u8> {
    match packet {
        Packet::V4(v4) => Icmpv4Repr::Unreachable { code: 3, packet: v4.bytes() }.packet(v4.destination(), v4.source()),
        Packet::V6(v6) => Icmpv6Repr::Unreachable { code: 4, packet: v6.bytes() }.packet(v6.destination(), v6.source()),
    }
}

/// RFC 1812, section 4.3.2.8: errors are sent at a limited rate.
#[derive(Debug)]
pub(crate) struct ErrorRate {
    second: Instant,
    sent: u32,
}

impl ErrorRate {
    const PER_SECOND: u32 = 100;

    pub(crate) fn new(now: Instant) -> Self {
        Self { second: now, sent: 0 }
    }

    pub(crate) fn allows(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.sent += 1;
        self.sent <= Self::PER_SECOND
    }
}
