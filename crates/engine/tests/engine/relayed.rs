use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::{Event, PathChoice, PingKind, Via};

use crate::support::{Node, Tap, TestRelay, reach, within};

/// How long one packet is waited for before the next is sent.
const TURN: Duration = Duration::from_millis(50);

/// Two nodes that have a relay in common and know no address of each other.
async fn by_relay(relay: &TestRelay) -> (Node, Node) {
    let mut one = Node::start(1, relay.roots.clone()).await;
    let mut other = Node::start(2, relay.roots.clone()).await;
    introduce(&mut one, &mut other, &relay.map_without_stun()).await;
    (one, other)
}

/// Shows two nodes the relays, waits until each has its home, and shows each the other.
async fn introduce(one: &mut Node, other: &mut Node, relays: &tailcfg::DerpMap) {
    for node in [&mut *one, &mut *other] {
        node.show(&[], relays).await;
        node.await_home().await;
    }
    one.show(&[other], relays).await;
    other.show(&[one], relays).await;
}

#[tokio::test]
async fn nodes_that_know_no_address_talk_by_relay() {
    let relay = TestRelay::start();
    let (mut one, mut other) = by_relay(&relay).await;
    reach(&one, &mut other).await;
    reach(&other, &mut one).await;
    let status = one.engine.peer(other.key).await.unwrap().unwrap();
    assert!(matches!(status.path, PathChoice::Relay(_)), "{status:?}");
    let pong = one.engine.ping(other.key, PingKind::Tsmp).await.unwrap();
    assert!(matches!(pong.via, Some(Via::Relay(_))));
}

#[tokio::test]
async fn nodes_at_home_at_different_relays_reach_each_other() {
    let near = TestRelay::start();
    let far = near.beside(tailcfg::RegionId(2));
    let maps = [near.map_beside(&[&far]), far.map_beside(&[&near])];
    let by_relay = |config: &mut engine::Config| config.relay_only = true;
    let mut one = Node::start_with(1, near.roots.clone(), by_relay).await;
    let mut other = Node::start_with(2, near.roots.clone(), by_relay).await;
    for (node, map, number) in [(&mut one, &maps[0], 1), (&mut other, &maps[1], 2)] {
        // Only a node that can tell others of it changes its home, should the first measurement miss a relay.
        node.engine.set_control_connected(true);
        node.show(&[], map).await;
        node.await_home_at(|home| home.get() == number).await;
    }
    one.show(&[&other], &maps[0]).await;
    other.show(&[&one], &maps[1]).await;
    reach(&one, &mut other).await;
    reach(&other, &mut one).await;
    let choice = one.engine.peer(other.key).await.unwrap().unwrap().path;
    assert!(matches!(choice, PathChoice::Relay(region) if region.get() == 2), "{choice:?}, not the other's home");
}

#[tokio::test]
async fn what_a_relays_socket_moves_is_in_the_ledger() {
    let relay = TestRelay::start();
    let ledger = engine::Ledger::default();
    let entered = ledger.clone();
    let mut node = Node::start_with(1, relay.roots.clone(), |config| config.ledger = entered).await;
    node.show(&[], &relay.map_without_stun()).await;
    node.await_home().await;
    let accounts = ledger.accounts();
    let [account] = accounts.as_slice() else { panic!("one account, not {accounts:?}") };
    assert!(account.remote.as_ref().is_some_and(|remote| remote.tls && remote.address.ip().is_loopback()));
    // TLS alone takes more than this.
    assert!(account.sent > 200 && account.received > 500, "{account:?}");
    assert_eq!(account.open.len(), 1);
    node.engine.shutdown().await;
    assert!(ledger.accounts()[0].open.is_empty());
}

#[tokio::test]
async fn many_packets_cross_a_relay_in_order() {
    let relay = TestRelay::start();
    let (one, mut other) = by_relay(&relay).await;
    reach(&one, &mut other).await;
    for number in 0..200u16 {
        one.send(one.datagram(&other, 1000, &number.to_be_bytes())).await;
        assert_eq!(other.payload().await, number.to_be_bytes());
    }
}

#[tokio::test]
async fn a_relay_that_restarts_is_found_again() {
    let mut relay = TestRelay::start();
    let (mut one, mut other) = by_relay(&relay).await;
    reach(&one, &mut other).await;
    relay.stop().await;
    relay.restart();
    reach(&one, &mut other).await;
    reach(&other, &mut one).await;
}

