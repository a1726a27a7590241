//! UDP datagrams (RFC 768).

use std::net::IpAddr;

use crate::Malformed;
use crate::checksum::Checksum;
use crate::ip::{self, Protocol};

const HEADER: usize = 8;
const FORMAT: &str = "UDP datagram";

/// A view of a UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Udp<'a> {
    header: &'a [u8; HEADER],
    bytes: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Reads a datagram; bytes after its own length are not looked at.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; HEADER] =
            bytes.first_chunk().ok_or(Malformed::new(FORMAT, "it is shorter than its header"))?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if length < HEADER {
            return Err(Malformed::new(FORMAT, "its length is below 8 bytes"));
        }
        let bytes = bytes.get(..length).ok_or(Malformed::new(FORMAT, "it is cut off"))?;
        Ok(Self { header, bytes })
    }

    /// The source port.
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The destination port.
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The data.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER..]
    }

    /// Whether the checksum is right, or absent.
    pub fn checksum_is_right(&self, source: IpAddr, destination: IpAddr) -> bool {
        self.header[6..8] == [0, 0]
            || Checksum::pseudo(source, destination, Protocol::UDP, self.bytes.len()).with(self.bytes).is_right()
    }
}

/// A UDP header to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpRepr {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
}

impl UdpRepr {
    /// Length of the header that is written.
    pub const HEADER_LENGTH: usize = HEADER;

    /// The header in front of `payload`.
    ///
    /// # Panics
    ///
    /// If header and payload together exceed 65535 bytes.
    pub fn header(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> [u8; HEADER] {
        let length = u16::try_from(HEADER + payload.len()).expect("a UDP datagram is at most 65535 bytes");
        let mut header = [0; HEADER];
        header[0..2].copy_from_slice(&self.source_port.to_be_bytes());
        header[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        header[4..6].copy_from_slice(&length.to_be_bytes());
        let sum = Checksum::pseudo(source, destination, Protocol::UDP, usize::from(length)).with(&header).with(payload);
        let sum = match sum.finish() {
            0 => 0xffff,
            sum => sum,
        };
        header[6..8].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// A whole IP packet with this header and `payload`, of the family of `source`.
    ///
    /// # Panics
    ///
    /// If the addresses are of two families, or the packet would exceed 65535 bytes.
    pub fn packet(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let header = self.header(source, destination, payload);
        ip::assemble(source, destination, Protocol::UDP, &header, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 100, 100, 100));

    #[test]
    fn a_written_datagram_reads_back_with_a_right_checksum() {
        let bytes = UdpRepr { source_port: 4660, destination_port: 53 }.packet(A, B, b"query");
        let packet = crate::ip::Packet::parse(&bytes).unwrap();
        let udp = Udp::parse(packet.upper_layer().payload).unwrap();
        assert_eq!((udp.source_port(), udp.destination_port(), udp.payload()), (4660, 53, &b"query"[..]));
        assert!(udp.checksum_is_right(A, B));
        assert!(!udp.checksum_is_right(A, A));
    }

    #[test]
    fn a_length_beyond_the_packet_is_refused() {
        assert_eq!(Udp::parse(&[0, 1, 0, 2, 0, 9, 0, 0]).unwrap_err().rule, "it is cut off");
        assert_eq!(Udp::parse(&[0, 1, 0, 2, 0, 7, 0, 0]).unwrap_err().rule, "its length is below 8 bytes");
        assert_eq!(Udp::parse(&[0, 1, 0, 2]).unwrap_err().rule, "it is shorter than its header");
    }
}
