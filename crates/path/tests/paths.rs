//! The rules of disco as two nodes, and those who wish them ill, can see them from outside.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crypto::{DiscoPrivate, DiscoPublic, Entropy, NodePublic, SharedBox, SystemEntropy};
use packet::disco::{self, CallMeMaybe, Envelope, Message, Ping, Pong, TransactionId};
use path::paths::{Event, PingRefused, Refused};
use path::{PathChoice, Paths, PeerConfig, RegionId, RelayState, Transmit, Via, Way};

fn region(number: u16) -> RegionId {
    RegionId::new(number).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn node(number: u8) -> NodePublic {
    NodePublic::from_bytes([number; 32])
}

/// A peer whose every message the test chooses.
struct Puppet {
    node: NodePublic,
    key: DiscoPrivate,
}

impl Puppet {
    fn new(number: u8) -> Self {
        Self { node: node(number), key: DiscoPrivate::generate(&mut SystemEntropy) }
    }

    fn config(&self, endpoints: &[&str]) -> PeerConfig {
        PeerConfig {
            node: self.node,
            disco: self.key.public(),
            home: Some(region(1)),
            endpoints: endpoints.iter().map(|text| address(text)).collect(),
            wireguard_only: false,
        }
    }

    fn seal(&self, to: &DiscoPublic, message: &Message) -> Vec<u8> {
        disco::seal(&self.key.public(), &SharedBox::disco(&self.key, to).unwrap(), message, &mut SystemEntropy)
    }

    fn open(&self, transmit: &Transmit, from: &DiscoPublic) -> Message {
        Envelope::parse(&transmit.payload).unwrap().open(&SharedBox::disco(&self.key, from).unwrap()).unwrap()
    }
}

/// The node under test.
struct Subject {
    paths: Paths,
    now: Instant,
}

impl Subject {
    /// A node that knows its own endpoints, and some peers.
    fn knowing(peers: &[PeerConfig]) -> Self {
        let mut subject = Self { paths: Paths::new(node(99), &mut SystemEntropy), now: Instant::now() };
        for peer in peers {
            subject.paths.handle_peer(peer, subject.now, &mut SystemEntropy);
        }
        subject.paths.handle_own_endpoints(&[address("192.0.2.9:9")], subject.now, &mut SystemEntropy);
        subject.events();
        subject
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.paths.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.paths.handle_timeout(self.now, &mut SystemEntropy);
        }
        self.now = end;
    }

    fn send(&mut self, to: NodePublic) {
        self.paths.handle_sent(&to, self.now, &mut SystemEntropy);
    }

    fn receive(&mut self, from: &Puppet, way: Way, message: &Message) -> Result<(), Refused> {
        let packet = from.seal(&self.paths.disco_key(), message);
        self.paths.handle_disco(&Envelope::parse(&packet).unwrap(), way, self.now, &mut SystemEntropy)
    }

    fn sent(&mut self) -> Vec<Transmit> {
        std::iter::from_fn(|| self.paths.poll_transmit()).collect()
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.paths.poll_event()).collect()
    }

    /// The addresses that were pinged, with the transactions.
    fn pinged(&mut self, peer: &Puppet) -> Vec<(SocketAddr, TransactionId)> {
        let key = self.paths.disco_key();
        let ping = |transmit: &Transmit| match (transmit.way, peer.open(transmit, &key)) {
            (Way::Udp(address), Message::Ping(ping)) => Some((address, ping.transaction)),
            _ => None,
        };
        self.sent().iter().filter_map(ping).collect()
    }

    /// Passes time with packets sent and every ping answered, by the way it went; counts the pings to each address.
    fn pass_alive(&mut self, peer: &Puppet, seconds: u64) -> BTreeMap<SocketAddr, usize> {
        let mut counts = BTreeMap::new();
        for tick in 0..seconds * 20 {
            if tick % 10 == 0 {
                self.send(peer.node);
            }
            for (to, transaction) in self.pinged(peer) {
                *counts.entry(to).or_default() += 1;
                self.receive(peer, Way::Udp(to), &pong(transaction)).unwrap();
            }
            self.pass(Duration::from_millis(50));
        }
        counts
    }

    /// Passes time with packets sent and nothing answered; counts the pings to each address.
    fn pass_unanswered(&mut self, peer: &Puppet, seconds: u64) -> BTreeMap<SocketAddr, usize> {
        let mut counts = BTreeMap::new();
        for _ in 0..seconds * 2 {
            self.send(peer.node);
            self.pass(Duration::from_millis(500));
            for (to, _) in self.pinged(peer) {
                *counts.entry(to).or_default() += 1;
            }
        }
        counts
    }

    /// Proves a path of a peer by answering the ping to it.
    fn prove(&mut self, peer: &Puppet, at: &str, latency: u64) {
        self.send(peer.node);
        let pings = self.pinged(peer);
        let (_, transaction) = *pings.iter().find(|(to, _)| *to == address(at)).unwrap();
        self.now += Duration::from_millis(latency);
        self.receive(peer, Way::Udp(address(at)), &pong(transaction)).unwrap();
    }
}

