use packet::checksum::{Checksum, checksum};
use packet::ip::Protocol;

use super::vnet::{Segmentation, VnetHeader, addresses};

/// A super-packet on its way to being cut: each piece is written where it is to be sealed.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    packet: &'a [u8],
    header: &'a VnetHeader,
    pieces: Pieces,
}

#[derive(Debug)]
enum Pieces {
    /// The packet is its own and only piece.
    Whole,
    Many {
        is_v4: bool,
        transport: usize,
        /// Length of all headers.
        headers: usize,
        size: usize,
        protocol: Protocol,
    },
}

/// A super-packet does not hold what its header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Uncuttable;

const PUSH_AND_FINISH: u8 = 0x09;
const WINDOW_REDUCED: u8 = 0x80;

impl<'a> Cut<'a> {
    pub(crate) fn new(header: &'a VnetHeader, packet: &'a [u8]) -> Result<Self, Uncuttable> {
        let (size, protocol) = match header.segmentation {
            Segmentation::None => {
                let fits = header
                    .checksum
                    .is_none_or(|open| usize::from(open.start) + usize::from(open.offset) + 2 <= packet.len());
                return if fits { Ok(Self { packet, header, pieces: Pieces::Whole }) } else { Err(Uncuttable) };
            }
            Segmentation::Tcp { size } => (usize::from(size), Protocol::TCP),
            Segmentation::Udp { size } => (usize::from(size), Protocol::UDP),
        };
        let is_v4 = match packet.first().map(|first| first >> 4) {
            Some(4) => true,
            Some(6) => false,
            _ => return Err(Uncuttable),
        };
        // The length of all headers that the kernel says isn't always right; where the transport begins is.
        let transport = usize::from(header.checksum.ok_or(Uncuttable)?.start);
        let fixed = if is_v4 { 20 } else { 40 };
        let rest = packet.get(transport..).filter(|_| transport >= fixed).ok_or(Uncuttable)?;
        let length = match protocol {
            Protocol::TCP => usize::from(rest.get(12).ok_or(Uncuttable)? >> 4) * 4,
            _ => 8,
        };
        let least = if protocol == Protocol::TCP { 20 } else { 8 };
        if length < least || rest.len() < length {
            return Err(Uncuttable);
        }
        Ok(Self {
            packet,
            header,
            pieces: Pieces::Many { is_v4, transport, headers: transport + length, size, protocol },
        })
    }

    /// How many pieces there are: at least one.
    pub(crate) fn count(&self) -> usize {
        match self.pieces {
            Pieces::Whole => 1,
            Pieces::Many { headers, size, .. } => (self.packet.len() - headers).div_ceil(size).max(1),
        }
    }

    /// Length of a piece.
    pub(crate) fn length(&self, piece: usize) -> usize {
        match self.pieces {
            Pieces::Whole => self.packet.len(),
            Pieces::Many { headers, size, .. } => {
                headers + (self.packet.len() - headers).saturating_sub(piece * size).min(size)
            }
        }
    }

    /// Writes a piece with all checksums to `out`, which has [`Self::length`] bytes.
    pub(crate) fn write(&self, piece: usize, out: &mut [u8]) {
        let Pieces::Many { is_v4, transport, headers, size, protocol } = self.pieces else {
            out.copy_from_slice(self.packet);
            // That its place is in the packet was looked at before.
            self.header.finish_checksum(out);
            return;
        };
        let from = headers + piece * size;
        let (head, data) = out.split_at_mut(headers);
        head.copy_from_slice(&self.packet[..headers]);
        data.copy_from_slice(&self.packet[from..from + data.len()]);
        let length = out.len();
        if is_v4 {
            out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            let identification = u16::from_be_bytes([out[4], out[5]]).wrapping_add(piece as u16);
            out[4..6].copy_from_slice(&identification.to_be_bytes());
            out[10..12].fill(0);
            let end = (usize::from(out[0] & 15) * 4).clamp(20, transport);
            let sum = checksum(&out[..end]);
            out[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            out[4..6].copy_from_slice(&((length - 40) as u16).to_be_bytes());
        }
        let at = match protocol {
            Protocol::TCP => {
                let tcp = &mut out[transport..];
                let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]).wrapping_add((piece * size) as u32);
                tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
                if piece + 1 < self.count() {
                    tcp[13] &= !PUSH_AND_FINISH;
                }
                if piece > 0 {
                    tcp[13] &= !WINDOW_REDUCED;
                }
                transport + 16
            }
            _ => {
                out[transport + 4..transport + 6].copy_from_slice(&((length - transport) as u16).to_be_bytes());
                transport + 6
            }
        };
        out[at..at + 2].fill(0);
        let (source, destination) = addresses(out, is_v4);
        let covered = &out[transport..];
        let sum = Checksum::pseudo(source, destination, protocol, covered.len()).with(covered).finish();
        let sum = if sum == 0 && protocol == Protocol::UDP { 0xffff } else { sum };
        out[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use packet::ip::Packet;
    use packet::tcp::Tcp;
    use packet::udp::{Udp, UdpRepr};

    use super::*;

    fn pieces(header: &VnetHeader, packet: &[u8]) -> Vec<Vec<u8>> {
        let cut = Cut::new(header, packet).unwrap();
        (0..cut.count())
            .map(|piece| {
                let mut out = vec![0; cut.length(piece)];
                cut.write(piece, &mut out);
                out
            })
            .collect()
    }

    fn tcp(source: IpAddr, destination: IpAddr, data: &[u8], flags: u8) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[0..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
        segment[4..8].copy_from_slice(&0xffff_ff00u32.to_be_bytes());
        (segment[12], segment[13]) = (0x50, flags);
        segment.extend_from_slice(data);
        let mut bytes = match (source, destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                packet::ip::Ipv4Repr::new(a, b, Protocol::TCP).header(segment.len()).to_vec()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                packet::ip::Ipv6Repr::new(a, b, Protocol::TCP).header(segment.len()).to_vec()
            }
            _ => unreachable!("one family"),
        };
        bytes.extend_from_slice(&segment);
        bytes
    }

