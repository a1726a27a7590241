use std::net::IpAddr;

use ipnet::IpNet;

use crate::exit_node::ExitNode;
use crate::names::{SERVICE_V4, SERVICE_V6};
use crate::view::accepted;
use crate::{Mesh, Preferences};

/// How many peer addresses get a route each before one route for all of the mesh's addresses takes their place.
const SINGLE_ROUTES: usize = 10_000;

/// What the machine's routes and firewall should be for the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// The interface's addresses, as /32 and /128.
    pub addresses: Vec<IpNet>,
    /// Destinations that lead into the mesh, default routes among them while an exit node is wanted.
    pub routes: Vec<IpNet>,
    /// Whether an exit node is wanted, so that both default routes lead into the mesh, whatever the exit node serves:
    /// what it can't carry is dropped, not sent around it.
    pub exit: bool,
    /// Whether the networks that the machine is on are reached directly all the same.
    pub lan_access: bool,
    /// The subnets that the node offers to others, default routes included.
    pub offered: Vec<IpNet>,
    /// Whether packets from the mesh to offered subnets get the machine's own address as their source.
    pub masquerade: bool,
    /// Whether packets from offered subnets may only answer.
    pub stateful: bool,
    /// How far the firewall is managed: 0 not, 1 without diverting, 2 wholly.
    pub netfilter_mode: i64,
    /// Whether packets that claim a mesh address and come from elsewhere are dropped.
    pub drop_foreign: bool,
}

impl Mesh {
    /// What the machine's routes and firewall should be now; nothing while there is no map.
    pub fn routing(&self) -> Routing {
        let Some(netmap) = self.netmap() else { return Routing::default() };
        let preferences = self.preferences();
        let exit = self.exit_node();
        let mut routes = vec![single(SERVICE_V4), single(SERVICE_V6)];
        let mut own = 0;
        for peer in netmap.peers().values().filter(|peer| self.is_usable(peer)) {
            own += peer.addresses.len();
            routes.extend(accepted(peer, preferences, false));
        }
        if own > SINGLE_ROUTES {
            routes.retain(|route| !crate::local::is_mesh_address(route.network()));
            routes
                .extend(["100.64.0.0/10", "fd7a:115c:a1e0::/48"].iter().filter_map(|text| text.parse::<IpNet>().ok()));
        }
        if exit != ExitNode::None {
            routes.extend(["0.0.0.0/0", "::/0"].iter().filter_map(|text| text.parse::<IpNet>().ok()));
        }
        routes.sort();
        routes.dedup();
        Routing {
            addresses: netmap.node().addresses.clone(),
            routes,
            exit: exit != ExitNode::None,
            lan_access: preferences.exit_node_allow_lan_access,
            offered: offered(preferences),
            masquerade: !preferences.no_snat,
            stateful: preferences.no_stateful_filtering == Some(false),
            netfilter_mode: preferences.netfilter_mode,
            drop_foreign: !netmap.node().cap_map.has("disable-linux-cgnat-drop-rule"),
        }
    }
}

fn offered(preferences: &Preferences) -> Vec<IpNet> {
    let mut offered = preferences.advertise_routes.clone();
    offered.sort();
    offered.dedup();
    offered
}

fn single(address: IpAddr) -> IpNet {
    IpNet::from(address)
}
