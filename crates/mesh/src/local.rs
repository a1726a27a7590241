use std::net::IpAddr;

use filter::{AddressRange, Local};
use ipnet::IpNet;
use tailcfg::{Node, cap};

use crate::Preferences;

/// The addresses that the mesh gives to nodes and services: 100.64.0.0/10 without what ChromeOS uses of it, and
/// fd7a:115c:a1e0::/48.
pub(crate) fn is_mesh_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            bits >> 22 == 0x6440_0000 >> 22 && bits >> 9 != 0x6473_5c00 >> 9
        }
        IpAddr::V6(address) => address.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

/// The addresses of services that the node hosts (`service-host`).
fn service_addresses(node: &Node) -> Vec<IpAddr> {
    let values = node.cap_map.values(cap::SERVICE_HOST).unwrap_or_default();
    let services = values.iter().filter_map(|value| {
        serde_json::from_str::<std::collections::BTreeMap<String, Vec<IpAddr>>>(value.as_str()).ok()
    });
    services.flat_map(|services| services.into_values().flatten()).collect()
}

/// What a node answers for: its own addresses, those of services that it hosts, and the routes that it offers. Of a
/// default route that is everything but the networks that the machine itself is on and what stays within a machine, a
/// link or the mesh.
pub(crate) fn answered_for(node: &Node, preferences: &Preferences, attached: &[IpNet]) -> Local {
    let own = node.addresses.iter().map(|prefix| AddressRange::single(prefix.addr()));
    let services = service_addresses(node).into_iter().map(AddressRange::single);
    let offered = preferences.advertise_routes.iter().flat_map(|route| {
        let whole = AddressRange::prefix(*route);
        if route.prefix_len() == 0 { without(whole, &never_forwarded(attached)) } else { vec![whole] }
    });
    Local::new(own.chain(services).chain(offered))
}

/// What an exit node does not forward to.
fn never_forwarded(attached: &[IpNet]) -> Vec<AddressRange> {
    const FIXED: [&str; 11] = [
        "0.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/127",
        "::ffff:0:0/96",
        "fd7a:115c:a1e0::/48",
        "fe80::/10",
        "ff00::/8",
    ];
    let fixed = FIXED.iter().filter_map(|text| text.parse::<IpNet>().ok());
    fixed.chain(attached.iter().copied()).map(AddressRange::prefix).collect()
}

/// What is left of a range when others are taken out of it.
fn without(range: AddressRange, holes: &[AddressRange]) -> Vec<AddressRange> {
    let mut left = vec![range];
    for hole in holes {
        left = left.into_iter().flat_map(|part| cut(part, hole)).flatten().collect();
    }
    left
}

/// The parts of a range below and above a hole.
fn cut(part: AddressRange, hole: &AddressRange) -> [Option<AddressRange>; 2] {
    if !part.overlaps(hole) {
        return [Some(part), None];
    }
    let below = (part.first() < hole.first()).then(|| before(hole.first())).flatten();
    let above = (hole.last() < part.last()).then(|| after(hole.last())).flatten();
    [
        below.and_then(|last| AddressRange::new(part.first(), last)),
        above.and_then(|first| AddressRange::new(first, part.last())),
    ]
}

fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_sub(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(address) => address.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(routes: &[&str], attached: &[&str], address: &str) -> bool {
        let node = Node { addresses: vec!["100.64.0.1/32".parse().unwrap()], ..Node::default() };
        let preferences = Preferences {
            advertise_routes: routes.iter().map(|route| route.parse().unwrap()).collect(),
            ..Preferences::default()
        };
        let attached: Vec<IpNet> = attached.iter().map(|net| net.parse().unwrap()).collect();
        answered_for(&node, &preferences, &attached).contains(address.parse().unwrap())
    }

    #[test]
    fn a_node_answers_for_its_addresses_and_the_subnets_it_offers() {
        assert!(answers(&[], &[], "100.64.0.1"));
        assert!(!answers(&[], &[], "100.64.0.2"));
        assert!(answers(&["10.0.0.0/8"], &[], "10.1.2.3"));
        assert!(!answers(&["10.0.0.0/8"], &[], "11.0.0.1"));
    }

    #[test]
    fn an_exit_node_forwards_to_the_world_but_not_to_itself_its_networks_or_the_mesh() {
        let exit = |address: &str| answers(&["0.0.0.0/0", "::/0"], &["192.168.1.0/24"], address);
        assert!(exit("8.8.8.8"));
        assert!(exit("192.168.2.1"));
        assert!(exit("2606:4700::1111"));
        for address in ["192.168.1.7", "127.0.0.1", "169.254.169.254", "224.0.0.1", "100.99.0.1", "fe80::1", "::1"] {
            assert!(!exit(address), "{address}");
        }
        assert!(exit("100.128.0.1"));
        assert!(exit("255.255.255.254"));
    }

    #[test]
    fn mesh_addresses_are_told_from_others() {
        for (address, mesh) in [
            ("100.64.0.0", true),
            ("100.127.255.255", true),
            ("100.128.0.0", false),
            ("100.115.92.1", false),
            ("100.115.94.0", true),
            ("fd7a:115c:a1e0::53", true),
            ("fd7a:115c:a1e1::53", false),
        ] {
            assert_eq!(is_mesh_address(address.parse().unwrap()), mesh, "{address}");
        }
    }
}
