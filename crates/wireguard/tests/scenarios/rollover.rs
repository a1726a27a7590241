//! How one session follows another.

use std::time::Duration;

use crypto::tunnel::PresharedKey;
use wireguard::PeerConfig;

use crate::link::{Pair, alices_address, bobs_address};
use crate::node::Seen;

#[test]
fn a_first_packet_brings_the_tunnel_up_and_arrives() {
    let mut pair = Pair::new();
    pair.alice_sends(b"hello");
    assert_eq!(pair.bob.delivered, [b"hello\0\0\0\0\0\0\0\0\0\0\0"]);
    let (alice, bob) = pair.keys();
    assert!(pair.alice.established(&bob) && pair.bob.established(&alice));
    pair.bob_sends(b"hello yourself");
    assert_eq!(pair.alice.delivered.len(), 1);
    assert_eq!(pair.initiations(), 1);
}

#[test]
fn a_session_in_use_is_renewed_after_two_minutes_by_who_began_it() {
    let mut pair = Pair::established();
    for _ in 0..600 {
        pair.run(1.0);
        pair.alice_sends(b"ping");
        pair.bob_sends(b"pong");
    }
    assert_eq!((pair.alice.delivered.len(), pair.bob.delivered.len()), (600, 600));
    // One each 120 to 122 seconds: the clock of a session is looked at once a second when it is old.
    assert_eq!(pair.alice.count(Seen::Started(1)), 4);
    assert_eq!(pair.bob.count(Seen::Started(1)), 0);
}

#[test]
fn a_session_only_received_on_is_renewed_before_it_ends() {
    let mut pair = Pair::established();
    for _ in 0..400 {
        pair.run(1.0);
        pair.bob_sends(b"one way");
    }
    assert_eq!(pair.alice.delivered.len(), 400);
    assert!(pair.alice.count(Seen::Started(1)) >= 2);
    assert_eq!(pair.bob.count(Seen::Started(1)), 0);
}

#[test]
fn what_was_under_way_at_a_rollover_still_arrives() {
    let mut pair = Pair::established();
    let (alice, bob) = pair.keys();
    pair.alice.send(&bob, b"late from alice", &pair.clock);
    pair.bob.send(&alice, b"late from bob", &pair.clock);
    let (late_alice, late_bob) = (pair.alice.take_out(), pair.bob.take_out());
    pair.run(119.5);
    pair.alice_sends(b"worn");
    pair.run(2.0);
    pair.alice_sends(b"on the new session");
    assert_eq!(pair.alice.count(Seen::Send), 1);
    late_alice.iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    late_bob.iter().for_each(|datagram| pair.alice.receive(bobs_address(), datagram, &pair.clock));
    assert!(pair.bob.delivered.iter().any(|packet| packet.starts_with(b"late from alice")));
    assert!(pair.alice.delivered.iter().any(|packet| packet.starts_with(b"late from bob")));
}

#[test]
fn the_responder_sends_on_a_session_only_once_it_has_heard_the_initiator_on_it() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.keys();
    pair.alice.send(&bob, b"hello", &pair.clock);
    pair.alice.take_out().iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    assert_eq!(pair.bob.count(Seen::Receive), 1);
    assert_eq!(pair.bob.count(Seen::Send), 0);
    // It has something to send, and does not cross the handshake that is all but done.
    pair.bob.send(&alice, b"waiting", &pair.clock);
    assert_eq!(pair.bob.count(Seen::Started(1)), 0);
    pair.exchange();
    assert_eq!(pair.bob.count(Seen::Send), 1);
    assert_eq!((pair.alice.delivered.len(), pair.bob.delivered.len()), (1, 1));
}

#[test]
fn a_lost_confirmation_does_not_hold_the_responder_up_for_long() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.keys();
    pair.alice.send(&bob, b"hello", &pair.clock);
    pair.alice.take_out().iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    pair.bob.take_out().iter().for_each(|datagram| pair.alice.receive(bobs_address(), datagram, &pair.clock));
    pair.alice.take_out().clear();
    pair.bob.send(&alice, b"waiting", &pair.clock);
    pair.run(5.4);
    assert_eq!(pair.alice.delivered.len(), 1);
}

#[test]
fn a_word_of_confirmation_that_got_lost_is_found_out_at_the_next_look() {
    let mut pair = Pair::new();
    let (_, bob) = pair.keys();
    pair.alice.send(&bob, b"hello", &pair.clock);
    pair.alice.take_out().iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    pair.bob.take_out().iter().for_each(|datagram| pair.alice.receive(bobs_address(), datagram, &pair.clock));
    // The RX thread opens the confirmation and its word to the interface is lost.
    for datagram in pair.alice.take_out() {
        for key in pair.bob.receive.values_mut() {
            assert!(key.begin(pair.clock.now()).unwrap().open(&mut datagram.clone()).is_ok());
        }
    }
    assert_eq!(pair.bob.count(Seen::Send), 0);
    pair.run(5.0);
    assert_eq!(pair.bob.count(Seen::Send), 1);
}

