use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crypto::{NodePrivate, SystemEntropy};
use engine::{Flow, Initiator, MeshFlow, Offloads, PathChoice, PingKind, SuperPacket};
use packet::ip::{Packet, Protocol};
use packet::tcp::Tcp;

use crate::support::{Node, pair, reach, within};

#[tokio::test]
async fn two_nodes_find_each_other_and_talk_both_ways() {
    let (mut one, mut other) = pair().await;
    reach(&one, &mut other).await;
    let (key, packet) = (other.key, one.datagram(&other, 1500, b"over"));
    assert!(matches!(one.await_path(key, |choice| choice.direct().is_some()).await, PathChoice::Direct(_)));
    one.send(packet).await;
    assert_eq!(other.payload().await, b"over");
    let back = other.datagram(&one, 1500, b"back");
    other.send(back).await;
    assert_eq!(one.payload().await, b"back");
    let status = one.engine.peer(key).await.unwrap().unwrap();
    assert!(status.established && status.active && status.last_handshake.is_some());
    assert!(status.sent_bytes > 0 && status.received_bytes > 0);
}

#[tokio::test]
async fn every_kind_of_ping_is_answered_and_tells_the_way() {
    let (one, mut other) = pair().await;
    reach(&one, &mut other).await;
    for kind in [PingKind::Disco, PingKind::Tsmp] {
        let pong = one.engine.ping(other.key, kind).await.unwrap();
        assert!(matches!(pong.via, Some(engine::Via::Direct(_))), "{kind:?}: {pong:?}");
    }
    // Nobody answers echoes behind a queue but the test.
    let (key, address) = (other.key, other.address);
    let echo = async {
        let request = other.receive().await;
        let packet = Packet::parse(&request).unwrap();
        let (IpAddr::V4(source), IpAddr::V4(destination)) = (packet.source(), packet.destination()) else {
            panic!("the ping is of IPv4")
        };
        let Ok(packet::icmp::Icmpv4::EchoRequest(echo)) = packet::icmp::Icmpv4::parse(packet.upper_layer().payload)
        else {
            panic!("the packet is an echo request")
        };
        let reply = packet::icmp::Icmpv4Repr::EchoReply(echo).packet(destination, source);
        other.send(reply).await;
    };
    let (pong, ()) = tokio::join!(one.engine.ping(key, PingKind::Icmp), echo);
    assert_eq!(pong.unwrap().address, Some(address));
}

#[tokio::test]
async fn a_large_tcp_packet_crosses_as_segments_and_arrives_joined() {
    let (one, mut other) = pair().await;
    let arrivals = cross_large_packet(&one, &mut other).await;
    assert!(arrivals <= 10, "{arrivals} packets to the device for 49 segments");
}

#[tokio::test]
async fn without_any_batching_of_the_kernel_everything_still_crosses() {
    let plain = |config: &mut engine::Config| config.offloads = Offloads::NONE;
    let mut one = Node::start_with(1, dial::Roots::none(), plain).await;
    let mut other = Node::start_with(2, dial::Roots::none(), plain).await;
    one.listen().await;
    other.listen().await;
    one.show(&[&other], &tailcfg::DerpMap::default()).await;
    other.show(&[&one], &tailcfg::DerpMap::default()).await;
    assert_eq!(cross_large_packet(&one, &mut other).await, 49);
    let counters = one.engine.status().await.unwrap().counters;
    assert!(!counters.udp_gso && !counters.udp_gro);
}

#[tokio::test]
async fn nodes_talk_over_ipv6() {
    let mut one = Node::start(1, dial::Roots::none()).await;
    let mut other = Node::start(2, dial::Roots::none()).await;
    for node in [&mut one, &mut other] {
        node.engine.set_interfaces(vec![Ipv6Addr::LOCALHOST.into()]);
        let port = node.engine.status().await.unwrap().v6_port.unwrap();
        node.endpoints = vec![(Ipv6Addr::LOCALHOST, port).into()];
    }
    one.show(&[&other], &tailcfg::DerpMap::default()).await;
    other.show(&[&one], &tailcfg::DerpMap::default()).await;
    assert!(cross_large_packet(&one, &mut other).await <= 10);
    let path = one.engine.peer(other.key).await.unwrap().unwrap().path;
    assert!(path.direct().is_some_and(|address| address.is_ipv6()), "{path:?}");
}

