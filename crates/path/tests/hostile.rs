//! Whatever a peer, a relay or the network does, nothing panics and nothing grows without bound.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crypto::{DiscoPrivate, Entropy, NodePublic, SharedBox, SystemEntropy};
use packet::disco::{self, CallMeMaybe, Envelope, Message, Ping, Pong, TransactionId};
use path::{Netcheck, Paths, PeerConfig, Region, RegionId, RelayMap, RelayNode, RelayState, Via, Way};
use proptest::prelude::*;

/// Repeats what proptest draws: a failing case must fail again.
struct Replayed(u64);

impl Entropy for Replayed {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Ping {
        peer: u8,
        way: Came,
        transaction: u8,
        claims: Option<u8>,
    },
    /// Answers one of the pings that the node sent, or none of them.
    Pong {
        peer: u8,
        way: Came,
        which: usize,
    },
    Call {
        peer: u8,
        way: Came,
        endpoints: Vec<SocketAddr>,
    },
    Garbage {
        bytes: Vec<u8>,
    },
    Sent {
        peer: u8,
    },
    Received {
        peer: u8,
        direct: Option<SocketAddr>,
        region: u8,
    },
    UserPing {
        peer: u8,
    },
    Listed {
        peer: u8,
        endpoints: Vec<SocketAddr>,
        key: u8,
        home: u8,
        plain: bool,
    },
    Removed {
        peer: u8,
    },
    Relay {
        region: u8,
        state: u8,
    },
    OwnEndpoints {
        endpoints: Vec<SocketAddr>,
    },
    NetworkChange,
    Pass {
        millis: u64,
    },
}

#[derive(Debug, Clone)]
enum Came {
    Udp(SocketAddr),
    Relay { region: u8, node: u8 },
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let near = (0u8..4, 1u16..4).prop_map(|(host, port)| SocketAddr::from(([203, 0, 113, host], port)));
    let any = any::<(IpAddr, u16)>().prop_map(SocketAddr::from);
    prop_oneof![3 => near, 1 => any]
}

fn came() -> impl Strategy<Value = Came> {
    prop_oneof![address().prop_map(Came::Udp), (0u8..4, 0u8..4).prop_map(|(region, node)| Came::Relay { region, node }),]
}

fn act() -> impl Strategy<Value = Act> {
    let peer = 0u8..4;
    let endpoints = || proptest::collection::vec(address(), 0..80);
    prop_oneof![
        (peer.clone(), came(), 0u8..8, proptest::option::of(0u8..6))
            .prop_map(|(peer, way, transaction, claims)| Act::Ping { peer, way, transaction, claims }),
        (peer.clone(), came(), 0usize..40).prop_map(|(peer, way, which)| Act::Pong { peer, way, which }),
        (peer.clone(), came(), endpoints()).prop_map(|(peer, way, endpoints)| Act::Call { peer, way, endpoints }),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Act::Garbage { bytes }),
        peer.clone().prop_map(|peer| Act::Sent { peer }),
        (peer.clone(), proptest::option::of(address()), 0u8..4).prop_map(|(peer, direct, region)| Act::Received {
            peer,
            direct,
            region
        }),
        peer.clone().prop_map(|peer| Act::UserPing { peer }),
        (peer.clone(), endpoints(), 0u8..4, 0u8..4, proptest::bool::weighted(0.1))
            .prop_map(|(peer, endpoints, key, home, plain)| Act::Listed { peer, endpoints, key, home, plain }),
        peer.prop_map(|peer| Act::Removed { peer }),
        (0u8..4, 0u8..3).prop_map(|(region, state)| Act::Relay { region, state }),
        endpoints().prop_map(|endpoints| Act::OwnEndpoints { endpoints }),
        Just(Act::NetworkChange),
        (0u64..20_000).prop_map(|millis| Act::Pass { millis }),
    ]
}

/// A node, four nodes that may be its peers, and what it sent.
struct Ordeal {
    paths: Paths,
    keys: Vec<DiscoPrivate>,
    shared: Vec<SharedBox>,
    now: Instant,
    entropy: Replayed,
    pinged: Vec<TransactionId>,
    sent: usize,
}

