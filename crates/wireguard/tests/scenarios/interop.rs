//! Live handshakes and traffic with boringtun, another implementation, both ways round and through renewals.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use crypto::NodePrivate;
use crypto::tunnel::PresharedKey;
use mock_instant::MockClock;
use packet::wireguard::Message;
use wireguard::{Discard, PeerConfig};

use crate::link::{alices_address, bobs_address};
use crate::node::{Clock, Node, Seeded, Seen};

/// Our node and theirs, which shares no code with it above the ciphers.
struct Mixed {
    clock: Clock,
    ours: Node,
    theirs: Tunn,
    their_key: crypto::NodePublic,
    their_packets: Vec<Vec<u8>>,
    their_messages: Vec<Vec<u8>>,
}

impl Mixed {
    fn new(preshared: Option<[u8; 32]>, limiter: Option<u64>) -> Self {
        let clock = Clock::start();
        let mut ours = Node::new(1, &clock);
        let their_private = NodePrivate::generate(&mut Seeded(2));
        let their_key = their_private.public();
        let our_key = x25519_dalek::PublicKey::from(*ours.public.as_bytes());
        let secret = x25519_dalek::StaticSecret::from(*their_private.expose_bytes());
        let limiter = limiter.map(|limit| Arc::new(RateLimiter::new(&x25519_dalek::PublicKey::from(&secret), limit)));
        if let Some(bytes) = preshared {
            let config = PeerConfig { preshared_key: PresharedKey::from_bytes(bytes), ..PeerConfig::default() };
            ours.configure(&their_key, config, &clock);
        }
        let theirs = Tunn::new(secret, our_key, preshared, None, 7, limiter);
        Self { clock, ours, theirs, their_key, their_packets: Vec::new(), their_messages: Vec::new() }
    }

    fn pass(&mut self, time: Duration) {
        self.clock.elapsed += time;
        MockClock::advance(time);
        self.ours.timeout(&self.clock);
        let mut buffer = [0; 2048];
        let message = match self.theirs.update_timers(&mut buffer) {
            TunnResult::WriteToNetwork(message) => Some(message.to_vec()),
            _ => None,
        };
        self.their_messages.extend(message);
        self.exchange();
    }

    fn run(&mut self, seconds: u64) {
        (0..seconds * 4).for_each(|_| self.pass(Duration::from_millis(250)));
    }

    fn we_send(&mut self, number: u8) {
        self.ours.send(&self.their_key, &ipv4(number), &self.clock);
        self.exchange();
    }

    fn they_send(&mut self, number: u8) {
        let mut buffer = [0; 2048];
        if let TunnResult::WriteToNetwork(message) = self.theirs.encapsulate(&ipv4(number), &mut buffer) {
            self.their_messages.push(message.to_vec());
        }
        self.exchange();
    }

    fn exchange(&mut self) {
        loop {
            let (from_us, from_them) = (self.ours.take_out(), std::mem::take(&mut self.their_messages));
            if from_us.is_empty() && from_them.is_empty() {
                return;
            }
            from_us.iter().for_each(|datagram| self.deliver_to_them(datagram));
            from_them.iter().for_each(|datagram| self.ours.receive(bobs_address(), datagram, &self.clock));
        }
    }

    fn deliver_to_them(&mut self, datagram: &[u8]) {
        let from: IpAddr = [192, 0, 2, 1].into();
        let mut buffer = [0; 2048];
        let mut input = datagram;
        // Their queue is drained by asking again with nothing.
        loop {
            match self.theirs.decapsulate(Some(from), input, &mut buffer) {
                TunnResult::WriteToNetwork(message) => self.their_messages.push(message.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                    self.their_packets.push(packet.to_vec());
                    return;
                }
                TunnResult::Done | TunnResult::Err(_) => return,
            }
            input = &[];
        }
    }

    fn our_packets(&self) -> Vec<u8> {
        self.ours.delivered.iter().map(|packet| packet[19]).collect()
    }

    fn their_numbers(&self) -> Vec<u8> {
        self.their_packets.iter().map(|packet| packet[19]).collect()
    }
}

/// The least IPv4 packet: theirs looks at the header.
fn ipv4(number: u8) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    packet[19] = number;
    packet
}