fn ping(node_key: Option<NodePublic>) -> Message {
    Message::Ping(Ping { transaction: TransactionId::generate(&mut SystemEntropy), node_key, padding: 0 })
}

fn pong(transaction: TransactionId) -> Message {
    Message::Pong(Pong { transaction, observed: address("192.0.2.9:9") })
}

fn call(endpoints: &[SocketAddr]) -> Message {
    Message::CallMeMaybe(CallMeMaybe { endpoints: endpoints.to_vec() })
}

fn by_relay(peer: &Puppet) -> Way {
    Way::Relay { region: region(1), node: peer.node }
}

#[test]
fn a_pong_makes_the_path_direct_and_tells_the_latency() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1", "203.0.113.1:2"])]);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(1)));
    subject.prove(&peer, "203.0.113.1:1", 7);
    let direct = PathChoice::Direct(address("203.0.113.1:1"));
    let latency = Some(Duration::from_millis(7));
    assert_eq!(subject.events(), [Event::PathChanged { node: peer.node, choice: direct, latency }]);
    let status = subject.paths.status(&peer.node, subject.now).unwrap();
    assert_eq!((status.choice, status.latency, status.active), (direct, latency, true));
}

#[test]
fn the_first_packet_pings_each_endpoint_and_calls_the_peer_once() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1", "203.0.113.1:2"])]);
    for _ in 0..10 {
        subject.send(peer.node);
        subject.pass(Duration::from_millis(400));
    }
    let sent = subject.sent();
    let key = subject.paths.disco_key();
    let calls: Vec<_> = sent.iter().filter(|transmit| transmit.way == by_relay(&peer)).collect();
    assert_eq!((sent.len(), calls.len()), (3, 1));
    assert_eq!(peer.open(calls[0], &key), call(&[address("192.0.2.9:9")]));
    let Message::Ping(ping) = peer.open(&sent[0], &key) else { panic!() };
    assert_eq!(ping.node_key, Some(node(99)));
    subject.pass(Duration::from_secs(1));
    assert_eq!(subject.sent().len(), 3, "after five seconds all of it is repeated");
}

#[test]
fn endpoints_that_may_be_stale_are_asked_for_before_the_peer_is_called() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.pass(Duration::from_secs(27));
    subject.send(peer.node);
    assert_eq!(subject.pinged(&peer).len(), 1);
    assert_eq!(subject.events(), [Event::EndpointsWanted]);
    subject.paths.handle_own_endpoints(&[address("192.0.2.9:10")], subject.now, &mut SystemEntropy);
    let sent = subject.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(peer.open(&sent[0], &subject.paths.disco_key()), call(&[address("192.0.2.9:10")]));
}

