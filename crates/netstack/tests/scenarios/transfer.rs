//! Bytes arrive whole and in order, whatever the network does.

use std::time::Duration;

use netstack::{Closed, Connection, Destination, DialError, Event, Listen, Read};
use proptest::prelude::*;

use crate::network::{A, A6, B, B6, CALM, End, Network, Weather, at};

const ANY_OWN: Listen = Listen { to: Destination::Own, port: Some(80) };

/// Connects A to B and returns both ends' names of the connection.
pub(crate) fn connect(network: &mut Network, to: std::net::SocketAddr) -> (Connection, Connection) {
    let dialed = network.a.dial(to).unwrap();
    let accepted = network.event_where(End::B, |event| match event {
        Event::Incoming { connection, .. } => Some(*connection),
        _ => None,
    });
    let now = network.now;
    network.b.accept(accepted, now).unwrap();
    network.event_where(End::A, |event| (*event == Event::Connected(dialed)).then_some(()));
    (dialed, accepted)
}

struct Side {
    end: End,
    connection: Connection,
    to_send: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
    shut: bool,
    ended: bool,
}

impl Side {
    fn new(end: End, connection: Connection, to_send: Vec<u8>) -> Self {
        Self { end, connection, to_send, sent: 0, received: Vec::new(), shut: false, ended: false }
    }

    /// Reads and writes as much as goes.
    fn work(&mut self, network: &mut Network) {
        let now = network.now;
        let elapsed = network.elapsed();
        let stack = network.stack(self.end);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stack.read(self.connection, &mut buffer, now) {
                Read::Bytes(length) => self.received.extend_from_slice(&buffer[..length]),
                Read::Pending => break,
                Read::End => {
                    self.ended = true;
                    break;
                }
                Read::Broken => panic!(
                    "{:?} broke at {:?}: {} received, {} sent, ended {}",
                    self.end,
                    elapsed,
                    self.received.len(),
                    self.sent,
                    self.ended
                ),
            }
        }
        if self.sent < self.to_send.len() {
            self.sent += stack.write(self.connection, &self.to_send[self.sent..]).unwrap();
        }
        if self.sent == self.to_send.len() && !self.shut {
            self.shut = true;
            stack.shut_down(self.connection);
        }
    }
}

fn pattern(length: usize, salt: u32) -> Vec<u8> {
    (0..length as u32).map(|n| (n.wrapping_mul(2654435761).wrapping_add(salt) >> 13) as u8).collect()
}

/// Sends both ways at once until both ends have seen the end, and returns the virtual time that it took.
fn exchange(network: &mut Network, to: std::net::SocketAddr, lengths: (usize, usize)) -> Duration {
    network.b.listen(ANY_OWN).unwrap();
    let (dialed, accepted) = connect(network, to);
    let began = network.now;
    let (up, down) = (pattern(lengths.0, 1), pattern(lengths.1, 2));
    let mut a = Side::new(End::A, dialed, up.clone());
    let mut b = Side::new(End::B, accepted, down.clone());
    while !(a.ended && b.ended) {
        a.work(network);
        b.work(network);
        while network.a.poll_event().is_some() {}
        while network.b.poll_event().is_some() {}
        assert!(network.step() || a.ended && b.ended, "stalled at {:?}", network.elapsed());
        assert!(network.elapsed() < Duration::from_secs(4 * 3600), "four hours have passed");
    }
    assert!(a.received == down, "A got {} of {} bytes, or wrong ones", a.received.len(), down.len());
    assert!(b.received == up, "B got {} of {} bytes, or wrong ones", b.received.len(), up.len());
    let took = network.now - began;
    let now = network.now;
    network.a.release(dialed, now);
    network.b.release(accepted, now);
    network.settle(Duration::from_secs(300));
    assert_eq!((network.a.connections(), network.b.connections()), (0, 0));
    took
}