#[test]
fn our_handshake_is_answered_by_boringtun_and_traffic_flows_both_ways() {
    let mut mixed = Mixed::new(None, None);
    mixed.we_send(1);
    mixed.they_send(2);
    mixed.we_send(3);
    assert_eq!(mixed.their_numbers(), [1, 3]);
    assert_eq!(mixed.our_packets(), [2]);
    assert_eq!(mixed.their_packets[0].len(), 20, "they cut the padding off by the packet's own length");
    assert_eq!(mixed.ours.count(Seen::Started(1)), 1);
}

#[test]
fn boringtuns_handshake_is_answered_by_us_and_traffic_flows_both_ways() {
    let mut mixed = Mixed::new(None, None);
    mixed.they_send(1);
    mixed.we_send(2);
    mixed.they_send(3);
    assert_eq!(mixed.our_packets(), [1, 3]);
    assert_eq!(mixed.their_numbers(), [2]);
    assert_eq!(mixed.ours.count(Seen::Started(1)), 0);
}

#[test]
fn a_preshared_key_is_mixed_in_as_boringtun_does() {
    let mut mixed = Mixed::new(Some([9; 32]), None);
    mixed.we_send(1);
    assert_eq!(mixed.their_numbers(), [1]);
    let mut mixed = Mixed::new(Some([9; 32]), None);
    mixed.they_send(1);
    assert_eq!(mixed.our_packets(), [1]);
    let mut mixed = Mixed::new(Some([9; 32]), None);
    let key = mixed.their_key;
    mixed.ours.configure(&key, PeerConfig::default(), &mixed.clock);
    mixed.we_send(1);
    assert!(mixed.their_packets.is_empty());
}

#[test]
fn ten_minutes_of_traffic_pass_through_our_renewals_without_a_loss() {
    let mut mixed = Mixed::new(None, None);
    for number in 0..=200 {
        mixed.we_send(number);
        mixed.they_send(number);
        mixed.run(3);
    }
    assert_eq!(mixed.their_numbers(), (0..=200).collect::<Vec<_>>());
    assert_eq!(mixed.our_packets(), (0..=200).collect::<Vec<_>>());
    assert_eq!(mixed.ours.count(Seen::Started(1)), 5);
}

#[test]
fn ten_minutes_of_traffic_pass_through_boringtuns_renewals_without_a_loss() {
    let mut mixed = Mixed::new(None, None);
    for number in 0..=200 {
        mixed.they_send(number);
        mixed.we_send(number);
        mixed.run(3);
    }
    assert_eq!(mixed.their_numbers(), (0..=200).collect::<Vec<_>>());
    assert_eq!(mixed.our_packets(), (0..=200).collect::<Vec<_>>());
    assert_eq!(mixed.ours.count(Seen::Started(1)), 0);
    assert!(mixed.ours.count(Seen::Send) >= 5);
}

#[test]
fn boringtuns_cookie_gets_us_in_on_the_second_try() {
    let mut mixed = Mixed::new(None, Some(0));
    mixed.we_send(1);
    assert!(mixed.their_packets.is_empty());
    mixed.run(6);
    assert_eq!(mixed.their_numbers(), [1]);
    assert_eq!(mixed.ours.count(Seen::Started(2)), 1);
}

#[test]
fn our_cookie_gets_boringtun_in_on_its_next_try() {
    let mut mixed = Mixed::new(None, None);
    let force = |mixed: &mut Mixed| {
        let mut buffer = [0; 2048];
        MockClock::advance(Duration::from_millis(1));
        match mixed.theirs.format_handshake_initiation(&mut buffer, true) {
            TunnResult::WriteToNetwork(message) => message.to_vec(),
            _ => panic!("an initiation was forced"),
        }
    };
    let now = mixed.clock.now();
    let asked = (0..100)
        .find_map(|_| {
            let message = force(&mut mixed);
            mixed.ours.interface.handle_datagram(alices_address(), &message, now, &mut mixed.ours.entropy).err()
        })
        .unwrap();
    assert_eq!(asked, Discard::CookieRequired);
    let reply = mixed.ours.interface.poll_transmit().unwrap().message;
    assert!(matches!(Message::parse(&reply), Ok(Message::CookieReply(_))));
    mixed.deliver_to_them(&reply);
    let second = force(&mut mixed);
    let pending = mixed.ours.interface.handle_datagram(alices_address(), &second, now, &mut mixed.ours.entropy);
    assert_eq!(pending.unwrap().unwrap().peer(), &mixed.their_key);
}