#[test]
fn the_second_round_of_a_search_has_the_nodes_endpoints_learned_anew_and_told() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    let mut round = |span| {
        subject.send(peer.node);
        subject.pass(Duration::from_secs(span));
        let wanted = subject.events().contains(&Event::EndpointsWanted);
        subject.sent();
        let own = [address("192.0.2.9:10")];
        subject.paths.handle_own_endpoints(&own, subject.now, &mut SystemEntropy);
        let told: Vec<_> =
            subject.sent().iter().map(|transmit| peer.open(transmit, &subject.paths.disco_key())).collect();
        (wanted, told == [call(&own)])
    };
    assert_eq!(round(1), (false, false), "the first round tells what is known");
    assert_eq!(round(4), (true, true));
    assert_eq!(round(5), (false, false), "the third goes on with that");
}

#[test]
fn a_ping_is_answered_the_way_it_came_and_once() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    for (way, observed) in [(Way::Udp(address("198.51.100.7:7")), "198.51.100.7:7"), (by_relay(&peer), "127.3.3.40:1")]
    {
        let message = ping(Some(peer.node));
        subject.receive(&peer, way, &message).unwrap();
        subject.receive(&peer, way, &message).unwrap();
        let sent = subject.sent();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0].way, way);
        let Message::Pong(pong) = peer.open(&sent[0], &subject.paths.disco_key()) else { panic!() };
        assert_eq!(pong.observed, address(observed));
    }
}

#[test]
fn an_address_that_a_ping_came_from_is_tried() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    subject.receive(&peer, Way::Udp(address("198.51.100.7:7")), &ping(Some(peer.node))).unwrap();
    subject.sent();
    subject.prove(&peer, "198.51.100.7:7", 10);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Direct(address("198.51.100.7:7")));
}

#[test]
fn a_ping_from_an_unknown_key_is_ignored() {
    let (peer, stranger) = (Puppet::new(1), Puppet::new(2));
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    let refused = subject.receive(&stranger, Way::Udp(address("198.51.100.7:7")), &ping(Some(peer.node)));
    assert_eq!(refused, Err(Refused::UnknownSender));
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.paths.counters().refused, 1);
}

#[test]
fn a_box_that_the_claimed_sender_did_not_seal_is_refused() {
    let (peer, forger) = (Puppet::new(1), Puppet::new(1));
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    let shared = SharedBox::disco(&forger.key, &subject.paths.disco_key()).unwrap();
    let packet = disco::seal(&peer.key.public(), &shared, &ping(Some(peer.node)), &mut SystemEntropy);
    let envelope = Envelope::parse(&packet).unwrap();
    let way = Way::Udp(address("198.51.100.7:7"));
    let refused = subject.paths.handle_disco(&envelope, way, subject.now, &mut SystemEntropy);
    assert!(matches!(refused, Err(Refused::Unreadable(_))));
    assert_eq!(subject.sent(), []);
}

#[test]
fn a_call_is_taken_only_by_relay_and_only_from_the_holder_of_the_key() {
    let (peer, other) = (Puppet::new(1), Puppet::new(2));
    let mut subject = Subject::knowing(&[peer.config(&[]), other.config(&[])]);
    let message = call(&[address("203.0.113.5:5")]);
    let direct = subject.receive(&peer, Way::Udp(address("198.51.100.7:7")), &message);
    assert_eq!(direct, Err(Refused::DirectCall));
    assert_eq!(subject.receive(&peer, by_relay(&other), &message), Err(Refused::ForeignRelay));
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.receive(&peer, by_relay(&peer), &message), Ok(()));
    assert_eq!(subject.pinged(&peer).len(), 1);
}

#[test]
fn a_call_with_very_many_endpoints_causes_no_more_pings_than_a_peer_may() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    let flood = |round: u8| -> Vec<SocketAddr> {
        (0..3000u16).map(|port| SocketAddr::from(([10, round, 0, 1], port + 1))).collect()
    };
    subject.receive(&peer, by_relay(&peer), &call(&flood(0))).unwrap();
    assert_eq!(subject.pinged(&peer).len(), 32);
    let mut pings = 0;
    for round in 1..=100 {
        subject.receive(&peer, by_relay(&peer), &call(&flood(round))).unwrap();
        pings += subject.pinged(&peer).len();
        subject.pass(Duration::from_millis(100));
    }
    assert!((60..=96).contains(&pings), "32 more at once, then 32 in 5 s: {pings}");
    assert!(subject.paths.status(&peer.node, subject.now).unwrap().candidates.len() <= 32);
}

