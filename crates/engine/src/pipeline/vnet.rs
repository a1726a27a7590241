use std::net::{Ipv4Addr, Ipv6Addr};

use packet::checksum::Checksum;
use packet::ip::{Packet, Protocol};

use crate::VNET_HEADER;

/// How a super-packet is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segmentation {
    /// Not at all.
    None,
    /// Into TCP segments with so many bytes of data.
    Tcp { size: u16 },
    /// Into UDP datagrams with so many bytes of data.
    Udp { size: u16 },
}

/// Where a checksum is left to be filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenChecksum {
    /// Where what it covers begins, with the transport header; the sum of the pseudo header stands in its place.
    pub(crate) start: u16,
    /// Where its place is, from `start`.
    pub(crate) offset: u16,
}

/// The virtio-net header in front of a packet (virtio 1.2, section 5.1.6), in native byte order as Linux has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VnetHeader {
    pub(crate) segmentation: Segmentation,
    pub(crate) checksum: Option<OpenChecksum>,
    /// Whether the packet is of IPv4, which the header says of TCP only.
    pub(crate) is_v4: bool,
    /// Length of all headers of the packet.
    pub(crate) header_length: u16,
}

const NEEDS_CHECKSUM: u8 = 1;
const TCP_V4: u8 = 1;
const TCP_V6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

/// The header is of a kind that nobody asked the device for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnknownOffload;

impl VnetHeader {
    /// The header of a packet that is whole.
    pub(crate) const WHOLE: Self =
        Self { segmentation: Segmentation::None, checksum: None, is_v4: false, header_length: 0 };

    pub(crate) fn decode(bytes: &[u8; VNET_HEADER]) -> Result<Self, UnknownOffload> {
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = *bytes;
        let size = u16::from_ne_bytes([s0, s1]);
        let segmentation = match kind & !ECN {
            0 => Segmentation::None,
            TCP_V4 | TCP_V6 if size > 0 => Segmentation::Tcp { size },
            UDP if size > 0 => Segmentation::Udp { size },
            _ => return Err(UnknownOffload),
        };
        let open = OpenChecksum { start: u16::from_ne_bytes([c0, c1]), offset: u16::from_ne_bytes([o0, o1]) };
        Ok(Self {
            segmentation,
            checksum: (flags & NEEDS_CHECKSUM != 0).then_some(open),
            is_v4: kind & !ECN == TCP_V4,
            header_length: u16::from_ne_bytes([h0, h1]),
        })
    }

    pub(crate) fn encode(&self) -> [u8; VNET_HEADER] {
        let (kind, size) = match self.segmentation {
            Segmentation::None => (0, 0),
            Segmentation::Tcp { size } => (if self.is_v4 { TCP_V4 } else { TCP_V6 }, size),
            Segmentation::Udp { size } => (UDP, size),
        };
        let flags = if self.checksum.is_some() { NEEDS_CHECKSUM } else { 0 };
        let OpenChecksum { start, offset } = self.checksum.unwrap_or(OpenChecksum { start: 0, offset: 0 });
        let [h0, h1] = self.header_length.to_ne_bytes();
        let [s0, s1] = size.to_ne_bytes();
        let [c0, c1] = start.to_ne_bytes();
        let [o0, o1] = offset.to_ne_bytes();
        [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1]
    }

    /// The header of a packet that is to be cut into pieces with `size` bytes of data; its checksum is left open.
    pub(crate) fn for_transport(bytes: &[u8], protocol: Protocol, size: u16) -> Option<Self> {
        let packet = Packet::parse(bytes).ok()?;
        let upper = packet.upper_layer();
        if upper.protocol != protocol || size == 0 {
            return None;
        }
        let (length, offset, segmentation) = match protocol {
            Protocol::TCP => (usize::from(upper.payload.get(12)? >> 4) * 4, 16, Segmentation::Tcp { size }),
            Protocol::UDP => (8, 6, Segmentation::Udp { size }),
            _ => return None,
        };
        if upper.payload.len() < length.max(8) {
            return None;
        }
        Some(Self {
            segmentation,
            checksum: Some(OpenChecksum { start: upper.offset as u16, offset }),
            is_v4: matches!(packet, Packet::V4(_)),
            header_length: (upper.offset + length) as u16,
        })
    }

    /// Writes the sum of the pseudo header into the place of the checksum that is left open.
    pub(crate) fn begin_checksum(&self, bytes: &mut [u8]) -> Option<()> {
        let OpenChecksum { start, offset } = self.checksum?;
        let packet = Packet::parse(bytes).ok()?;
        let length = packet.bytes().len().checked_sub(usize::from(start))?;
        let protocol = packet.upper_layer().protocol;
        let sum = !Checksum::pseudo(packet.source(), packet.destination(), protocol, length).finish();
        let at = usize::from(start) + usize::from(offset);
        bytes.get_mut(at..at + 2)?.copy_from_slice(&sum.to_be_bytes());
        Some(())
    }

    /// Fills in the checksum that is left open, over all of the packet. False when its place is not in the packet.
    pub(crate) fn finish_checksum(&self, bytes: &mut [u8]) -> bool {
        let Some(OpenChecksum { start, offset }) = self.checksum else { return true };
        let at = usize::from(start) + usize::from(offset);
        let Some(covered) = bytes.get(usize::from(start)..) else { return false };
        // The pseudo header's sum stands where the checksum goes, and so is counted.
        let sum = match Checksum::new().with(covered).finish() {
            0 if offset == 6 => 0xffff,
            sum => sum,
        };
        let Some(place) = bytes.get_mut(at..at + 2) else { return false };
        place.copy_from_slice(&sum.to_be_bytes());
        true
    }
}

/// The addresses of an IP packet whose fixed header is known to be there.
pub(super) fn addresses(bytes: &[u8], is_v4: bool) -> (std::net::IpAddr, std::net::IpAddr) {
    let v4 = |at: usize| Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]);
    let v6 = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[at..at + 16]);
        Ipv6Addr::from(octets)
    };
    if is_v4 { (v4(12).into(), v4(16).into()) } else { (v6(8).into(), v6(24).into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_encoding() {
        for segmentation in [Segmentation::None, Segmentation::Tcp { size: 1240 }, Segmentation::Udp { size: 9 }] {
            let header = VnetHeader {
                segmentation,
                checksum: Some(OpenChecksum { start: 20, offset: 16 }),
                is_v4: matches!(segmentation, Segmentation::Tcp { .. }),
                header_length: 40,
            };
            assert_eq!(VnetHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn an_offload_that_nobody_asked_for_is_refused() {
        assert_eq!(VnetHeader::decode(&[0, 3, 0, 0, 1, 1, 0, 0, 0, 0]), Err(UnknownOffload));
        assert_eq!(VnetHeader::decode(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(UnknownOffload));
    }
}
