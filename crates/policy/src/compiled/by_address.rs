//! Who has which address, in an index that is made when somebody first asks.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::OnceLock;

use super::Compiled;
use crate::{Node, NodeId};

/// The slot of each address. It follows from the rest of a [`Compiled`], so that none of it is printed.
#[derive(Clone, Default)]
pub(super) struct ByAddress(OnceLock<HashMap<IpAddr, u32>>);

impl fmt::Debug for ByAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ByAddress")
    }
}

impl ByAddress {
    /// Forgets what was true of the topology before a change.
    pub(super) fn forget(&mut self) {
        self.0.take();
    }
}

impl Compiled {
    /// The node that has an address; of several the one with the lowest number.
    pub(crate) fn node_by_address(&self, address: IpAddr) -> Option<(NodeId, &Node)> {
        let index = self.at_address.0.get_or_init(|| {
            let mut index = HashMap::new();
            for (id, node) in &self.topology.nodes {
                let Some(slot) = self.slot_of.get(id) else { continue };
                for address in &node.addresses {
                    index.entry(*address).or_insert(*slot);
                }
            }
            index
        });
        let id = self.slots[*index.get(&address)? as usize]?;
        self.topology.nodes.get(&id).map(|node| (id, node))
    }
}
