use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::go;
use crate::id::RegionId;

/// The relays of a tailnet by region.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DerpMap {
    /// How to choose a home.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home_params: Option<DerpHomeParams>,
    /// The regions; `None` keeps those that the client has.
    pub regions: Option<BTreeMap<RegionId, DerpRegion>>,
    /// Whether the client's built-in regions are left out.
    #[serde(rename = "omitDefaultRegions", skip_serializing_if = "go::is_default")]
    pub omit_default_regions: bool,
}

impl DerpMap {
    /// The region with a number, when the map has it.
    pub fn region(&self, id: RegionId) -> Option<&DerpRegion> {
        self.regions.as_ref()?.get(&id)
    }
}

/// How to choose a home.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DerpHomeParams {
    /// Factors on the measured latency: below 1 a region seems nearer, above 1 farther.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub region_score: BTreeMap<RegionId, f64>,
}

/// Relays near each other, of which a client uses any.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DerpRegion {
    /// The region's number; custom ones are 900 to 999.
    #[serde(rename = "RegionID")]
    pub region_id: RegionId,
    /// A short code, `fra`.
    pub region_code: String,
    /// The name for people.
    pub region_name: String,
    /// Degrees north.
    #[serde(skip_serializing_if = "go::is_default")]
    pub latitude: f64,
    /// Degrees east.
    #[serde(skip_serializing_if = "go::is_default")]
    pub longitude: f64,
    /// Whether clients avoid the region, as a home and otherwise.
    #[serde(skip_serializing_if = "go::is_default")]
    pub avoid: bool,
    /// Whether clients neither measure the region nor make it their home.
    #[serde(skip_serializing_if = "go::is_default")]
    pub no_measure_no_home: bool,
    /// The relays, the preferred first.
    #[serde(deserialize_with = "go::nullable")]
    pub nodes: Vec<DerpNode>,
}

/// One relay.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DerpNode {
    /// A name, unique across the whole map.
    pub name: String,
    /// The region that it stands in.
    #[serde(rename = "RegionID")]
    pub region_id: RegionId,
    /// The host to connect to.
    pub host_name: String,
    /// The name in its certificate when not [`Self::host_name`]; `sha256-raw:` and hex digits pin a certificate.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cert_name: String,
    /// An IPv4 address, empty to look it up, `none` to not use the family; see [`Self::ipv4_address`].
    #[serde(rename = "IPv4", skip_serializing_if = "String::is_empty")]
    pub ipv4: String,
    /// An IPv6 address, empty to look it up, `none` to not use the family; see [`Self::ipv6_address`].
    #[serde(rename = "IPv6", skip_serializing_if = "String::is_empty")]
    pub ipv6: String,
    /// The STUN port: 0 is 3478, -1 is none; see [`Self::stun`].
    #[serde(rename = "STUNPort", skip_serializing_if = "go::is_default")]
    pub stun_port: i32,
    /// Whether it answers STUN and relays nothing.
    #[serde(rename = "STUNOnly", skip_serializing_if = "go::is_default")]
    pub stun_only: bool,
    /// The relay port, 0 is 443; see [`Self::relay_port`].
    #[serde(rename = "DERPPort", skip_serializing_if = "go::is_default")]
    pub derp_port: u16,
    /// Whether certificates go unchecked; for tests.
    #[serde(skip_serializing_if = "go::is_default")]
    pub insecure_for_tests: bool,
    /// The address to ask by STUN in place of the host's; for tests.
    #[serde(rename = "STUNTestIP", skip_serializing_if = "String::is_empty")]
    pub stun_test_ip: String,
    /// Whether captive portals can be told by plain HTTP on port 80.
    #[serde(rename = "CanPort80", skip_serializing_if = "go::is_default")]
    pub can_port_80: bool,
}

/// How a relay is reached by one address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DerpAddress<A> {
    /// By what its host name resolves to.
    Lookup,
    /// At this address.
    At(A),
    /// Not at all.
    Unused,
}

impl DerpNode {
    /// How the relay is reached by IPv4; a text that is no address counts as unused.
    pub fn ipv4_address(&self) -> DerpAddress<Ipv4Addr> {
        address(&self.ipv4)
    }

    /// How the relay is reached by IPv6; a text that is no address counts as unused.
    pub fn ipv6_address(&self) -> DerpAddress<Ipv6Addr> {
        address(&self.ipv6)
    }

    /// The UDP port of its STUN service, if it has one.
    pub fn stun(&self) -> Option<u16> {
        match self.stun_port {
            0 => Some(3478),
            port => u16::try_from(port).ok(),
        }
    }

    /// The TCP port of its relay service.
    pub fn relay_port(&self) -> u16 {
        if self.derp_port == 0 { 443 } else { self.derp_port }
    }
}

fn address<A: std::str::FromStr>(text: &str) -> DerpAddress<A> {
    match text {
        "" => DerpAddress::Lookup,
        text => text.parse().map_or(DerpAddress::Unused, DerpAddress::At),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_set_to_none_is_not_looked_up() {
        let node = DerpNode { ipv4: "none".into(), ipv6: "2001:db8::1".into(), ..DerpNode::default() };
        assert_eq!(node.ipv4_address(), DerpAddress::Unused);
        assert_eq!(node.ipv6_address(), DerpAddress::At("2001:db8::1".parse().unwrap()));
        assert_eq!(DerpNode::default().ipv4_address(), DerpAddress::Lookup);
    }

    #[test]
    fn ports_of_zero_are_the_well_known_ones() {
        assert_eq!(DerpNode::default().stun(), Some(3478));
        assert_eq!(DerpNode::default().relay_port(), 443);
        assert_eq!(DerpNode { stun_port: -1, ..DerpNode::default() }.stun(), None);
    }
}
