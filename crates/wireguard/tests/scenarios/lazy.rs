//! Peers that exist only while something goes on with them.

use crate::link::{Pair, alices_address, bobs_address};
use crate::node::{Clock, Node, Seen, source};

fn initiation(from: &mut Node, to: &Node, clock: &Clock) -> Vec<u8> {
    from.send(&to.public, b"hello", clock);
    from.take_out().remove(0)
}

#[test]
fn an_initiation_names_its_sender_before_any_state_is_made() {
    let clock = Clock::start();
    let (mut alice, mut bob) = (Node::new(1, &clock), Node::new(2, &clock));
    let message = initiation(&mut alice, &bob, &clock);
    let from = alices_address();
    let pending = bob.interface.handle_datagram(from, &message, clock.now(), &mut bob.entropy).unwrap().unwrap();
    assert_eq!((pending.peer(), pending.source()), (&alice.public, &from));
    assert!(bob.interface.status(&alice.public).is_none());
    assert!(bob.interface.poll_event().is_none() && bob.interface.poll_transmit().is_none());
    drop(pending);
    assert_eq!(bob.interface.poll_timeout(), None);
}

#[test]
fn dat_06_a_peer_that_the_netmap_does_not_have_is_dropped() {
    let clock = Clock::start();
    let (mut alice, mut bob) = (Node::new(1, &clock), Node::new(2, &clock));
    bob.netmap.insert(Node::new(3, &clock).public);
    let message = initiation(&mut alice, &bob, &clock);
    bob.receive(alices_address(), &message, &clock);
    assert!(bob.events.is_empty() && bob.out.is_empty());
}

#[test]
fn dat_06_a_removed_peer_gets_nothing_through_from_that_moment() {
    let mut pair = Pair::established();
    let (alice, bob) = pair.keys();
    pair.alice.send(&bob, b"under way", &pair.clock);
    let late = pair.alice.take_out();
    pair.bob.netmap.insert(Node::new(3, &pair.clock).public);
    pair.bob.remove(&alice, &pair.clock);
    late.iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    pair.alice_sends(b"more");
    pair.run(60.0);
    assert!(pair.bob.delivered.is_empty());
    assert_eq!(pair.bob.events, [(alice, Seen::Ended)]);
}

#[test]
fn the_word_of_a_peer_comes_with_the_source_of_its_message() {
    let clock = Clock::start();
    let (mut alice, mut bob) = (Node::new(1, &clock), Node::new(2, &clock));
    let message = initiation(&mut alice, &bob, &clock);
    let from = source("203.0.113.9:1");
    let pending = bob.interface.handle_datagram(from, &message, clock.now(), &mut bob.entropy).unwrap().unwrap();
    bob.interface.accept(pending, clock.now(), &mut bob.entropy).unwrap();
    let event = bob.interface.poll_event().unwrap();
    assert!(
        matches!(event, wireguard::Event::Authenticated { peer, source } if peer == alice.public && source == from),
        "{event:?}"
    );
    let answer = bob.interface.poll_transmit().unwrap();
    assert_eq!(answer.destination, wireguard::Destination::Answer(alice.public, from));
}

#[test]
fn a_replayed_initiation_is_one_even_after_the_tunnel_was_forgotten() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.keys();
    pair.alice.send(&bob, b"hello", &pair.clock);
    let recorded = pair.alice.take_out();
    pair.bob.receive(alices_address(), &recorded[0], &pair.clock);
    pair.exchange();
    pair.run(400.0);
    assert!(pair.bob.interface.status(&alice).is_none());
    pair.bob.receive(alices_address(), &recorded[0], &pair.clock);
    assert_eq!(pair.bob.discards, [wireguard::Discard::Replayed]);
    assert!(pair.bob.interface.status(&alice).is_none());
}

#[test]
fn a_node_does_not_shake_hands_with_itself() {
    let clock = Clock::start();
    let mut alice = Node::new(1, &clock);
    let me = alice.public;
    alice.send(&me, b"hello", &clock);
    let message = alice.take_out().remove(0);
    alice.receive(bobs_address(), &message, &clock);
    assert_eq!(alice.discards, [wireguard::Discard::OwnKey]);
}

#[test]
fn hundreds_of_peers_come_and_go_without_a_trace() {
    let mut clock = Clock::start();
    let mut hub = Node::new(1, &clock);
    let mut peers: Vec<Node> = (0..200).map(|number| Node::new(100 + number, &clock)).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        let from = source(&format!("10.0.{}.{}:41641", number / 250, number % 250));
        let message = initiation(peer, &hub, &clock);
        hub.receive(from, &message, &clock);
        let answer = hub.take_out().remove(0);
        peer.receive(bobs_address(), &answer, &clock);
        peer.take_out().iter().for_each(|datagram| hub.receive(from, datagram, &clock));
    }
    assert_eq!((hub.send.len(), hub.receive.len(), hub.delivered.len()), (200, 200, 200));
    while let Some(next) = hub.interface.poll_timeout() {
        clock.elapsed += clock.until(next);
        hub.timeout(&clock);
        hub.take_out().clear();
    }
    assert!(hub.send.is_empty() && hub.receive.is_empty());
    assert_eq!(hub.count(Seen::Idle), 200);
}
