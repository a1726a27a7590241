//! What others got wrong, and what an attacker tries: each by its name.

use std::time::Duration;

use crypto::tunnel::MacKey;
use packet::wireguard::{INITIATION_LENGTH, Initiation, RESPONSE_LENGTH, Response, TransportHeader};
use proptest::prelude::*;
use wireguard::Discard;

use crate::link::{Pair, alices_address, bobs_address};
use crate::node::{Clock, Node, Seen, source};

/// One genuine message of each type, as sent to Bob (1 and 4) and to Alice (2 and 3).
fn genuine() -> (Pair, [Vec<u8>; 4]) {
    let mut pair = Pair::new();
    let (_, bob) = pair.keys();
    pair.alice.send(&bob, b"hello", &pair.clock);
    let initiation = pair.alice.take_out().remove(0);
    pair.bob.receive(alices_address(), &initiation, &pair.clock);
    let response = pair.bob.take_out().remove(0);
    let mut cookie = vec![0; 64];
    cookie[0] = 3;
    cookie[4..8].copy_from_slice(&initiation[4..8]);
    let mut data = vec![0; 96];
    data[0] = 4;
    data[4..8].copy_from_slice(&response[4..8]);
    (pair, [initiation, response, cookie, data])
}

#[test]
fn dat_01_damaged_short_oversize_and_reserved_messages_are_dropped_and_counted_and_the_node_lives_on() {
    let (mut pair, messages) = genuine();
    let dropped = |node: &Node| node.discards.len() + node.open_errors.len();
    for message in &messages {
        let mut variants: Vec<Vec<u8>> = (0..message.len()).map(|length| message[..length].to_vec()).collect();
        for reserved in 1..4 {
            let mut bad = message.clone();
            bad[reserved] = 1;
            variants.push(bad);
        }
        if message[0] < 4 {
            for length in [message.len() + 1, 1500, 9000, 65_535] {
                let mut bad = message.clone();
                bad.resize(length, 0);
                variants.push(bad);
            }
        } else {
            let mut bad = message.clone();
            bad.resize(65_535, 0);
            variants.push(bad);
        }
        if message[0] < 3 {
            let mut bad = message.clone();
            let mac1_at = message.len() - 32;
            bad[mac1_at] ^= 1;
            variants.push(bad);
        }
        for bad in variants {
            for node in [&mut pair.alice, &mut pair.bob] {
                let before = (dropped(node), node.events.len());
                // A transport header of a session that isn't there is nobody's, and counted by who demultiplexes.
                let nobodys = TransportHeader::parse(&bad).is_ok_and(|h| !node.receive.contains_key(&h.receiver));
                node.receive(source("203.0.113.66:6666"), &bad, &pair.clock);
                assert_eq!((dropped(node), node.events.len()), (before.0 + usize::from(!nobodys), before.1));
                assert!(node.out.is_empty());
            }
        }
    }
    let [_, response, ..] = &messages;
    pair.alice.receive(bobs_address(), response, &pair.clock);
    pair.exchange();
    assert_eq!(pair.bob.delivered.len(), 1);
}

#[test]
fn dat_02_a_raced_forged_response_does_not_stop_the_real_one() {
    let (mut pair, [_, response, ..]) = genuine();
    let key = MacKey::of(&pair.alice.public);
    for seed in 0..10u8 {
        let mut forged = response.clone();
        forged[12..60].fill(seed);
        let mac1 = key.mac1(&forged[..Response::MAC1_AT]);
        forged[Response::MAC1_AT..Response::MAC2_AT].copy_from_slice(&mac1);
        pair.alice.receive(source("203.0.113.66:6666"), &forged, &pair.clock);
    }
    assert_eq!(pair.alice.discards.len(), 10);
    assert!(pair.alice.discards.iter().all(|discard| matches!(discard, Discard::Handshake(_))));
    pair.alice.receive(bobs_address(), &response, &pair.clock);
    pair.exchange();
    assert_eq!(pair.bob.delivered.len(), 1);
}

#[test]
fn dat_02_a_flood_of_forged_responses_from_the_peers_own_address_delays_the_real_one_by_a_retry_at_most() {
    let (mut pair, [_, response, ..]) = genuine();
    let key = MacKey::of(&pair.alice.public);
    let forge = |pair: &mut Pair, like: &[u8]| {
        let mut forged = like.to_vec();
        forged[12..60].fill(3);
        let mac1 = key.mac1(&forged[..Response::MAC1_AT]);
        forged[Response::MAC1_AT..Response::MAC2_AT].copy_from_slice(&mac1);
        for _ in 0..100 {
            pair.alice.receive(bobs_address(), &forged, &pair.clock);
        }
        pair.alice.out.retain(|(_, message)| message.len() != 64);
    };
    forge(&mut pair, &response);
    // The real one comes, and Bob is asked for a cookie; its next answer carries that.
    pair.alice.receive(bobs_address(), &response, &pair.clock);
    assert_eq!(pair.alice.discards.last(), Some(&Discard::CookieRequired));
    pair.exchange();
    pair.clock.elapsed += Duration::from_millis(5400);
    pair.alice.timeout(&pair.clock);
    let second = pair.alice.take_out().remove(0);
    pair.bob.receive(alices_address(), &second, &pair.clock);
    let answer = pair.bob.take_out().remove(0);
    forge(&mut pair, &answer);
    pair.alice.receive(bobs_address(), &answer, &pair.clock);
    pair.exchange();
    assert_eq!(pair.bob.delivered.len(), 1);
}