#[test]
fn addresses_where_no_peer_can_be_are_never_pinged() {
    let peer = Puppet::new(1);
    let refused = ["127.0.0.1:22", "0.0.0.0:1", "224.0.0.251:5353", "100.100.100.100:53", "169.254.169.254:80"];
    let mut subject = Subject::knowing(&[peer.config(&refused)]);
    subject.send(peer.node);
    subject.receive(&peer, by_relay(&peer), &call(&refused.map(address))).unwrap();
    assert_eq!(subject.pinged(&peer), []);
    subject.paths.handle_own_endpoints(&[address("127.0.0.1:9")], subject.now, &mut SystemEntropy);
    subject.sent();
    subject.receive(&peer, by_relay(&peer), &call(&refused.map(address))).unwrap();
    assert_eq!(subject.pinged(&peer).len(), 1, "a node that lives on loopback finds its peers there");
}

#[test]
fn a_call_is_answered_with_pings_and_with_no_call() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.receive(&peer, by_relay(&peer), &call(&[address("203.0.113.5:5")])).unwrap();
    let sent = subject.sent();
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|transmit| matches!(transmit.way, Way::Udp(_))));
}

#[test]
fn a_pong_that_nobody_waits_for_changes_nothing() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.send(peer.node);
    let pings = subject.pinged(&peer);
    let way = Way::Udp(address("203.0.113.1:1"));
    assert_eq!(subject.receive(&peer, way, &pong(TransactionId([0; 12]))), Err(Refused::StrayPong));
    assert_eq!(subject.receive(&peer, by_relay(&peer), &pong(pings[0].1)), Err(Refused::StrayPong));
    subject.pass(Duration::from_secs(5));
    assert_eq!(subject.receive(&peer, way, &pong(pings[0].1)), Err(Refused::StrayPong), "too late");
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(1)));
}

#[test]
fn where_wireguard_packets_come_from_does_not_move_the_path() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.prove(&peer, "203.0.113.1:1", 7);
    let elsewhere = address("198.51.100.66:6");
    for _ in 0..6 {
        subject.paths.handle_received(&peer.node, Via::Direct(elsewhere), subject.now, &mut SystemEntropy);
        assert_ne!(subject.paths.choice(&peer.node).direct(), Some(elsewhere));
        subject.pass(Duration::from_secs(1));
    }
    assert!(subject.pinged(&peer).iter().any(|(to, _)| *to == elsewhere), "it is asked whether it is the peer");
}

#[test]
fn trust_lasts_six_and_a_half_seconds_and_longer_while_packets_come() {
    let peer = Puppet::new(1);
    let direct = address("203.0.113.1:1");
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.receive(&peer, by_relay(&peer), &call(&[direct])).unwrap();
    let transaction = subject.pinged(&peer)[0].1;
    subject.receive(&peer, Way::Udp(direct), &pong(transaction)).unwrap();
    subject.pass(Duration::from_secs(4));
    subject.paths.handle_received(&peer.node, Via::Direct(direct), subject.now, &mut SystemEntropy);
    subject.pass(Duration::from_millis(6499));
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Direct(direct));
    subject.pass(Duration::from_millis(1));
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Both { direct, relay: region(1) });
    subject.paths.handle_received(&peer.node, Via::Direct(direct), subject.now, &mut SystemEntropy);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Both { direct, relay: region(1) });
}

