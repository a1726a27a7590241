use std::net::IpAddr;
use std::ops::Range;

use packet::checksum::{Checksum, checksum};
use packet::ip::Protocol;

use super::vnet::{OpenChecksum, Segmentation, VnetHeader, addresses};

/// Flows that are being joined at the same time; more interleaved ones are joined less.
const MOST_OPEN: usize = 16;
/// Longest headers of a packet that is joined: IPv6 and TCP with all options.
const MOST_HEADERS: usize = 100;
const MOST_PACKET: usize = 65_535;
/// Most packets in a group.
pub(crate) const MOST_JOINED: usize = 64;

/// Joins packets of one flow that follow each other to super-packets, by the rules of the kernel's own GRO, so that
/// cutting gives the same packets again.
///
/// Packets stay where they are; a group is a header and the places of its data. Groups come out in the order of their
/// first packets, and the packets of one flow never overtake each other.
#[derive(Debug)]
pub(crate) struct Coalescer {
    groups: Vec<Group>,
    /// Places of data: the arena of all groups' lists.
    pieces: Vec<Piece>,
    /// Groups that may still grow.
    open: Vec<usize>,
    joins_tcp: bool,
    joins_udp: bool,
}

/// A packet, or several that were joined.
#[derive(Debug)]
pub(crate) struct Group {
    /// Whose packets they are: a number of the caller's.
    pub(crate) owner: usize,
    /// The first packet, as long as it says itself.
    pub(crate) first: Range<usize>,
    /// How many packets it is.
    pub(crate) count: usize,
    /// Bytes of all its packets, headers included.
    pub(crate) bytes: usize,
    shape: Option<Shape>,
    last_piece: usize,
    first_piece: usize,
    /// Length of the super-packet.
    length: usize,
    pushes: bool,
    closed: bool,
    next_sequence: u32,
}

/// A place of data in the buffer, and the next of its group.
#[derive(Debug)]
struct Piece {
    range: Range<usize>,
    next: Option<usize>,
}

/// What a packet must be to be joined with others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    protocol: Protocol,
    is_v4: bool,
    source: IpAddr,
    destination: IpAddr,
    transport: usize,
    headers: usize,
    /// Bytes of data.
    size: usize,
}

/// A group's headers, made fit for the super-packet.
#[derive(Debug)]
pub(crate) struct Joined {
    pub(crate) vnet: VnetHeader,
    bytes: [u8; MOST_HEADERS],
    length: usize,
}

impl Joined {
    pub(crate) fn headers(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Coalescer {
    pub(crate) fn new(joins_tcp: bool, joins_udp: bool) -> Self {
        Self { groups: Vec::new(), pieces: Vec::new(), open: Vec::with_capacity(MOST_OPEN), joins_tcp, joins_udp }
    }

    pub(crate) fn clear(&mut self) {
        self.groups.clear();
        self.pieces.clear();
        self.open.clear();
    }

    pub(crate) fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Takes the packet at `range` of `buffer`: joins it to the group of its flow, or begins another.
    pub(crate) fn push(&mut self, owner: usize, buffer: &[u8], range: Range<usize>) {
        let shape = self.shape(&buffer[range.clone()]);
        let Some(shape) = shape else {
            self.begin(owner, range, None, 0, false);
            return;
        };
        let headers = &buffer[range.start..range.start + shape.headers];
        let data = range.start + shape.headers..range.start + shape.headers + shape.size;
        let (sequence, pushes) = match shape.protocol {
            Protocol::TCP => {
                let tcp = &headers[shape.transport..];
                (u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]), tcp[13] & PUSH != 0)
            }
            _ => (0, false),
        };
        let flow = self.open.iter().position(|at| {
            let group = &self.groups[*at];
            group.owner == owner
                && group.shape.as_ref().is_some_and(|other| other.is_flow_of(&shape))
                && same_ports(&buffer[group.first.clone()], headers, shape.transport)
        });
        if let Some(position) = flow {
            let at = self.open[position];
            let group = &self.groups[at];
            if group.takes(&shape, headers, sequence, &buffer[group.first.clone()]) {
                self.join(at, range.len(), &shape, data, pushes);
            } else {
                self.open.remove(position);
                self.begin(owner, range, Some((shape, data)), sequence, pushes);
            }
            return;
        }
        if self.open.len() >= MOST_OPEN {
            self.open.remove(0);
        }
        self.begin(owner, range, Some((shape, data)), sequence, pushes);
    }