fn node(number: u8) -> NodePublic {
    NodePublic::from_bytes([number + 1; 32])
}

fn region(number: u8) -> Option<RegionId> {
    RegionId::new(number.into())
}

impl Ordeal {
    fn new(seed: u64) -> Self {
        let mut entropy = Replayed(seed);
        let keys: Vec<_> = (0..4).map(|_| DiscoPrivate::generate(&mut entropy)).collect();
        let paths = Paths::new(node(200), &mut entropy);
        let shared = keys.iter().map(|key| SharedBox::disco(key, &paths.disco_key()).unwrap()).collect();
        Self { paths, keys, shared, now: Instant::now(), entropy, pinged: Vec::new(), sent: 0 }
    }

    fn undergo(&mut self, act: &Act) {
        let now = self.now;
        match act {
            Act::Ping { peer, way, transaction, claims } => {
                let node_key = claims.map(node);
                let transaction = TransactionId([*transaction; 12]);
                self.receive(*peer, way, &Message::Ping(Ping { transaction, node_key, padding: 0 }));
            }
            Act::Pong { peer, way, which } => {
                let transaction = self.pinged.iter().rev().nth(*which).copied().unwrap_or(TransactionId([0; 12]));
                let observed = SocketAddr::from(([192, 0, 2, 1], 1));
                self.receive(*peer, way, &Message::Pong(Pong { transaction, observed }));
            }
            Act::Call { peer, way, endpoints } => {
                self.receive(*peer, way, &Message::CallMeMaybe(CallMeMaybe { endpoints: endpoints.clone() }));
            }
            Act::Garbage { bytes } => {
                let mut packet = b"TS\xf0\x9f\x92\xac".to_vec();
                packet.extend_from_slice(self.keys[0].public().as_bytes());
                packet.extend_from_slice(bytes);
                if let Some(envelope) = Envelope::parse(&packet) {
                    let way = Way::Udp(SocketAddr::from(([203, 0, 113, 1], 1)));
                    let _ = self.paths.handle_disco(&envelope, way, now, &mut self.entropy);
                }
            }
            Act::Sent { peer } => self.paths.handle_sent(&node(*peer), now, &mut self.entropy),
            Act::Received { peer, direct, region: number } => {
                let via = direct.map(Via::Direct).or(region(*number).map(Via::Relay));
                via.into_iter().for_each(|via| self.paths.handle_received(&node(*peer), via, now, &mut self.entropy));
            }
            Act::UserPing { peer } => {
                let _ = self.paths.ping(&node(*peer), now, &mut self.entropy);
            }
            Act::Listed { peer, endpoints, key, home, plain } => {
                let config = PeerConfig {
                    node: node(*peer),
                    disco: self.keys[usize::from(*key)].public(),
                    home: region(*home),
                    endpoints: endpoints.clone(),
                    wireguard_only: *plain,
                };
                self.paths.handle_peer(&config, now, &mut self.entropy);
            }
            Act::Removed { peer } => self.paths.handle_peer_removed(&node(*peer), now, &mut self.entropy),
            Act::Relay { region: number, state } => {
                let state = [RelayState::Up, RelayState::Closed, RelayState::Down][usize::from(*state)];
                if let Some(region) = region(*number) {
                    self.paths.handle_relay(region, state, now, &mut self.entropy);
                }
            }
            Act::OwnEndpoints { endpoints } => self.paths.handle_own_endpoints(endpoints, now, &mut self.entropy),
            Act::NetworkChange => self.paths.handle_network_change(now, &mut self.entropy),
            Act::Pass { millis } => self.pass(Duration::from_millis(*millis)),
        }
        self.drain();
    }