#[test]
fn when_the_path_dies_another_that_just_proved_itself_takes_over() {
    let peer = Puppet::new(1);
    let (near, far) = (address("192.168.1.1:1"), address("203.0.113.1:1"));
    for far_lives in [true, false] {
        let mut subject = Subject::knowing(&[peer.config(&["192.168.1.1:1", "203.0.113.1:1"])]);
        subject.send(peer.node);
        for (to, transaction) in subject.pinged(&peer) {
            subject.now += Duration::from_millis(10);
            subject.receive(&peer, Way::Udp(to), &pong(transaction)).unwrap();
        }
        assert_eq!(subject.paths.choice(&peer.node), PathChoice::Direct(near));
        let cut = subject.now;
        while subject.paths.choice(&peer.node) == PathChoice::Direct(near) {
            subject.send(peer.node);
            subject.pass(Duration::from_millis(10));
        }
        assert_eq!(subject.paths.choice(&peer.node), PathChoice::Direct(far));
        let (_, transaction) = *subject.pinged(&peer).iter().rev().find(|(to, _)| *to == far).unwrap();
        if far_lives {
            subject.receive(&peer, Way::Udp(far), &pong(transaction)).unwrap();
        }
        while subject.now < cut + Duration::from_millis(2500) {
            subject.send(peer.node);
            subject.paths.handle_received(&peer.node, Via::Direct(far), subject.now, &mut SystemEntropy);
            subject.pass(Duration::from_millis(10));
        }
        let expected =
            if far_lives { PathChoice::Direct(far) } else { PathChoice::Both { direct: far, relay: region(1) } };
        assert_eq!(subject.paths.choice(&peer.node), expected);
    }
}

#[test]
fn a_user_who_pings_every_second_keeps_no_peer_from_being_called() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["192.0.2.1:1"])]);
    let mut calls = 0;
    for _ in 0..20 {
        subject.paths.ping(&peer.node, subject.now, &mut SystemEntropy).unwrap();
        let key = subject.paths.disco_key();
        let is_call = |sent: &Transmit| matches!(peer.open(sent, &key), Message::CallMeMaybe(_));
        calls += subject.sent().iter().filter(|sent| is_call(sent)).count();
        subject.pass(Duration::from_secs(1));
    }
    assert!((3..=5).contains(&calls), "{calls} calls");
}

#[test]
fn a_peer_of_unknown_endpoints_is_called_all_the_same() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    subject.send(peer.node);
    let sent = subject.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(peer.open(&sent[0], &subject.paths.disco_key()), call(&[address("192.0.2.9:9")]));
}

#[test]
fn a_path_that_died_loses_to_one_that_works_however_far() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["192.168.1.1:1"])]);
    subject.prove(&peer, "192.168.1.1:1", 6);
    for _ in 0..5 {
        subject.send(peer.node);
        subject.pass(Duration::from_millis(500));
    }
    assert!(matches!(subject.paths.choice(&peer.node), PathChoice::Both { .. }));
    subject.receive(&peer, by_relay(&peer), &call(&[address("203.0.113.1:1")])).unwrap();
    let pings = subject.pinged(&peer);
    let (to, transaction) =
        *pings.iter().rev().find(|(to, _)| to.port() == 1 && to.ip().to_string() == "203.0.113.1").unwrap();
    subject.now += Duration::from_millis(300);
    subject.receive(&peer, Way::Udp(to), &pong(transaction)).unwrap();
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Direct(to));
}

#[test]
fn signs_that_the_peer_lost_the_path_are_checked_at_once() {
    let peer = Puppet::new(1);
    let direct = address("203.0.113.1:1");
    type Sign = fn(&mut Subject, &Puppet);
    let signs: [(&str, Sign); 4] = [
        ("packets by relay", |subject, peer| {
            subject.paths.handle_received(&peer.node, Via::Relay(region(1)), subject.now, &mut SystemEntropy);
        }),
        ("a ping by relay", |subject, peer| {
            subject.receive(peer, by_relay(peer), &ping(Some(peer.node))).unwrap();
        }),
        ("a call", |subject, peer| {
            subject.receive(peer, by_relay(peer), &call(&[address("198.51.100.7:7")])).unwrap();
        }),
        ("packets from elsewhere", |subject, peer| {
            let elsewhere = Via::Direct(address("198.51.100.7:7"));
            subject.paths.handle_received(&peer.node, elsewhere, subject.now, &mut SystemEntropy);
        }),
    ];
    for (what, sign) in signs {
        let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
        subject.prove(&peer, "203.0.113.1:1", 7);
        sign(&mut subject, &peer);
        assert!(subject.pinged(&peer).iter().any(|(to, _)| *to == direct), "{what}");
        assert_eq!(subject.paths.choice(&peer.node), PathChoice::Direct(direct), "{what}");
        subject.pass(Duration::from_millis(250));
        assert_eq!(subject.paths.choice(&peer.node), PathChoice::Both { direct, relay: region(1) }, "{what}");
    }
}

