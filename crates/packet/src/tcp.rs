//! TCP segments (RFC 9293).

use std::fmt;
use std::net::IpAddr;

use crate::Malformed;
use crate::checksum::{self, Checksum};
use crate::ip::{self, Fragment, Packet, Protocol};

const HEADER: usize = 20;
const FORMAT: &str = "TCP segment";

/// The control bits of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: Self = Self(0x01);
    /// Synchronise sequence numbers.
    pub const SYN: Self = Self(0x02);
    /// Reset the connection.
    pub const RST: Self = Self(0x04);
    /// Push.
    pub const PSH: Self = Self(0x08);
    /// The acknowledgment number counts.
    pub const ACK: Self = Self(0x10);
    /// The urgent pointer counts.
    pub const URG: Self = Self(0x20);
    /// Congestion was seen (RFC 3168).
    pub const ECE: Self = Self(0x40);
    /// The congestion window was reduced (RFC 3168).
    pub const CWR: Self = Self(0x80);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether this opens a connection: SYN without ACK.
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0) == Self::SYN.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(u8, &str); 8] = [
            (0x01, "FIN"),
            (0x02, "SYN"),
            (0x04, "RST"),
            (0x08, "PSH"),
            (0x10, "ACK"),
            (0x20, "URG"),
            (0x40, "ECE"),
            (0x80, "CWR"),
        ];
        f.debug_list()
            .entries(
                NAMES.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| format_args!("{name}").to_string()),
            )
            .finish()
    }
}

/// A TCP option that changes how a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpOption {
    /// The largest segment that the sender takes.
    MaximumSegmentSize(u16),
    /// The shift of the sender's window.
    WindowScale(u8),
    /// Selective acknowledgments are welcome.
    SackPermitted,
    /// The sender's clock and the last one it saw.
    Timestamps {
        /// The sender's clock.
        value: u32,
        /// The clock that is echoed.
        echo: u32,
    },
    /// Any other option, by its kind.
    Other(u8),
}

/// A view of a TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp<'a> {
    header: &'a [u8; HEADER],
    bytes: &'a [u8],
    header_length: usize,
}

impl<'a> Tcp<'a> {
    /// Reads a segment that fills `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header: &[u8; HEADER] =
            bytes.first_chunk().ok_or(Malformed::new(FORMAT, "it is shorter than its fixed header"))?;
        let header_length = usize::from(header[12] >> 4) * 4;
        if header_length < HEADER {
            return Err(Malformed::new(FORMAT, "the data offset is below 20 bytes"));
        }
        if header_length > bytes.len() {
            return Err(Malformed::new(FORMAT, "its options are cut off"));
        }
        Ok(Self { header, bytes, header_length })
    }

    /// The source port.
    pub fn source_port(&self) -> u16 {
        u16::from_be_bytes([self.header[0], self.header[1]])
    }

    /// The destination port.
    pub fn destination_port(&self) -> u16 {
        u16::from_be_bytes([self.header[2], self.header[3]])
    }

    /// The sequence number of the first byte of data, or of SYN.
    pub fn sequence(&self) -> u32 {
        u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]])
    }

    /// The next sequence number that the sender expects.
    pub fn acknowledgment(&self) -> u32 {
        u32::from_be_bytes([self.header[8], self.header[9], self.header[10], self.header[11]])
    }

    /// The control bits.
    pub fn flags(&self) -> Flags {
        Flags(self.header[13])
    }

    /// The receive window, unscaled.
    pub fn window(&self) -> u16 {
        u16::from_be_bytes([self.header[14], self.header[15]])
    }

    /// The data.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[self.header_length..]
    }

    /// How many sequence numbers the segment takes: its data, SYN and FIN.
    pub fn sequence_length(&self) -> u32 {
        let marks = u32::from(self.flags().contains(Flags::SYN)) + u32::from(self.flags().contains(Flags::FIN));
        self.payload().len() as u32 + marks
    }

    /// The options, up to the end of the list or the first that does not fit.
    pub fn options(&self) -> impl Iterator<Item = TcpOption> + 'a {
        Options { rest: &self.bytes[HEADER..self.header_length] }.map(|(_, option)| option)
    }

    /// Whether the checksum is right.
    pub fn checksum_is_right(&self, source: IpAddr, destination: IpAddr) -> bool {
        Checksum::pseudo(source, destination, Protocol::TCP, self.bytes.len()).with(self.bytes).is_right()
    }
}

/// Walks options; yields each with the number of bytes that follow its start.
struct Options<'a> {
    rest: &'a [u8],
}