    /// The headers of a group of several packets.
    pub(crate) fn joined(&self, group: &Group, buffer: &[u8]) -> Option<Joined> {
        let shape = group.shape.as_ref().filter(|_| group.count > 1)?;
        let mut bytes = [0; MOST_HEADERS];
        let headers = &mut bytes[..shape.headers];
        headers.copy_from_slice(&buffer[group.first.start..group.first.start + shape.headers]);
        if shape.is_v4 {
            headers[2..4].copy_from_slice(&(group.length as u16).to_be_bytes());
            headers[10..12].fill(0);
            let sum = checksum(&headers[..20]);
            headers[10..12].copy_from_slice(&sum.to_be_bytes());
        } else {
            headers[4..6].copy_from_slice(&((group.length - 40) as u16).to_be_bytes());
        }
        let covered = group.length - shape.transport;
        let (offset, segmentation) = match shape.protocol {
            Protocol::TCP => {
                headers[shape.transport + 13] |= if group.pushes { PUSH } else { 0 };
                (16, Segmentation::Tcp { size: shape.size as u16 })
            }
            _ => {
                let length = &mut headers[shape.transport + 4..shape.transport + 6];
                length.copy_from_slice(&(covered as u16).to_be_bytes());
                (6, Segmentation::Udp { size: shape.size as u16 })
            }
        };
        let sum = !Checksum::pseudo(shape.source, shape.destination, shape.protocol, covered).finish();
        let at = shape.transport + usize::from(offset);
        headers[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let vnet = VnetHeader {
            segmentation,
            checksum: Some(OpenChecksum { start: shape.transport as u16, offset }),
            is_v4: shape.is_v4,
            header_length: shape.headers as u16,
        };
        Some(Joined { vnet, bytes, length: shape.headers })
    }

    /// Where the data of a group of several packets lies, in order.
    pub(crate) fn data(&self, group: &Group) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut next = (group.shape.is_some()).then_some(group.first_piece);
        std::iter::from_fn(move || {
            let piece = &self.pieces[next?];
            next = piece.next;
            Some(piece.range.clone())
        })
    }

    fn begin(
        &mut self,
        owner: usize,
        first: Range<usize>,
        joinable: Option<(Shape, Range<usize>)>,
        sequence: u32,
        pushes: bool,
    ) {
        let length = first.len();
        let at = self.groups.len();
        let first_piece = self.pieces.len();
        let next_sequence = sequence.wrapping_add(joinable.as_ref().map_or(0, |(shape, _)| shape.size as u32));
        let closed = pushes;
        let shape = joinable.map(|(shape, data)| {
            self.pieces.push(Piece { range: data, next: None });
            shape
        });
        if shape.is_some() && !closed {
            self.open.push(at);
        }
        self.groups.push(Group {
            owner,
            first,
            count: 1,
            bytes: length,
            shape,
            last_piece: first_piece,
            first_piece,
            length,
            pushes,
            closed,
            next_sequence,
        });
    }

    fn join(&mut self, at: usize, bytes: usize, shape: &Shape, data: Range<usize>, pushes: bool) {
        let piece = self.pieces.len();
        self.pieces.push(Piece { range: data, next: None });
        let group = &mut self.groups[at];
        self.pieces[group.last_piece].next = Some(piece);
        group.last_piece = piece;
        group.count += 1;
        group.bytes += bytes;
        group.length += shape.size;
        group.pushes |= pushes;
        group.next_sequence = group.next_sequence.wrapping_add(shape.size as u32);
        let size = group.shape.as_ref().map_or(0, |first| first.size);
        group.closed = pushes || shape.size < size;
        if group.closed {
            self.open.retain(|open| *open != at);
        }
    }

    /// What a packet is, if it can be joined with others at all: whole, without IP options, its checksums right.
    fn shape(&self, packet: &[u8]) -> Option<Shape> {
        let is_v4 = match packet.first()? >> 4 {
            4 => true,
            6 => false,
            _ => return None,
        };
        let (transport, protocol) = if is_v4 {
            let fragmented = u16::from_be_bytes([*packet.get(6)?, *packet.get(7)?]) & 0x3fff != 0;
            if packet.len() < 28 || packet[0] != 0x45 || fragmented || checksum(&packet[..20]) != 0 {
                return None;
            }
            (20, Protocol(packet[9]))
        } else {
            (40, Protocol(*packet.get(6)?))
        };
        let rest = packet.get(transport..)?;
        let length = match protocol {
            Protocol::TCP if self.joins_tcp => {
                let flags = *rest.get(13)?;
                if flags & !PUSH != ACK {
                    return None;
                }
                usize::from(rest[12] >> 4) * 4
            }
            Protocol::UDP if self.joins_udp => {
                let length = usize::from(u16::from_be_bytes([*rest.get(4)?, *rest.get(5)?]));
                if length != rest.len() || rest.get(6..8)? == [0, 0] {
                    return None;
                }
                8
            }
            _ => return None,
        };
        let least = if protocol == Protocol::TCP { 20 } else { 8 };
        if length < least || rest.len() <= length {
            return None;
        }
        let (source, destination) = addresses(packet, is_v4);
        if !Checksum::pseudo(source, destination, protocol, rest.len()).with(rest).is_right() {
            return None;
        }
        let headers = transport + length;
        Some(Shape { protocol, is_v4, source, destination, transport, headers, size: packet.len() - headers })
    }
}

