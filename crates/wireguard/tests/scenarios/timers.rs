//! What a tunnel does by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use wireguard::PeerConfig;

use crate::link::Pair;
use crate::node::{Clock, Node, Seen};

/// Seconds at which a node sent something, until `end`, with nobody to answer.
fn sending_times(node: &mut Node, clock: &mut Clock, end: f64) -> Vec<f64> {
    let mut times = Vec::new();
    while let Some(next) = node.interface.poll_timeout() {
        let at = clock.elapsed + clock.until(next);
        if at.as_secs_f64() > end {
            break;
        }
        clock.elapsed = at;
        node.timeout(clock);
        times.extend(node.take_out().iter().map(|_| clock.elapsed.as_secs_f64()));
    }
    times
}

#[test]
fn a_handshake_nobody_answers_is_retried_for_90_seconds_with_jitter_and_then_given_up() {
    let mut clock = Clock::start();
    let mut node = Node::new(1, &clock);
    let nobody = Node::new(2, &clock).public;
    node.send(&nobody, b"hello?", &clock);
    assert_eq!(node.take_out().len(), 1);
    let times = sending_times(&mut node, &mut clock, 1000.0);
    let gaps: Vec<f64> = std::iter::once(&0.0).chain(&times).zip(&times).map(|(a, b)| b - a).collect();
    assert!(gaps.iter().all(|gap| (5.0..5.334).contains(gap)), "{gaps:?}");
    let distinct: BTreeSet<_> = gaps.iter().map(|gap| (gap * 1000.0).round() as u64).collect();
    assert!(distinct.len() > gaps.len() / 2, "the gaps must differ by chance: {gaps:?}");
    assert!(times.iter().all(|time| *time < 90.0));
    let attempts = 1 + times.len() as u32;
    assert!((17..=18).contains(&attempts));
    assert_eq!(node.count(Seen::Failed(attempts)), 1);
    assert_eq!(node.events.last(), Some(&(nobody, Seen::Idle)));
    assert!((90.0..95.4).contains(&clock.elapsed.as_secs_f64()));
}

#[test]
fn wanting_again_and_again_makes_no_more_initiations() {
    let mut clock = Clock::start();
    let mut node = Node::new(1, &clock);
    let nobody = Node::new(2, &clock).public;
    for _ in 0..4000 {
        node.send(&nobody, b"hello?", &clock);
        clock.elapsed += Duration::from_millis(1);
        node.timeout(&clock);
    }
    assert_eq!(node.take_out().len(), 1);
}

#[test]
fn a_new_row_after_a_failed_one_keeps_its_distance() {
    let mut clock = Clock::start();
    let mut node = Node::new(1, &clock);
    let nobody = Node::new(2, &clock).public;
    node.send(&nobody, b"hello?", &clock);
    let before = sending_times(&mut node, &mut clock, 1000.0);
    node.send(&nobody, b"hello again?", &clock);
    assert_eq!(node.take_out().len(), 1);
    assert!(clock.elapsed.as_secs_f64() - before.last().unwrap() >= 5.0);
}

#[test]
fn who_received_data_and_has_nothing_to_send_answers_after_ten_seconds() {
    let mut pair = Pair::established();
    pair.run(30.0);
    let sent = |pair: &Pair| pair.bob.nonces.len();
    let before = sent(&pair);
    pair.alice_sends(b"data");
    pair.run(9.9);
    assert_eq!(sent(&pair), before);
    pair.run(0.2);
    assert_eq!(sent(&pair), before + 1);
}

#[test]
fn a_keepalive_is_counted_from_received_data_and_data_sent_makes_it_needless() {
    let mut pair = Pair::established();
    pair.run(30.0);
    let before = pair.bob.nonces.len();
    pair.alice_sends(b"data");
    pair.run(5.0);
    pair.bob_sends(b"answer");
    pair.run(60.0);
    assert_eq!(pair.bob.nonces.len(), before + 1, "the answer, and no empty message");
}

#[test]
fn steady_data_one_way_is_answered_every_ten_seconds() {
    let mut pair = Pair::established();
    pair.run(30.0);
    let before = pair.bob.nonces.len();
    for _ in 0..80 {
        pair.alice_sends(b"data");
        pair.run(0.5);
    }
    let keepalives = pair.bob.nonces.len() - before;
    assert!((3..=4).contains(&keepalives), "{keepalives} in 40 seconds");
    assert_eq!(pair.initiations(), 0, "the sender was never left in doubt");
}

