//! ICMP for IPv4 (RFC 792) and IPv6 (RFC 4443): echoes, and the errors that a node reads or sends.

mod v4;
mod v6;

pub use v4::{Icmpv4, Icmpv4Repr};
pub use v6::{Icmpv6, Icmpv6Repr};

/// An echo request or reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo<'a> {
    /// Tells the pings of one sender apart.
    pub identifier: u16,
    /// Counts the pings of one sender.
    pub sequence: u16,
    /// What the reply repeats.
    pub data: &'a [u8],
}

impl<'a> Echo<'a> {
    fn read(rest: [u8; 4], data: &'a [u8]) -> Self {
        let [a, b, c, d] = rest;
        Self { identifier: u16::from_be_bytes([a, b]), sequence: u16::from_be_bytes([c, d]), data }
    }

    fn rest(&self) -> [u8; 4] {
        (u32::from(self.identifier) << 16 | u32::from(self.sequence)).to_be_bytes()
    }
}
