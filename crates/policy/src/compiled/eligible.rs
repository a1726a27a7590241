use std::collections::BTreeMap;
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::{Node, Policy};

/// Which nodes have a posture of the lists that rules ask for. Of a node every posture is looked at once, however many lists
/// name it.
#[derive(Clone, Debug, Default)]
pub(super) struct Eligible {
    postures: Vec<Arc<str>>,
    lists: BTreeMap<Vec<Arc<str>>, PostureList>,
}

#[derive(Clone, Debug)]
struct PostureList {
    /// The numbers of its postures.
    postures: Vec<usize>,
    nodes: RoaringBitmap,
}

impl Eligible {
    /// Adds a list, if it is new and asks for anything. Nodes are entered later.
    pub(super) fn add(&mut self, list: &[Arc<str>]) {
        if list.is_empty() || self.lists.contains_key(list) {
            return;
        }
        let mut number = |name: &Arc<str>| {
            self.postures.iter().position(|known| known == name).unwrap_or_else(|| {
                self.postures.push(name.clone());
                self.postures.len() - 1
            })
        };
        let postures = list.iter().map(&mut number).collect();
        self.lists.insert(list.to_vec(), PostureList { postures, nodes: RoaringBitmap::new() });
    }

    pub(super) fn enter(&mut self, slot: u32, node: &Node, policy: &Policy) {
        let held = self.held(node, policy);
        for list in self.lists.values_mut().filter(|list| list.is_met(&held)) {
            list.nodes.insert(slot);
        }
    }

    pub(super) fn withdraw(&mut self, slot: u32) {
        for list in self.lists.values_mut() {
            list.nodes.remove(slot);
        }
    }

    /// The nodes that have a posture of a list; `None` where it asks for none.
    pub(super) fn get(&self, list: &[Arc<str>]) -> Option<&RoaringBitmap> {
        self.lists.get(list).map(|list| &list.nodes)
    }

    /// For each list whether a node, which need not be in the tailnet, has a posture of it.
    pub(super) fn fulfilled(&self, node: &Node, policy: &Policy) -> Vec<bool> {
        let held = self.held(node, policy);
        self.lists.values().map(|list| list.is_met(&held)).collect()
    }

    fn held(&self, node: &Node, policy: &Policy) -> Vec<bool> {
        self.postures.iter().map(|name| policy.has_posture(name, node)).collect()
    }
}

impl PostureList {
    fn is_met(&self, held: &[bool]) -> bool {
        self.postures.iter().any(|posture| held[*posture])
    }
}