const PUSH: u8 = 8;
const ACK: u8 = 16;

impl Shape {
    fn is_flow_of(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.source == other.source && self.destination == other.destination
    }
}

fn same_ports(first: &[u8], headers: &[u8], transport: usize) -> bool {
    first.get(transport..transport + 4) == headers.get(transport..transport + 4)
}

impl Group {
    fn takes(&self, shape: &Shape, headers: &[u8], sequence: u32, first: &[u8]) -> bool {
        let Some(own) = &self.shape else { return false };
        let fits = !self.closed
            && shape.headers == own.headers
            && shape.size <= own.size
            && self.count < MOST_JOINED
            && self.length + shape.size <= MOST_PACKET;
        fits && self.same_network_header(shape, headers, first)
            && (shape.protocol != Protocol::TCP
                || sequence == self.next_sequence && same_tcp_header(headers, first, shape.transport))
    }

    fn same_network_header(&self, shape: &Shape, headers: &[u8], first: &[u8]) -> bool {
        if !shape.is_v4 {
            // Version, class and label; hop limit.
            return headers[..4] == first[..4] && headers[7] == first[7];
        }
        let id = |bytes: &[u8]| u16::from_be_bytes([bytes[4], bytes[5]]);
        let dont_fragment = headers[6] & 0x40 != 0;
        let counts_up = id(headers) == id(first).wrapping_add(self.count as u16);
        // An atomic datagram's identification means nothing (RFC 6864).
        headers[1] == first[1] && headers[6] == first[6] && headers[8] == first[8] && (counts_up || dont_fragment)
    }
}

