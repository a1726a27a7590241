use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddrV4, SocketAddrV6};
use std::time::{Duration, Instant};

use crate::RegionId;

/// What one measurement found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When it was done.
    pub at: Instant,
    /// Whether all regions were asked.
    pub full: bool,
    /// Whether any STUN server answered.
    pub udp: bool,
    /// This node's public IPv4 endpoint: the one that most servers saw.
    pub global_v4: Option<SocketAddrV4>,
    /// This node's public IPv6 endpoint.
    pub global_v6: Option<SocketAddrV6>,
    /// All public IPv4 endpoints that servers saw, and how many saw each.
    pub seen_v4: BTreeMap<SocketAddrV4, u32>,
    /// Whether two servers saw different IPv4 endpoints; `None` when fewer than two answered.
    pub mapping_varies: Option<bool>,
    /// Shortest round trip to each region that answered, by STUN or else by HTTPS.
    pub latency: BTreeMap<RegionId, Duration>,
    /// Those by STUN over IPv4.
    pub latency_v4: BTreeMap<RegionId, Duration>,
    /// Those by STUN over IPv6.
    pub latency_v6: BTreeMap<RegionId, Duration>,
    /// Where the node should wait for its peers.
    pub home: Option<RegionId>,
}

/// What stands between this node and the IPv4 internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatKind {
    /// Nothing that rewrites addresses.
    None,
    /// A NAT that gives a socket one public endpoint, whoever it talks to: peers can be told of it.
    Easy,
    /// A NAT that gives a socket another endpoint for each peer, which nobody can be told in advance.
    Hard,
    /// Not enough servers answered to tell.
    Unknown,
}

impl Report {
    /// Judges the NAT, given the addresses of this node's own interfaces.
    pub fn nat(&self, local: &[IpAddr]) -> NatKind {
        match (self.global_v4, self.mapping_varies) {
            (Some(global), varies) if varies != Some(true) && local.contains(&IpAddr::V4(*global.ip())) => {
                NatKind::None
            }
            (_, Some(true)) => NatKind::Hard,
            (_, Some(false)) => NatKind::Easy,
            (_, None) => NatKind::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_nat_follows_from_what_servers_saw_and_what_the_interfaces_have() {
        let report = |varies| Report {
            at: Instant::now(),
            full: true,
            udp: true,
            global_v4: Some("203.0.113.20:1000".parse().unwrap()),
            global_v6: None,
            seen_v4: BTreeMap::new(),
            mapping_varies: varies,
            latency: BTreeMap::new(),
            latency_v4: BTreeMap::new(),
            latency_v6: BTreeMap::new(),
            home: None,
        };
        let (inside, outside) = (["192.168.1.2".parse().unwrap()], ["203.0.113.20".parse().unwrap()]);
        assert_eq!(report(Some(false)).nat(&inside), NatKind::Easy);
        assert_eq!(report(Some(true)).nat(&inside), NatKind::Hard);
        assert_eq!(report(None).nat(&inside), NatKind::Unknown);
        assert_eq!(report(Some(false)).nat(&outside), NatKind::None);
        assert_eq!(report(None).nat(&outside), NatKind::None);
        assert_eq!(report(Some(true)).nat(&outside), NatKind::Hard);
    }
}