    #[test]
    fn tcp_is_cut_into_valid_segments_that_join_to_the_same_data() {
        let data: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        for (source, destination) in [("100.64.0.1", "100.64.0.2"), ("fd7a::1", "fd7a::2")] {
            let (source, destination): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
            let packet = tcp(source, destination, &data, 0x99);
            let header = VnetHeader::for_transport(&packet, Protocol::TCP, 1240).unwrap();
            let pieces = pieces(&header, &packet);
            assert_eq!(pieces.len(), 5);
            let mut joined = Vec::new();
            for (number, piece) in pieces.iter().enumerate() {
                let ip = Packet::parse(piece).unwrap();
                assert_eq!(ip.bytes().len(), piece.len());
                if let Packet::V4(v4) = ip {
                    assert!(v4.checksum_is_right());
                    assert_eq!(usize::from(v4.identification()), number);
                }
                let tcp = Tcp::parse(ip.upper_layer().payload).unwrap();
                assert!(tcp.checksum_is_right(source, destination));
                let payload = ip.upper_layer().payload;
                assert_eq!(payload[13] & 0x80 != 0, number == 0, "only the first says that the window was reduced");
                assert_eq!(payload[13] & 0x09 == 0x09, number == 4, "only the last pushes and finishes");
                let sequence = u32::from_be_bytes([payload[4], payload[5], payload[6], payload[7]]);
                assert_eq!(sequence, 0xffff_ff00u32.wrapping_add(joined.len() as u32));
                joined.extend_from_slice(&payload[20..]);
            }
            assert_eq!(joined, data);
        }
    }

    #[test]
    fn udp_is_cut_into_valid_datagrams() {
        let (source, destination): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let data: Vec<u8> = (0..2500u32).map(|n| n as u8).collect();
        let packet = UdpRepr { source_port: 5, destination_port: 6 }.packet(source, destination, &data);
        let header = VnetHeader::for_transport(&packet, Protocol::UDP, 1000).unwrap();
        let mut joined = Vec::new();
        for piece in pieces(&header, &packet) {
            let ip = Packet::parse(&piece).unwrap();
            let udp = Udp::parse(ip.upper_layer().payload).unwrap();
            assert!(udp.checksum_is_right(source, destination));
            joined.extend_from_slice(udp.payload());
        }
        assert_eq!(joined, data);
    }

    #[test]
    fn an_open_checksum_is_filled_in() {
        let (source, destination): (IpAddr, IpAddr) = ("fd7a::1".parse().unwrap(), "fd7a::2".parse().unwrap());
        let mut packet = tcp(source, destination, b"hello", 0x10);
        let mut header = VnetHeader::for_transport(&packet, Protocol::TCP, 1).unwrap();
        header.segmentation = Segmentation::None;
        header.begin_checksum(&mut packet).unwrap();
        let piece = pieces(&header, &packet).remove(0);
        let ip = Packet::parse(&piece).unwrap();
        assert!(Tcp::parse(ip.upper_layer().payload).unwrap().checksum_is_right(source, destination));
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_the_cut_panic(header: [u8; 10], packet in proptest::collection::vec(0u8.., 0..200)) {
            if let Ok(header) = VnetHeader::decode(&header)
                && let Ok(cut) = Cut::new(&header, &packet)
            {
                for piece in 0..cut.count() {
                    cut.write(piece, &mut vec![0; cut.length(piece)]);
                }
            }
        }
    }
}
