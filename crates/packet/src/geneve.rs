//! The Geneve header (RFC 8926) in front of disco and WireGuard on their way through a peer relay.

use crate::Malformed;

/// Length of the header: peer relays use no options.
pub const HEADER_LEN: usize = 8;

const FORMAT: &str = "Geneve header";
const CONTROL: u8 = 0x80;

/// What follows a Geneve header; the numbers are the header's protocol field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inner {
    /// A disco packet, 0x7A11.
    Disco,
    /// A WireGuard packet, 0x7A12.
    WireGuard,
}

/// A Geneve header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geneve {
    /// Which of the relay's endpoints the packet belongs to, 24 bits.
    pub vni: u32,
    /// The packet is for the relay itself: the handshake that binds an endpoint.
    pub control: bool,
    /// What follows.
    pub inner: Inner,
}

impl Geneve {
    /// Reads the header and hands back what follows it.
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Malformed> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(Malformed::new(FORMAT, "it is cut off"))?;
        let [first, flags, a, b, vni @ .., reserved] = *header;
        if first != 0 || flags & !CONTROL != 0 || reserved != 0 {
            return Err(Malformed::new(FORMAT, "it has a version, options or reserved bits"));
        }
        let inner = match u16::from_be_bytes([a, b]) {
            0x7a11 => Inner::Disco,
            0x7a12 => Inner::WireGuard,
            _ => return Err(Malformed::new(FORMAT, "its protocol is neither disco nor WireGuard")),
        };
        let vni = u32::from_be_bytes([0, vni[0], vni[1], vni[2]]);
        Ok((Self { vni, control: flags & CONTROL != 0, inner }, rest))
    }

    /// The header's bytes; of the VNI, the low 24 bits.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let [a, b] = match self.inner {
            Inner::Disco => [0x7a, 0x11],
            Inner::WireGuard => [0x7a, 0x12],
        };
        let [_, c, d, e] = self.vni.to_be_bytes();
        [0, if self.control { CONTROL } else { 0 }, a, b, c, d, e, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_is_written_as_the_wire_has_it() {
        let header = Geneve { vni: 0x01_0203, control: true, inner: Inner::Disco };
        assert_eq!(hex::encode(header.encode()), "00807a1101020300");
        let header = Geneve { vni: 7, control: false, inner: Inner::WireGuard };
        assert_eq!(hex::encode(header.encode()), "00007a1200000700");
    }

    #[test]
    fn options_and_other_protocols_are_refused_by_name() {
        let rule = |bytes: [u8; 8]| Geneve::parse(&bytes).unwrap_err().rule;
        assert_eq!(rule([1, 0, 0x7a, 0x11, 0, 0, 1, 0]), "it has a version, options or reserved bits");
        assert_eq!(rule([0, 0x40, 0x7a, 0x11, 0, 0, 1, 0]), "it has a version, options or reserved bits");
        assert_eq!(rule([0, 0, 0x7a, 0x11, 0, 0, 1, 1]), "it has a version, options or reserved bits");
        assert_eq!(rule([0, 0, 0x65, 0x58, 0, 0, 1, 0]), "its protocol is neither disco nor WireGuard");
    }

    proptest! {
        #[test]
        fn every_header_reads_back(vni in 0u32..1 << 24, control: bool, disco: bool, rest in proptest::collection::vec(any::<u8>(), 0..9)) {
            let header = Geneve { vni, control, inner: if disco { Inner::Disco } else { Inner::WireGuard } };
            let bytes = [&header.encode()[..], &rest[..]].concat();
            prop_assert_eq!(Geneve::parse(&bytes), Ok((header, &rest[..])));
        }
    }
}
