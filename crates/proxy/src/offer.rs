use std::collections::BTreeSet;

use host::Forwarding;
use ipnet::IpNet;
use kubeapi::{OfferedRoutes, RouteStanding};
use node::Mesh;

use crate::rules::INTERFACE;

/// Of which families packets are forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Forwards {
    pub(crate) v4: bool,
    pub(crate) v6: bool,
}

impl Forwards {
    /// What holds in user space, where the kernel has no part in it.
    pub(crate) const ALL: Self = Self { v4: true, v6: true };

    /// Asks the kernel; where it does not answer, what it forwards is taken to be all.
    pub(crate) fn of_kernel() -> Self {
        let Ok(mut forwarding) = Forwarding::new() else { return Self::ALL };
        let v4 = forwarding.ipv4().map_or(true, |interfaces| both_ways(&interfaces));
        Self { v4, v6: forwarding.ipv6().unwrap_or(false) }
    }
}

/// Whether packets pass from the tailnet's interface to another one and back. Before the node has made its interface
/// there is nothing to say against it.
fn both_ways(interfaces: &[(String, bool)]) -> bool {
    let (own, others): (Vec<_>, Vec<_>) = interfaces.iter().partition(|(name, _)| name == INTERFACE);
    own.iter().all(|(_, on)| *on) && (own.is_empty() || others.iter().any(|(_, on)| *on))
}

/// What becomes of the routes that a node offers; nothing before it has a netmap.
///
/// A route is approved when the node's own entry in its map names it: as what it may serve, which of several nodes that
/// offer the same all are told, or as what it serves now.
pub(crate) fn look(mesh: &Mesh, forwards: Forwards) -> Option<OfferedRoutes> {
    let node = mesh.netmap()?.node();
    let told: BTreeSet<&IpNet> = node.allowed_ips.iter().flatten().chain(&node.primary_routes).collect();
    let standing = |route: IpNet| match route {
        IpNet::V4(_) if !forwards.v4 => RouteStanding::NotForwarded,
        IpNet::V6(_) if !forwards.v6 => RouteStanding::NotForwarded,
        _ if told.contains(&route) => RouteStanding::Served,
        _ => RouteStanding::NotApproved,
    };
    let offered = mesh.preferences().advertise_routes.iter().map(IpNet::trunc);
    Some(OfferedRoutes(offered.map(|route| (route, standing(route))).collect()))
}

/// Why the pod can't do its work, whoever approves its routes.
pub(crate) fn hindrance(offered: &OfferedRoutes) -> Result<(), String> {
    let all: Vec<IpNet> = offered.0.keys().copied().collect();
    let stuck = offered.unserved(&all).into_iter().filter(|(_, why)| *why == Some(RouteStanding::NotForwarded));
    let stuck: Vec<String> = stuck.map(|(route, _)| route.to_string()).collect();
    if stuck.is_empty() { Ok(()) } else { Err(format!("the kernel forwards no packets to {}", stuck.join(", "))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that offers an exit to the internet and two networks.
    fn mesh(allowed: &[&str], primary: &[&str]) -> Mesh {
        let advertise_routes =
            ["10.0.0.0/16", "10.1.0.0/16", "0.0.0.0/0", "::/0"].map(|route| route.parse().unwrap()).to_vec();
        let preferences = node::Preferences { advertise_routes, ..node::Preferences::default() };
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let mut mesh = Mesh::new(preferences, now);
        let own = ["100.64.0.1/32"];
        let told = [&own[..], allowed].concat();
        let map = serde_json::json!({
            "Node": {
                "ID": 1, "StableID": "n1", "Name": "lab.taila31de.ts.net.", "Key": format!("nodekey:{:064x}", 1),
                "Addresses": own, "AllowedIPs": told, "PrimaryRoutes": primary,
            },
            "Peers": [],
        });
        mesh.handle_first_map(serde_json::from_value(map).unwrap(), now).unwrap();
        mesh
    }

    fn standings(mesh: &Mesh, forwards: Forwards) -> Vec<(String, RouteStanding)> {
        look(mesh, forwards).unwrap().0.into_iter().map(|(route, standing)| (route.to_string(), standing)).collect()
    }

    #[test]
    fn a_route_is_served_as_soon_as_the_nodes_own_entry_names_it() {
        let of = |mesh: &Mesh| {
            let served = standings(mesh, Forwards::ALL).into_iter().filter(|(_, one)| *one == RouteStanding::Served);
            served.map(|(route, _)| route).collect::<Vec<_>>()
        };
        assert_eq!(of(&mesh(&[], &[])), Vec::<String>::new());
        // A standby's route is approved and not primary.
        assert_eq!(of(&mesh(&["10.0.0.0/16"], &[])), ["10.0.0.0/16"]);
        assert_eq!(of(&mesh(&["0.0.0.0/0", "::/0"], &["10.1.0.0/16"])), ["0.0.0.0/0", "10.1.0.0/16", "::/0"]);
    }

    #[test]
    fn a_wider_route_that_is_approved_is_another_one() {
        let found = standings(&mesh(&["10.0.0.0/8"], &[]), Forwards::ALL);
        assert!(found.iter().all(|(_, standing)| *standing == RouteStanding::NotApproved), "{found:?}");
    }

    #[test]
    fn what_the_kernel_does_not_forward_hinders_the_pod_but_for_the_exit_by_ipv6() {
        let all = ["10.0.0.0/16", "10.1.0.0/16", "0.0.0.0/0", "::/0"];
        let of = |allowed: &[&str], v4, v6| hindrance(&look(&mesh(allowed, &[]), Forwards { v4, v6 }).unwrap());
        assert_eq!(of(&all, true, true), Ok(()));
        assert_eq!(of(&all, true, false), Ok(()));
        assert_eq!(of(&[], true, false), Ok(()));
        let said = of(&all, false, true).unwrap_err();
        assert_eq!(said, "the kernel forwards no packets to 0.0.0.0/0, 10.0.0.0/16, 10.1.0.0/16");
        // That nobody has approved them is not the pod's fault.
        assert_eq!(of(&[], true, true), Ok(()));
    }

    #[test]
    fn packets_pass_when_the_tailnets_interface_and_another_one_forward() {
        let of = |all: &[(&str, bool)]| {
            both_ways(&all.iter().map(|(name, on)| ((*name).to_owned(), *on)).collect::<Vec<_>>())
        };
        assert!(of(&[("eth0", true), ("tailscale0", true), ("tunl0", false)]));
        assert!(!of(&[("eth0", true), ("tailscale0", false)]));
        assert!(!of(&[("eth0", false), ("tailscale0", true)]));
        assert!(of(&[("eth0", false)]), "the node has made no interface yet");
    }

    #[test]
    fn without_a_netmap_nothing_is_known() {
        let mesh = Mesh::new(node::Preferences::default(), "2026-01-01T12:00:00Z".parse().unwrap());
        assert_eq!(look(&mesh, Forwards::ALL), None);
    }
}