#[test]
fn a_megabyte_crosses_both_ways_over_ipv4_and_ipv6() {
    for to in [at(B, 80), at(B6, 80)] {
        for offload in [true, false] {
            let mut network = Network::new(Weather { offload, ..CALM }, 7);
            exchange(&mut network, to, (1 << 20, 1 << 20));
        }
    }
}

#[test]
fn a_window_carries_a_gigabit_at_20_ms() {
    let mut network = Network::new(CALM, 7);
    let length = 128 << 20;
    let took = exchange(&mut network, at(B, 80), (length, 0));
    let rate = length as f64 * 8.0 / took.as_secs_f64();
    assert!(rate > 1e9, "{rate:.0} bits a second, slow start included");
}

#[test]
fn a_refused_client_is_told_at_once() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let dialed = network.a.dial(at(B, 80)).unwrap();
    let Event::Incoming { connection, from, to, .. } = network.event(End::B) else { panic!("no client") };
    assert_eq!((from.ip(), to), (A, at(B, 80)));
    network.b.refuse(connection);
    assert_eq!(network.event(End::A), Event::Closed { connection: dialed, reason: Closed::Refused });
    assert_eq!(network.elapsed(), Duration::from_millis(20));
    assert_eq!(network.b.connections(), 0);
}

#[test]
fn a_closed_port_of_an_own_address_is_refused() {
    let mut network = Network::new(CALM, 7);
    let dialed = network.a.dial(at(B6, 81)).unwrap();
    assert_eq!(network.event(End::A), Event::Closed { connection: dialed, reason: Closed::Refused });
}

#[test]
fn the_handshake_waits_for_the_answer() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let dialed = network.a.dial(at(B, 80)).unwrap();
    let Event::Incoming { connection, .. } = network.event(End::B) else { panic!("no client") };
    // The client repeats its SYN meanwhile; that makes no second client.
    network.settle(Duration::from_secs(5));
    assert_eq!(network.b.poll_event(), None);
    assert_eq!(network.a.poll_event(), None);
    let now = network.now;
    network.b.accept(connection, now).unwrap();
    assert_eq!(network.event(End::A), Event::Connected(dialed));
}

#[test]
fn a_client_that_nobody_answers_is_dropped_in_time() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let dialed = network.a.dial(at(B, 80)).unwrap();
    let Event::Incoming { connection, .. } = network.event(End::B) else { panic!("no client") };
    network.weather.loss = 100;
    assert_eq!(network.event(End::A), Event::Closed { connection: dialed, reason: Closed::TimedOut });
    network.settle(Duration::from_secs(1));
    assert_eq!(network.b.poll_event(), Some(Event::Closed { connection, reason: Closed::TimedOut }));
    let now = network.now;
    network.b.accept(connection, now).unwrap_err();
    assert_eq!(network.b.connections(), 0);
}

#[test]
fn a_half_closed_connection_still_carries_the_answer() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let (dialed, accepted) = connect(&mut network, at(B, 80));
    assert_eq!(network.a.write(dialed, b"question"), Ok(8));
    network.a.shut_down(dialed);
    network.settle(Duration::from_millis(50));
    let (mut buffer, now) = ([0; 64], network.now);
    assert_eq!(network.b.read(accepted, &mut buffer, now), Read::Bytes(8));
    assert_eq!(network.b.read(accepted, &mut buffer, now), Read::End);
    assert_eq!(network.b.write(accepted, b"answer"), Ok(6));
    network.settle(Duration::from_millis(50));
    let now = network.now;
    assert_eq!(network.a.read(dialed, &mut buffer, now), Read::Bytes(6));
    assert!(network.a.write(dialed, b"more").is_err());
}

#[test]
fn an_aborted_connection_is_reset_on_the_other_side() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let (dialed, accepted) = connect(&mut network, at(B, 80));
    network.b.abort(accepted);
    let reason = network.event_where(End::A, |event| match event {
        Event::Closed { connection, reason } if *connection == dialed => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Closed::Reset);
    let now = network.now;
    assert_eq!(network.a.read(dialed, &mut [0; 8], now), Read::Broken);
    network.a.release(dialed, now);
    network.b.release(accepted, now);
    network.settle(Duration::from_secs(1));
    assert_eq!((network.a.connections(), network.b.connections()), (0, 0));
}

