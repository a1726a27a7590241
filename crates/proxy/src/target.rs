use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kubeapi::TargetProblem;
use node::Mesh;

use crate::config::Target;

/// The network in which addresses behind a site stand: the site's number and the IPv4 address follow it.
const VIA: u128 = 0xfd7a_115c_a1e0_0b1a_0000_0000_0000_0000;

/// Why there is no way to a target now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Nowhere {
    /// There is no netmap yet.
    #[error("whether the tailnet has {0} is not known yet")]
    NotKnown(Target),
    /// The netmap has none.
    #[error("{}", missing(.0, .1))]
    Missing(Target, TargetProblem),
}

fn missing(target: &Target, problem: &TargetProblem) -> String {
    match (problem, target) {
        (TargetProblem::Unknown, Target::Name(name)) => {
            format!("the tailnet shows this proxy no {name}; is the name right, and does the policy let it see it?")
        }
        (TargetProblem::Unknown, Target::Address(address)) => format!(
            "no device that the tailnet shows this proxy has the address {address}; is it right, and does the policy let \
             the proxy see the device?"
        ),
        (TargetProblem::RoutesNotAccepted, target) => {
            format!("{target} is behind a router, and this proxy takes no routes (acceptRoutes)")
        }
        (TargetProblem::OtherFamily, target) => format!("{target} has no address of a family that this node has"),
    }
}

/// Where a target is now: its addresses, IPv4 first, each with a peer that packets for it go to. Names that are no node's
/// are asked of `records`, which knows those of MagicDNS.
pub(crate) fn locate(
    target: &Target,
    mesh: &Mesh,
    records: impl FnOnce(&str) -> Vec<IpAddr>,
) -> Result<Vec<IpAddr>, Nowhere> {
    let Some(netmap) = mesh.netmap() else { return Err(Nowhere::NotKnown(target.clone())) };
    let missing = |problem| Err(Nowhere::Missing(target.clone(), problem));
    let mut found = match target {
        Target::Address(address) => vec![*address],
        Target::Name(name) => {
            let name = name.as_str();
            // MagicDNS shows IPv4 addresses only, as a rule; packets know both.
            let node = netmap.peers().values().find(|peer| is_same(&peer.name, name));
            let mut named: Vec<IpAddr> = match node {
                Some(node) => node.addresses.iter().map(|network| network.addr()).collect(),
                None => records(name),
            };
            if named.is_empty() {
                named.extend(via(name, netmap.magic_dns_suffix()));
            }
            named
        }
    };
    let own = mesh.addresses();
    found.retain(|address| !own.contains(address) && mesh.router_toward(*address).is_some());
    if found.is_empty() {
        return missing(TargetProblem::Unknown);
    }
    found.retain(|address| mesh.peer_toward(*address).is_some());
    if found.is_empty() {
        return missing(TargetProblem::RoutesNotAccepted);
    }
    found.retain(|address| own.iter().any(|own| own.is_ipv4() == address.is_ipv4()));
    if found.is_empty() {
        return missing(TargetProblem::OtherFamily);
    }
    found.sort();
    Ok(found)
}

/// The address that `<a-b-c-d>-via-<site>` below the tailnet's suffix stands for.
fn via(name: &str, suffix: &str) -> Option<IpAddr> {
    let (label, rest) = name.split_once('.')?;
    if !is_same(rest, suffix) {
        return None;
    }
    let (address, site) = label.split_once("-via-")?;
    let address: Ipv4Addr = address.replace('-', ".").parse().ok()?;
    let site: u32 = site.parse().ok()?;
    Some(IpAddr::V6(Ipv6Addr::from_bits(VIA | u128::from(site) << 32 | u128::from(address.to_bits()))))
}

