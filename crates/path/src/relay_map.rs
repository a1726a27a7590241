use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{Families, RegionId};

/// The relays that may be measured and lived at: what [`crate::Netcheck`] needs of the control protocol's `DERPMap`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RelayMap {
    /// The regions.
    pub regions: BTreeMap<RegionId, Region>,
}

/// Relays that know of each other, so that any of them serves who waits in the region.
#[derive(Debug, Clone, PartialEq)]
pub struct Region {
    /// Factor on the measured latency (`HomeParams.RegionScore`): above 1 makes the region seem farther. 1 is neutral.
    pub score: f64,
    /// Not to be chosen nor measured, except by who is there already.
    pub avoid: bool,
    /// Never to be chosen or measured.
    pub no_measure_no_home: bool,
    /// Its relays, the preferred ones first.
    pub nodes: Vec<RelayNode>,
}

/// One relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayNode {
    /// Its IPv4 address: from the map, or else looked up by its host name. `None` when it has none, or while that is
    /// not known; the map is handed in again once it is.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, in the same way.
    pub ipv6: Option<Ipv6Addr>,
    /// The UDP port of its STUN server; `None` when it has none.
    pub stun_port: Option<u16>,
    /// Whether it answers STUN and nothing else, so that nobody can live there.
    pub stun_only: bool,
}

impl RelayMap {
    /// Whether a region may be measured by who lives at `home`.
    pub(crate) fn is_measured(&self, region: RegionId, home: Option<RegionId>) -> bool {
        let allowed = |found: &Region| !found.no_measure_no_home && (!found.avoid || home == Some(region));
        self.regions.get(&region).is_some_and(allowed)
    }

    /// Whether a region may be the home of who lives at `home`.
    pub(crate) fn is_habitable(&self, region: RegionId, home: Option<RegionId>) -> bool {
        let relays = |found: &Region| found.nodes.iter().any(|node| !node.stun_only);
        self.is_measured(region, home) && self.regions.get(&region).is_some_and(relays)
    }

    /// The regions that may be the home of who lives at `home`, in order of their numbers.
    pub(crate) fn habitable(&self, home: Option<RegionId>) -> Vec<RegionId> {
        self.regions.keys().copied().filter(|region| self.is_habitable(*region, home)).collect()
    }

    /// A region's latency as the choice of a home sees it.
    pub(crate) fn scored(&self, region: RegionId, seconds: f64) -> f64 {
        let score = self.regions.get(&region).map_or(1.0, |found| found.score);
        seconds * if score.is_finite() && score > 0.0 { score } else { 1.0 }
    }
}

impl RelayNode {
    /// Where its STUN server answers in IPv4 or IPv6.
    pub(crate) fn stun_address(&self, ipv6: bool, families: Families) -> Option<SocketAddr> {
        let ip = if ipv6 { self.ipv6.map(Into::into) } else { self.ipv4.map(Into::into) };
        let address = SocketAddr::new(ip?, self.stun_port?);
        families.reach(&address).then_some(address)
    }
}
