use std::net::Ipv4Addr;

use super::{Extent, Fragment, Protocol, UpperLayer};
use crate::{Malformed, checksum};

const HEADER: usize = 20;
const FORMAT: &str = "IPv4 packet";

/// A view of an IPv4 packet (RFC 791).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4<'a> {
    header: &'a [u8; HEADER],
    bytes: &'a [u8],
    header_length: usize,
}

impl<'a> Ipv4<'a> {
    /// Reads a packet; bytes after its total length are not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes, Extent::Whole)
    }

    pub(super) fn read(bytes: &'a [u8], extent: Extent) -> Result<Self, Malformed> {
        let header: &[u8; HEADER] =
            bytes.first_chunk().ok_or(Malformed::new(FORMAT, "it is shorter than its fixed header"))?;
        if header[0] >> 4 != 4 {
            return Err(Malformed::new(FORMAT, "the version is not 4"));
        }
        let header_length = usize::from(header[0] & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_length < HEADER {
            return Err(Malformed::new(FORMAT, "the header length is below 20 bytes"));
        }
        if total < header_length {
            return Err(Malformed::new(FORMAT, "the total length is shorter than the header"));
        }
        let end = if extent == Extent::Quoted { total.min(bytes.len()) } else { total };
        let bytes = bytes.get(..end).ok_or(Malformed::new(FORMAT, "it is cut off"))?;
        if bytes.len() < header_length {
            return Err(Malformed::new(FORMAT, "its options are cut off"));
        }
        Ok(Self { header, bytes, header_length })
    }

    /// The packet's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Length of header and options.
    pub fn header_length(&self) -> usize {
        self.header_length
    }

    /// Type of service: six bits of DSCP, two of ECN.
    pub fn traffic_class(&self) -> u8 {
        self.header[1]
    }

    /// What the fragments of one datagram have in common.
    pub fn identification(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Whether routers must not fragment the packet.
    pub fn dont_fragment(&self) -> bool {
        self.header[6] & 0x40 != 0
    }

    /// Whether fragments follow.
    pub fn more_fragments(&self) -> bool {
        self.header[6] & 0x20 != 0
    }

    /// Where this fragment belongs in its datagram, in bytes.
    pub fn fragment_offset(&self) -> u16 {
        (u16::from_be_bytes([self.header[6], self.header[7]]) & 0x1fff) << 3
    }

    /// Time to live, in hops.
    pub fn time_to_live(&self) -> u8 {
        self.header[8]
    }

    /// The transport protocol.
    pub fn protocol(&self) -> Protocol {
        Protocol(self.header[9])
    }

    /// The source address.
    pub fn source(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.header[12], self.header[13], self.header[14], self.header[15])
    }

    /// The destination address.
    pub fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::new(self.header[16], self.header[17], self.header[18], self.header[19])
    }

    /// The raw options.
    pub fn options(&self) -> &'a [u8] {
        &self.bytes[HEADER..self.header_length]
    }

    /// Whether the header's checksum is right.
    pub fn checksum_is_right(&self) -> bool {
        checksum::checksum(&self.bytes[..self.header_length]) == 0
    }

    /// What the packet carries.
    pub fn upper_layer(&self) -> UpperLayer<'a> {
        let identification = u32::from(self.identification());
        let fragment = match (self.fragment_offset(), self.more_fragments()) {
            (0, false) => Fragment::Whole,
            (0, true) => Fragment::First { identification },
            (offset, _) => Fragment::Later { identification, offset },
        };
        let offset = self.header_length;
        UpperLayer { protocol: self.protocol(), fragment, offset, payload: &self.bytes[offset..] }
    }
}

/// An IPv4 header to be written: no options, not fragmented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// The source address.
    pub source: Ipv4Addr,
    /// The destination address.
    pub destination: Ipv4Addr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Time to live, in hops.
    pub time_to_live: u8,
    /// What fragments would have in common.
    pub identification: u16,
    /// Whether routers must not fragment the packet.
    pub dont_fragment: bool,
}

impl Ipv4Repr {
    /// Length of the header that is written.
    pub const HEADER_LENGTH: usize = HEADER;