#[test]
fn keepalives_do_not_trigger_keepalives() {
    let mut pair = Pair::established();
    pair.alice_sends(b"data");
    pair.run(30.0);
    let before = (pair.alice.nonces.len(), pair.bob.nonces.len());
    pair.run(100.0);
    assert_eq!((pair.alice.nonces.len(), pair.bob.nonces.len()), before);
}

#[test]
fn silence_after_data_starts_a_handshake_after_fifteen_seconds() {
    let mut pair = Pair::established();
    pair.run(20.0);
    pair.connected = false;
    pair.alice_sends(b"data");
    pair.run(14.9);
    assert_eq!(pair.initiations(), 0);
    pair.run(0.5);
    assert_eq!(pair.alice.count(Seen::Started(1)), 1);
}

#[test]
fn a_row_that_failed_is_not_begun_again_until_there_is_something_to_send() {
    // The row ends while the session lives and is young, while it lives and is old, and after its end.
    for begin in [0.0, 40.0, 130.0] {
        let mut pair = Pair::established();
        pair.run(begin);
        pair.connected = false;
        pair.alice_sends(b"data");
        pair.run(1000.0);
        assert_eq!(pair.alice.count(Seen::Started(1)), 1);
        assert!((17..=18).contains(&pair.initiations()));
        assert_eq!(pair.alice.events.iter().filter(|(_, seen)| matches!(seen, Seen::Failed(_))).count(), 1);
    }
}

#[test]
fn data_received_late_in_a_session_renews_it_before_anything_is_sent() {
    let mut pair = Pair::established();
    pair.run(160.0);
    pair.bob_sends(b"early enough for the keepalive to do it");
    pair.run(3.0);
    assert_eq!(pair.initiations(), 0);
    pair.run(2.0);
    pair.bob_sends(b"too late for that");
    pair.run(1.4);
    assert_eq!(pair.alice.count(Seen::Started(1)), 1);
}

#[test]
fn a_persistent_keepalive_brings_the_tunnel_up_and_keeps_it_up() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.keys();
    let config = PeerConfig { persistent_keepalive: Some(Duration::from_secs(25)), ..PeerConfig::default() };
    pair.alice.configure(&bob, config, &pair.clock);
    pair.run(1.0);
    assert!(pair.alice.established(&bob) && pair.bob.established(&alice));
    let before = pair.alice.nonces.len();
    pair.run(1000.0);
    assert!(pair.alice.established(&bob) && pair.bob.established(&alice));
    let sent = pair.alice.nonces.len() - before;
    assert!((35..60).contains(&sent), "{sent} messages in a thousand seconds");
    pair.alice.configure(&bob, PeerConfig::default(), &pair.clock);
    pair.run(400.0);
    assert!(pair.alice.interface.status(&bob).is_none());
}

#[test]
fn a_persistent_keepalive_to_nobody_goes_on_trying_at_the_pace_of_handshakes() {
    let mut clock = Clock::start();
    let mut node = Node::new(1, &clock);
    let nobody = Node::new(2, &clock).public;
    let config = PeerConfig { persistent_keepalive: Some(Duration::from_secs(1)), ..PeerConfig::default() };
    node.configure(&nobody, config, &clock);
    let times = sending_times(&mut node, &mut clock, 1000.0);
    assert!((170..=200).contains(&times.len()), "{} initiations", times.len());
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 5.0));
}

#[test]
fn a_persistent_keepalive_of_nothing_is_none() {
    let clock = Clock::start();
    let mut node = Node::new(1, &clock);
    let peer = Node::new(2, &clock).public;
    let config = PeerConfig { persistent_keepalive: Some(Duration::ZERO), ..PeerConfig::default() };
    node.configure(&peer, config, &clock);
    assert_eq!(node.interface.poll_timeout(), None);
}

#[test]
fn a_peer_whose_key_is_no_key_fails_at_once() {
    let clock = Clock::start();
    let mut node = Node::new(1, &clock);
    node.send(&crypto::NodePublic::ZERO, b"hello?", &clock);
    assert_eq!(node.count(Seen::Failed(0)), 1);
    assert_eq!(node.interface.poll_timeout(), None);
    assert!(node.take_out().is_empty());
}

#[test]
fn an_idle_node_of_many_peers_asks_for_no_time() {
    let mut pair = Pair::established();
    pair.run(200.0);
    assert_eq!(pair.alice.interface.poll_timeout(), None);
    assert_eq!(pair.bob.interface.poll_timeout(), None);
}