#[test]
fn a_pong_to_a_ping_from_before_a_move_proves_nothing() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.send(peer.node);
    let (to, transaction) = subject.pinged(&peer)[0];
    subject.paths.handle_network_change(subject.now, &mut SystemEntropy);
    assert_eq!(subject.receive(&peer, Way::Udp(to), &pong(transaction)), Err(Refused::StrayPong));
}

#[test]
fn a_peer_that_answers_from_another_address_costs_no_checks() {
    let peer = Puppet::new(1);
    let (asked, answering) = (address("203.0.113.1:1"), address("203.0.113.1:2"));
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.prove(&peer, "203.0.113.1:1", 7);
    let mut checks = 0;
    for _ in 0..60 {
        subject.paths.handle_received(&peer.node, Via::Direct(answering), subject.now, &mut SystemEntropy);
        subject.send(peer.node);
        for (to, transaction) in subject.pinged(&peer) {
            checks += usize::from(to == asked);
            subject.receive(&peer, Way::Udp(to), &pong(transaction)).unwrap();
        }
        subject.pass(Duration::from_millis(500));
    }
    assert!(checks <= 20, "{checks} pings in 30 s");
}

#[test]
fn a_search_is_eager_again_after_a_pause_or_when_the_peer_calls() {
    let peer = Puppet::new(1);
    let listed = address("203.0.113.1:1");
    for calls in [false, true] {
        let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
        subject.pass_unanswered(&peer, 120);
        assert!(subject.pass_unanswered(&peer, 30)[&listed] <= 3);
        if calls {
            subject.receive(&peer, by_relay(&peer), &call(&[address("203.0.113.1:9")])).unwrap();
            subject.sent();
        } else {
            subject.pass(Duration::from_secs(60));
            subject.sent();
        }
        assert!(subject.pass_unanswered(&peer, 30)[&listed] >= 4);
    }
}

#[test]
fn a_path_that_was_in_doubt_when_the_session_fell_asleep_is_tried_again() {
    let peer = Puppet::new(1);
    let direct = address("203.0.113.1:1");
    let mut subject = Subject::knowing(&[peer.config(&["203.0.113.1:1"])]);
    subject.prove(&peer, "203.0.113.1:1", 7);
    subject.pass_alive(&peer, 10);
    subject.pass(Duration::from_secs(3));
    for (to, transaction) in subject.pinged(&peer) {
        subject.receive(&peer, Way::Udp(to), &pong(transaction)).unwrap();
    }
    // The last packet was sent 3.5 s ago; the doubt begins just before the session ends.
    while subject.paths.choice(&peer.node) == PathChoice::Direct(direct) {
        subject.pass(Duration::from_millis(500));
        let answered = subject.paths.status(&peer.node, subject.now + Duration::from_secs(3)).unwrap().active;
        for (to, transaction) in subject.pinged(&peer) {
            if answered {
                subject.receive(&peer, Way::Udp(to), &pong(transaction)).unwrap();
            }
        }
    }
    subject.pass(Duration::from_secs(60));
    subject.sent();
    subject.send(peer.node);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Both { direct, relay: region(1) });
    assert_eq!(subject.pinged(&peer).len(), 1);
}

#[test]
fn a_node_that_moved_does_not_search_for_all_its_peers_at_once() {
    let peers: Vec<Puppet> = (1..=200).map(Puppet::new).filter(|peer| peer.node != node(99)).collect();
    let configs: Vec<PeerConfig> = peers.iter().map(|peer| peer.config(&["203.0.113.1:1"])).collect();
    let mut subject = Subject::knowing(&configs);
    for peer in &peers {
        subject.send(peer.node);
    }
    subject.pass(Duration::from_secs(1));
    subject.sent();
    subject.paths.handle_network_change(subject.now, &mut SystemEntropy);
    subject.pass(Duration::from_millis(20));
    let at_once = subject.sent().len();
    assert!(at_once < 120, "{at_once} packets in 20 ms");
    subject.pass(Duration::from_millis(200));
    assert_eq!(at_once + subject.sent().len(), 2 * peers.len(), "a ping by UDP and one by relay to each");
}

