//! Which addresses can be an endpoint, and how near an address promises to be.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most endpoints that one node is believed to have.
pub(crate) const MAX_ENDPOINTS: usize = 32;

/// Where clouds serve a machine's own secrets: no peer lives there.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Whether a datagram to this endpoint could reach a peer at all, and nothing but a peer.
///
/// Loopback is left to the caller: it means a peer only to a node that lives on loopback itself. Link-local IPv6 needs
/// an interface, which an endpoint can't carry. An address inside the mesh would send the mesh through itself.
pub(crate) fn is_endpoint(endpoint: &SocketAddr) -> bool {
    let ip = endpoint.ip();
    let usable = match ip {
        IpAddr::V4(v4) => v4.octets()[0] != 0 && v4.octets()[0] < 224 && v4 != METADATA,
        IpAddr::V6(v6) => !v6.is_unicast_link_local() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none(),
    };
    usable && !ip.is_unspecified() && endpoint.port() != 0 && !is_mesh(ip)
}

/// Whether an address belongs to the mesh: 100.64.0.0/10 or fd7a:115c:a1e0::/48.
pub(crate) fn is_mesh(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64,
        IpAddr::V6(v6) => v6.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

/// What an address adds to the comparison of two paths: near is better, and IPv6 has no NAT to forget it.
pub(crate) fn nearness(ip: IpAddr) -> u32 {
    let near = if ip.is_loopback() {
        50
    } else if is_link_local(ip) {
        30
    } else if is_private(ip) {
        20
    } else {
        0
    };
    near + if ip.is_ipv6() { 10 } else { 0 }
}

pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private(),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_peer_can_live_at_is_no_endpoint() {
        for refused in [
            "0.0.0.0:1",
            "0.1.2.3:1",
            "1.2.3.4:0",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "169.254.169.254:80",
            "100.64.0.1:1",
            "100.127.255.255:1",
            "[::]:1",
            "[fe80::1]:1",
            "[ff02::1]:1",
            "[fd7a:115c:a1e0::1]:1",
            "[::ffff:1.2.3.4]:1",
        ] {
            assert!(!is_endpoint(&refused.parse().unwrap()), "{refused}");
        }
        for taken in ["203.0.113.20:1", "192.168.50.10:41641", "100.128.0.1:1", "169.254.1.1:1", "[2001:db8::1]:1"] {
            assert!(is_endpoint(&taken.parse().unwrap()), "{taken}");
        }
    }
}
