use packet::checksum::{self, Checksum};
use packet::ip::{Packet, Protocol};
use packet::tcp::Flags;

/// A packet to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// An IP packet, whole and with right checksums unless `segment` says otherwise.
    pub packet: Vec<u8>,
    /// The packet is a TCP super-packet over IPv4, to be split so that each part carries this many bytes of data.
    ///
    /// Its TCP checksum field then holds the sum of the pseudo header, not complemented, as `virtio_net_hdr` wants it with
    /// `VIRTIO_NET_HDR_F_NEEDS_CSUM` and `VIRTIO_NET_HDR_GSO_TCPV4`.
    pub segment: Option<u16>,
}

impl Transmit {
    pub(crate) fn plain(packet: Vec<u8>) -> Self {
        Self { packet, segment: None }
    }

    /// Completes what smoltcp wrote: it leaves the TCP checksum at zero.
    pub(crate) fn tcp(mut packet: Vec<u8>, segment: Option<u16>) -> Self {
        if let Ok(parsed) = Packet::parse(&packet) {
            let upper = parsed.upper_layer();
            let (at, length) = (upper.offset, upper.payload.len());
            let pseudo = Checksum::pseudo(parsed.source(), parsed.destination(), Protocol::TCP, length);
            let sum = match segment {
                Some(_) => !pseudo.finish(),
                None => pseudo.with(upper.payload).finish(),
            };
            if let Some(field) = packet.get_mut(at + 16..at + 18) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
        }
        Self { packet, segment }
    }

    /// The packets that go over the wire, with right checksums: one, or the parts of a super-packet.
    pub fn split(self) -> Vec<Vec<u8>> {
        let Some(segment) = self.segment else { return vec![self.packet] };
        split(&self.packet, usize::from(segment)).unwrap_or_default()
    }
}

/// Cuts a super-packet, which this crate has made itself: `None` can't be reached.
fn split(packet: &[u8], segment: usize) -> Option<Vec<Vec<u8>>> {
    let parsed = Packet::parse(packet).ok()?;
    let upper = parsed.upper_layer();
    let headers = upper.offset + 4 * usize::from(*upper.payload.get(12)? >> 4);
    let (head, data) = packet.split_at_checked(headers)?;
    let sequence = u32::from_be_bytes(*upper.payload.get(4..8)?.first_chunk()?);
    let identification = u16::from_be_bytes([packet[4], packet[5]]);
    let mut parts = Vec::with_capacity(data.len().div_ceil(segment));
    for (number, part) in data.chunks(segment).enumerate() {
        let mut bytes = Vec::with_capacity(headers + part.len());
        bytes.extend_from_slice(head);
        bytes.extend_from_slice(part);
        let length = u16::try_from(bytes.len()).ok()?;
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
        bytes[4..6].copy_from_slice(&identification.wrapping_add(number as u16).to_be_bytes());
        bytes[10..12].fill(0);
        let sum = checksum::checksum(&bytes[..upper.offset]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let tcp = upper.offset;
        let at = sequence.wrapping_add((number * segment) as u32);
        bytes[tcp + 4..tcp + 8].copy_from_slice(&at.to_be_bytes());
        if (number + 1) * segment < data.len() {
            bytes[tcp + 13] &= !Flags::FIN.with(Flags::PSH).0;
        }
        bytes[tcp + 16..tcp + 18].fill(0);
        let pseudo = Checksum::pseudo(parsed.source(), parsed.destination(), Protocol::TCP, bytes.len() - tcp);
        let sum = pseudo.with(&bytes[tcp..]).finish();
        bytes[tcp + 16..tcp + 18].copy_from_slice(&sum.to_be_bytes());
        parts.push(bytes);
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use packet::tcp::{Tcp, TcpRepr};
    use std::net::IpAddr;

    #[test]
    fn a_super_packet_splits_into_whole_segments_in_order() {
        let (a, b): (IpAddr, IpAddr) = ("100.64.0.1".parse().unwrap(), "100.64.0.2".parse().unwrap());
        let data: Vec<u8> = (0..5000u32).map(|n| n as u8).collect();
        let repr = TcpRepr {
            source_port: 1,
            destination_port: 2,
            sequence: u32::MAX - 100,
            acknowledgment: 5,
            flags: Flags::ACK.with(Flags::PSH).with(Flags::FIN),
            window: 9,
            maximum_segment_size: None,
        };
        let parts = Transmit::tcp(repr.packet(a, b, &data), Some(1240)).split();
        assert_eq!(parts.len(), 5);
        let mut read = Vec::new();
        for (number, part) in parts.iter().enumerate() {
            let parsed = Packet::parse(part).unwrap();
            let Packet::V4(v4) = parsed else { panic!("not IPv4") };
            assert!(v4.checksum_is_right());
            let tcp = Tcp::parse(parsed.upper_layer().payload).unwrap();
            assert!(tcp.checksum_is_right(a, b));
            assert_eq!(tcp.sequence(), (u32::MAX - 100).wrapping_add(read.len() as u32));
            assert_eq!(tcp.flags().contains(Flags::FIN), number == 4);
            read.extend_from_slice(tcp.payload());
        }
        assert_eq!(read, data);
    }

    #[test]
    fn a_plain_packet_stays_one_and_is_right() {
        let (a, b): (IpAddr, IpAddr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
        let repr = TcpRepr {
            source_port: 1,
            destination_port: 2,
            sequence: 1,
            acknowledgment: 0,
            flags: Flags::SYN,
            window: 9,
            maximum_segment_size: Some(1220),
        };
        let mut bytes = repr.packet(a, b, b"");
        bytes[56..58].fill(0);
        let parts = Transmit::tcp(bytes, None).split();
        let parsed = Packet::parse(&parts[0]).unwrap();
        assert!(Tcp::parse(parsed.upper_layer().payload).unwrap().checksum_is_right(a, b));
    }
}
