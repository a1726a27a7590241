//! A node under load, and one that talks to it.

use std::time::Duration;

use packet::wireguard::{COOKIE_REPLY_LENGTH, Message};
use wireguard::{Destination, Discard, Source};

use crate::link::{Pair, alices_address, bobs_address};
use crate::node::{Clock, Node, Seen, source};

/// Somebody who knows Bob's key and sends one and the same initiation from wherever it pleases.
struct Flooder(Vec<u8>);

impl Flooder {
    fn new(bob: &Node, clock: &Clock) -> Self {
        Self(initiation(&mut Node::new(77, clock), bob, clock))
    }

    /// Sends from one place until Bob asks for a cookie.
    fn overload(&self, bob: &mut Node, from: Source, clock: &Clock) {
        while bob.interface.handle_datagram(from, &self.0, clock.now(), &mut bob.entropy).is_ok() {}
        while bob.interface.poll_transmit().is_some() {}
    }

    /// Sends from ever other places until newcomers need a cookie.
    fn flood(&self, bob: &mut Node, clock: &Clock) {
        for number in 0..100 {
            self.overload(bob, source(&format!("100.64.0.{number}:1")), clock);
        }
    }
}

fn overload(pair: &mut Pair, from: Source) {
    Flooder::new(&pair.bob, &pair.clock).overload(&mut pair.bob, from, &pair.clock);
}

fn initiation(from: &mut Node, to: &Node, clock: &Clock) -> Vec<u8> {
    from.send(&to.public, b"hello", clock);
    from.take_out().remove(0)
}

#[test]
fn dat_03_a_newcomer_shows_its_cookie_and_is_let_in_while_the_flood_goes_on() {
    let mut pair = Pair::new();
    let flooder = Flooder::new(&pair.bob, &pair.clock);
    flooder.flood(&mut pair.bob, &pair.clock);
    pair.alice_sends(b"hello");
    assert_eq!(pair.bob.discards, [Discard::CookieRequired]);
    assert!(pair.bob.delivered.is_empty());
    for _ in 0..60 {
        pair.run(0.1);
        flooder.flood(&mut pair.bob, &pair.clock);
    }
    assert_eq!(pair.bob.delivered.len(), 1, "the second initiation carried the cookie");
    assert_eq!(pair.alice.count(Seen::Started(2)), 1);
}

#[test]
fn dat_03_live_sessions_do_not_notice_a_flood_not_even_at_their_renewal() {
    let mut pair = Pair::established();
    let flooder = Flooder::new(&pair.bob, &pair.clock);
    pair.run(117.0);
    for number in 0..600u32 {
        // The flood is always there first: what the common share has recovered by is gone when Alice comes.
        pair.clock.elapsed += Duration::from_millis(20);
        flooder.flood(&mut pair.bob, &pair.clock);
        pair.alice.timeout(&pair.clock);
        pair.bob.timeout(&pair.clock);
        pair.alice_sends(&number.to_be_bytes());
        pair.bob_sends(&number.to_be_bytes());
    }
    assert_eq!((pair.alice.delivered.len(), pair.bob.delivered.len()), (600, 600));
    // The renewal's first initiation is asked for a cookie, and the old session serves until the second gets through.
    assert!(pair.bob.discards.contains(&Discard::CookieRequired));
    assert_eq!((pair.alice.count(Seen::Started(2)), pair.alice.count(Seen::Send)), (1, 1));
}

#[test]
fn dat_03_this_sides_own_handshakes_need_no_cookie_during_a_flood() {
    let mut pair = Pair::new();
    Flooder::new(&pair.bob, &pair.clock).flood(&mut pair.bob, &pair.clock);
    pair.bob_sends(b"out of the flood");
    assert_eq!(pair.alice.delivered.len(), 1);
}

#[test]
fn one_flooder_does_not_force_another_peer_to_show_a_cookie() {
    let mut pair = Pair::new();
    for _ in 0..50 {
        overload(&mut pair, source("203.0.113.66:6666"));
    }
    pair.alice_sends(b"hello");
    assert_eq!(pair.bob.delivered.len(), 1);
    assert!(pair.bob.discards.is_empty());
}