/// Sends 60 000 bytes as one TCP packet, and returns in how many they came.
async fn cross_large_packet(one: &Node, other: &mut Node) -> usize {
    reach(one, other).await;
    let data: Vec<u8> = (0..60_000u32).map(|n| (n % 251) as u8).collect();
    let mut tcp = vec![0u8; 20];
    tcp[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
    (tcp[12], tcp[13]) = (0x50, 0x18);
    tcp.extend_from_slice(&data);
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (one.address, other.address) else { panic!("IPv4") };
    let mut bytes = packet::ip::Ipv4Repr::new(source, destination, Protocol::TCP).header(tcp.len()).to_vec();
    bytes.extend_from_slice(&tcp);
    one.queue.send(SuperPacket::tcp_segments(bytes, 1240).unwrap()).await.unwrap();
    let mut received = Vec::new();
    let mut arrivals = 0;
    while received.len() < data.len() {
        let bytes = other.receive().await;
        let packet = Packet::parse(&bytes).unwrap();
        let segment = packet.upper_layer().payload;
        assert!(Tcp::parse(segment).unwrap().checksum_is_right(packet.source(), packet.destination()));
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        assert_eq!(sequence as usize, received.len(), "nothing overtakes");
        received.extend_from_slice(&segment[20..]);
        arrivals += 1;
    }
    assert_eq!(received, data);
    arrivals
}

#[tokio::test]
async fn flows_are_recorded_at_both_ends() {
    let (one, mut other) = pair().await;
    reach(&one, &mut other).await;
    one.send(one.datagram(&other, 1777, &[7; 100])).await;
    assert_eq!(other.payload().await.len(), 100);
    let sent = await_flow(&one, |flow| flow.remote.port() == 1777).await;
    assert_eq!((sent.sent.packets, sent.sent.bytes, sent.initiator), (1, 128, Initiator::Local));
    let received = await_flow(&other, |flow| flow.local.port() == 1777).await;
    assert_eq!((received.received.packets, received.initiator), (1, Initiator::Remote));
    let physical = one.engine.flows().await.unwrap();
    assert!(physical.iter().any(|flow| matches!(flow, Flow::Physical(flow) if flow.sent.bytes > 0)));
}

/// Waits for a flow: a thread makes it visible after its packets have left.
async fn await_flow(node: &Node, wanted: impl Fn(&MeshFlow) -> bool) -> MeshFlow {
    within("the flow", async {
        loop {
            let flows = node.engine.flows().await.unwrap();
            let found = flows.into_iter().find_map(|flow| match flow {
                Flow::Mesh(flow) if wanted(&flow) => Some(flow),
                _ => None,
            });
            if let Some(found) = found {
                return found;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_change_of_the_network_keeps_sessions() {
    let (mut one, mut other) = pair().await;
    reach(&one, &mut other).await;
    one.engine.network_changed(vec![std::net::Ipv4Addr::LOCALHOST.into()]);
    reach(&one, &mut other).await;
    reach(&other, &mut one).await;
}

#[tokio::test]
async fn an_engine_that_was_shut_down_says_so() {
    let (one, _other) = pair().await;
    let clone = one.engine.clone();
    within("the end", one.engine.shutdown()).await;
    assert!(clone.status().await.is_err());
    let mut events = one.events;
    within("the end of events", async { while events.next().await.is_some() {} }).await;
}

#[tokio::test]
async fn an_engine_ends_with_its_last_handle() {
    let (one, _other) = pair().await;
    let (mut events, mut queue) = (one.events, one.queue);
    drop(one.engine);
    within("the end of events", async { while events.next().await.is_some() {} }).await;
    within("the end of the device", async { while queue.receive().await.is_some() {} }).await;
}

#[tokio::test]
async fn a_node_is_known_to_a_peer_by_another_address_where_the_view_says_so() {
    let (mut one, mut other) = pair().await;
    let known_as: IpAddr = "100.99.0.1".parse().unwrap();
    let (one_key, other_key) = (one.key, other.key);
    one.show_with(&[&other], &tailcfg::DerpMap::default(), |view| {
        view.peers.get_mut(&other_key).unwrap().masquerade_v4 = Some(known_as);
    })
    .await;
    other
        .show_with(&[&one], &tailcfg::DerpMap::default(), |view| {
            let prefix = ipnet::IpNet::from(known_as);
            view.peers.get_mut(&one_key).unwrap().allowed = vec![prefix];
            view.routes = mesh::Routes::new([(prefix, one_key)]);
        })
        .await;
    one.send(one.datagram(&other, 1000, b"out")).await;
    let bytes = other.receive().await;
    let packet = Packet::parse(&bytes).unwrap();
    assert_eq!(packet.source(), known_as);
    let udp = packet::udp::Udp::parse(packet.upper_layer().payload).unwrap();
    assert!(udp.checksum_is_right(known_as, other.address));

    let repr = packet::udp::UdpRepr { source_port: 1000, destination_port: 5000 };
    other.send(repr.packet(other.address, known_as, b"back")).await;
    let bytes = one.receive().await;
    assert_eq!(Packet::parse(&bytes).unwrap().destination(), one.address);
    // The address that is the node's own means nothing to that peer.
    other.send(repr.packet(other.address, one.address, b"lost")).await;
    other.send(repr.packet(other.address, known_as, b"next")).await;
    assert_eq!(one.payload().await, b"next");
}

#[tokio::test]
async fn a_peer_that_restarted_is_reached_as_soon_as_the_view_says_so() {
    let private = NodePrivate::generate(&mut SystemEntropy);
    let map = tailcfg::DerpMap::default();
    let mut one = Node::start(1, dial::Roots::none()).await;
    one.listen().await;
    let mut before = Node::start_with(2, dial::Roots::none(), |config| config.key = private.clone()).await;
    before.listen().await;
    one.show(&[&before], &map).await;
    before.show(&[&one], &map).await;
    reach(&one, &mut before).await;
    before.engine.shutdown().await;

    let mut after = Node::start_with(2, dial::Roots::none(), |config| config.key = private.clone()).await;
    after.listen().await;
    after.show(&[&one], &map).await;
    one.show(&[&after], &map).await;
    let told = Instant::now();
    let late = reach(&one, &mut after).await.min(Duration::from_secs(5));
    let took = told.elapsed();
    assert!(took < Duration::from_secs(3) + late, "reached after {took:?}, of which the machine was late {late:?}");
}