#[tokio::test]
async fn nodes_move_from_the_relay_to_a_direct_path() {
    let relay = TestRelay::start();
    let mut one = Node::start(1, relay.roots.clone()).await;
    let mut other = Node::start(2, relay.roots.clone()).await;
    for node in [&one, &other] {
        node.engine.set_interfaces(vec![std::net::Ipv4Addr::LOCALHOST.into()]);
    }
    introduce(&mut one, &mut other, &relay.map).await;
    reach(&one, &mut other).await;
    let key = other.key;
    let choice = one.await_path(key, |choice| matches!(choice, PathChoice::Direct(_))).await;
    assert!(choice.direct().unwrap().ip().is_loopback());
}

#[tokio::test]
async fn when_udp_dies_under_traffic_the_relay_takes_over_and_gives_back() {
    let relay = TestRelay::start();
    let map = relay.map_without_stun();
    // What a node says of itself leads nowhere: the only direct way is through the tap.
    let nowhere = |config: &mut engine::Config| config.explicit_endpoints = vec!["127.0.0.1:9".parse().unwrap()];
    let mut one = Node::start_with(1, relay.roots.clone(), nowhere).await;
    let mut other = Node::start_with(2, relay.roots.clone(), nowhere).await;
    for node in [&mut one, &mut other] {
        node.show(&[], &map).await;
        node.await_home().await;
    }
    let tap = Tap::between(&other).await;
    other.endpoints = vec![tap.address];
    one.show(&[&other], &map).await;
    other.show(&[&one], &map).await;
    let key = other.key;
    reach(&one, &mut other).await;
    one.await_path(key, |choice| matches!(choice, PathChoice::Direct(_))).await;

    tap.open.store(false, Ordering::Relaxed);
    let (died, mut late) = (Instant::now(), Duration::ZERO);
    // The last packet that got through is older than the first of these.
    let mut number = 0u32;
    loop {
        let turn = Instant::now();
        number += 1;
        one.send(one.datagram(&other, 1000, &number.to_be_bytes())).await;
        if tokio::time::timeout(TURN, other.queue.receive()).await.is_ok() {
            break;
        }
        // What a busy machine adds to these turns it adds to the engine's times too.
        late += turn.elapsed().saturating_sub(TURN);
        assert!(died.elapsed() < Duration::from_secs(30), "nothing comes by relay");
    }
    let (took, late) = (died.elapsed(), late.min(Duration::from_secs(5)));
    assert!(took < Duration::from_secs(3) + late, "{took:?} without a packet, of which the machine was late {late:?}");

    tap.open.store(true, Ordering::Relaxed);
    let back = Instant::now();
    while !matches!(one.engine.peer(key).await.unwrap().unwrap().path, PathChoice::Direct(_)) {
        one.send(one.datagram(&other, 1000, b"still talking")).await;
        // tidy: sleep, the path comes back while packets flow at this pace
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(back.elapsed() < Duration::from_secs(30), "no direct path after {:?}", back.elapsed());
    }
}

#[tokio::test]
async fn a_node_that_is_told_to_goes_by_relay_only() {
    let relay = TestRelay::start();
    let mut one = Node::start_with(1, relay.roots.clone(), |config| config.relay_only = true).await;
    let mut other = Node::start(2, relay.roots.clone()).await;
    for node in [&one, &other] {
        node.engine.set_interfaces(vec![std::net::Ipv4Addr::LOCALHOST.into()]);
    }
    introduce(&mut one, &mut other, &relay.map).await;
    reach(&one, &mut other).await;
    assert!(one.engine.peer(other.key).await.unwrap().unwrap().path.direct().is_none());
}

#[tokio::test]
async fn a_measurement_tells_the_home_and_that_udp_works() {
    let relay = TestRelay::start();
    let mut one = Node::start(1, relay.roots.clone()).await;
    one.show(&[], &relay.map).await;
    let info = within("a measurement", async {
        loop {
            if let Event::NetInfo(info) = one.events.next().await.unwrap() {
                return info;
            }
        }
    })
    .await;
    assert_eq!((info.working_udp, info.preferred_derp), (Some(true), tailcfg::RegionId(1)));
    let netcheck = one.engine.netcheck().await.unwrap().unwrap();
    assert!(netcheck.report.udp && netcheck.report.latency.len() == 1);
}

#[tokio::test]
async fn without_udp_the_home_is_measured_through_the_relay_and_the_user_is_told() {
    let relay = TestRelay::start();
    let mut one = Node::start(1, relay.roots.clone()).await;
    one.show(&[], &relay.map_without_stun()).await;
    let problems = within("a problem", async {
        loop {
            match one.events.next().await.unwrap() {
                Event::Health(problems) if !problems.is_empty() => return problems,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(problems.iter().map(|problem| problem.code.as_str()).collect::<Vec<_>>(), ["no-udp"]);
    let netcheck = one.engine.netcheck().await.unwrap().unwrap();
    assert!(!netcheck.report.udp && netcheck.report.latency.len() == 1);
}
