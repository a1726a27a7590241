//! Two nodes on a wire, driven by their own timers.

use std::time::Duration;

use crypto::NodePublic;
use wireguard::Source;

use crate::node::{Clock, Node, Seen, source};

pub(crate) struct Pair {
    pub(crate) clock: Clock,
    pub(crate) alice: Node,
    pub(crate) bob: Node,
    /// Whether what is sent arrives.
    pub(crate) connected: bool,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let clock = Clock::start();
        Self { alice: Node::new(1, &clock), bob: Node::new(2, &clock), clock, connected: true }
    }

    /// Alice and Bob with a session that Alice began.
    pub(crate) fn established() -> Self {
        let mut pair = Self::new();
        pair.alice_sends(b"first");
        assert_eq!(pair.bob.delivered.len(), 1);
        pair.run(1.0);
        pair.bob.delivered.clear();
        pair.alice.events.clear();
        pair.bob.events.clear();
        pair
    }

    pub(crate) fn alice_sends(&mut self, packet: &[u8]) {
        self.alice.send(&self.bob.public, packet, &self.clock);
        self.exchange();
    }

    pub(crate) fn bob_sends(&mut self, packet: &[u8]) {
        self.bob.send(&self.alice.public, packet, &self.clock);
        self.exchange();
    }

    /// Lets messages cross until there are none.
    pub(crate) fn exchange(&mut self) {
        loop {
            let (from_alice, from_bob) = (self.alice.take_out(), self.bob.take_out());
            if from_alice.is_empty() && from_bob.is_empty() {
                return;
            }
            if self.connected {
                from_alice.iter().for_each(|datagram| self.bob.receive(alices_address(), datagram, &self.clock));
                from_bob.iter().for_each(|datagram| self.alice.receive(bobs_address(), datagram, &self.clock));
            }
        }
    }

    /// Lets time pass, stopping wherever a timer asks for it.
    pub(crate) fn run(&mut self, seconds: f64) {
        let end = self.clock.elapsed + Duration::from_secs_f64(seconds);
        for _ in 0..10_000 {
            let next = [&self.alice, &self.bob].iter().filter_map(|node| node.interface.poll_timeout()).min();
            let step = next.map(|next| self.clock.elapsed + self.clock.until(next)).filter(|at| *at <= end);
            self.clock.elapsed = step.unwrap_or(end);
            self.alice.timeout(&self.clock);
            self.bob.timeout(&self.clock);
            self.exchange();
            if step.is_none() {
                return;
            }
        }
        panic!("timers ask for one and the same moment for ever");
    }

    /// The keys of both, for looking at either node's view of the other.
    pub(crate) fn keys(&self) -> (NodePublic, NodePublic) {
        (self.alice.public, self.bob.public)
    }

    /// Initiations that both have sent.
    pub(crate) fn initiations(&self) -> usize {
        [&self.alice, &self.bob]
            .iter()
            .flat_map(|node| &node.events)
            .filter(|(_, seen)| matches!(seen, Seen::Started(_)))
            .count()
    }
}

pub(crate) fn alices_address() -> Source {
    source("192.0.2.1:41641")
}

pub(crate) fn bobs_address() -> Source {
    source("198.51.100.2:41641")
}
