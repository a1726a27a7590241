//! Nothing that arrives makes the stack panic, or hold more than its bounds.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netstack::{Checksums, Config, Destination, Event, Listen, Stack};
use packet::ip::Packet;
use packet::tcp::{Flags, Tcp, TcpRepr};
use packet::udp::UdpRepr;
use proptest::prelude::*;

use crate::network::{A, B, CALM, End, Network, at};
use crate::transfer::connect;

const EVERYWHERE: Listen = Listen { to: Destination::Any, port: None };

fn segment(from: (IpAddr, u16), to: (IpAddr, u16), sequence: u32, flags: Flags) -> Vec<u8> {
    let repr = TcpRepr {
        source_port: from.1,
        destination_port: to.1,
        sequence,
        acknowledgment: 0,
        flags,
        window: 64000,
        maximum_segment_size: None,
    };
    repr.packet(from.0, to.0, b"")
}

fn stack() -> (Stack, Instant) {
    let now = Instant::now();
    let mut stack = Stack::new(Config::new(vec![B], 1), now);
    stack.listen(EVERYWHERE).unwrap();
    stack.forward_udp(EVERYWHERE).unwrap();
    (stack, now)
}

fn source(number: u32) -> IpAddr {
    IpAddr::from((0x0a00_0000u32 + number).to_be_bytes())
}

