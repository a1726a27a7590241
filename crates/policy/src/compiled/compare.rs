//! Two compilations side by side: who has to hear that one takes the place of the other.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::ssh::ComparedShare;
use super::{Affected, Compiled, Pair};
use crate::NodeId;

impl Compiled {
    /// What differs for nodes between two compilations that have the same slots.
    pub(super) fn compare(&self, next: &Self) -> Affected {
        let mut affected = Affected::default();
        let mut shares: HashMap<ComparedShare, bool> = HashMap::new();
        // By the entries for a node: what they give is the same for all that have the same.
        let mut attributes: HashMap<[Vec<u32>; 2], bool> = HashMap::new();
        for (slot, id) in self.slots.iter().enumerate().filter_map(|(slot, id)| Some((slot as u32, (*id)?))) {
            if self.filter(id) != next.filter(id) {
                affected.filters.insert(id);
            }
            if self.ssh_differs(next, slot, &mut shares) {
                affected.ssh.insert(id);
            }
            let entries = [self, next].map(|compiled| compiled.attribute_entries(slot).into_iter().collect());
            let others = *attributes.entry(entries).or_insert_with(|| self.attributes(id) != next.attributes(id));
            if others || self.routes_differ(next, slot, id) {
                affected.nodes.insert(id);
            }
            let (before, after) = (self.peer_slots(slot), next.peer_slots(slot));
            let pairs = |slots: RoaringBitmap| {
                slots.iter().filter_map(|peer| Some(Pair::new(id, self.slots[peer as usize]?))).collect::<Vec<_>>()
            };
            affected.met.extend(pairs(&after - &before));
            affected.parted.extend(pairs(&before - &after));
        }
        affected
    }

    /// Whether a router's routes go to other viewers.
    fn routes_differ(&self, next: &Self, slot: u32, id: NodeId) -> bool {
        let Some(node) = self.node_at(slot) else { return false };
        if node.subnets().next().is_none() && !node.is_exit() {
            return false;
        }
        let viewers = self.peer_slots(slot) & next.peer_slots(slot);
        viewers
            .iter()
            .filter_map(|viewer| self.slots[viewer as usize])
            .any(|viewer| self.allowed_ips(viewer, id) != next.allowed_ips(viewer, id))
    }
}
