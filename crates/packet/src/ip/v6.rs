use std::net::Ipv6Addr;

use super::{Extent, Fragment, Protocol, UpperLayer};
use crate::Malformed;

const HEADER: usize = 40;
const FORMAT: &str = "IPv6 packet";

/// RFC 8200 orders at most seven headers before the transport's; a chain beyond this only costs time.
const MOST_EXTENSIONS: usize = 8;

/// A view of an IPv6 packet (RFC 8200), its extension headers walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER],
    bytes: &'a [u8],
    upper: Upper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Upper {
    protocol: Protocol,
    fragment: Fragment,
    offset: usize,
}

impl<'a> Ipv6<'a> {
    /// Reads a packet; bytes after its payload length are not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        Self::read(bytes, Extent::Whole)
    }

    pub(super) fn read(bytes: &'a [u8], extent: Extent) -> Result<Self, Malformed> {
        let header: &[u8; HEADER] =
            bytes.first_chunk().ok_or(Malformed::new(FORMAT, "it is shorter than its fixed header"))?;
        if header[0] >> 4 != 6 {
            return Err(Malformed::new(FORMAT, "the version is not 6"));
        }
        let total = HEADER + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let end = if extent == Extent::Quoted { total.min(bytes.len()) } else { total };
        let bytes = bytes.get(..end).ok_or(Malformed::new(FORMAT, "it is cut off"))?;
        let upper = walk(Protocol(header[6]), bytes)?;
        Ok(Self { header, bytes, upper })
    }

    /// The packet's own bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Traffic class: six bits of DSCP, two of ECN.
    pub fn traffic_class(&self) -> u8 {
        self.header[0] << 4 | self.header[1] >> 4
    }

    /// The flow label, 20 bits.
    pub fn flow_label(&self) -> u32 {
        u32::from_be_bytes([0, self.header[1] & 0x0f, self.header[2], self.header[3]])
    }

    /// The hop limit.
    pub fn hop_limit(&self) -> u8 {
        self.header[7]
    }

    /// The source address.
    pub fn source(&self) -> Ipv6Addr {
        address(self.header, 8)
    }

    /// The destination address.
    pub fn destination(&self) -> Ipv6Addr {
        address(self.header, 24)
    }

    /// What the packet carries after its extension headers.
    pub fn upper_layer(&self) -> UpperLayer<'a> {
        let Upper { protocol, fragment, offset } = self.upper;
        UpperLayer { protocol, fragment, offset, payload: &self.bytes[offset..] }
    }
}

fn address(header: &[u8; HEADER], at: usize) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&header[at..at + 16]);
    Ipv6Addr::from(octets)
}

/// Follows the chain of extension headers to the transport header, or to where a later fragment hides it.
fn walk(first: Protocol, bytes: &[u8]) -> Result<Upper, Malformed> {
    const CUT: Malformed = Malformed::new(FORMAT, "an extension header is cut off");
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    const MOBILITY: u8 = 135;

    let mut upper = Upper { protocol: first, fragment: Fragment::Whole, offset: HEADER };
    for _ in 0..MOST_EXTENSIONS {
        let rest = &bytes[upper.offset..];
        let length = match upper.protocol.0 {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS | MOBILITY => {
                let [_, units] = rest.first_chunk().ok_or(CUT)?;
                8 + usize::from(*units) * 8
            }
            AUTHENTICATION => {
                let [_, units] = rest.first_chunk().ok_or(CUT)?;
                8 + usize::from(*units) * 4
            }
            FRAGMENT => {
                let header: &[u8; 8] = rest.first_chunk().ok_or(CUT)?;
                upper.fragment = fragment(header);
                8
            }
            _ => return Ok(upper),
        };
        upper.protocol = Protocol(*rest.first().ok_or(CUT)?);
        upper.offset += length;
        if upper.offset > bytes.len() {
            return Err(CUT);
        }
        if matches!(upper.fragment, Fragment::Later { .. }) {
            return Ok(upper);
        }
    }
    Err(Malformed::new(FORMAT, "it has more than eight extension headers"))
}

fn fragment(header: &[u8; 8]) -> Fragment {
    let word = u16::from_be_bytes([header[2], header[3]]);
    let identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    match (word & !7, word & 1) {
        (0, 0) => Fragment::Whole,
        (0, _) => Fragment::First { identification },
        (offset, _) => Fragment::Later { identification, offset },
    }
}

/// An IPv6 header to be written: no extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv6Repr {
    /// The source address.
    pub source: Ipv6Addr,
    /// The destination address.
    pub destination: Ipv6Addr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The hop limit.
    pub hop_limit: u8,
}