#[test]
fn a_cookie_reply_moves_no_path_and_answers_its_source_alone() {
    let mut pair = Pair::new();
    let (_, bob) = pair.keys();
    overload(&mut pair, alices_address());
    pair.alice.send(&bob, b"hello", &pair.clock);
    let message = pair.alice.take_out().remove(0);
    pair.bob.receive(alices_address(), &message, &pair.clock);
    let (destination, reply) = pair.bob.out.pop_front().unwrap();
    assert_eq!(destination, Destination::Source(alices_address()));
    assert_eq!(reply.len(), COOKIE_REPLY_LENGTH);

    pair.alice.events.clear();
    pair.alice.receive(source("203.0.113.66:6666"), &reply, &pair.clock);
    assert!(pair.alice.events.is_empty(), "a cookie says nothing of where a peer is");
    assert!(pair.alice.out.is_empty(), "and is not answered before its time");
    let next = pair.alice.interface.poll_timeout().unwrap();
    assert!(pair.clock.until(next) >= Duration::from_secs(5));
}

#[test]
fn a_cookie_reply_counts_once_and_only_for_the_last_message() {
    let mut pair = Pair::new();
    overload(&mut pair, alices_address());
    let first = initiation(&mut pair.alice, &pair.bob, &pair.clock);
    pair.bob.receive(alices_address(), &first, &pair.clock);
    let reply = pair.bob.take_out().remove(0);
    let mut forged = reply.clone();
    forged[40] ^= 1;
    pair.alice.receive(bobs_address(), &forged, &pair.clock);
    pair.alice.receive(bobs_address(), &reply, &pair.clock);
    pair.alice.receive(bobs_address(), &reply, &pair.clock);
    assert_eq!(pair.alice.discards, [Discard::Cookie, Discard::Cookie]);
    pair.clock.elapsed += Duration::from_secs(6);
    pair.alice.timeout(&pair.clock);
    pair.alice.receive(bobs_address(), &reply, &pair.clock);
    assert_eq!(pair.alice.discards.last(), Some(&Discard::UnknownIndex));
}

#[test]
fn a_cookie_is_good_from_its_own_port_only() {
    let mut pair = Pair::new();
    let from = |port: u16| source(&format!("192.0.2.1:{port}"));
    overload(&mut pair, from(1));
    let first = initiation(&mut pair.alice, &pair.bob, &pair.clock);
    pair.bob.receive(from(1), &first, &pair.clock);
    let reply = pair.bob.take_out().remove(0);
    pair.alice.receive(bobs_address(), &reply, &pair.clock);
    pair.clock.elapsed += Duration::from_millis(5400);
    pair.alice.timeout(&pair.clock);
    let second = pair.alice.take_out().remove(0);
    let Ok(Message::Initiation(view)) = Message::parse(&second) else { panic!("an initiation was expected") };
    assert_ne!(view.mac2(), [0; 16]);

    overload(&mut pair, from(1));
    pair.bob.receive(from(2), &second, &pair.clock);
    assert_eq!(pair.bob.discards.last(), Some(&Discard::CookieRequired));
    pair.bob.take_out();
    pair.bob.receive(from(1), &second, &pair.clock);
    assert_eq!(pair.bob.count(Seen::Receive), 1);
}

#[test]
fn cookie_replies_waiting_to_be_sent_are_bounded() {
    let clock = Clock::start();
    let mut bob = Node::new(2, &clock);
    let message = initiation(&mut Node::new(1, &clock), &bob, &clock);
    for _ in 0..100_000 {
        let from = alices_address();
        drop(bob.interface.handle_datagram(from, &message, clock.now(), &mut bob.entropy));
    }
    let waiting = std::iter::from_fn(|| bob.interface.poll_transmit()).count();
    assert_eq!(waiting, wireguard::limits::WAITING_TRANSMITS);
}
