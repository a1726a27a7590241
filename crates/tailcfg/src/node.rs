use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crypto::{DiscoPublic, MachinePublic, NodePublic};
use filter::CapMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::capability::CapabilityVersion;
use crate::dns::Resolver;
use crate::go::{self, Time};
use crate::hostinfo::Hostinfo;
use crate::id::{NodeId, RegionId, StableNodeId, UserId};

/// A node as a map shows it to one viewer.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Node {
    /// The node's number.
    #[serde(rename = "ID")]
    pub id: NodeId,
    /// The node's id for programs.
    #[serde(rename = "StableID")]
    pub stable_id: StableNodeId,
    /// The full name with a trailing dot, `laptop.example.ts.net.`.
    pub name: String,
    /// Whose node this is.
    pub user: UserId,
    /// Who shared it into the viewer's tailnet; zero when it is of the tailnet.
    #[serde(skip_serializing_if = "go::is_default")]
    pub sharer: UserId,
    /// The node key.
    pub key: NodePublic,
    /// When the node key expires; zero is never.
    #[serde(skip_serializing_if = "Time::is_zero")]
    pub key_expiry: Time,
    /// Tailnet lock's signature of the node key.
    #[serde(with = "go::bytes", skip_serializing_if = "Vec::is_empty")]
    pub key_signature: Vec<u8>,
    /// The machine key.
    #[serde(skip_serializing_if = "MachinePublic::is_zero")]
    pub machine: MachinePublic,
    /// The disco key; a peer without one is ignored by the transport.
    #[serde(skip_serializing_if = "DiscoPublic::is_zero")]
    pub disco_key: DiscoPublic,
    /// The node's own addresses, as /32 and /128.
    #[serde(deserialize_with = "go::nullable")]
    pub addresses: Vec<IpNet>,
    /// What the viewer may send to it: its addresses and the routes it serves the viewer. `None` means its addresses.
    #[serde(rename = "AllowedIPs")]
    pub allowed_ips: Option<Vec<IpNet>>,
    /// Where it was last seen to be reachable by UDP.
    #[serde(with = "go::endpoints", skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SocketAddr>,
    /// The home relay in the form that clients before 111 read, `127.3.3.40:<region>`.
    #[serde(rename = "DERP", skip_serializing_if = "String::is_empty")]
    pub legacy_derp: String,
    /// The home relay's region.
    #[serde(rename = "HomeDERP", skip_serializing_if = "RegionId::is_none")]
    pub home_derp: RegionId,
    /// What the node says of itself.
    pub hostinfo: Option<Hostinfo>,
    /// When it joined.
    pub created: Time,
    /// What the node's client understands.
    #[serde(skip_serializing_if = "go::is_default")]
    pub cap: CapabilityVersion,
    /// The node's tags; a tagged node belongs to no person.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The subnet routes that this node, among those offering them, serves.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub primary_routes: Vec<IpNet>,
    /// When it was last connected; `None` is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// Whether it is connected; `None` is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// Whether an administrator let it in, where that is asked for.
    #[serde(skip_serializing_if = "go::is_default")]
    pub machine_authorized: bool,
    /// Capabilities in the form before [`CapMap`].
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// Capabilities of the node.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "CapMap::is_empty")]
    pub cap_map: CapMap,
    /// Whether only the peer API of an unsigned node may be reached.
    #[serde(rename = "UnsignedPeerAPIOnly", skip_serializing_if = "go::is_default")]
    pub unsigned_peer_api_only: bool,
    /// Where the node's traffic log goes.
    #[serde(rename = "DataPlaneAuditLogID", skip_serializing_if = "String::is_empty")]
    pub data_plane_audit_log_id: String,
    /// Whether the node key has expired.
    #[serde(skip_serializing_if = "go::is_default")]
    pub expired: bool,
    /// The IPv4 address under which this peer knows the viewer, when not the viewer's own.
    #[serde(rename = "SelfNodeV4MasqAddrForThisPeer", skip_serializing_if = "Option::is_none")]
    pub self_v4_masquerade: Option<Ipv4Addr>,
    /// The IPv6 address under which this peer knows the viewer, when not the viewer's own.
    #[serde(rename = "SelfNodeV6MasqAddrForThisPeer", skip_serializing_if = "Option::is_none")]
    pub self_v6_masquerade: Option<Ipv6Addr>,
    /// Whether the peer speaks WireGuard and nothing else.
    #[serde(rename = "IsWireGuardOnly", skip_serializing_if = "go::is_default")]
    pub is_wireguard_only: bool,
    /// Whether the peer may only answer.
    #[serde(skip_serializing_if = "go::is_default")]
    pub is_jailed: bool,
    /// Resolvers to use while this peer is the exit node.
    #[serde(rename = "ExitNodeDNSResolvers", deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub exit_node_dns_resolvers: Vec<Resolver>,
}

