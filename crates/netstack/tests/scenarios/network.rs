//! A network of two stacks in virtual time: nothing sleeps, and a seed decides every loss.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use netstack::{Checksums, Config, Event, Stack};

pub(crate) const A: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1));
pub(crate) const B: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 64, 0, 2));
pub(crate) const A6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 1));
pub(crate) const B6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 2));

/// What the link does to packets; chances are in percent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) loss: u32,
    pub(crate) duplicates: u32,
    /// Whether super-packets cross as they are.
    pub(crate) offload: bool,
}

pub(crate) const CALM: Weather =
    Weather { delay: Duration::from_millis(10), jitter: Duration::ZERO, loss: 0, duplicates: 0, offload: true };

/// Which of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    A,
    B,
}

pub(crate) struct Network {
    pub(crate) a: Stack,
    pub(crate) b: Stack,
    pub(crate) weather: Weather,
    started: Instant,
    pub(crate) now: Instant,
    flying: BTreeMap<(Instant, u64), (End, Vec<u8>, Checksums)>,
    sent: u64,
    random: u64,
}

impl Network {
    pub(crate) fn new(weather: Weather, seed: u64) -> Self {
        Self::with(weather, seed, |config| config)
    }

    pub(crate) fn with(weather: Weather, seed: u64, change: impl Fn(Config) -> Config) -> Self {
        let now = Instant::now();
        let config = |addresses: [IpAddr; 2], seed| {
            let config = change(Config::new(addresses.to_vec(), seed));
            Config { offload: weather.offload, ..config }
        };
        Self {
            a: Stack::new(config([A, A6], seed), now),
            b: Stack::new(config([B, B6], seed ^ 0xb), now),
            weather,
            started: now,
            now,
            flying: BTreeMap::new(),
            sent: 0,
            random: seed,
        }
    }

    pub(crate) fn stack(&mut self, end: End) -> &mut Stack {
        match end {
            End::A => &mut self.a,
            End::B => &mut self.b,
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.started
    }

    /// Fetches what both ends want to send, then moves time to the next thing that happens; false when nothing will.
    pub(crate) fn step(&mut self) -> bool {
        self.fetch(End::A);
        self.fetch(End::B);
        let deadline = [self.a.poll_timeout(), self.b.poll_timeout()].into_iter().flatten().min();
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let Some(next) = [deadline, arrival].into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (to, packet, checksums) = entry.remove();
            let now = self.now;
            self.stack(to).handle_packet(&packet, checksums, now);
        }
        self.a.handle_timeout(self.now);
        self.b.handle_timeout(self.now);
        true
    }

    /// Steps until `end` has an event.
    pub(crate) fn event(&mut self, end: End) -> Event {
        loop {
            if let Some(event) = self.stack(end).poll_event() {
                return event;
            }
            // The last thing that happens may be that a packet is made.
            let last = !self.step();
            if last && let Some(event) = self.stack(end).poll_event() {
                return event;
            }
            assert!(!last, "nothing will ever happen");
            assert!(self.elapsed() < Duration::from_secs(3600), "an hour has passed");
        }
    }

    /// Steps until `end` has an event that `wanted` takes; the others are passed over.
    pub(crate) fn event_where<T>(&mut self, end: End, wanted: impl Fn(&Event) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(&self.event(end)) {
                return found;
            }
        }
    }

    /// Lets everything that is under way arrive.
    pub(crate) fn settle(&mut self, within: Duration) {
        let until = self.now + within;
        while self.now < until && self.step() {}
    }

    /// Everything that flies towards `end`, taken out of the air.
    pub(crate) fn caught(&mut self, end: End) -> Vec<Vec<u8>> {
        self.fetch(End::A);
        self.fetch(End::B);
        let flying = std::mem::take(&mut self.flying);
        flying.into_values().filter(|(to, ..)| *to == end).map(|(_, packet, _)| packet).collect()
    }

    pub(crate) fn chance(&mut self, percent: u32) -> bool {
        self.below(100) < u64::from(percent)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) % bound
    }

    fn fetch(&mut self, from: End) {
        let now = self.now;
        let to = if from == End::A { End::B } else { End::A };
        while let Some(transmit) = self.stack(from).poll_transmit(now) {
            let checksums = if transmit.segment.is_some() { Checksums::Verified } else { Checksums::ToVerify };
            if self.weather.offload && self.weather.loss == 0 {
                self.fly(to, transmit.packet, checksums);
                continue;
            }
            for packet in transmit.split() {
                self.fly(to, packet, Checksums::ToVerify);
            }
        }
    }

    fn fly(&mut self, to: End, packet: Vec<u8>, checksums: Checksums) {
        let weather = self.weather;
        let copies = if self.chance(weather.loss) { 0 } else { 1 + u32::from(self.chance(weather.duplicates)) };
        for _ in 0..copies {
            let jitter = match weather.jitter.as_micros() as u64 {
                0 => 0,
                most => self.below(most),
            };
            self.sent += 1;
            let at = self.now + weather.delay + Duration::from_micros(jitter);
            self.flying.insert((at, self.sent), (to, packet.clone(), checksums));
        }
    }
}

pub(crate) fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