#[test]
fn data_for_a_released_connection_is_answered_with_a_reset() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let (dialed, accepted) = connect(&mut network, at(B, 80));
    network.settle(Duration::from_millis(50));
    let now = network.now;
    network.b.release(accepted, now);
    network.settle(Duration::from_millis(50));
    network.a.write(dialed, b"anybody there?").unwrap();
    let reason = network.event_where(End::A, |event| match event {
        Event::Closed { connection, reason } if *connection == dialed => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Closed::Reset);
    assert_eq!(network.b.connections(), 0);
}

#[test]
fn an_idle_connection_lives_and_a_dead_one_is_noticed() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let (dialed, _) = connect(&mut network, at(B, 80));
    network.settle(Duration::from_secs(1800));
    assert_eq!(network.a.write(dialed, b"still there"), Ok(11));
    network.settle(Duration::from_secs(1));
    network.weather.loss = 100;
    let began = network.now;
    let reason = network.event_where(End::A, |event| match event {
        Event::Closed { connection, reason } if *connection == dialed => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Closed::TimedOut);
    assert!(network.now - began < Duration::from_secs(200));
}

#[test]
fn a_reader_that_stops_stops_the_writer_and_nothing_is_lost() {
    let mut network = Network::new(CALM, 7);
    network.b.listen(ANY_OWN).unwrap();
    let (dialed, accepted) = connect(&mut network, at(B, 80));
    let data = pattern(24 << 20, 3);
    let mut sent = 0;
    for _ in 0..200 {
        sent += network.a.write(dialed, &data[sent..]).unwrap();
        network.settle(Duration::from_millis(100));
    }
    assert!(sent <= 9 << 20, "{sent} bytes left the writer although nobody reads");
    let (mut received, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while received.len() < data.len() {
        let now = network.now;
        while let Read::Bytes(length) = network.b.read(accepted, &mut buffer, now) {
            received.extend_from_slice(&buffer[..length]);
        }
        sent += network.a.write(dialed, &data[sent..]).unwrap();
        assert!(network.step());
    }
    assert!(received == data);
}

#[test]
fn a_dial_that_makes_no_sense_is_refused_with_the_reason() {
    let mut network = Network::new(CALM, 7);
    for to in ["127.0.0.1:80", "0.0.0.0:80", "224.0.0.1:80", "10.0.0.1:0", "[fe80::1]:80"] {
        let to = to.parse().unwrap();
        assert_eq!(network.a.dial(to), Err(DialError::Unroutable(to)), "{to}");
    }
    network.a.set_addresses([A6]);
    assert_eq!(network.a.dial(at(B, 80)), Err(DialError::NoSource(B)));
}

#[test]
fn bounds_that_are_changed_hold_for_what_begins_afterwards() {
    let mut network = Network::new(CALM, 7);
    network.a.dial(at(B, 80)).unwrap();
    network.a.set_bounds(1 << 20, 2, 2);
    network.a.dial(at(B, 80)).unwrap();
    assert_eq!(network.a.dial(at(B, 80)), Err(DialError::Full(2)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn bytes_arrive_in_order_and_whole_under_loss_reordering_and_duplication(
        seed in any::<u64>(),
        loss in 0u32..12,
        duplicates in 0u32..12,
        jitter in 0u64..30,
        offload in any::<bool>(),
        six in any::<bool>(),
        lengths in (0usize..300_000, 0usize..300_000),
    ) {
        let weather = Weather { loss, duplicates, jitter: Duration::from_millis(jitter), offload, ..CALM };
        let mut network = Network::new(weather, seed);
        exchange(&mut network, if six { at(B6, 80) } else { at(B, 80) }, lengths);
    }
}
