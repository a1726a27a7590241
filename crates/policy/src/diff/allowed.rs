use std::collections::{BTreeMap, BTreeSet};

use filter::{PortRange, Protocol};
use roaring::RoaringBitmap;

use crate::Compiled;
use crate::policy::Effect;

/// How many ranges of ports are told of one pair.
const MOST_RANGES: usize = 50;

/// Ports by protocol and capabilities by name, as far as a pair of parties has them.
#[derive(Default)]
pub(super) struct Allowed {
    ports: BTreeMap<Protocol, Vec<PortRange>>,
    capabilities: BTreeSet<String>,
}

impl Allowed {
    /// What some rules of a policy give together.
    pub(super) fn by(rules: &RoaringBitmap, compiled: &Compiled) -> Self {
        let mut allowed = Self::default();
        for rule in rules {
            allowed.add(&compiled.policy().rules()[rule as usize].effect);
        }
        allowed.ports.values_mut().for_each(join);
        allowed
    }

    fn add(&mut self, effect: &Effect) {
        match effect {
            Effect::Ports(all) => {
                for ports in all {
                    let named = ports.protocol.map_or(vec![Protocol::TCP, Protocol::UDP], |named| vec![named]);
                    for protocol in named {
                        self.ports.entry(protocol).or_default().extend(&ports.ranges);
                    }
                }
            }
            Effect::Capabilities(all) => {
                for (name, values) in &all.0 {
                    match values.as_deref().unwrap_or_default() {
                        [] => self.capabilities.extend([name.clone()]),
                        values => {
                            let words = values.iter().map(|value| format!("{name} {}", value.as_str()));
                            self.capabilities.extend(words);
                        }
                    }
                }
            }
        }
    }

    /// What of this isn't in the other, in words.
    pub(super) fn without(&self, other: &Self) -> Vec<String> {
        let mut words = Vec::new();
        let mut left: BTreeMap<Vec<PortRange>, Vec<Protocol>> = BTreeMap::new();
        for (protocol, ranges) in &self.ports {
            let more = subtract(ranges, other.ports.get(protocol).map(Vec::as_slice).unwrap_or_default());
            if !more.is_empty() {
                left.entry(more).or_default().push(*protocol);
            }
        }
        for (ranges, protocols) in left {
            let mut ports: Vec<String> = ranges.iter().take(MOST_RANGES).map(PortRange::to_string).collect();
            if ranges.len() > MOST_RANGES {
                ports.push(format!("and {} more", ranges.len() - MOST_RANGES));
            }
            let ports = ports.join(",");
            match protocols.as_slice() {
                [Protocol::TCP, Protocol::UDP] => words.push(ports),
                _ => words.extend(protocols.iter().map(|protocol| format!("{protocol}:{ports}"))),
            }
        }
        words.extend(self.capabilities.difference(&other.capabilities).cloned());
        words
    }
}

/// Sorts ranges and joins those that touch.
fn join(ranges: &mut Vec<PortRange>) {
    ranges.sort();
    let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges.iter() {
        match joined.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => last.last = last.last.max(range.last),
            _ => joined.push(*range),
        }
    }
    *ranges = joined;
}

/// What is left of ranges without others; both are disjoint and ascending.
fn subtract(from: &[PortRange], holes: &[PortRange]) -> Vec<PortRange> {
    let mut left = Vec::new();
    let mut next = 0;
    for range in from {
        while holes.get(next).is_some_and(|hole| hole.last < range.first) {
            next += 1;
        }
        // The part of the range that no hole was cut into yet.
        let mut rest = Some(*range);
        for hole in &holes[next..] {
            let Some(part) = rest.filter(|part| part.last >= hole.first) else { break };
            left.extend((part.first < hole.first).then(|| PortRange { last: hole.first - 1, ..part }));
            rest = (part.last > hole.last).then(|| PortRange { first: hole.last + 1, ..part });
        }
        left.extend(rest);
    }
    left
}