impl Ipv6Repr {
    /// Length of the header that is written.
    pub const HEADER_LENGTH: usize = HEADER;

    /// A header with a hop limit of 64.
    pub const fn new(source: Ipv6Addr, destination: Ipv6Addr, protocol: Protocol) -> Self {
        Self { source, destination, protocol, hop_limit: 64 }
    }

    /// The header in front of a payload of the given length.
    ///
    /// # Panics
    ///
    /// If the payload exceeds 65535 bytes.
    pub fn header(&self, payload_length: usize) -> [u8; HEADER] {
        let length = u16::try_from(payload_length).expect("an IPv6 payload is at most 65535 bytes");
        let mut header = [0; HEADER];
        header[0] = 0x60;
        header[4..6].copy_from_slice(&length.to_be_bytes());
        header[6] = self.protocol.0;
        header[7] = self.hop_limit;
        header[8..24].copy_from_slice(&self.source.octets());
        header[24..40].copy_from_slice(&self.destination.octets());
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 1);
    const DESTINATION: Ipv6Addr = Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53);

    fn packet(next: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Ipv6Repr::new(SOURCE, DESTINATION, Protocol(next)).header(payload.len()).to_vec();
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_plain_packet_reads_as_it_was_written() {
        let bytes = packet(17, &[1, 2, 3, 4, 0, 8, 0, 0]);
        assert_eq!(
            hex::encode(&bytes[..40]),
            "6000000000081140fd7a115ca1e000000000000000000001fd7a115ca1e000000000000000000053"
        );
        let view = Ipv6::parse(&bytes).unwrap();
        assert_eq!((view.source(), view.destination(), view.hop_limit()), (SOURCE, DESTINATION, 64));
        assert_eq!(view.upper_layer().ports(), Some((0x0102, 0x0304)));
    }

    #[test]
    fn extension_headers_are_walked_to_the_transport() {
        // Hop-by-hop of 8 bytes, destination options of 16, authentication of 12 + 4, then TCP.
        let mut payload = vec![60, 0, 0, 0, 0, 0, 0, 0];
        payload.extend_from_slice(&[51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend_from_slice(&[6, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        payload.extend_from_slice(&[0, 80, 1, 0]);
        let bytes = packet(0, &payload);
        let upper = Ipv6::parse(&bytes).unwrap().upper_layer();
        assert_eq!((upper.protocol, upper.offset, upper.ports()), (Protocol::TCP, 80, Some((80, 256))));
    }

    #[test]
    fn an_atomic_fragment_is_whole_and_a_later_one_has_no_ports() {
        let at = |word: u16| {
            let mut payload = vec![17, 0];
            payload.extend_from_slice(&word.to_be_bytes());
            payload.extend_from_slice(&[0, 0, 0, 9, 0, 1, 0, 2, 0, 8, 0, 0]);
            packet(44, &payload)
        };
        assert_eq!(Ipv6::parse(&at(0)).unwrap().upper_layer().fragment, Fragment::Whole);
        let first = at(1);
        let upper = Ipv6::parse(&first).unwrap().upper_layer();
        assert_eq!((upper.fragment, upper.ports()), (Fragment::First { identification: 9 }, Some((1, 2))));
        let later = at(16);
        let upper = Ipv6::parse(&later).unwrap().upper_layer();
        assert_eq!(upper.fragment, Fragment::Later { identification: 9, offset: 16 });
        assert_eq!((upper.protocol, upper.ports()), (Protocol::UDP, None));
    }

    #[test]
    fn a_chain_that_runs_past_the_packet_is_refused() {
        let bytes = packet(0, &[17, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Ipv6::parse(&bytes).unwrap_err().rule, "an extension header is cut off");
        assert_eq!(Ipv6::parse(&packet(43, &[])).unwrap_err().rule, "an extension header is cut off");
    }

    #[test]
    fn an_endless_chain_is_refused() {
        let bytes = packet(60, &[60, 0, 0, 0, 0, 0, 0, 0].repeat(100));
        assert_eq!(Ipv6::parse(&bytes).unwrap_err().rule, "it has more than eight extension headers");
    }

    #[test]
    fn a_packet_cut_short_is_refused_unless_quoted() {
        let bytes = packet(17, &[0; 100]);
        assert_eq!(Ipv6::parse(&bytes[..80]).unwrap_err().rule, "it is cut off");
        assert_eq!(Ipv6::read(&bytes[..80], Extent::Quoted).unwrap().upper_layer().payload.len(), 40);
    }
}
