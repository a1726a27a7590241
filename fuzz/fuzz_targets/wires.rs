//! Any bytes as what a stranger sends to a node or a relay: they are read or refused, what was read means the same when
//! it is written and read again, and a stream says the same in whatever pieces it arrives.
#![no_main]

use std::net::IpAddr;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use packet::checksum::Checksum;
use packet::demux::{Carried, Datagram};
use packet::derp::{FRAME_HEADER_LEN, Frame, FrameDecoder, FrameError, Limits, RawFrame};
use packet::disco::{Envelope, Message};
use packet::icmp::{Icmpv4, Icmpv6};
use packet::ip::{self, Fragment, Packet, Protocol, UpperLayer};
use packet::tcp::{self, Tcp, TcpOption, TcpRepr};
use packet::udp::Udp;
use packet::{stun, tsmp::Tsmp, wireguard};

/// The largest segments that a packet's connection is held to.
const SEGMENT: u16 = 1220;

fuzz_target!(|data: &[u8]| {
    check_datagram(data);
    check_disco(data);
    check_stun(data);
    check_relay_stream(data);
    check_packet(data);
});

/// What arrives on the node's socket is of one format, whoever looks at it.
fn check_datagram(data: &[u8]) {
    let is_wireguard = wireguard::Message::parse(data).is_ok();
    match Datagram::classify(data) {
        Datagram::Direct(Carried::Disco(_)) => assert!(Envelope::is_disco(data) && !is_wireguard),
        Datagram::Direct(Carried::WireGuard(packet)) => assert_eq!(packet, data),
        Datagram::Stun(packet) => assert!(stun::is_stun(packet) && !is_wireguard),
        Datagram::Relayed { header, .. } => {
            assert_eq!(header.encode(), data[..header.encode().len()], "a header is written as it was");
            assert!(!is_wireguard && !stun::is_stun(data));
        }
        Datagram::Unknown => assert!(!is_wireguard && !stun::is_stun(data) && Envelope::parse(data).is_none()),
    }
}

fn check_disco(data: &[u8]) {
    if let Ok(message) = Message::decode(data) {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
    if let Ok(message) = Tsmp::parse(data) {
        assert_eq!(Tsmp::parse(&message.encode()), Ok(message));
    }
}

fn check_stun(data: &[u8]) {
    if let Ok(transaction) = stun::parse_request(data) {
        assert_eq!(stun::request(transaction)[..], *data, "only the very request of nodes is one");
    }
    if let Ok((transaction, seen)) = stun::parse_response(data) {
        let answer = stun::response(transaction, seen);
        assert!(answer.len() <= stun::RESPONSE_MAX_LEN);
        assert_eq!(stun::parse_response(&answer), Ok((transaction, seen)));
    }
}

/// The first byte says what the reader allows and how long the pieces are; the stream is the rest.
fn check_relay_stream(data: &[u8]) {
    let Some((&how, stream)) = data.split_first() else { return };
    let limits = [Limits::UNPROVEN_CLIENT, Limits::CLIENT, Limits::RELAY][usize::from(how % 3)];
    let pieces = usize::from(how / 3) + 1;
    let whole = read_stream(limits, &[stream]);
    let in_pieces = read_stream(limits, &stream.chunks(pieces).collect::<Vec<&[u8]>>());
    assert_eq!(whole, in_pieces, "pieces of {pieces} bytes");
    for RawFrame { kind, body } in &whole.0 {
        let Ok(frame) = Frame::parse(*kind, body) else { continue };
        let written = frame.to_vec();
        let (frames, error) = read_stream(Limits::RELAY, &[&written]);
        assert_eq!(error, None);
        let [again] = &frames[..] else { panic!("{frame:?} was written as {} frames", frames.len()) };
        assert_eq!(Frame::parse(again.kind, &again.body), Ok(frame));
    }
}

/// The frames of a stream, and what ended it before its end.
fn read_stream(limits: Limits, pieces: &[&[u8]]) -> (Vec<RawFrame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new(limits);
    let mut frames = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match decoder.next(&mut input) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        assert!(input.is_empty(), "what isn't needed is left");
    }
    let held: usize = frames.iter().map(|frame| FRAME_HEADER_LEN + frame.body.len()).sum();
    assert!(held <= pieces.iter().map(|piece| piece.len()).sum(), "frames hold more than the stream had");
    (frames, None)
}

