//! The header in front of every packet of a TUN: how it is cut and where its checksum goes.

/// Bytes of the header (`struct virtio_net_hdr`, in the machine's byte order).
pub const VNET_HEADER_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const CONGESTION: u8 = 0x80;

/// What the kernel says of a packet that it hands over, or is told of one that it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// Where a checksum still has to be filled in.
    pub checksum: Checksum,
    /// How the packet is to be cut into packets that fit the MTU.
    pub segmentation: Segmentation,
    /// Bytes of the headers that each of the cut packets begins with: a hint, which may be wrong; 0 when nothing is cut.
    pub header_length: u16,
}

/// The state of the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is in the packet, and nobody has verified it.
    #[default]
    Complete,
    /// It is in the packet, and was verified.
    Verified,
    /// It holds the pseudo-header's sum only: the sum from `start` to the end of the packet goes to `start + offset`.
    Partial {
        /// Where summing starts, from the packet's first byte.
        start: u16,
        /// Where the sum goes, from `start`.
        offset: u16,
    },
}

/// How a super-packet is cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Segmentation {
    /// Not at all: it is one packet.
    #[default]
    None,
    /// TCP over IPv4, each piece with at most `size` bytes of payload.
    Tcp4 {
        /// Bytes of TCP payload in each piece.
        size: u16,
        /// The first piece carries CWR (RFC 3168).
        congestion: bool,
    },
    /// TCP over IPv6, each piece with at most `size` bytes of payload.
    Tcp6 {
        /// Bytes of TCP payload in each piece.
        size: u16,
        /// The first piece carries CWR (RFC 3168).
        congestion: bool,
    },
    /// UDP datagrams of `size` bytes of payload each, over either family.
    Udp {
        /// Bytes of UDP payload in each datagram.
        size: u16,
    },
}

/// A header that does not say anything that this crate asked the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the TUN delivered a packet of an unknown segmentation type {0}: this kernel's offloads are not understood")]
pub struct UnknownSegmentation(pub u8);

impl VnetHeader {
    /// A header for a whole packet whose checksum is in place.
    pub const PLAIN: Self = Self { checksum: Checksum::Complete, segmentation: Segmentation::None, header_length: 0 };

    /// Reads the header in front of a packet.
    ///
    /// # Errors
    /// When the packet is of a kind that was never asked for, such as fragmented UDP.
    pub fn decode(bytes: &[u8; VNET_HEADER_BYTES]) -> Result<Self, UnknownSegmentation> {
        let [flags, kind, l0, l1, s0, s1, c0, c1, o0, o1] = *bytes;
        let size = u16::from_ne_bytes([s0, s1]);
        let congestion = kind & CONGESTION != 0;
        let segmentation = match kind & !CONGESTION {
            0 => Segmentation::None,
            1 => Segmentation::Tcp4 { size, congestion },
            4 => Segmentation::Tcp6 { size, congestion },
            5 => Segmentation::Udp { size },
            unknown => return Err(UnknownSegmentation(unknown)),
        };
        let checksum = if flags & NEEDS_CHECKSUM != 0 {
            Checksum::Partial { start: u16::from_ne_bytes([c0, c1]), offset: u16::from_ne_bytes([o0, o1]) }
        } else if flags & DATA_VALID != 0 {
            Checksum::Verified
        } else {
            Checksum::Complete
        };
        Ok(Self { checksum, segmentation, header_length: u16::from_ne_bytes([l0, l1]) })
    }

    /// Writes the header to put in front of a packet.
    pub fn encode(&self) -> [u8; VNET_HEADER_BYTES] {
        let (flags, start, offset) = match self.checksum {
            Checksum::Complete => (0, 0, 0),
            Checksum::Verified => (DATA_VALID, 0, 0),
            Checksum::Partial { start, offset } => (NEEDS_CHECKSUM, start, offset),
        };
        let with = |kind: u8, congestion: bool| if congestion { kind | CONGESTION } else { kind };
        let (kind, size) = match self.segmentation {
            Segmentation::None => (0, 0),
            Segmentation::Tcp4 { size, congestion } => (with(1, congestion), size),
            Segmentation::Tcp6 { size, congestion } => (with(4, congestion), size),
            Segmentation::Udp { size } => (5, size),
        };
        let mut bytes = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.header_length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers() -> impl Strategy<Value = VnetHeader> {
        let checksum = prop_oneof![
            Just(Checksum::Complete),
            Just(Checksum::Verified),
            (any::<u16>(), any::<u16>()).prop_map(|(start, offset)| Checksum::Partial { start, offset }),
        ];
        let segmentation = prop_oneof![
            Just(Segmentation::None),
            (any::<u16>(), any::<bool>()).prop_map(|(size, congestion)| Segmentation::Tcp4 { size, congestion }),
            (any::<u16>(), any::<bool>()).prop_map(|(size, congestion)| Segmentation::Tcp6 { size, congestion }),
            any::<u16>().prop_map(|size| Segmentation::Udp { size }),
        ];
        (checksum, segmentation, any::<u16>()).prop_map(|(checksum, segmentation, header_length)| VnetHeader {
            checksum,
            segmentation,
            header_length,
        })
    }

    proptest! {
        #[test]
        fn a_header_reads_back_as_it_was_written(header in headers()) {
            prop_assert_eq!(VnetHeader::decode(&header.encode()), Ok(header));
        }

        #[test]
        fn any_bytes_are_a_header_or_refused(bytes in any::<[u8; VNET_HEADER_BYTES]>()) {
            let _ = VnetHeader::decode(&bytes);
        }
    }

    #[test]
    fn fragmented_udp_is_refused() {
        assert_eq!(VnetHeader::decode(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), Err(UnknownSegmentation(3)));
    }
}