/// Acknowledgement, offset, window, urgent pointer and options are the same.
fn same_tcp_header(headers: &[u8], first: &[u8], transport: usize) -> bool {
    let (one, other) = (&headers[transport..], &first[transport..headers.len()]);
    one[8..13] == other[8..13] && one[14..16] == other[14..16] && one[18..] == other[18..]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::cut::Cut;
    use super::*;

    /// Some of a flow's packets.
    #[derive(Debug, Clone)]
    struct Run {
        port: u16,
        is_v4: bool,
        is_tcp: bool,
        sizes: Vec<u16>,
        pushes: u8,
        skip: bool,
    }

    fn run() -> impl Strategy<Value = Run> {
        let size = prop_oneof![5 => Just(1200u16), 1 => 1u16..1300];
        (1u16..4, any::<bool>(), any::<bool>(), proptest::collection::vec(size, 1..8), any::<u8>(), any::<bool>())
            .prop_map(|(port, is_v4, is_tcp, sizes, pushes, skip)| Run { port, is_v4, is_tcp, sizes, pushes, skip })
    }

    fn packets(runs: &[Run]) -> Vec<Vec<u8>> {
        let mut sequence = 7u32;
        let mut identification = 0u16;
        let mut packets = Vec::new();
        for run in runs {
            for (number, size) in run.sizes.iter().enumerate() {
                let flags =
                    if run.pushes & 1u8.checked_shl(number as u32).unwrap_or_default() != 0 { ACK | PUSH } else { ACK };
                packets.push(packet(run, sequence, identification, *size, flags));
                sequence = sequence.wrapping_add(u32::from(*size));
                identification = identification.wrapping_add(1);
            }
            sequence = sequence.wrapping_add(u32::from(run.skip));
        }
        packets
    }

    fn packet(run: &Run, sequence: u32, identification: u16, size: u16, flags: u8) -> Vec<u8> {
        let protocol = if run.is_tcp { Protocol::TCP } else { Protocol::UDP };
        let mut transport = vec![0x12, 0x34, 0, run.port as u8];
        if run.is_tcp {
            transport.extend_from_slice(&sequence.to_be_bytes());
            transport.extend_from_slice(&[0, 0, 0, 9, 0x50, flags, 1, 0, 0, 0, 0, 0]);
        } else {
            transport.extend_from_slice(&(size + 8).to_be_bytes());
            transport.extend_from_slice(&[0, 0]);
        }
        let headers = transport.len();
        transport.extend((0..size).map(|n| (n ^ (sequence as u16)) as u8));
        let (source, destination): (IpAddr, IpAddr) = if run.is_v4 {
            ("100.64.0.1".parse().unwrap(), "100.64.0.2".parse().unwrap())
        } else {
            ("fd7a::1".parse().unwrap(), "fd7a::2".parse().unwrap())
        };
        let sum = match Checksum::pseudo(source, destination, protocol, transport.len()).with(&transport).finish() {
            0 if !run.is_tcp => 0xffff,
            sum => sum,
        };
        let at = if run.is_tcp { 16 } else { 6 };
        assert!(at + 2 <= headers);
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut bytes = match (source, destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let mut repr = packet::ip::Ipv4Repr::new(a, b, protocol);
                repr.identification = identification;
                repr.header(transport.len()).to_vec()
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                packet::ip::Ipv6Repr::new(a, b, protocol).header(transport.len()).to_vec()
            }
            _ => unreachable!("one family"),
        };
        bytes.extend_from_slice(&transport);
        bytes
    }

    /// Joins packets and cuts what comes out.
    fn through(packets: &[Vec<u8>]) -> (usize, Vec<Vec<u8>>) {
        let buffer: Vec<u8> = packets.concat();
        let mut coalescer = Coalescer::new(true, true);
        let mut at = 0;
        for packet in packets {
            coalescer.push(0, &buffer, at..at + packet.len());
            at += packet.len();
        }
        let mut out = Vec::new();
        for group in coalescer.groups() {
            let Some(joined) = coalescer.joined(group, &buffer) else {
                out.push(buffer[group.first.clone()].to_vec());
                continue;
            };
            let mut super_packet = joined.headers().to_vec();
            coalescer.data(group).for_each(|range| super_packet.extend_from_slice(&buffer[range]));
            assert_eq!(super_packet.len(), group.length);
            let header = VnetHeader::decode(&joined.vnet.encode()).unwrap();
            let cut = Cut::new(&header, &super_packet).unwrap();
            assert_eq!(cut.count(), group.count);
            let lengths: usize = (0..cut.count()).map(|piece| cut.length(piece)).sum();
            assert_eq!(lengths, group.bytes);
            for piece in 0..cut.count() {
                let mut bytes = vec![0; cut.length(piece)];
                cut.write(piece, &mut bytes);
                out.push(bytes);
            }
        }
        (coalescer.groups().len(), out)
    }

    fn flow(packet: &[u8]) -> Vec<u8> {
        let transport = if packet[0] >> 4 == 4 { 20 } else { 40 };
        [&packet[..1], &packet[transport..transport + 4], &[packet[if transport == 20 { 9 } else { 6 }]]].concat()
    }

    #[test]
    fn a_run_of_full_segments_becomes_one() {
        let run = Run { port: 1, is_v4: true, is_tcp: true, sizes: vec![1200; 9], pushes: 0, skip: false };
        let packets = packets(&[run]);
        assert_eq!(through(&packets), (1, packets.clone()));
    }

    #[test]
    fn a_segment_with_a_wrong_checksum_is_left_alone() {
        let run = Run { port: 1, is_v4: true, is_tcp: true, sizes: vec![1200; 3], pushes: 0, skip: false };
        let mut packets = packets(&[run]);
        packets[1][60] ^= 1;
        assert_eq!(through(&packets).0, 3);
    }

    #[test]
    fn peers_are_not_mixed() {
        let run = Run { port: 1, is_v4: true, is_tcp: true, sizes: vec![1200; 2], pushes: 0, skip: false };
        let packets = packets(&[run]);
        let buffer = packets.concat();
        let mut coalescer = Coalescer::new(true, true);
        coalescer.push(0, &buffer, 0..packets[0].len());
        coalescer.push(1, &buffer, packets[0].len()..buffer.len());
        assert_eq!(coalescer.groups().len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_joined_and_cut_is_what_it_was(runs in proptest::collection::vec(run(), 1..12)) {
            let packets = packets(&runs);
            let (groups, mut out) = through(&packets);
            prop_assert!(groups <= packets.len());
            // Between flows the order may change; within one it may not.
            let mut expected = packets;
            expected.sort_by_key(|packet| flow(packet));
            out.sort_by_key(|packet| flow(packet));
            prop_assert_eq!(out, expected);
        }

        #[test]
        fn no_packet_makes_it_panic(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 1..6)) {
            through(&packets);
        }
    }
}
