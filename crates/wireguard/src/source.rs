use std::net::{IpAddr, SocketAddr};

use crypto::NodePublic;

/// Where a datagram came from, as far as that can be told before it is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A UDP address.
    Direct(SocketAddr),
    /// A relay on another node (Geneve): its address and the network identifier of the pair.
    PeerRelay {
        /// The relay's UDP address.
        relay: SocketAddr,
        /// The identifier that the relay gave this pair of nodes, 24 bits.
        vni: u32,
    },
    /// A DERP relay: its region and the node key that it says the datagram is from.
    Derp {
        /// The relay's region.
        region: u32,
        /// The sender, on the relay's word.
        node: NodePublic,
    },
}

/// What handshakes are counted by: who can send from one of its addresses can send from all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    Address(Network),
    PeerRelay(Network, u32),
    Derp(NodePublic),
}

/// A host's IPv4 address, or the /64 of its IPv6 addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

impl Source {
    pub(crate) fn origin(&self) -> Origin {
        match self {
            Self::Direct(address) => Origin::Address(Network::of(address.ip())),
            Self::PeerRelay { relay, vni } => Origin::PeerRelay(Network::of(relay.ip()), *vni),
            Self::Derp { node, .. } => Origin::Derp(*node),
        }
    }

    /// What a cookie is bound to: address and port both, or a neighbour behind the same address could use it.
    pub(crate) fn cookie_bytes(&self) -> Vec<u8> {
        let address = |kind: u8, address: &SocketAddr| {
            let mut out = vec![kind];
            match address.ip().to_canonical() {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
            out.extend_from_slice(&address.port().to_be_bytes());
            out
        };
        match self {
            Self::Direct(source) => address(0, source),
            Self::PeerRelay { relay, vni } => {
                let mut out = address(1, relay);
                out.extend_from_slice(&vni.to_be_bytes());
                out
            }
            Self::Derp { region, node } => {
                let mut out = vec![2];
                out.extend_from_slice(&region.to_be_bytes());
                out.extend_from_slice(node.as_bytes());
                out
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(text: &str) -> Source {
        Source::Direct(text.parse().unwrap())
    }

    #[test]
    fn ports_share_an_origin_and_no_cookie() {
        let (one, other) = (direct("192.0.2.1:1"), direct("192.0.2.1:2"));
        assert_eq!(one.origin(), other.origin());
        assert_ne!(one.cookie_bytes(), other.cookie_bytes());
    }

    #[test]
    fn an_ipv6_host_is_counted_by_its_64() {
        assert_eq!(direct("[2001:db8::1]:1").origin(), direct("[2001:db8::ffff:2]:1").origin());
        assert_ne!(direct("[2001:db8::1]:1").origin(), direct("[2001:db8:0:1::1]:1").origin());
    }

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        assert_eq!(direct("[::ffff:192.0.2.1]:9").origin(), direct("192.0.2.1:9").origin());
        assert_eq!(direct("[::ffff:192.0.2.1]:9").cookie_bytes(), direct("192.0.2.1:9").cookie_bytes());
    }

    #[test]
    fn ways_of_arrival_never_share_a_cookie() {
        let relay = "192.0.2.1:9".parse().unwrap();
        let ways = [
            Source::Direct(relay),
            Source::PeerRelay { relay, vni: 1 },
            Source::PeerRelay { relay, vni: 2 },
            Source::Derp { region: 1, node: NodePublic::from_bytes([1; 32]) },
            Source::Derp { region: 1, node: NodePublic::from_bytes([2; 32]) },
        ];
        let distinct: std::collections::BTreeSet<_> = ways.iter().map(Source::cookie_bytes).collect();
        assert_eq!(distinct.len(), ways.len());
    }
}
