//! Any destination, UDP and pings: what a subnet router in user space does.

use std::net::IpAddr;
use std::time::Duration;

use netstack::{BindError, Checksums, Destination, Event, Listen, SendError};
use packet::icmp::{Echo, Icmpv4, Icmpv4Repr};
use packet::ip::Packet;

use crate::network::{A, A6, B, B6, CALM, End, Network, Weather, at};

const EVERYWHERE: Listen = Listen { to: Destination::Any, port: None };

#[test]
fn a_listener_for_any_destination_learns_where_the_client_wanted_to_go() {
    let mut network = Network::new(CALM, 1);
    network.b.listen(EVERYWHERE).unwrap();
    let to = "192.168.50.60:8080".parse().unwrap();
    let dialed = network.a.dial(to).unwrap();
    let Event::Incoming { connection, to: wanted, .. } = network.event(End::B) else { panic!("no client") };
    assert_eq!(wanted, to);
    let now = network.now;
    network.b.accept(connection, now).unwrap();
    assert_eq!(network.event(End::A), Event::Connected(dialed));
}

#[test]
fn what_is_neither_ours_nor_listened_for_gets_no_answer() {
    let mut network = Network::new(CALM, 1);
    network.a.dial("192.168.50.60:8080".parse().unwrap()).unwrap();
    network.settle(Duration::from_millis(100));
    assert_eq!(network.a.poll_event(), None);
    assert!(network.b.counters().unclaimed > 0);
}

#[test]
fn a_bound_socket_and_a_flow_exchange_datagrams() {
    for (client, server) in [(A, B), (A6, B6)] {
        let mut network = Network::new(CALM, 1);
        let forwarder = network.b.forward_udp(Listen { to: Destination::Own, port: Some(53) }).unwrap();
        let socket = network.a.bind(at(client, 0)).unwrap();
        assert_eq!(network.a.receive(socket), None);
        let now = network.now;
        network.a.send(socket, at(server, 53), b"question", now).unwrap();
        let Event::Flow { socket: flow, listener, from, to } = network.event(End::B) else { panic!("no flow") };
        assert_eq!((listener, from.ip(), to), (forwarder, client, at(server, 53)));
        assert_eq!(network.b.receive(flow).unwrap().payload, b"question");
        let now = network.now;
        network.b.send(flow, from, b"answer", now).unwrap();
        assert_eq!(network.b.send(flow, at(client, 9), b"elsewhere", now), Err(SendError::Unroutable(at(client, 9))));
        assert_eq!(network.event(End::A), Event::Datagrams(socket));
        assert_eq!(network.a.receive(socket).unwrap().payload, b"answer");
    }
}

#[test]
fn a_flow_that_is_idle_ends_and_a_busy_one_does_not() {
    let mut network = Network::new(CALM, 1);
    network.b.forward_udp(EVERYWHERE).unwrap();
    let to = "10.1.0.10:53".parse().unwrap();
    let socket = network.a.bind(at(A, 5000)).unwrap();
    for _ in 0..5 {
        let now = network.now;
        network.a.send(socket, to, b"x", now).unwrap();
        network.settle(Duration::from_millis(20));
        network.now += Duration::from_secs(60);
    }
    let Event::Flow { socket: flow, .. } = network.event(End::B) else { panic!("no flow") };
    while network.b.receive(flow).is_some() {}
    assert_eq!(network.event(End::B), Event::FlowEnded(flow));
    let now = network.now;
    assert_eq!(network.b.send(flow, at(A, 5000), b"late", now), Err(SendError::Gone));
}

#[test]
fn a_bind_says_what_is_in_its_way() {
    let mut network = Network::new(CALM, 1);
    network.a.bind(at(A, 53)).unwrap();
    assert_eq!(network.a.bind(at(A, 53)), Err(BindError::Taken(at(A, 53))));
    assert_eq!(network.a.bind(at(B, 53)), Err(BindError::NotOurs(B)));
}

