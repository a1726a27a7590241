use std::net::IpAddr;
use std::sync::Arc;

use tailcfg::{CapMap, Node, UserProfile};

use crate::Mesh;

/// Who stands behind an address of the mesh, and what they may do here.
#[derive(Debug, Clone, PartialEq)]
pub struct Whois {
    /// The node.
    pub node: Arc<Node>,
    /// The user whose node it is; of a tagged node a profile that stands for no person.
    pub user: UserProfile,
    /// What the node's packets may ask of this node beyond being let in.
    pub capabilities: CapMap,
}

impl Mesh {
    /// Who has an address of the mesh: a peer, or the node itself.
    ///
    /// Only addresses of nodes have an identity, those of subnets behind them have none.
    pub fn whois(&self, address: IpAddr) -> Option<Whois> {
        let node = self.netmap()?.node_at(address)?.clone();
        self.whois_node(node, Some(address))
    }

    /// Who has a node key.
    pub fn whois_key(&self, key: &crypto::NodePublic) -> Option<Whois> {
        let netmap = self.netmap()?;
        let node = if netmap.node().key == *key { netmap.node() } else { netmap.peer_by_key(key)? };
        self.whois_node(node.clone(), None)
    }

    fn whois_node(&self, node: Arc<Node>, address: Option<IpAddr>) -> Option<Whois> {
        let user = self.netmap()?.users().get(&node.user).cloned().unwrap_or_default();
        let address = address.or_else(|| Some(node.addresses.first()?.addr()));
        let capabilities = address.map(|address| self.capabilities_of(address, &node)).unwrap_or_default();
        Some(Whois { node, user, capabilities })
    }

    /// What a node at an address may do, on this node's address of the same family.
    fn capabilities_of(&self, source: IpAddr, node: &Node) -> CapMap {
        let own = self.addresses().into_iter().find(|own| own.is_ipv4() == source.is_ipv4());
        let has = |name: &str| node.cap_map.has(name) || node.capabilities.iter().any(|known| known == name);
        own.map(|own| self.filter().capabilities(source, own, &has)).unwrap_or_default()
    }
}
