//! Two nodes over a link that loses, reorders and repeats, and nodes that restart: in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::{Entropy, NodePrivate};
use proptest::prelude::*;

use crate::link::{alices_address, bobs_address};
use crate::node::{Clock, Node, Seeded};

/// How bad the link is, in percent, and how late what arrives may be.
#[derive(Debug, Clone)]
struct Weather {
    loss: u64,
    repeat: u64,
    delay_ms: u64,
}

/// What happens, each some milliseconds after the one before.
#[derive(Debug, Clone)]
enum Step {
    Send { by_alice: bool, count: u8 },
    Restart { alice: bool },
    Weather(Weather),
    Wait,
}

fn weather() -> impl Strategy<Value = Weather> {
    let loss = prop_oneof![4 => 0u64..30, 1 => 30u64..90, 1 => Just(100u64)];
    (loss, 0u64..40, 1u64..2500).prop_map(|(loss, repeat, delay_ms)| Weather { loss, repeat, delay_ms })
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        12 => (any::<bool>(), 1u8..40).prop_map(|(by_alice, count)| Step::Send { by_alice, count }),
        1 => any::<bool>().prop_map(|alice| Step::Restart { alice }),
        2 => weather().prop_map(Step::Weather),
        2 => Just(Step::Wait),
    ];
    let pause = prop_oneof![6 => 0u64..2000, 2 => 2000u64..20_000, 1 => 20_000u64..200_000];
    proptest::collection::vec((pause, step), 1..80)
}

struct World {
    clock: Clock,
    nodes: [Node; 2],
    seeds: [u64; 2],
    weather: Weather,
    chance: Seeded,
    /// Datagrams on their way: when, to whom, which.
    air: BTreeMap<(Duration, u64), (usize, Vec<u8>)>,
    sequence: u64,
    sent: BTreeSet<u64>,
    /// Of nodes before a restart.
    delivered: Vec<Vec<u8>>,
    nonces: [BTreeSet<(u32, u64)>; 2],
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        let clock = Clock::start();
        let seeds = [1, 2];
        Self {
            nodes: seeds.map(|seed| Node::new(seed, &clock)),
            clock,
            seeds,
            weather,
            chance: Seeded(seed),
            air: BTreeMap::new(),
            sequence: 0,
            sent: BTreeSet::new(),
            delivered: Vec::new(),
            nonces: Default::default(),
        }
    }

    fn send(&mut self, from: usize) {
        self.sequence += 1;
        self.sent.insert(self.sequence);
        let to = self.nodes[1 - from].public;
        let mut packet = vec![0; 16 + self.chance.below(200) as usize];
        packet[..8].copy_from_slice(&self.sequence.to_be_bytes());
        self.nodes[from].send(&to, &packet, &self.clock);
        self.launch();
    }

    /// The process is another with the same key: its sessions are gone, its clock is not.
    fn restart(&mut self, which: usize) {
        self.seeds[which] += 1000;
        let private = NodePrivate::generate(&mut Seeded(which as u64 + 1));
        let node = Node::with_key(private, self.seeds[which], &self.clock);
        let old = std::mem::replace(&mut self.nodes[which], node);
        self.delivered.extend(old.delivered);
    }

    /// Puts what the nodes have to say into the air, and asserts that no nonce comes twice.
    fn launch(&mut self) {
        for from in 0..2 {
            for datagram in self.nodes[from].take_out() {
                if let Ok(header) = packet::wireguard::TransportHeader::parse(&datagram) {
                    assert!(self.nonces[from].insert((header.receiver, header.counter)), "a nonce was used twice");
                }
                let copies = 1 + u64::from(self.chance.below(100) < self.weather.repeat);
                for _ in 0..copies {
                    if self.chance.below(100) >= self.weather.loss {
                        let delay = Duration::from_millis(self.chance.below(self.weather.delay_ms) + 1);
                        self.sequence += 1;
                        self.air.insert((self.clock.elapsed + delay, self.sequence), (1 - from, datagram.clone()));
                    }
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.clock.elapsed + time;
        loop {
            let arrival = self.air.first_key_value().map(|((at, _), _)| *at);
            let timers = self.nodes.iter().filter_map(|node| node.interface.poll_timeout());
            let timer = timers.min().map(|at| self.clock.elapsed + self.clock.until(at));
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|at| *at <= end) else { break };
            self.clock.elapsed = next;
            while let Some(entry) = self.air.first_entry().filter(|entry| entry.key().0 <= next) {
                let (to, datagram) = entry.remove();
                let from = if to == 0 { bobs_address() } else { alices_address() };
                self.nodes[to].receive(from, &datagram, &self.clock);
            }
            for node in &mut self.nodes {
                if node.interface.poll_timeout().is_some_and(|at| at <= self.clock.now()) {
                    node.timeout(&self.clock);
                    let again = node.interface.poll_timeout();
                    assert!(again.is_none_or(|at| at > self.clock.now()), "a timer that is never satisfied");
                }
            }
            self.launch();
        }
        self.clock.elapsed = end;
    }

    fn numbers(&self) -> Vec<u64> {
        let all = self.delivered.iter().chain(self.nodes.iter().flat_map(|node| &node.delivered));
        all.map(|packet| u64::from_be_bytes(packet[..8].try_into().expect("eight bytes were cut"))).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 192 } else { 4096 }))]

    #[test]
    fn everything_arrives_at_most_once_and_the_tunnel_always_comes_back(
        seed in any::<u64>(), first in weather(), steps in steps(),
    ) {
        let mut world = World::new(seed, first);
        for (pause, step) in steps {
            world.run(Duration::from_millis(pause));
            match step {
                Step::Send { by_alice, count } => (0..count).for_each(|_| world.send(usize::from(!by_alice))),
                Step::Restart { alice } => world.restart(usize::from(!alice)),
                Step::Weather(weather) => world.weather = weather,
                Step::Wait => {}
            }
            for node in &world.nodes {
                prop_assert!(node.receive.len() <= 3, "three sessions at most");
            }
        }
        let numbers = world.numbers();
        let distinct: BTreeSet<_> = numbers.iter().copied().collect();
        prop_assert_eq!(distinct.len(), numbers.len(), "a packet was delivered twice");
        prop_assert!(distinct.is_subset(&world.sent), "a packet came from nowhere");

        // The sky clears. Whatever was lost, both directions work within the time that silence takes to be noticed.
        world.weather = Weather { loss: 0, repeat: 0, delay_ms: 50 };
        for _ in 0..30 {
            (0..2).for_each(|from| world.send(from));
            world.run(Duration::from_secs(1));
        }
        let before = world.numbers().len();
        for _ in 0..10 {
            (0..2).for_each(|from| world.send(from));
        }
        world.run(Duration::from_secs(1));
        prop_assert_eq!(world.numbers().len() - before, 20);
        prop_assert!(world.nodes.iter().all(|node| node.send.len() == 1));
    }
}