#[test]
fn a_datagram_beyond_the_link_is_refused_with_what_would_fit() {
    let mut network = Network::new(CALM, 1);
    let socket = network.a.bind(at(A, 0)).unwrap();
    let now = network.now;
    let refused = network.a.send(socket, at(B, 1), &[0; 1253], now);
    assert_eq!(refused, Err(SendError::TooLong { length: 1253, most: 1252 }));
    network.a.send(socket, at(B, 1), &[0; 1252], now).unwrap();
}

fn ping(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { panic!("IPv4 only") };
    Icmpv4Repr::EchoRequest(Echo { identifier: 7, sequence: 3, data: b"ping" }).packet(from, to)
}

fn is_pong(packet: &[u8], from: IpAddr) -> bool {
    let packet = Packet::parse(packet).unwrap();
    let reply = Icmpv4::parse(packet.upper_layer().payload).unwrap();
    packet.source() == from && reply == Icmpv4::EchoReply(Echo { identifier: 7, sequence: 3, data: b"ping" })
}

#[test]
fn own_addresses_answer_pings() {
    let mut network = Network::new(CALM, 1);
    let now = network.now;
    network.b.handle_packet(&ping(A, B), Checksums::ToVerify, now);
    let answers = network.caught(End::A);
    assert!(answers.len() == 1 && is_pong(&answers[0], B));
}

#[test]
fn pings_to_others_are_handed_on_and_answered_in_their_name() {
    let mut network = Network::with(CALM, 1, |config| netstack::Config { forward_pings: true, ..config });
    let other: IpAddr = "192.168.50.60".parse().unwrap();
    let now = network.now;
    for _ in 0..1000 {
        network.b.handle_packet(&ping(A, other), Checksums::ToVerify, now);
    }
    let mut handed_on = 0;
    while let Some(event) = network.b.poll_event() {
        let Event::Ping(ping) = event else { panic!("{event:?}") };
        assert_eq!(ping.to, other);
        handed_on += 1;
        if handed_on == 1 {
            network.b.pong(&ping);
        }
    }
    assert_eq!(handed_on, 64, "pings that wait are bounded");
    assert!(is_pong(&network.caught(End::A)[0], other));
}

#[test]
fn a_closed_udp_port_is_reported_as_unreachable_at_a_limited_rate() {
    let mut network = Network::new(Weather { delay: Duration::ZERO, ..CALM }, 1);
    let socket = network.a.bind(at(A, 0)).unwrap();
    for _ in 0..500 {
        let now = network.now;
        network.a.send(socket, at(B, 9), b"x", now).unwrap();
    }
    let requests = network.caught(End::B);
    assert_eq!(requests.len(), 500);
    let now = network.now;
    for request in &requests {
        network.b.handle_packet(request, Checksums::ToVerify, now);
    }
    let answers = network.caught(End::A);
    assert_eq!(answers.len(), 100);
    let packet = Packet::parse(&answers[0]).unwrap();
    assert!(matches!(Icmpv4::parse(packet.upper_layer().payload).unwrap(), Icmpv4::Unreachable { code: 3, .. }));
}

#[test]
fn an_unreachable_destination_ends_the_dial() {
    let mut network = Network::new(CALM, 1);
    let dialed = network.a.dial("10.9.9.9:80".parse().unwrap()).unwrap();
    let syn = network.caught(End::B).remove(0);
    let router = "10.0.0.1".parse().unwrap();
    let IpAddr::V4(a) = A else { panic!("IPv4") };
    let error = Icmpv4Repr::Unreachable { code: 1, packet: &syn }.packet(router, a);
    let now = network.now;
    network.a.handle_packet(&error, Checksums::ToVerify, now);
    let reason = netstack::Closed::Unreachable;
    assert_eq!(network.a.poll_event(), Some(Event::Closed { connection: dialed, reason }));
    network.a.release(dialed, now);
    network.settle(Duration::from_secs(1));
    assert_eq!(network.a.connections(), 0);
}