#[test]
fn handshakes_that_cross_leave_both_sides_able_to_send_and_receive() {
    let mut pair = Pair::new();
    let (alice, bob) = pair.keys();
    pair.alice.send(&bob, b"from alice", &pair.clock);
    pair.bob.send(&alice, b"from bob", &pair.clock);
    pair.exchange();
    for round in 0..5u8 {
        pair.alice_sends(&[round; 32]);
        pair.bob_sends(&[round; 48]);
    }
    assert_eq!((pair.alice.delivered.len(), pair.bob.delivered.len()), (6, 6));
    assert!(pair.alice.receive.len() <= 3 && pair.bob.receive.len() <= 3);
    pair.run(400.0);
    assert!(pair.alice.receive.is_empty() && pair.bob.receive.is_empty());
}

#[test]
fn an_unused_session_ends_after_three_minutes_and_takes_the_tunnel_with_it() {
    let mut pair = Pair::established();
    let (alice, bob) = pair.keys();
    pair.run(177.0);
    assert!(pair.alice.established(&bob) && pair.bob.established(&alice));
    pair.run(3.0);
    for (node, peer) in [(&pair.alice, &bob), (&pair.bob, &alice)] {
        assert!(node.interface.status(peer).is_none());
        assert!(node.send.is_empty() && node.receive.is_empty());
        assert_eq!((node.count(Seen::Ended), node.count(Seen::Idle)), (1, 1));
        assert_eq!(node.interface.poll_timeout(), None);
    }
    pair.alice_sends(b"again");
    assert_eq!(pair.bob.delivered.len(), 1);
}

#[test]
fn a_thread_that_has_not_heard_of_the_end_can_use_neither_key() {
    let mut pair = Pair::established();
    let (alice, bob) = pair.keys();
    let send = pair.alice.send[&bob].clone();
    let (_, mut receive) = pair.alice.receive.pop_first().unwrap();
    pair.alice.remove(&bob, &pair.clock);
    assert!(send.begin(1, pair.clock.now()).is_err());
    assert!(receive.begin(pair.clock.now()).is_err());
    assert!(pair.alice.interface.status(&bob).is_none());
    let send = pair.bob.send[&alice].clone();
    pair.clock.elapsed += Duration::from_secs(180);
    assert!(send.begin(1, pair.clock.now()).is_err(), "no machine had to say so");
}

#[test]
fn a_change_of_the_preshared_key_reaches_the_next_handshake_even_one_under_way() {
    let mut pair = Pair::established();
    let (alice, bob) = pair.keys();
    let config = || PeerConfig { preshared_key: PresharedKey::from_bytes([5; 32]), persistent_keepalive: None };
    pair.run(200.0);
    pair.alice.send(&bob, b"x", &pair.clock);
    let initiation = pair.alice.take_out();
    pair.alice.configure(&bob, config(), &pair.clock);
    pair.bob.configure(&alice, config(), &pair.clock);
    initiation.iter().for_each(|datagram| pair.bob.receive(alices_address(), datagram, &pair.clock));
    pair.exchange();
    assert_eq!(pair.bob.delivered.len(), 1);

    pair.bob.configure(&alice, PeerConfig::default(), &pair.clock);
    pair.run(200.0);
    pair.alice_sends(b"y");
    pair.run(20.0);
    assert_eq!(pair.bob.delivered.len(), 1, "one side alone has the key");
    pair.alice.configure(&bob, PeerConfig::default(), &pair.clock);
    pair.run(6.0);
    assert_eq!(pair.bob.delivered.len(), 2);
}

#[test]
fn a_peer_that_lost_its_sessions_is_back_within_twenty_seconds() {
    let mut pair = Pair::established();
    let (alice, bob) = pair.keys();
    pair.bob.remove(&alice, &pair.clock);
    for _ in 0..20 {
        pair.alice_sends(b"anybody there?");
        pair.run(1.0);
    }
    assert!(pair.alice.established(&bob));
    assert!(!pair.bob.delivered.is_empty());
}

#[test]
fn a_clock_set_back_an_hour_stops_no_handshake() {
    let mut pair = Pair::established();
    let (_, bob) = pair.keys();
    pair.run(200.0);
    // What the tunnel sends is stamped by the wall's clock, which is now an hour behind.
    let mut moment = pair.clock.moment();
    moment.wall = crypto::tunnel::Tai64n::from_unix(1_800_000_000 - 3600, 0);
    pair.alice.interface.handle_wanted(bob, moment, &mut pair.alice.entropy);
    pair.alice_sends(b"still here");
    assert_eq!(pair.bob.delivered.len(), 1);
    assert!(pair.bob.discards.is_empty());
}