#[test]
fn a_syn_flood_from_one_source_holds_128_places() {
    let (mut stack, now) = stack();
    for port in 1..=60_000 {
        stack.handle_packet(&segment((A, port), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    }
    assert_eq!(stack.connections(), 128);
    assert_eq!(stack.counters().crowded_out, 60_000 - 128);
    stack.handle_packet(&segment((source(1), 5), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    assert_eq!(stack.connections(), 129, "another source still gets in");
    stack.handle_timeout(now + Duration::from_secs(31));
    assert_eq!(stack.connections(), 0);
}

#[test]
fn a_syn_flood_from_many_sources_holds_the_bound_of_all_connections() {
    let (mut stack, now) = stack();
    for number in 0..50_000 {
        stack.handle_packet(&segment((source(number), 5), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    }
    assert_eq!(stack.connections(), 4096);
}

#[test]
fn one_device_holds_a_quarter_of_the_places_for_connections() {
    let mut config = Config::new(vec![B], 1);
    config.handshakes_per_source = usize::MAX;
    let now = Instant::now();
    let mut stack = Stack::new(config, now);
    stack.listen(EVERYWHERE).unwrap();
    for port in 1..=5000 {
        stack.handle_packet(&segment((A, port), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    }
    assert_eq!(stack.connections(), 1024);
    stack.handle_packet(&segment((source(1), 5), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    assert_eq!(stack.connections(), 1025, "another device gets in");
}

#[test]
fn a_client_that_never_says_goodbye_keeps_no_places_from_anybody() {
    let mut network = Network::new(CALM, 7);
    network.b.set_bounds(1 << 20, 10, 2);
    network.b.listen(EVERYWHERE).unwrap();
    for _ in 0..2 {
        let (_never_released, accepted) = connect(&mut network, at(B, 80));
        network.settle(Duration::from_secs(1));
        let now = network.now;
        network.b.release(accepted, now);
    }
    network.settle(Duration::from_secs(1));
    assert_eq!(network.b.connections(), 2, "both linger");
    let now = network.now;
    let comes = |network: &mut Network, port| {
        network.b.handle_packet(&segment((A, port), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
        let resets = network.caught(End::A).iter().filter(|packet| is_reset(packet)).count();
        (network.b.connections(), resets)
    };
    assert_eq!(comes(&mut network, 5), (2, 1), "one that lingers makes room");
    assert_eq!(comes(&mut network, 6), (2, 1), "so does the other");
    assert_eq!(comes(&mut network, 7), (2, 0), "what is open does not");
    assert_eq!(network.b.counters().crowded_out, 1);
    network.b.handle_packet(&segment((source(1), 5), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    assert_eq!(network.b.connections(), 3, "another source gets in");
}

fn is_reset(packet: &[u8]) -> bool {
    let packet = Packet::parse(packet).unwrap();
    Tcp::parse(packet.upper_layer().payload).unwrap().flags().contains(Flags::RST)
}

#[test]
fn in_a_full_stack_the_connection_that_lingers_for_longest_makes_room() {
    let mut network = Network::new(CALM, 7);
    network.b.set_bounds(1 << 20, 2, 2);
    network.b.listen(EVERYWHERE).unwrap();
    let (_never_released, accepted) = connect(&mut network, at(B, 80));
    let _open = connect(&mut network, at(B, 80));
    network.settle(Duration::from_secs(1));
    let now = network.now;
    network.b.release(accepted, now);
    for (port, crowded_out) in [(5, 0), (6, 1)] {
        network.b.handle_packet(&segment((source(1), port), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
        assert_eq!((network.b.connections(), network.b.counters().crowded_out), (2, crowded_out));
    }
}

#[test]
fn accepted_clients_that_never_answer_are_dropped() {
    let mut config = Config::new(vec![B], 1);
    config.memory = 1 << 20;
    let now = Instant::now();
    let mut stack = Stack::new(config, now);
    stack.listen(EVERYWHERE).unwrap();
    for number in 0..200 {
        stack.handle_packet(&segment((source(number), 5), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    }
    while let Some(Event::Incoming { connection, .. }) = stack.poll_event() {
        stack.accept(connection, now).unwrap();
    }
    let mut at = now;
    let mut answers = 0;
    while at < now + Duration::from_secs(40) {
        while stack.poll_transmit(at).is_some() {
            answers += 1;
        }
        let Some(next) = stack.poll_timeout() else { break };
        at = next;
        stack.handle_timeout(at);
    }
    let mut closed = 0;
    while let Some(event) = stack.poll_event() {
        let Event::Closed { connection, .. } = event else { panic!("{event:?}") };
        stack.release(connection, at);
        closed += 1;
    }
    assert_eq!((closed, stack.connections()), (200, 0));
    assert!(answers <= 200 * 8, "{answers} packets to those who never answered");
}

#[test]
fn a_datagram_flood_holds_the_bounds_of_flows_and_queues() {
    let (mut stack, now) = stack();
    let datagram =
        |from: IpAddr, port: u16| UdpRepr { source_port: port, destination_port: 53 }.packet(from, B, &[0; 1000]);
    for port in 1..=5000 {
        stack.handle_packet(&datagram(A, port), Checksums::ToVerify, now);
    }
    let mut flows = Vec::new();
    while let Some(Event::Flow { socket, .. }) = stack.poll_event() {
        flows.push(socket);
    }
    assert_eq!(flows.len(), 1024, "one source");
    for number in 0..10_000 {
        stack.handle_packet(&datagram(source(number), 5), Checksums::ToVerify, now);
    }
    let (mut began, mut ended) = (0, 0);
    while let Some(event) = stack.poll_event() {
        match event {
            Event::Flow { .. } => began += 1,
            Event::FlowEnded(_) => ended += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((began, 1024 + began - ended), (10_000, 4096));
    let (mut stack, now) = self::stack();
    for _ in 0..1000 {
        stack.handle_packet(&datagram(A, 5), Checksums::ToVerify, now);
    }
    let Some(Event::Flow { socket, .. }) = stack.poll_event() else { panic!("no flow") };
    let mut queued = 0;
    while stack.receive(socket).is_some() {
        queued += 1;
    }
    assert_eq!((queued, stack.counters().datagrams_dropped), (64, 1000 - 64));
}

#[test]
fn packets_that_no_network_carries_on_purpose_are_dropped() {
    let (mut stack, now) = stack();
    for address in ["127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0"] {
        let address: IpAddr = address.parse().unwrap();
        stack.handle_packet(&segment((A, 5), (address, 80), 1, Flags::SYN), Checksums::ToVerify, now);
        stack.handle_packet(&segment((address, 5), (B, 80), 1, Flags::SYN), Checksums::ToVerify, now);
    }
    assert_eq!((stack.counters().martians, stack.connections()), (8, 0));
}

#[test]
fn a_wrong_checksum_is_dropped_unless_it_was_verified_before() {
    let (mut stack, now) = stack();
    let mut bytes = segment((A, 5), (B, 80), 1, Flags::SYN);
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    stack.handle_packet(&bytes, Checksums::ToVerify, now);
    assert_eq!((stack.counters().wrong_checksums, stack.connections()), (1, 0));
    stack.handle_packet(&bytes, Checksums::Verified, now);
    assert_eq!(stack.connections(), 1);
}

#[test]
fn a_forged_reset_outside_the_window_changes_nothing() {
    let mut network = Network::new(CALM, 1);
    network.b.listen(EVERYWHERE).unwrap();
    let (dialed, accepted) = connect(&mut network, at(B, 80));
    network.a.write(dialed, b"hello").unwrap();
    let packets = network.caught(End::B);
    let packet = Packet::parse(&packets[0]).unwrap();
    let tcp = Tcp::parse(packet.upper_layer().payload).unwrap();
    let from = (A, tcp.source_port());
    for sequence in [tcp.sequence().wrapping_sub(1 << 30), tcp.sequence().wrapping_add(1 << 30)] {
        let now = network.now;
        network.b.handle_packet(&segment(from, (B, 80), sequence, Flags::RST), Checksums::ToVerify, now);
    }
    let now = network.now;
    network.b.write(accepted, b"still here").unwrap();
    network.b.handle_packet(&packets[0], Checksums::ToVerify, now);
    assert_eq!(network.b.read(accepted, &mut [0; 16], now), netstack::Read::Bytes(5));
}

#[derive(Debug, Clone)]
struct Blow {
    sequence: i32,
    acknowledgment: i32,
    flags: u8,
    window: u16,
    size: Option<u16>,
    payload: usize,
    wait: u64,
    answer: u8,
}

fn blow() -> impl Strategy<Value = Blow> {
    let near = prop_oneof![4 => -3i32..4, 3 => -70_000i32..70_000, 1 => any::<i32>()];
    let flags = prop_oneof![6 => Just(0x10u8), 2 => Just(0x18u8), 1 => Just(0x11u8), 2 => any::<u8>()];
    (
        (near.clone(), near, flags, any::<u16>()),
        (proptest::option::of(any::<u16>()), 0usize..3000, 0u64..3000, any::<u8>()),
    )
        .prop_map(|((sequence, acknowledgment, flags, window), (size, payload, wait, answer))| Blow {
            sequence,
            acknowledgment,
            flags,
            window,
            size,
            payload,
            wait,
            answer,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_segments_on_a_live_connection_end_it_at_worst(blows in proptest::collection::vec(blow(), 1..60), early in any::<bool>()) {
        let mut config = Config::new(vec![B], 1);
        config.memory = 1 << 20;
        let mut now = Instant::now();
        let mut stack = Stack::new(config, now);
        stack.listen(EVERYWHERE).unwrap();
        let mut syn = segment((A, 5), (B, 80), 1000, Flags::SYN);
        stack.handle_packet(&syn, Checksums::ToVerify, now);
        let Some(Event::Incoming { connection, .. }) = stack.poll_event() else { panic!("no client") };
        stack.accept(connection, now).unwrap();
        let answer = stack.poll_transmit(now).unwrap();
        let answered = Packet::parse(&answer.packet).unwrap();
        let first = Tcp::parse(answered.upper_layer().payload).unwrap().sequence().wrapping_add(1);
        let mut highest = first;
        if !early {
            syn = TcpRepr {
                source_port: 5, destination_port: 80, sequence: 1001, acknowledgment: first,
                flags: Flags::ACK, window: 64000, maximum_segment_size: None,
            }.packet(A, B, b"");
            stack.handle_packet(&syn, Checksums::ToVerify, now);
        }
        for blow in blows {
            let repr = TcpRepr {
                source_port: 5,
                destination_port: 80,
                sequence: 1001u32.wrapping_add_signed(blow.sequence),
                acknowledgment: highest.wrapping_add_signed(blow.acknowledgment),
                flags: Flags(blow.flags),
                window: blow.window,
                maximum_segment_size: blow.size,
            };
            stack.handle_packet(&repr.packet(A, B, &vec![7; blow.payload]), Checksums::ToVerify, now);
            match blow.answer % 16 {
                0..6 => { let _ = stack.read(connection, &mut [0; 2000], now); }
                6..12 => { let _ = stack.write(connection, &[1; 3000]); }
                12 => stack.shut_down(connection),
                13 => stack.abort(connection),
                14 => stack.release(connection, now),
                _ => {}
            }
            let mut sent = 0;
            while let Some(transmit) = stack.poll_transmit(now) {
                for packet in transmit.split() {
                    let packet = Packet::parse(&packet).unwrap();
                    let tcp = Tcp::parse(packet.upper_layer().payload).unwrap();
                    prop_assert!(tcp.checksum_is_right(B, A));
                    let end = tcp.sequence().wrapping_add(tcp.sequence_length());
                    if end.wrapping_sub(highest) < 1 << 30 {
                        highest = end;
                    }
                }
                sent += 1;
                prop_assert!(sent < 5000, "it does not stop sending");
            }
            while stack.poll_event().is_some() {}
            now += Duration::from_millis(blow.wait);
            stack.handle_timeout(now);
        }
        stack.release(connection, now);
        for _ in 0..10_000 {
            while stack.poll_transmit(now).is_some() {}
            let Some(next) = stack.poll_timeout() else { break };
            now = now.max(next);
            stack.handle_timeout(now);
        }
        prop_assert_eq!(stack.connections(), 0);
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version in 0u8..3, protocol in 0u8..5, verify in any::<bool>()) {
        if let Some(first) = bytes.first_mut() {
            *first = match version { 0 => *first, 1 => 0x45, _ => 0x60 };
        }
        let place = if version == 1 { 9 } else { 6 };
        if let Some(field) = bytes.get_mut(place) {
            *field = [6, 17, 1, 58, *field][usize::from(protocol)];
        }
        let (mut stack, now) = stack();
        let checksums = if verify { Checksums::ToVerify } else { Checksums::Verified };
        stack.handle_packet(&bytes, checksums, now);
        while let Some(event) = stack.poll_event() {
            if let Event::Incoming { connection, .. } = event {
                stack.accept(connection, now).unwrap();
            }
        }
        while stack.poll_transmit(now).is_some() {}
        stack.handle_timeout(now + Duration::from_secs(100));
        while stack.poll_transmit(now).is_some() {}
    }
}
