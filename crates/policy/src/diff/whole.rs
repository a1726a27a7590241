use std::collections::{BTreeMap, HashSet};

use roaring::RoaringBitmap;

use super::allowed::{Allowed, weight};
use super::found::Found;
use super::{Comparison, Reach};
use crate::words::listed;

/// How many rules and ranges of ports are looked at.
const MOST_WORK: u64 = 20_000_000;

/// The rules of both policies that have the same sources and destinations.
type Alike = [RoaringBitmap; 2];

impl Comparison<'_> {
    /// Tells rules as they stand: what those with the same sources and destinations give now, and gave before.
    pub(super) fn tell_whole(&self, whole: [RoaringBitmap; 2], found: &mut Found) {
        let mut left = MOST_WORK;
        for alike in self.alike(&whole) {
            found.cut_short = true;
            let weights = [0, 1].map(|at: usize| weight(&alike[at], self.compiled[at]));
            let Some(rest) = left.checked_sub(weights[0].saturating_add(weights[1])) else {
                self.tell_unread(&alike, found);
                continue;
            };
            left = rest;
            let allowed = [0, 1].map(|at: usize| Allowed::by(&alike[at], self.compiled[at]));
            for at in [1, 0] {
                for what in allowed[at].without(&allowed[1 - at]) {
                    self.tell_rule_of(at, &alike, &what, found);
                }
            }
        }
    }

    /// The rules that have the same sources and destinations as some.
    fn alike(&self, whole: &[RoaringBitmap; 2]) -> Vec<Alike> {
        let sides = whole.iter().zip(&self.meanings);
        let wanted: HashSet<(u32, u32)> =
            sides.flat_map(|(rules, meanings)| rules.iter().map(|rule| meanings.sides[rule as usize])).collect();
        let mut alike: BTreeMap<(u32, u32), Alike> = BTreeMap::new();
        for (at, meanings) in self.meanings.iter().enumerate() {
            for (sides, rule) in meanings.sides.iter().zip(0..).filter(|(sides, _)| wanted.contains(sides)) {
                alike.entry(*sides).or_default()[at].insert(rule);
            }
        }
        alike.into_values().collect()
    }

    /// Tells that rules differ which are too large to tell how.
    fn tell_unread(&self, alike: &Alike, found: &mut Found) {
        for at in [1, 0] {
            if !alike[at].is_disjoint(&self.changed[at]) {
                self.tell_rule_of(at, alike, "more than is compared", found);
            }
        }
    }

    fn tell_rule_of(&self, at: usize, alike: &Alike, what: &str, found: &mut Found) {
        let first = (&alike[at] & &self.changed[at]).min().or(alike[at].min());
        let Some(first) = first else { return };
        let rule = &self.compiled[at].policy().rules()[first as usize];
        let reach = Reach {
            source: listed(&*rule.sources),
            destination: listed(&rule.destinations),
            what: format!("{what}, line {}", rule.origin.position.line),
        };
        found.tells_whole(reach, at == 1);
    }
}