impl Iterator for Options<'_> {
    type Item = (usize, TcpOption);

    fn next(&mut self) -> Option<Self::Item> {
        const END: u8 = 0;
        const NO_OPERATION: u8 = 1;
        while let [NO_OPERATION, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let start = self.rest.len();
        let [kind, length, ..] = *self.rest else { return None };
        if kind == END || length < 2 {
            return None;
        }
        let (option, rest) = self.rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        let option = match *option {
            [2, 4, a, b] => TcpOption::MaximumSegmentSize(u16::from_be_bytes([a, b])),
            [3, 3, shift] => TcpOption::WindowScale(shift),
            [4, 2] => TcpOption::SackPermitted,
            [8, 10, a, b, c, d, e, f, g, h] => TcpOption::Timestamps {
                value: u32::from_be_bytes([a, b, c, d]),
                echo: u32::from_be_bytes([e, f, g, h]),
            },
            _ => TcpOption::Other(kind),
        };
        Some((start, option))
    }
}

/// Lowers the maximum segment size that a connection's first segments announce, in place.
///
/// Returns whether something was changed. Leaves alone what is no TCP SYN, and a size that is already small enough.
pub fn clamp_maximum_segment_size(packet: &mut [u8], most: u16) -> bool {
    let Ok(parsed) = Packet::parse(packet) else { return false };
    let upper = parsed.upper_layer();
    if upper.protocol != Protocol::TCP || matches!(upper.fragment, Fragment::Later { .. }) {
        return false;
    }
    let Ok(tcp) = Tcp::parse(upper.payload) else { return false };
    if !tcp.flags().contains(Flags::SYN) {
        return false;
    }
    let mut options = Options { rest: &tcp.bytes[HEADER..tcp.header_length] };
    let found = options.find_map(|(behind, option)| match option {
        TcpOption::MaximumSegmentSize(size) if size > most => Some((behind, size)),
        _ => None,
    });
    let Some((behind, size)) = found else { return false };
    let value = upper.offset + tcp.header_length - behind + 2;
    // RFC 1624 sums 16-bit words that start at even offsets; a size that no-operations moved to an odd one goes in swapped.
    let (old, new) =
        if (value - upper.offset).is_multiple_of(2) { (size, most) } else { (size.swap_bytes(), most.swap_bytes()) };
    let sum_at = upper.offset + 16;
    let sum = u16::from_be_bytes([packet[sum_at], packet[sum_at + 1]]);
    let sum = checksum::update(sum, &old.to_be_bytes(), &new.to_be_bytes());
    packet[value..value + 2].copy_from_slice(&most.to_be_bytes());
    packet[sum_at..sum_at + 2].copy_from_slice(&sum.to_be_bytes());
    true
}

/// A TCP header to be written, with at most a maximum segment size as option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpRepr {
    /// The source port.
    pub source_port: u16,
    /// The destination port.
    pub destination_port: u16,
    /// The sequence number.
    pub sequence: u32,
    /// The acknowledgment number.
    pub acknowledgment: u32,
    /// The control bits.
    pub flags: Flags,
    /// The receive window, unscaled.
    pub window: u16,
    /// The largest segment that the sender takes; only with SYN.
    pub maximum_segment_size: Option<u16>,
}

impl TcpRepr {
    /// The reset that answers `segment` (RFC 9293, section 3.10.7.1); `None` when it is a reset itself.
    pub fn reset(segment: &Tcp<'_>) -> Option<Self> {
        if segment.flags().contains(Flags::RST) {
            return None;
        }
        let (sequence, acknowledgment, flags) = if segment.flags().contains(Flags::ACK) {
            (segment.acknowledgment(), 0, Flags::RST)
        } else {
            (0, segment.sequence().wrapping_add(segment.sequence_length()), Flags::RST.with(Flags::ACK))
        };
        Some(Self {
            source_port: segment.destination_port(),
            destination_port: segment.source_port(),
            sequence,
            acknowledgment,
            flags,
            window: 0,
            maximum_segment_size: None,
        })
    }

    /// A whole IP packet with this header and `payload`, of the family of `source`.
    ///
    /// # Panics
    ///
    /// If the addresses are of two families, or the packet would exceed 65535 bytes.
    pub fn packet(&self, source: IpAddr, destination: IpAddr, payload: &[u8]) -> Vec<u8> {
        let mut header = Vec::with_capacity(HEADER + 4);
        header.extend_from_slice(&self.source_port.to_be_bytes());
        header.extend_from_slice(&self.destination_port.to_be_bytes());
        header.extend_from_slice(&self.sequence.to_be_bytes());
        header.extend_from_slice(&self.acknowledgment.to_be_bytes());
        header.extend_from_slice(&[0, self.flags.0]);
        header.extend_from_slice(&self.window.to_be_bytes());
        header.extend_from_slice(&[0; 4]);
        if let Some(size) = self.maximum_segment_size {
            header.extend_from_slice(&[2, 4]);
            header.extend_from_slice(&size.to_be_bytes());
        }
        header[12] = ((header.len() / 4) << 4) as u8;
        let sum = Checksum::pseudo(source, destination, Protocol::TCP, header.len() + payload.len());
        let sum = sum.with(&header).with(payload).finish();
        header[16..18].copy_from_slice(&sum.to_be_bytes());
        ip::assemble(source, destination, Protocol::TCP, &header, payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(100, 64, 0, 2));

    fn syn(size: Option<u16>) -> TcpRepr {
        TcpRepr {
            source_port: 40000,
            destination_port: 22,
            sequence: 7,
            acknowledgment: 0,
            flags: Flags::SYN,
            window: 64240,
            maximum_segment_size: size,
        }
    }

    fn parse(packet: &[u8]) -> Tcp<'_> {
        Tcp::parse(Packet::parse(packet).unwrap().upper_layer().payload).unwrap()
    }