fn is_same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tailnet with robbinsdale, which has an address of each family, and a router to 10.7.0.0/16.
    fn mesh(own: &str, accepts_routes: bool) -> Mesh {
        let preferences = node::Preferences { route_all: accepts_routes, ..node::Preferences::default() };
        let now = "2026-01-01T12:00:00Z".parse().unwrap();
        let node = |id: u64, name: &str, addresses: &[&str], allowed: &[&str]| {
            serde_json::json!({
                "ID": id, "StableID": format!("n{id}"), "Name": format!("{name}.taila31de.ts.net."),
                "Key": format!("nodekey:{id:064x}"), "Addresses": addresses, "AllowedIPs": allowed,
            })
        };
        let robbinsdale = ["100.64.0.9/32", "fd7a:115c:a1e0::9/128"];
        let mut mesh = Mesh::new(preferences, now);
        let map = serde_json::json!({
            "Node": node(1, "proxy", &[own], &[own]),
            "Peers": [
                node(2, "robbinsdale", &robbinsdale, &robbinsdale),
                node(3, "router", &["100.64.0.3/32"], &["100.64.0.3/32", "10.7.0.0/16", "0.0.0.0/0"]),
            ],
        });
        mesh.handle_first_map(serde_json::from_value(map).unwrap(), now).unwrap();
        mesh
    }

    fn target(text: &str) -> Target {
        text.parse().map_or_else(|_| Target::Name(text.parse().unwrap()), Target::Address)
    }

    fn found(text: &str, mesh: &Mesh) -> Result<Vec<String>, TargetProblem> {
        match locate(&target(text), mesh, |_| Vec::new()) {
            Ok(addresses) => Ok(addresses.iter().map(IpAddr::to_string).collect()),
            Err(Nowhere::Missing(_, problem)) => Err(problem),
            Err(nowhere) => panic!("{nowhere}"),
        }
    }

    #[test]
    fn an_address_that_no_device_has_leads_nowhere() {
        let mesh = mesh("100.64.0.1/32", true);
        assert_eq!(found("100.64.0.9", &mesh), Ok(vec!["100.64.0.9".to_owned()]));
        assert_eq!(found("100.64.0.10", &mesh), Err(TargetProblem::Unknown));
        // Its own, and what only a way out to the internet holds.
        assert_eq!(found("100.64.0.1", &mesh), Err(TargetProblem::Unknown));
        assert_eq!(found("192.0.2.1", &mesh), Err(TargetProblem::Unknown));
    }

    #[test]
    fn what_is_behind_a_router_wants_routes_to_be_accepted() {
        assert_eq!(found("10.7.0.5", &mesh("100.64.0.1/32", true)), Ok(vec!["10.7.0.5".to_owned()]));
        assert_eq!(found("10.7.0.5", &mesh("100.64.0.1/32", false)), Err(TargetProblem::RoutesNotAccepted));
    }

    #[test]
    fn a_name_that_nobody_has_leads_nowhere_and_a_records_address_needs_a_device() {
        let mesh = mesh("100.64.0.1/32", false);
        assert_eq!(found("Robbinsdale.taila31de.ts.net", &mesh), Ok(vec!["100.64.0.9".to_owned()]));
        assert_eq!(found("robinsdale.taila31de.ts.net", &mesh), Err(TargetProblem::Unknown));
        let record = |address: &str| {
            let address: IpAddr = address.parse().unwrap();
            locate(&target("db.example.com"), &mesh, |_| vec![address]).is_ok()
        };
        assert!(record("100.64.0.9"));
        assert!(!record("100.64.0.10"));
    }

    #[test]
    fn a_target_of_another_family_than_the_proxys_is_told() {
        let mesh = mesh("100.64.0.1/32", false);
        assert_eq!(found("fd7a:115c:a1e0::9", &mesh), Err(TargetProblem::OtherFamily));
    }

    #[test]
    fn without_a_netmap_nothing_is_known() {
        let mesh = Mesh::new(node::Preferences::default(), "2026-01-01T12:00:00Z".parse().unwrap());
        let nowhere = locate(&target("100.64.0.9"), &mesh, |_| Vec::new()).unwrap_err();
        assert_eq!(nowhere.to_string(), "whether the tailnet has 100.64.0.9 is not known yet");
    }

    #[test]
    fn a_name_behind_a_site_is_an_address_of_it() {
        let expected: IpAddr = "fd7a:115c:a1e0:b1a:0:7:a01:203".parse().unwrap();
        assert_eq!(via("10-1-2-3-via-7.taila31de.ts.net", "taila31de.ts.net."), Some(expected));
        for other in
            ["10-1-2-3-via-7.other.ts.net", "10-1-2-3.taila31de.ts.net", "10-1-2-3-via-x.taila31de.ts.net", "via"]
        {
            assert_eq!(via(other, "taila31de.ts.net"), None, "{other}");
        }
    }
}