impl Node {
    /// What the viewer may send to this node.
    pub fn allowed_ips(&self) -> &[IpNet] {
        self.allowed_ips.as_deref().unwrap_or(&self.addresses)
    }

    /// The home relay, in whichever form it was sent.
    pub fn home_region(&self) -> Option<RegionId> {
        if !self.home_derp.is_none() {
            return Some(self.home_derp);
        }
        let port = self.legacy_derp.strip_prefix("127.3.3.40:")?.parse().ok()?;
        (port != 0).then_some(RegionId(port))
    }

    /// The legacy text of a home relay; empty for none.
    pub fn legacy_derp_text(region: RegionId) -> String {
        if region.is_none() { String::new() } else { format!("127.3.3.40:{region}") }
    }

    /// Applies what a patch says of this node; the patch's node is not compared.
    pub fn apply(&mut self, patch: &PeerChange) {
        if !patch.derp_region.is_none() {
            self.home_derp = patch.derp_region;
            self.legacy_derp = Self::legacy_derp_text(patch.derp_region);
        }
        if let Some(cap) = patch.cap {
            self.cap = cap;
        }
        if let Some(cap_map) = &patch.cap_map {
            self.cap_map = cap_map.clone();
        }
        if let Some(endpoints) = &patch.endpoints {
            self.endpoints.clone_from(endpoints);
        }
        if let Some(key) = patch.key {
            self.key = key;
        }
        if !patch.key_signature.is_empty() {
            self.key_signature.clone_from(&patch.key_signature);
        }
        if let Some(key) = patch.disco_key {
            self.disco_key = key;
        }
        if let Some(online) = patch.online {
            self.online = Some(online);
        }
        if let Some(seen) = patch.last_seen {
            self.last_seen = Some(seen);
        }
        if let Some(expiry) = patch.key_expiry {
            self.key_expiry = expiry;
        }
    }
}

/// A change of a few fields of a peer; what is absent is unchanged. A patch of an unknown node is ignored.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PeerChange {
    /// Which node.
    #[serde(rename = "NodeID")]
    pub node_id: NodeId,
    /// The new home relay; zero for unchanged.
    #[serde(rename = "DERPRegion", skip_serializing_if = "RegionId::is_none")]
    pub derp_region: RegionId,
    /// What the client now understands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap: Option<CapabilityVersion>,
    /// The whole new capability map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_map: Option<CapMap>,
    /// The whole new list of endpoints; stock clients read an empty one as "unchanged".
    #[serde(with = "go::endpoints::optional", skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<SocketAddr>>,
    /// The new node key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<NodePublic>,
    /// The new node key's signature.
    #[serde(with = "go::bytes", skip_serializing_if = "Vec::is_empty")]
    pub key_signature: Vec<u8>,
    /// The new disco key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disco_key: Option<DiscoPublic>,
    /// Whether it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<bool>,
    /// When it was last connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Time>,
    /// When its node key expires; zero is never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<Time>,
}