    #[test]
    fn a_written_segment_reads_back_with_a_right_checksum() {
        let bytes = syn(Some(1460)).packet(A, B, b"early");
        let tcp = parse(&bytes);
        assert_eq!((tcp.source_port(), tcp.destination_port(), tcp.sequence()), (40000, 22, 7));
        assert_eq!((tcp.window(), tcp.payload()), (64240, &b"early"[..]));
        assert!(tcp.flags().opens() && tcp.checksum_is_right(A, B));
        assert_eq!(tcp.options().collect::<Vec<_>>(), [TcpOption::MaximumSegmentSize(1460)]);
    }

    #[test]
    fn options_are_read_past_padding_and_end_at_the_first_that_does_not_fit() {
        let read = |options: &[u8]| Options { rest: options }.map(|(_, option)| option).collect::<Vec<_>>();
        let usual = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7];
        assert_eq!(
            read(&usual),
            [
                TcpOption::MaximumSegmentSize(1460),
                TcpOption::SackPermitted,
                TcpOption::Timestamps { value: 1, echo: 2 },
                TcpOption::WindowScale(7)
            ]
        );
        assert_eq!(read(&[30, 4, 0, 0, 0, 0, 0, 0]), [TcpOption::Other(30)]);
        assert_eq!(read(&[2, 40, 0, 0]), []);
        assert_eq!(read(&[2, 0, 0, 0]), []);
        assert_eq!(read(&[1, 1, 1, 1]), []);
    }

    #[test]
    fn a_data_offset_out_of_bounds_is_refused() {
        let mut bytes = [0; 20];
        assert_eq!(Tcp::parse(&bytes).unwrap_err().rule, "the data offset is below 20 bytes");
        bytes[12] = 0x60;
        assert_eq!(Tcp::parse(&bytes).unwrap_err().rule, "its options are cut off");
        assert_eq!(Tcp::parse(&bytes[..19]).unwrap_err().rule, "it is shorter than its fixed header");
    }

    #[test]
    fn a_reset_answers_a_syn_as_the_rfc_says() {
        let bytes = syn(None).packet(A, B, b"");
        let reset = TcpRepr::reset(&parse(&bytes)).unwrap();
        assert_eq!((reset.sequence, reset.acknowledgment), (0, 8));
        assert!(reset.flags.contains(Flags::RST) && reset.flags.contains(Flags::ACK));
        let bytes = reset.packet(B, A, b"");
        assert_eq!(TcpRepr::reset(&parse(&bytes)), None);
    }

    #[test]
    fn only_a_syn_with_a_larger_size_is_clamped() {
        let mut packet = syn(Some(1460)).packet(A, B, b"");
        assert!(clamp_maximum_segment_size(&mut packet, 1240));
        assert_eq!(parse(&packet).options().next(), Some(TcpOption::MaximumSegmentSize(1240)));
        assert!(parse(&packet).checksum_is_right(A, B));
        assert!(!clamp_maximum_segment_size(&mut packet, 1240));
        let mut data = TcpRepr { flags: Flags::ACK, ..syn(Some(1460)) }.packet(A, B, b"");
        assert!(!clamp_maximum_segment_size(&mut data, 1240));
    }

    proptest! {
        #[test]
        fn clamping_keeps_the_checksum_right_wherever_the_option_stands(before in 0usize..8, size in any::<u16>(), most in any::<u16>()) {
            let mut options = vec![1u8; before];
            options.extend_from_slice(&[2, 4]);
            options.extend_from_slice(&size.to_be_bytes());
            options.resize(12, 1);
            // The header is written by hand: the representation has no padding.
            let mut header = vec![0x9c, 0x40, 0, 22, 0, 0, 0, 7, 0, 0, 0, 0, 0x80, 2, 0xff, 0xff, 0, 0, 0, 0];
            header.extend_from_slice(&options);
            let sum = Checksum::pseudo(A, B, Protocol::TCP, header.len()).with(&header).finish();
            header[16..18].copy_from_slice(&sum.to_be_bytes());
            let mut packet = ip::assemble(A, B, Protocol::TCP, &header, b"");
            prop_assert_eq!(clamp_maximum_segment_size(&mut packet, most), size > most);
            prop_assert!(parse(&packet).checksum_is_right(A, B));
            prop_assert_eq!(parse(&packet).options().next(), Some(TcpOption::MaximumSegmentSize(size.min(most))));
        }
    }
}