#[test]
fn dat_04_a_replayed_datagram_is_dropped_whenever_it_comes() {
    let mut pair = Pair::established();
    let (_, bob) = pair.keys();
    pair.alice.send(&bob, b"once", &pair.clock);
    let recorded = pair.alice.take_out();
    for _ in 0..3 {
        recorded.iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    }
    assert_eq!((pair.bob.delivered.len(), pair.bob.open_errors.len()), (1, 2));
    pair.run(119.5);
    pair.alice_sends(b"renews");
    pair.run(2.0);
    recorded.iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    pair.run(200.0);
    recorded.iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    assert_eq!(pair.bob.delivered.len(), 2);
}

#[test]
fn a_captured_initiation_sent_again_is_answered_once() {
    let (mut pair, [initiation, ..]) = genuine();
    for _ in 0..5 {
        pair.bob.receive(alices_address(), &initiation, &pair.clock);
    }
    assert_eq!(pair.bob.discards, [Discard::Replayed; 5]);
    assert_eq!(pair.bob.count(Seen::Receive), 1);
}

#[test]
fn a_proven_peer_that_begins_handshakes_too_fast_is_held_back() {
    let mut pair = Pair::new();
    let (_, bob) = pair.keys();
    for step in 0..10u64 {
        pair.clock.elapsed += Duration::from_millis(5);
        // An initiator that restarts between one message and the next, and whose clock runs ahead.
        let mut alice = Node::new(1, &pair.clock);
        let mut moment = pair.clock.moment();
        moment.wall = crypto::tunnel::Tai64n::from_unix(1_900_000_000 + step, 0);
        alice.interface.handle_wanted(bob, moment, &mut alice.entropy);
        let message = alice.interface.poll_transmit().unwrap().message;
        pair.bob.receive(alices_address(), &message, &pair.clock);
    }
    assert_eq!(pair.bob.count(Seen::Receive), 3);
    assert_eq!(pair.bob.discards, [Discard::TooSoon; 7]);
}

#[test]
fn a_message_for_another_node_costs_no_diffie_hellman() {
    let clock = Clock::start();
    let (mut alice, mut bob, carol) = (Node::new(1, &clock), Node::new(2, &clock), Node::new(3, &clock));
    alice.send(&carol.public, b"hello", &clock);
    let message = alice.take_out().remove(0);
    bob.receive(alices_address(), &message, &clock);
    assert_eq!(bob.discards, [Discard::Mac1]);
}

#[test]
fn a_response_nobody_waits_for_costs_no_diffie_hellman() {
    let (mut pair, [_, response, ..]) = genuine();
    let mut stray = response.clone();
    stray[8] ^= 1;
    let mac1 = MacKey::of(&pair.alice.public).mac1(&stray[..Response::MAC1_AT]);
    stray[Response::MAC1_AT..Response::MAC2_AT].copy_from_slice(&mac1);
    pair.alice.receive(bobs_address(), &stray, &pair.clock);
    assert_eq!(pair.alice.discards, [Discard::UnknownIndex]);
    pair.alice.receive(bobs_address(), &response, &pair.clock);
    pair.alice.receive(bobs_address(), &response, &pair.clock);
    assert_eq!(pair.alice.discards.last(), Some(&Discard::UnknownIndex), "a second answer finds nothing");
}

#[test]
fn data_is_not_for_the_handshake_machine() {
    let (mut pair, [.., data]) = genuine();
    let result = pair.bob.interface.handle_datagram(alices_address(), &data, pair.clock.now(), &mut pair.bob.entropy);
    assert_eq!(result.map(|_| ()), Err(Discard::Transport));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Arbitrary bytes, and genuine messages with bytes changed and the first authenticator made right again.
    #[test]
    fn no_datagram_panics_or_leaves_a_trace(
        noise in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20),
        changes in proptest::collection::vec((0usize..4, 0usize..148, 1u8..), 0..20),
    ) {
        let (mut pair, messages) = genuine();
        let mut datagrams = noise;
        for (which, at, change) in changes {
            let mut message = messages[which].clone();
            let at = at % message.len();
            message[at] ^= change;
            let (length, receiver) = (message.len(), [&pair.bob.public, &pair.alice.public]);
            for (size, mac1_at, mac2_at, to) in [
                (INITIATION_LENGTH, Initiation::MAC1_AT, Initiation::MAC2_AT, receiver[0]),
                (RESPONSE_LENGTH, Response::MAC1_AT, Response::MAC2_AT, receiver[1]),
            ] {
                if length == size {
                    let mac1 = MacKey::of(to).mac1(&message[..mac1_at]);
                    message[mac1_at..mac2_at].copy_from_slice(&mac1);
                }
            }
            // A change to the part that only a cookie authenticates leaves a message what it was.
            if message != messages[which] && at < Response::MAC1_AT {
                datagrams.push(message);
            }
        }
        let before = (pair.alice.events.len(), pair.bob.events.len());
        for datagram in datagrams {
            pair.alice.receive(bobs_address(), &datagram, &pair.clock);
            pair.bob.receive(alices_address(), &datagram, &pair.clock);
        }
        prop_assert!(pair.bob.events.len() == before.1 && pair.bob.delivered.is_empty());
        // No tag covers the index that a response asks to be answered at (the whitepaper's design): who changes that on
        // its way makes a session that reaches nobody, and that silence ends.
        prop_assert!(pair.alice.count(Seen::Send) <= 1 && pair.alice.delivered.is_empty());
        for _ in 0..25 {
            pair.run(1.0);
            pair.alice_sends(b"again");
        }
        let before = pair.bob.delivered.len();
        pair.alice_sends(b"at last");
        prop_assert_eq!(pair.bob.delivered.len(), before + 1);
    }
}
