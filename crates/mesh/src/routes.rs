use std::net::IpAddr;

use crypto::NodePublic;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Which peer an address leads to: the peer of the longest prefix that holds it.
///
/// A lookup is one binary search for each prefix length in use, and allocates nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    v4: Family<u32>,
    v6: Family<u128>,
}

/// The prefixes of one address family, by length, longest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Family<T> {
    lengths: Vec<Length<T>>,
}

/// The prefixes of one length, in order of their network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Length<T> {
    mask: T,
    networks: Vec<(T, NodePublic)>,
}

impl Routes {
    /// Takes prefixes with the peer that each leads to. Host bits are ignored; of several peers for one prefix the
    /// first counts.
    pub fn new(routes: impl IntoIterator<Item = (IpNet, NodePublic)>) -> Self {
        let mut all: Vec<(IpNet, NodePublic)> = routes.into_iter().map(|(net, peer)| (net.trunc(), peer)).collect();
        all.sort_by(|(one, _), (other, _)| {
            other.prefix_len().cmp(&one.prefix_len()).then_with(|| one.network().cmp(&other.network()))
        });
        all.dedup_by(|(later, _), (earlier, _)| later == earlier);
        let mut made = Self::default();
        for (net, peer) in all {
            match net {
                IpNet::V4(net) => made.v4.push(mask_v4(&net), net.network().to_bits(), peer),
                IpNet::V6(net) => made.v6.push(mask_v6(&net), net.network().to_bits(), peer),
            }
        }
        made
    }

    /// The peer that an address leads to.
    pub fn lookup(&self, address: IpAddr) -> Option<&NodePublic> {
        match address {
            IpAddr::V4(address) => self.v4.lookup(address.to_bits()),
            IpAddr::V6(address) => self.v6.lookup(address.to_bits()),
        }
    }
}

fn mask_v4(net: &Ipv4Net) -> u32 {
    net.netmask().to_bits()
}

fn mask_v6(net: &Ipv6Net) -> u128 {
    net.netmask().to_bits()
}

impl<T: Copy + Ord + std::ops::BitAnd<Output = T>> Family<T> {
    /// Adds a prefix that comes after all that were added before it.
    fn push(&mut self, mask: T, network: T, peer: NodePublic) {
        match self.lengths.last_mut() {
            Some(last) if last.mask == mask => last.networks.push((network, peer)),
            _ => self.lengths.push(Length { mask, networks: vec![(network, peer)] }),
        }
    }

    fn lookup(&self, address: T) -> Option<&NodePublic> {
        self.lengths.iter().find_map(|length| {
            let found = length.networks.binary_search_by_key(&(address & length.mask), |(network, _)| *network).ok()?;
            length.networks.get(found).map(|(_, peer)| peer)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> NodePublic {
        NodePublic::from_bytes([number; 32])
    }

    fn routes(all: &[(&str, u8)]) -> Routes {
        Routes::new(all.iter().map(|(net, number)| (net.parse().unwrap(), peer(*number))))
    }

    fn to(routes: &Routes, address: &str) -> Option<NodePublic> {
        routes.lookup(address.parse().unwrap()).copied()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = routes(&[("0.0.0.0/0", 1), ("10.0.0.0/8", 2), ("10.1.0.0/16", 3), ("10.1.2.3/32", 4)]);
        assert_eq!(to(&routes, "10.1.2.3"), Some(peer(4)));
        assert_eq!(to(&routes, "10.1.2.4"), Some(peer(3)));
        assert_eq!(to(&routes, "10.2.0.1"), Some(peer(2)));
        assert_eq!(to(&routes, "8.8.8.8"), Some(peer(1)));
    }

    #[test]
    fn the_families_are_apart() {
        let routes = routes(&[("::/0", 1), ("fd7a::/16", 2)]);
        assert_eq!(to(&routes, "10.1.2.3"), None);
        assert_eq!(to(&routes, "fd7a::1"), Some(peer(2)));
        assert_eq!(to(&routes, "2001:db8::1"), Some(peer(1)));
    }

    #[test]
    fn of_two_peers_for_one_prefix_the_first_counts() {
        let routes = routes(&[("10.0.0.0/8", 2), ("10.9.9.9/8", 1)]);
        assert_eq!(to(&routes, "10.0.0.1"), Some(peer(2)));
    }

    #[test]
    fn without_routes_nothing_leads_anywhere() {
        assert_eq!(to(&Routes::default(), "10.0.0.1"), None);
    }
}
