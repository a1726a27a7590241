use std::collections::BTreeSet;

use roaring::RoaringBitmap;

use super::Compiled;
use crate::{NodeId, Party};

impl Compiled {
    /// The nodes that a node knows: those that a rule lets in to it, and those that a rule lets it in to.
    pub fn peers(&self, node: NodeId) -> BTreeSet<NodeId> {
        self.slot_of.get(&node).map(|slot| self.node_ids(&self.peer_slots(*slot))).unwrap_or_default()
    }

    /// Whether two nodes know each other.
    pub fn are_peers(&self, one: NodeId, other: NodeId) -> bool {
        match (self.slot_of.get(&one), self.slot_of.get(&other)) {
            (Some(one), Some(other)) => self.peer_slots(*one).contains(*other),
            _ => false,
        }
    }

    /// The rules by which two nodes know each other; empty exactly where they don't.
    pub(crate) fn rules_of_visibility(&self, one: &Party, other: &Party) -> Vec<usize> {
        let slot = |party: &Party| match party {
            Party::Node(id) => self.slot_of.get(id).copied(),
            _ => None,
        };
        let (Some(one), Some(other)) = (slot(one), slot(other)) else { return Vec::new() };
        let lets_in = |rule: &u32, from: u32| {
            let source = self.rules[*rule as usize].source;
            self.sources[source as usize].covers.contains(from)
        };
        let mut rules: Vec<usize> = Vec::new();
        for (from, to) in [(one, other), (other, one)] {
            rules.extend(self.rules_for(to).iter().filter(|rule| lets_in(rule, from)).map(|rule| rule as usize));
        }
        let user = |slot: u32| self.node_at(slot).and_then(|node| node.user());
        if user(one).is_some() && user(one) == user(other) {
            let own = self.own_rules.iter().filter(|rule| lets_in(rule, one) || lets_in(rule, other));
            rules.extend(own.map(|rule| rule as usize));
        }
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    pub(super) fn peer_slots(&self, slot: u32) -> RoaringBitmap {
        let mut peers = RoaringBitmap::new();
        let mut seen = BTreeSet::new();
        for rule in self.rules_for(slot) {
            let source = self.rules[rule as usize].source;
            if seen.insert(source) {
                peers |= &self.sources[source as usize].covers;
            }
        }
        let membership = &self.membership[slot as usize];
        for id in membership.named.iter().chain(&membership.routed) {
            for set in &self.aliases.entry(*id).source_sets {
                let set = &self.sources[*set as usize];
                if set.covers.contains(slot) {
                    peers |= &set.reach;
                }
            }
        }
        peers |= self.own_peers(slot);
        peers.remove(slot);
        peers
    }

    /// The devices of the same user, as far as rules about own devices reach.
    fn own_peers(&self, slot: u32) -> RoaringBitmap {
        let user = self.node_at(slot).and_then(|node| node.user());
        let Some(mine) = user.and_then(|user| self.by_user.get(&user)) else {
            return RoaringBitmap::new();
        };
        let mut peers = RoaringBitmap::new();
        for rule in &self.own_rules {
            let from = &self.sources[self.rules[rule as usize].source as usize].covers & mine;
            if from.contains(slot) {
                return mine.clone();
            }
            peers |= from;
        }
        peers
    }
}