#[test]
fn pings_from_one_address_are_returned_once_in_five_seconds() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    subject.send(peer.node);
    subject.sent();
    let mut returned = 0;
    for _ in 0..100 {
        subject.receive(&peer, Way::Udp(address("198.51.100.7:7")), &ping(Some(peer.node))).unwrap();
        returned += subject.pinged(&peer).len();
        subject.pass(Duration::from_millis(45));
    }
    assert_eq!(returned, 1);
}

#[test]
fn nodes_that_share_a_disco_key_are_told_apart() {
    let one = Puppet::new(1);
    let two = Puppet { node: node(2), key: one.key.clone() };
    let mut subject = Subject::knowing(&[one.config(&["203.0.113.1:1"]), two.config(&["203.0.113.2:1"])]);
    let source = Way::Udp(address("198.51.100.7:7"));
    subject.receive(&one, source, &ping(None)).unwrap();
    subject.receive(&one, source, &ping(Some(node(77)))).unwrap();
    assert_eq!(subject.sent().len(), 2, "whoever of the two it is, it gets its pongs");
    let knows = |subject: &Subject, of: &Puppet| {
        let status = subject.paths.status(&of.node, subject.now).unwrap();
        status.candidates.contains(&address("198.51.100.7:7"))
    };
    assert!(!knows(&subject, &one) && !knows(&subject, &two));
    subject.receive(&one, source, &ping(Some(two.node))).unwrap();
    assert!(!knows(&subject, &one) && knows(&subject, &two));
    subject.sent();
    subject.prove(&two, "203.0.113.2:1", 5);
    assert!(matches!(subject.paths.choice(&two.node), PathChoice::Direct(_)));
    assert!(matches!(subject.paths.choice(&one.node), PathChoice::Relay(_)));
    subject.paths.handle_peer_removed(&two.node, subject.now, &mut SystemEntropy);
    subject.receive(&one, source, &ping(None)).unwrap();
    assert!(knows(&subject, &one), "alone, it needs no node key");
}

#[test]
fn a_new_disco_key_ends_what_the_old_one_proved() {
    let (old, new) = (Puppet::new(1), Puppet::new(1));
    let mut subject = Subject::knowing(&[old.config(&["203.0.113.1:1"])]);
    subject.prove(&old, "203.0.113.1:1", 7);
    subject.events();
    subject.paths.handle_disco_key(&old.node, new.key.public(), subject.now, &mut SystemEntropy);
    assert_eq!(subject.paths.choice(&old.node), PathChoice::Relay(region(1)));
    assert_eq!(subject.pinged(&new).len(), 1);
    let refused = subject.receive(&old, Way::Udp(address("203.0.113.1:1")), &ping(None));
    assert_eq!(refused, Err(Refused::UnknownSender));
}

#[test]
fn a_peer_without_a_disco_key_is_reached_by_relay_and_not_pinged() {
    let peer = Puppet::new(1);
    let mut config = peer.config(&["203.0.113.1:1"]);
    config.disco = DiscoPublic::ZERO;
    let mut subject = Subject::knowing(&[config]);
    subject.send(peer.node);
    subject.pass(Duration::from_secs(10));
    assert_eq!(subject.sent(), []);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(1)));
}