    fn receive(&mut self, peer: u8, came: &Came, message: &Message) {
        let (key, shared) = (&self.keys[usize::from(peer)], &self.shared[usize::from(peer)]);
        let packet = disco::seal(&key.public(), shared, message, &mut self.entropy);
        let way = match came {
            Came::Udp(address) => Way::Udp(*address),
            Came::Relay { region: number, node: from } => {
                let Some(region) = region(*number) else { return };
                Way::Relay { region, node: node(*from) }
            }
        };
        let envelope = Envelope::parse(&packet).unwrap();
        let _ = self.paths.handle_disco(&envelope, way, self.now, &mut self.entropy);
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        let mut turns = 0;
        while let Some(at) = self.paths.poll_timeout().filter(|at| *at <= end) {
            turns += 1;
            assert!(turns < 2000, "more than 2000 time-outs in {span:?}");
            self.now = self.now.max(at);
            self.paths.handle_timeout(self.now, &mut self.entropy);
            self.drain();
        }
        self.now = end;
    }

    /// Fetches everything, and remembers what can be answered.
    fn drain(&mut self) {
        while let Some(transmit) = self.paths.poll_transmit() {
            self.sent += 1;
            let envelope = Envelope::parse(&transmit.payload).unwrap();
            for shared in &self.shared {
                if let Ok(Message::Ping(ping)) = envelope.open(shared) {
                    self.pinged.push(ping.transaction);
                }
            }
        }
        while self.paths.poll_event().is_some() {}
    }
}

proptest! {
    #[test]
    fn no_sequence_of_inputs_breaks_the_bounds(seed in any::<u64>(), acts in proptest::collection::vec(act(), 1..80)) {
        let mut ordeal = Ordeal::new(seed);
        for act in &acts {
            let before = (ordeal.sent, ordeal.now);
            ordeal.undergo(act);
            let elapsed = (ordeal.now - before.1).as_secs_f64();
            // A burst to each of four peers, and what heartbeats, checks and searches may add as time passes.
            let allowed = 4 * 80 + (elapsed * 4.0 * 16.0) as usize;
            prop_assert!(ordeal.sent - before.0 <= allowed, "{} packets after {act:?}", ordeal.sent - before.0);
            for peer in 0..4 {
                if let Some(status) = ordeal.paths.status(&node(peer), ordeal.now) {
                    prop_assert!(status.candidates.len() <= 32);
                    let distinct: BTreeSet<_> = status.candidates.iter().collect();
                    prop_assert_eq!(distinct.len(), status.candidates.len());
                }
            }
        }
        // Left alone, everything comes to rest.
        ordeal.pass(Duration::from_secs(400));
        prop_assert_eq!(ordeal.paths.poll_timeout(), None);
        let quiet = ordeal.sent;
        ordeal.pass(Duration::from_secs(400));
        prop_assert_eq!(ordeal.sent, quiet);
    }

    #[test]
    fn no_stun_answer_breaks_a_measurement(
        answers in proptest::collection::vec((any::<Vec<u8>>(), any::<(IpAddr, u16)>(), 0u64..4000), 0..60),
    ) {
        let mut netcheck = Netcheck::new();
        let mut now = Instant::now();
        let node = |last| RelayNode {
            ipv4: Some([203, 0, 113, last].into()), ipv6: None, stun_port: Some(3478), stun_only: false,
        };
        let found = |last| Region { score: 1.0, avoid: false, no_measure_no_home: false, nodes: vec![node(last)] };
        let regions = (1..=5).map(|last| (RegionId::new(last.into()).unwrap(), found(last)));
        netcheck.handle_relay_map(RelayMap { regions: regions.collect() }, now, &mut SystemEntropy);
        let mut asked = Vec::new();
        for (bytes, mapped, millis) in answers {
            asked.extend(std::iter::from_fn(|| netcheck.poll_transmit()));
            let _ = netcheck.handle_stun(&bytes, now, &mut SystemEntropy);
            if let Some(probe) = asked.pop() {
                let transaction = packet::stun::parse_request(&probe.payload).unwrap();
                let answer = packet::stun::response(transaction, mapped.into());
                prop_assert!(netcheck.handle_stun(&answer, now, &mut SystemEntropy).is_ok());
            }
            now += Duration::from_millis(millis);
            netcheck.handle_timeout(now, &mut SystemEntropy);
            while netcheck.poll_event().is_some() {}
        }
        now += Duration::from_secs(6);
        netcheck.handle_timeout(now, &mut SystemEntropy);
        prop_assert!(netcheck.home().is_some());
    }
}
