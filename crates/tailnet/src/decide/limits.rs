use std::collections::BTreeSet;

use ipnet::IpNet;
use tailcfg::Hostinfo;

use crate::address::{MESH_V4, MESH_V6, VIA_V6};
use crate::refusal::Refusal;
use crate::tag::Tag;

/// How many routes a device may offer, and how many may be approved.
pub(super) const ROUTE_LIMIT: usize = 1000;

/// How long what a device says of itself may be, as JSON: every peer is sent it.
pub(super) const HOST_LIMIT: usize = 64 << 10;

/// How many tags a device or key may have.
pub(super) const TAG_LIMIT: usize = 32;

/// The longest description, comment or name for people, in bytes; longer ones are cut.
pub(super) const TEXT_LIMIT: usize = 512;

/// Reads tags, each once.
pub(crate) fn read_tags(what: &'static str, tags: &[String]) -> Result<BTreeSet<Tag>, Refusal> {
    let read: BTreeSet<Tag> = tags.iter().map(|tag| tag.parse()).collect::<Result<_, _>>()?;
    if read.len() > TAG_LIMIT {
        return Err(Refusal::TooMany { what, count: read.len(), things: "tags", limit: TAG_LIMIT });
    }
    Ok(read)
}

/// Refuses a host that says more than is kept, or offers routes that no device may serve.
pub(crate) fn check_host(hostinfo: &Hostinfo) -> Result<(), Refusal> {
    let routes = &hostinfo.routable_ips;
    if routes.len() > ROUTE_LIMIT {
        let count = routes.len();
        return Err(Refusal::TooMany { what: "this device", count, things: "routes", limit: ROUTE_LIMIT });
    }
    let size = serde_json::to_vec(hostinfo).map_or(0, |json| json.len());
    if size > HOST_LIMIT {
        return Err(Refusal::TooMany {
            what: "this device's host information",
            count: size,
            things: "bytes",
            limit: HOST_LIMIT,
        });
    }
    routes.iter().try_for_each(check_route)
}

/// Refuses a route that no device may serve.
pub(super) fn check_route(route: &IpNet) -> Result<(), Refusal> {
    let masked = route.trunc();
    if masked != *route {
        return Err(Refusal::RouteHostBits { given: route.to_string(), meant: masked.to_string() });
    }
    if route.prefix_len() == 0 {
        return Ok(());
    }
    match RESERVED.iter().find(|(reserved, _)| overlap(route, &reserved())) {
        Some((_, why)) if !is_via(route) => Err(Refusal::UnusableRoute { route: route.to_string(), why }),
        _ => Ok(()),
    }
}

type Reserved = (fn() -> IpNet, &'static str);

const RESERVED: [Reserved; 8] = [
    (|| IpNet::V4(MESH_V4), "100.64.0.0/10 is the mesh's own"),
    (|| IpNet::V6(MESH_V6), "fd7a:115c:a1e0::/48 is the mesh's own"),
    (|| prefix([127, 0, 0, 0], 8), "it leads to the device itself"),
    (|| prefix([169, 254, 0, 0], 16), "link-local addresses mean something else on each network"),
    (|| prefix([224, 0, 0, 0], 3), "multicast and reserved addresses can't be routed"),
    (|| prefix6(1, 128), "it leads to the device itself"),
    (|| prefix6(0xfe80 << 112, 10), "link-local addresses mean something else on each network"),
    (|| prefix6(0xff00 << 112, 8), "multicast addresses can't be routed"),
];

fn prefix(address: [u8; 4], length: u8) -> IpNet {
    IpNet::V4(ipnet::Ipv4Net::new_assert(address.into(), length))
}

fn prefix6(address: u128, length: u8) -> IpNet {
    IpNet::V6(ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::from_bits(address), length))
}

fn is_via(route: &IpNet) -> bool {
    IpNet::V6(VIA_V6).contains(route)
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(b) || b.contains(a)
}

/// A text of at most [`TEXT_LIMIT`] bytes.
pub(super) fn bounded(mut text: String) -> String {
    if let Some(end) = (0..=TEXT_LIMIT).rev().find(|end| text.is_char_boundary(*end)) {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(route: &str) -> Option<String> {
        check_route(&route.parse().unwrap()).err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn ordinary_routes_exit_routes_and_sites_are_served() {
        for good in
            ["10.0.0.0/16", "0.0.0.0/0", "::/0", "192.168.1.7/32", "2001:db8::/32", "fd7a:115c:a1e0:b1a:0:7:a00:0/112"]
        {
            assert_eq!(refusal(good), None, "{good}");
        }
    }

    #[test]
    fn routes_that_nobody_may_serve_are_refused_with_the_reason() {
        for (bad, says) in [
            ("100.64.0.0/10", "100.64.0.0/10 is the mesh's own"),
            ("100.100.0.0/16", "the mesh's own"),
            ("64.0.0.0/2", "the mesh's own"),
            ("127.0.0.0/8", "the device itself"),
            ("127.0.0.1/32", "the device itself"),
            ("169.254.169.254/32", "link-local"),
            ("224.0.0.0/4", "multicast"),
            ("fd7a:115c:a1e0::/48", "the mesh's own"),
            ("fe80::/64", "link-local"),
            ("ff02::/16", "multicast"),
            ("::1/128", "the device itself"),
        ] {
            let refusal = refusal(bad).unwrap_or_default();
            assert!(refusal.contains(says) && refusal.contains(bad), "{bad}: {refusal}");
        }
    }

    #[test]
    fn host_bits_are_refused_with_what_was_meant() {
        assert_eq!(
            refusal("10.0.0.1/16").unwrap(),
            "route 10.0.0.1/16 has bits set behind its prefix: write 10.0.0.0/16"
        );
    }

    #[test]
    fn routes_and_tags_are_counted() {
        let host = |count: u32| {
            let route = |at| IpNet::new(std::net::Ipv4Addr::from_bits(0x0a00_0000 + at).into(), 32).unwrap();
            check_host(&Hostinfo { routable_ips: (0..count).map(route).collect(), ..Hostinfo::default() })
        };
        assert_eq!(host(1000), Ok(()));
        for count in [1001, 100_000] {
            let refusal = host(count).unwrap_err().to_string();
            assert_eq!(refusal, format!("this device has {count} routes, at most 1000 are taken: leave some out"));
        }
        let tags =
            |count: usize| read_tags("this device", &(0..count).map(|n| format!("tag:t{n}")).collect::<Vec<_>>());
        assert!(tags(32).is_ok());
        assert!(tags(33).unwrap_err().to_string().contains("33 tags, at most 32"));
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(bounded("ä".repeat(1000)).len(), TEXT_LIMIT);
        assert_eq!(bounded(format!("x{}", "ä".repeat(1000))).len(), TEXT_LIMIT - 1);
        assert_eq!(bounded("short".to_owned()), "short");
    }
}
