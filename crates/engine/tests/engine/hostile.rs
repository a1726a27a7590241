use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::Flow;
use packet::ip::Protocol;
use packet::udp::UdpRepr;

use crate::support::{Tap, pair, reach, within};

/// Waits until a counter of an engine reaches a value.
macro_rules! await_counter {
    ($node:expr, $name:ident, $least:expr) => {
        within(stringify!($name), async {
            while $node.engine.status().await.unwrap().counters.$name < $least {
                // tidy: sleep, a counter tells nobody that it changed
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
    };
}

#[tokio::test]
async fn what_the_filter_refuses_is_dropped_counted_and_in_the_flows() {
    let (one, mut other) = pair().await;
    reach(&one, &mut other).await;
    one.send(one.datagram(&other, 22, b"no")).await;
    one.send(one.datagram(&other, 1000, b"yes")).await;
    assert_eq!(other.payload().await, b"yes");
    await_counter!(other, filtered, 1);
    within("the refused flow", async {
        loop {
            let flows = other.engine.flows().await.unwrap();
            let refused = |flow: &Flow| {
                matches!(flow, Flow::Mesh(flow) if flow.local.port() == 22
                    && flow.refused.volume.packets == 1 && flow.refused.reason == Some(filter::Refusal::NoRule))
            };
            if flows.iter().any(refused) {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn answers_to_what_a_node_sent_come_in_past_its_rules() {
    let (mut one, mut other) = pair().await;
    reach(&one, &mut other).await;
    // Port 5000 is open to nobody; that it sent something is what lets the answer in.
    let answer = UdpRepr { source_port: 1200, destination_port: 5000 }.packet(other.address, one.address, b"answer");
    other.send(answer.clone()).await;
    await_counter!(one, filtered, 1);
    one.send(one.datagram(&other, 1200, b"question")).await;
    assert_eq!(other.payload().await, b"question");
    other.send(answer).await;
    assert_eq!(one.payload().await, b"answer");
}

#[tokio::test]
async fn a_source_address_that_is_not_the_senders_is_dropped() {
    let (one, mut other) = pair().await;
    reach(&one, &mut other).await;
    let spoofed = UdpRepr { source_port: 5000, destination_port: 1000 }.packet(
        "100.64.0.99".parse().unwrap(),
        other.address,
        b"spoofed",
    );
    one.send(spoofed).await;
    one.send(one.datagram(&other, 1000, b"own")).await;
    assert_eq!(other.payload().await, b"own");
    await_counter!(other, spoofed, 1);
}

#[tokio::test]
async fn a_more_specific_owner_of_a_source_address_wins() {
    let (mut one, mut other) = pair().await;
    let mut third = crate::support::Node::start(3, dial::Roots::none()).await;
    third.listen().await;
    one.allowed = vec!["10.0.0.0/8"];
    third.allowed = vec!["10.1.0.0/16"];
    other.show(&[&one, &third], &tailcfg::DerpMap::default()).await;
    reach(&one, &mut other).await;
    for (source, payload) in [("10.1.2.3", b"third's"), ("10.2.2.3", b"the one")] {
        let packet = UdpRepr { source_port: 1, destination_port: 1000 };
        one.send(packet.packet(source.parse().unwrap(), other.address, payload)).await;
    }
    assert_eq!(other.payload().await, b"the one");
    await_counter!(other, spoofed, 1);
}

#[tokio::test]
async fn datagrams_that_were_recorded_and_played_back_are_dropped() {
    let (mut one, mut other) = pair().await;
    let tap = Tap::between(&other).await;
    tap.repeats.store(true, Ordering::Relaxed);
    other.endpoints = vec![tap.address];
    one.endpoints = Vec::new();
    one.show(&[&other], &tailcfg::DerpMap::default()).await;
    other.show(&[&one], &tailcfg::DerpMap::default()).await;
    reach(&one, &mut other).await;
    one.send(one.datagram(&other, 1000, b"once")).await;
    assert_eq!(other.payload().await, b"once");
    await_counter!(other, replayed, 1);
    assert!(other.queue.try_receive().is_none());
}

#[tokio::test]
async fn a_flood_of_anything_neither_stops_nor_grows_an_engine() {
    let (one, mut other) = pair().await;
    reach(&one, &mut other).await;
    let target = other.endpoints[0];
    let attacker = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut datagrams: Vec<Vec<u8>> = vec![vec![0xff; 1200], vec![4, 0, 0, 0, 1, 2, 3, 4], vec![1], Vec::new()];
    // An initiation, a transport message to a session that isn't, disco from nobody, a STUN answer to nothing.
    datagrams.push([&[1, 0, 0, 0][..], &[7; 144]].concat());
    datagrams.push([&[4, 0, 0, 0][..], &[9; 60]].concat());
    datagrams.push([b"TS\xf0\x9f\x92\xac", &[3; 120][..]].concat());
    datagrams.push([&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[0; 12]].concat());
    for _ in 0..2000 {
        for datagram in &datagrams {
            attacker.send_to(datagram, target).unwrap();
        }
    }
    // A packet in the midst of it may be lost, as datagrams are; those after it are not.
    reach(&one, &mut other).await;
    let status = other.engine.status().await.unwrap();
    assert!(status.peers[&one.key].established && status.counters.unknown_session > 0);
}

#[tokio::test]
async fn packets_that_wait_for_a_handshake_are_bounded_and_the_newest_stay() {
    let (one, mut other) = pair().await;
    // Nobody answers: the other does not know the one.
    other.show(&[], &tailcfg::DerpMap::default()).await;
    for number in 0..300u16 {
        one.send(one.datagram(&other, 1000, &number.to_be_bytes())).await;
    }
    await_counter!(one, unsent_waiting, 300 - 128);
    other.show(&[&one], &tailcfg::DerpMap::default()).await;
    let first = within("the first of those that waited", async {
        loop {
            let payload = other.payload().await;
            if payload.len() == 2 {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
        }
    })
    .await;
    assert_eq!(first, 300 - 128);
}

#[tokio::test]
async fn a_refused_connection_is_told_to_its_sender() {
    let (one, mut other) = pair().await;
    reach(&one, &mut other).await;
    let (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) = (one.address, other.address) else {
        panic!("IPv4")
    };
    let mut tcp = vec![0u8; 20];
    tcp[..4].copy_from_slice(&[0x30, 0x39, 0, 22]);
    (tcp[12], tcp[13]) = (0x50, 0x02);
    let mut syn = packet::ip::Ipv4Repr::new(source, destination, Protocol::TCP).header(tcp.len()).to_vec();
    syn.extend_from_slice(&tcp);
    one.send(syn).await;
    await_counter!(other, filtered, 1);
    // TSMP is the engines' own: nothing of it reaches a device.
    one.send(one.datagram(&other, 1000, b"next")).await;
    assert_eq!(other.payload().await, b"next");
}

#[tokio::test]
async fn a_peer_that_left_the_view_is_let_in_no_more() {
    let (one, mut other) = pair().await;
    reach(&one, &mut other).await;
    other.show(&[], &tailcfg::DerpMap::default()).await;
    within("the view", async { while !other.engine.status().await.unwrap().peers.is_empty() {} }).await;
    one.send(one.datagram(&other, 1000, b"ghost")).await;
    await_counter!(other, unknown_session, 1);
    assert!(other.queue.try_receive().is_none());
}
