use std::collections::{BTreeMap, BTreeSet};

use filter::{PortRange, Protocol};
use roaring::RoaringBitmap;

use crate::Compiled;
use crate::policy::Effect;
use crate::ranges::{subtract, union};

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
        allowed.ports.values_mut().for_each(|ranges| *ranges = union(std::mem::take(ranges)));
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

/// How much there is to look at in rules.
pub(super) fn weight(rules: &RoaringBitmap, compiled: &Compiled) -> u64 {
    let of = |rule: u32| match &compiled.policy().rules()[rule as usize].effect {
        Effect::Ports(all) => all.iter().map(|ports| ports.ranges.len() as u64).sum::<u64>(),
        Effect::Capabilities(all) => {
            let values = all.0.iter().map(|(name, values)| {
                let values = values.iter().flatten().map(|value| value.as_str().len());
                (name.len() + values.sum::<usize>()) as u64 / 16
            });
            1 + values.sum::<u64>()
        }
    };
    rules.iter().map(of).sum()
}