    /// A header with a time to live of 64 that may be fragmented on its way.
    pub const fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: Protocol) -> Self {
        Self { source, destination, protocol, time_to_live: 64, identification: 0, dont_fragment: false }
    }

    /// The header in front of a payload of the given length.
    ///
    /// # Panics
    ///
    /// If header and payload together exceed 65535 bytes.
    pub fn header(&self, payload_length: usize) -> [u8; HEADER] {
        let total = u16::try_from(HEADER + payload_length).expect("an IPv4 packet is at most 65535 bytes");
        let mut header = [0; HEADER];
        header[0] = 0x45;
        header[2..4].copy_from_slice(&total.to_be_bytes());
        header[4..6].copy_from_slice(&self.identification.to_be_bytes());
        header[6] = if self.dont_fragment { 0x40 } else { 0 };
        header[8] = self.time_to_live;
        header[9] = self.protocol.0;
        header[12..16].copy_from_slice(&self.source.octets());
        header[16..20].copy_from_slice(&self.destination.octets());
        let sum = checksum::checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "45000073000040004011b861c0a80001c0a800c7";

    fn golden() -> Vec<u8> {
        let mut bytes = hex::decode(GOLDEN).unwrap();
        bytes.resize(0x73, 0xab);
        bytes
    }

    #[test]
    fn a_known_packet_reads_as_it_is() {
        let bytes = golden();
        let packet = Ipv4::parse(&bytes).unwrap();
        assert_eq!(packet.source(), Ipv4Addr::new(192, 168, 0, 1));
        assert_eq!(packet.destination(), Ipv4Addr::new(192, 168, 0, 199));
        assert_eq!(packet.protocol(), Protocol::UDP);
        assert_eq!(packet.time_to_live(), 64);
        assert!(packet.dont_fragment() && packet.checksum_is_right());
        assert_eq!(packet.upper_layer().payload.len(), 0x73 - 20);
    }

    #[test]
    fn the_header_is_written_as_the_known_packet_has_it() {
        let repr = Ipv4Repr {
            dont_fragment: true,
            ..Ipv4Repr::new(Ipv4Addr::new(192, 168, 0, 1), Ipv4Addr::new(192, 168, 0, 199), Protocol::UDP)
        };
        assert_eq!(hex::encode(repr.header(0x73 - 20)), GOLDEN);
    }

    #[test]
    fn bytes_after_the_total_length_are_not_payload() {
        let mut bytes = golden();
        bytes.extend_from_slice(&[1; 40]);
        assert_eq!(Ipv4::parse(&bytes).unwrap().bytes().len(), 0x73);
    }

    #[test]
    fn bad_lengths_are_refused_by_name() {
        let rule = |edit: fn(&mut Vec<u8>)| {
            let mut bytes = golden();
            edit(&mut bytes);
            Ipv4::parse(&bytes).unwrap_err().rule
        };
        assert_eq!(rule(|bytes| bytes.truncate(19)), "it is shorter than its fixed header");
        assert_eq!(rule(|bytes| bytes[0] = 0x44), "the header length is below 20 bytes");
        assert_eq!(rule(|bytes| bytes[3] = 19), "the total length is shorter than the header");
        assert_eq!(rule(|bytes| bytes.truncate(0x72)), "it is cut off");
    }

    #[test]
    fn a_quoted_packet_may_be_cut_but_not_inside_its_header() {
        let bytes = golden();
        let quoted = Ipv4::read(&bytes[..28], Extent::Quoted).unwrap();
        assert_eq!(quoted.upper_layer().payload.len(), 8);
        let mut options = golden();
        options[0] = 0x4f;
        assert_eq!(Ipv4::read(&options[..28], Extent::Quoted).unwrap_err().rule, "its options are cut off");
    }

    #[test]
    fn fragments_say_which_part_they_are() {
        let mut bytes = golden();
        bytes[4..8].copy_from_slice(&[0x12, 0x34, 0x20, 0x00]);
        assert_eq!(Ipv4::parse(&bytes).unwrap().upper_layer().fragment, Fragment::First { identification: 0x1234 });
        bytes[6..8].copy_from_slice(&[0x00, 0x02]);
        let later = Fragment::Later { identification: 0x1234, offset: 16 };
        assert_eq!(Ipv4::parse(&bytes).unwrap().upper_layer().fragment, later);
    }
}
