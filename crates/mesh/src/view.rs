use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::{DiscoPublic, NodePublic};
use filter::Filter;
use ipnet::IpNet;
use path::RegionId;
use tailcfg::{DerpMap, Node, NodeId};

use crate::local::is_mesh_address;
use crate::state::addresses;
use crate::{Mesh, Preferences, Routes};

/// The largest packet that the node's interface takes, the least that IPv6 allows: it fits any path, wrapped.
const MTU: u16 = 1280;

/// What the data plane is shown of the network. It changes only as a whole: a thread that has loaded one sees peers,
/// routes and filter of the same netmap.
#[derive(Debug, Clone)]
pub struct View {
    /// The node's own addresses in the network, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The peers, by node key.
    pub peers: BTreeMap<NodePublic, PeerView>,
    /// Where a packet that leaves the node goes: longest prefix first, with only the routes that the node accepts and
    /// the exit node that it uses.
    pub routes: Routes,
    /// Which packets are let in.
    pub filter: Arc<Filter>,
    /// Whether only answers are let in (`ShieldsUp`).
    pub shields_up: bool,
    /// The relays; regions the node was told to leave out are not in it.
    pub relays: Arc<DerpMap>,
    /// The largest packet in bytes that the node's interface takes.
    pub mtu: u16,
}

/// One peer as the data plane sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its number in the netmap.
    pub id: NodeId,
    /// Its first name, for messages and logs.
    pub name: String,
    /// Its disco key; zero when it has told none yet, so that only the relay leads to it.
    pub disco: DiscoPublic,
    /// The relay region where it waits.
    pub home: Option<RegionId>,
    /// Where it said that it can be reached by UDP.
    pub endpoints: Vec<SocketAddr>,
    /// Its own addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The source addresses that its packets may carry: its own, and of the routes that it serves (`AllowedIPs`) those
    /// that the node accepts.
    pub allowed: Vec<IpNet>,
    /// Its node capabilities, for filter rules whose source is `cap:…`.
    pub capabilities: Arc<BTreeSet<String>>,
    /// Whether it may only answer (`IsJailed`).
    pub jailed: bool,
    /// Whether it speaks nothing but WireGuard (`IsWireGuardOnly`).
    pub wireguard_only: bool,
    /// The address as which this peer knows the node in IPv4, when not the node's own.
    pub masquerade_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub masquerade_v6: Option<IpAddr>,
}

impl Mesh {
    /// What the data plane is to be shown now; `None` while there is no map.
    pub fn view(&self) -> Option<View> {
        let netmap = self.netmap()?;
        let exit = self.exit_node();
        let mut peers = BTreeMap::new();
        let mut routes = Vec::new();
        for peer in netmap.peers().values().filter(|peer| self.is_usable(peer)) {
            let view = PeerView::of(peer, self.preferences(), exit.is(peer));
            routes.extend(view.allowed.iter().map(|prefix| (*prefix, peer.key)));
            peers.insert(peer.key, view);
        }
        Some(View {
            addresses: addresses(netmap.node()),
            peers,
            routes: Routes::new(routes),
            filter: self.filter().clone(),
            shields_up: self.preferences().shields_up,
            relays: netmap.relays().clone(),
            mtu: MTU,
        })
    }

    /// The peer that packets for an address are meant for: it has the address, or serves a route to it that this node
    /// accepts. Whether the peer is there at the moment is not asked.
    pub fn peer_toward(&self, address: IpAddr) -> Option<&Arc<Node>> {
        let netmap = self.netmap()?;
        let exit = self.exit_node();
        let own = netmap.node_at(address).filter(|node| node.id != netmap.node().id);
        own.or_else(|| {
            let leads = |peer: &&Arc<Node>| is_toward(peer, address, self.preferences(), exit.is(peer));
            netmap.peers().values().find(leads)
        })
    }

    /// The peer that serves a route to an address, which this node need not accept. A way to the whole internet counts
    /// only where this node uses it.
    pub fn router_toward(&self, address: IpAddr) -> Option<&Arc<Node>> {
        let serves = |peer: &&Arc<Node>| {
            peer.allowed_ips().iter().any(|prefix| prefix.prefix_len() > 0 && prefix.contains(&address))
        };
        self.peer_toward(address).or_else(|| self.netmap()?.peers().values().find(serves))
    }
}

impl PeerView {
    fn of(peer: &Node, preferences: &Preferences, is_exit: bool) -> Self {
        let capabilities = peer.cap_map.0.keys().chain(&peer.capabilities).cloned().collect();
        Self {
            id: peer.id,
            name: peer.name.split('.').next().unwrap_or_default().to_owned(),
            disco: peer.disco_key,
            home: peer.home_region().and_then(|region| RegionId::new(region.0)),
            endpoints: peer.endpoints.iter().copied().filter(|endpoint| endpoint.port() != 0).collect(),
            addresses: addresses(peer),
            allowed: accepted(peer, preferences, is_exit),
            capabilities: Arc::new(capabilities),
            jailed: peer.is_jailed,
            wireguard_only: peer.is_wireguard_only,
            masquerade_v4: peer.self_v4_masquerade.map(IpAddr::V4),
            masquerade_v6: peer.self_v6_masquerade.map(IpAddr::V6),
        }
    }
}

/// What of a peer's allowed prefixes the node uses: the peer's own addresses and those of services always, subnets when
/// routes are accepted, default routes when it is the exit node.
pub(crate) fn accepted(peer: &Node, preferences: &Preferences, is_exit: bool) -> Vec<IpNet> {
    let wanted = |prefix: &&IpNet| is_accepted(peer, prefix, preferences, is_exit);
    peer.allowed_ips().iter().filter(wanted).map(IpNet::trunc).collect()
}

fn is_accepted(peer: &Node, prefix: &IpNet, preferences: &Preferences, is_exit: bool) -> bool {
    let single = prefix.prefix_len() == prefix.max_prefix_len();
    match prefix.prefix_len() {
        0 => is_exit,
        _ if peer.addresses.contains(prefix) => true,
        _ if single && is_mesh_address(prefix.addr()) => true,
        _ => preferences.route_all,
    }
}

fn is_toward(peer: &Node, address: IpAddr, preferences: &Preferences, is_exit: bool) -> bool {
    let holds = |prefix: &IpNet| prefix.contains(&address) && is_accepted(peer, prefix, preferences, is_exit);
    peer.allowed_ips().iter().any(holds)
}