fn check_packet(data: &[u8]) {
    if let Ok(quoted) = Packet::parse_quoted(data) {
        quoted.upper_layer().ports();
    }
    let Ok(packet) = Packet::parse(data) else { return };
    assert_eq!(Packet::parse(packet.bytes()), Ok(packet), "what follows a packet is no part of it");
    let upper = packet.upper_layer();
    assert_eq!(&packet.bytes()[upper.offset..][..upper.payload.len()], upper.payload);
    check_upper_layer(packet, upper);

    let mut right = packet.bytes().to_vec();
    if !make_right(&mut right) {
        return;
    }
    let other = match packet {
        Packet::V4(_) => IpAddr::from([100, 64, 7, 9]),
        Packet::V6(_) => IpAddr::from([0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0xffff, 9]),
    };
    ip::set_source(&mut right, other).expect("a packet that can be read");
    assert!(is_right(&right), "a new source leaves sums that are wrong");
    ip::set_destination(&mut right, other).expect("a packet that can be read");
    assert!(is_right(&right), "a new destination leaves sums that are wrong");
    if tcp::clamp_maximum_segment_size(&mut right, SEGMENT) {
        assert!(is_right(&right), "a smaller segment size leaves sums that are wrong");
        assert!(!tcp::clamp_maximum_segment_size(&mut right.clone(), SEGMENT) || announces_twice(&right));
    }
}

fn check_upper_layer(packet: Packet<'_>, upper: UpperLayer<'_>) {
    upper.ports();
    if let Ok(segment) = Tcp::parse(upper.payload) {
        assert!(segment.options().count() <= 20 && segment.payload().len() <= upper.payload.len());
        if let Some(reset) = TcpRepr::reset(&segment) {
            let answer = reset.packet(packet.destination(), packet.source(), &[]);
            assert!(is_right(&answer));
        }
    }
    if let Ok(datagram) = Udp::parse(upper.payload) {
        assert!(datagram.payload().len() + 8 <= upper.payload.len());
    }
    match packet {
        Packet::V4(_) => {
            let message = Icmpv4::parse(upper.payload).ok();
            assert!(message.is_none_or(|message| message.is_error() || message.quoted().is_none()));
        }
        Packet::V6(packet) => {
            let message = Icmpv6::parse(upper.payload, packet.source(), packet.destination()).ok();
            assert!(message.is_none_or(|message| message.is_error() || message.quoted().is_none()));
        }
    }
}

/// Gives a packet the sums that it should have; `false` where it carries nothing that is summed.
fn make_right(bytes: &mut [u8]) -> bool {
    let Ok(packet) = Packet::parse(bytes) else { return false };
    let (source, destination, upper) = (packet.source(), packet.destination(), packet.upper_layer());
    let (offset, protocol, length) = (upper.offset, upper.protocol, upper.payload.len());
    let header = match packet {
        Packet::V4(packet) => Some(packet.header_length()),
        Packet::V6(_) => None,
    };
    if upper.fragment != Fragment::Whole {
        return false;
    }
    let (at, summed) = match protocol {
        Protocol::TCP if Tcp::parse(upper.payload).is_ok() => (offset + 16, length),
        Protocol::UDP => match Udp::parse(upper.payload) {
            Ok(datagram) => (offset + 6, datagram.payload().len() + 8),
            Err(_) => return false,
        },
        _ => return false,
    };
    bytes[at..at + 2].fill(0);
    let sum = Checksum::pseudo(source, destination, protocol, summed).with(&bytes[offset..offset + summed]).finish();
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    if let Some(header) = header {
        bytes[10..12].fill(0);
        let sum = Checksum::new().with(&bytes[..header]).finish();
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// Whether all sums of a packet are right.
fn is_right(bytes: &[u8]) -> bool {
    let packet = Packet::parse(bytes).expect("a packet that can be read");
    let (from, to, upper) = (packet.source(), packet.destination(), packet.upper_layer());
    let header = match packet {
        Packet::V4(packet) => packet.checksum_is_right(),
        Packet::V6(_) => true,
    };
    header
        && match upper.protocol {
            Protocol::TCP => Tcp::parse(upper.payload).is_ok_and(|segment| segment.checksum_is_right(from, to)),
            Protocol::UDP => Udp::parse(upper.payload).is_ok_and(|datagram| datagram.checksum_is_right(from, to)),
            _ => true,
        }
}

/// Whether a segment announces a size that is too large once more, after one that was made smaller.
fn announces_twice(bytes: &[u8]) -> bool {
    let packet = Packet::parse(bytes).expect("a packet that can be read");
    let segment = Tcp::parse(packet.upper_layer().payload).expect("a segment");
    segment.options().filter(|option| matches!(option, TcpOption::MaximumSegmentSize(_))).count() > 1
}