#[test]
fn a_peer_that_speaks_only_wireguard_is_sent_to_its_endpoints_in_turn() {
    let peer = Puppet::new(1);
    let mut config = peer.config(&["203.0.113.1:1", "203.0.113.2:1"]);
    config.wireguard_only = true;
    let mut subject = Subject::knowing(&[config]);
    let choice = |subject: &Subject| subject.paths.choice(&peer.node).direct().unwrap().to_string();
    assert_eq!(choice(&subject), "203.0.113.1:1");
    for _ in 0..20 {
        subject.send(peer.node);
        let via = Via::Direct(address("203.0.113.1:1"));
        subject.paths.handle_received(&peer.node, via, subject.now, &mut SystemEntropy);
        subject.pass(Duration::from_millis(500));
    }
    assert_eq!(choice(&subject), "203.0.113.1:1");
    for _ in 0..11 {
        subject.send(peer.node);
        subject.pass(Duration::from_millis(500));
    }
    assert_eq!(choice(&subject), "203.0.113.2:1");
    assert_eq!(subject.sent(), []);
    let refused = subject.paths.ping(&peer.node, subject.now, &mut SystemEntropy);
    assert_eq!(refused, Err(PingRefused::NotDisco));
}

#[test]
fn a_user_is_told_why_a_ping_cannot_be_sent() {
    let peer = Puppet::new(1);
    let mut config = peer.config(&[]);
    config.home = None;
    let mut subject = Subject::knowing(&[config]);
    let ping = |subject: &mut Subject, to| subject.paths.ping(&to, subject.now, &mut SystemEntropy);
    assert_eq!(ping(&mut subject, node(5)), Err(PingRefused::UnknownPeer));
    assert_eq!(ping(&mut subject, peer.node), Err(PingRefused::NoWay));
    subject.paths.handle_peer(&peer.config(&[]), subject.now, &mut SystemEntropy);
    for _ in 0..16 {
        assert!(ping(&mut subject, peer.node).is_ok());
    }
    assert_eq!(ping(&mut subject, peer.node), Err(PingRefused::TooMany));
    subject.events();
    subject.paths.handle_peer_removed(&peer.node, subject.now, &mut SystemEntropy);
    assert_eq!(subject.events().len(), 16, "nobody waits for a peer that left");
}

#[test]
fn a_peer_is_answered_through_the_relay_it_was_heard_on_while_its_home_is_not_connected() {
    let peer = Puppet::new(1);
    let mut subject = Subject::knowing(&[peer.config(&[])]);
    let relay = |subject: &mut Subject, number, state| {
        subject.paths.handle_relay(region(number), state, subject.now, &mut SystemEntropy);
    };
    relay(&mut subject, 2, RelayState::Up);
    subject.paths.handle_received(&peer.node, Via::Relay(region(2)), subject.now, &mut SystemEntropy);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(2)));
    relay(&mut subject, 1, RelayState::Up);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(1)));
    relay(&mut subject, 1, RelayState::Closed);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(2)));
    relay(&mut subject, 2, RelayState::Closed);
    relay(&mut subject, 2, RelayState::Up);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(1)), "it was heard on another connection");
    subject.paths.handle_received(&peer.node, Via::Relay(region(2)), subject.now, &mut SystemEntropy);
    subject.paths.handle_peer_gone(&peer.node, region(2), subject.now, &mut SystemEntropy);
    assert_eq!(subject.paths.choice(&peer.node), PathChoice::Relay(region(1)));
}

#[test]
fn ten_thousand_idle_peers_need_no_timer_and_are_sent_nothing() {
    let mut subject = Subject { paths: Paths::new(node(99), &mut SystemEntropy), now: Instant::now() };
    for number in 0..10_000u16 {
        let mut key = [7; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        let config = PeerConfig {
            node: NodePublic::from_bytes(key),
            disco: DiscoPublic::from_bytes(SystemEntropy.bytes32()),
            home: Some(region(1)),
            endpoints: vec![SocketAddr::from(([10, 0, 0, 1], number.max(1)))],
            wireguard_only: false,
        };
        subject.paths.handle_peer(&config, subject.now, &mut SystemEntropy);
    }
    assert_eq!(subject.events().len(), 10_000, "each is told once where its packets go");
    subject.paths.handle_network_change(subject.now, &mut SystemEntropy);
    subject.paths.handle_relay(region(1), RelayState::Up, subject.now, &mut SystemEntropy);
    assert_eq!(subject.paths.poll_timeout(), None);
    assert_eq!((subject.sent().len(), subject.events().len()), (0, 0));
}
