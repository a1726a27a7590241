use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::go;
use crate::id::RegionId;

/// What a node says of itself and its machine.
///
/// The fields that a server or a peer acts on have names here; everything else a client sends is kept in
/// [`rest`](Self::rest), in its order, and goes on to whoever reads it.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Hostinfo {
    /// The client's version, `1.104.1-t0123abc`.
    #[serde(rename = "IPNVersion", skip_serializing_if = "String::is_empty")]
    pub ipn_version: String,
    /// The public id of the log that the node writes; stock clients refuse to register without one.
    #[serde(rename = "BackendLogID", skip_serializing_if = "String::is_empty")]
    pub backend_log_id: String,
    /// The operating system, `linux`.
    #[serde(rename = "OS", skip_serializing_if = "String::is_empty")]
    pub os: String,
    /// Its version, `6.1.0-18-amd64` or `12.4`.
    #[serde(rename = "OSVersion", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Whether the node runs in a container, when it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<bool>,
    /// The kind of hosting, `k8s` or `ecs`, when it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub env: String,
    /// The distribution, `debian`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub distro: String,
    /// The distribution's version, `12`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub distro_version: String,
    /// The distribution's code name, `bookworm`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub distro_code_name: String,
    /// The program that runs the node, when it is not the daemon: `k8s-operator`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// How the client was installed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub package: String,
    /// The model of a phone.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device_model: String,
    /// The name that the machine has, or that the user asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Whether the node takes no connections.
    #[serde(skip_serializing_if = "go::is_default")]
    pub shields_up: bool,
    /// Whether the node takes connections from the internet through a relay.
    #[serde(skip_serializing_if = "go::is_default")]
    pub wire_ingress: bool,
    /// Whether the node has such a service configured now.
    #[serde(skip_serializing_if = "go::is_default")]
    pub ingress_enabled: bool,
    /// Whether the server may start an update of the client.
    #[serde(skip_serializing_if = "go::is_default")]
    pub allows_update: bool,
    /// The machine's architecture, as the kernel names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub machine: String,
    /// The architecture that the client was built for, `amd64`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub go_arch: String,
    /// Routes that the node offers: subnets, and both default routes for an exit node.
    #[serde(rename = "RoutableIPs", deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub routable_ips: Vec<IpNet>,
    /// Tags that the node asks to have.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub request_tags: Vec<String>,
    /// What listens on the node.
    #[serde(deserialize_with = "go::lenient_list", skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
    /// What the node found out about its network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub net_info: Option<NetInfo>,
    /// Public host keys of the node's SSH server, one line each.
    #[serde(rename = "sshHostKeys", deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub ssh_host_keys: Vec<String>,
    /// The cloud that the machine runs in.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cloud: String,
    /// Whether packets end in the node's own network stack, not the kernel's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userspace: Option<bool>,
    /// Whether subnet routes are served by the node's own network stack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userspace_router: Option<bool>,
    /// Whether the node is an app connector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_connector: Option<bool>,
    /// SHA-256 in hex of the list of services that the node hosts; a change tells the server to ask for the list.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub services_hash: String,
    /// The exit node in use, by its stable id.
    #[serde(rename = "ExitNodeID", skip_serializing_if = "String::is_empty")]
    pub exit_node_id: String,
    /// Where the node is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Whether the node offers to relay UDP between its peers.
    #[serde(skip_serializing_if = "go::is_default")]
    pub peer_relay: bool,
    /// Whether the node's state is encrypted at rest, when it knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_encrypted: Option<bool>,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Something that listens on a node.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Service {
    /// `tcp`, `udp`, or one of the node's own: `peerapi4`, `peerapi6`, `peerapi-dns-proxy`.
    pub proto: String,
    /// The port.
    pub port: u16,
    /// The program.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What a node found out about its network.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetInfo {
    /// Whether the NAT gives each destination another port.
    #[serde(rename = "MappingVariesByDestIP")]
    pub mapping_varies_by_dest_ip: Option<bool>,
    /// Whether IPv6 reaches the internet.
    #[serde(rename = "WorkingIPv6")]
    pub working_ipv6: Option<bool>,
    /// Whether the system has IPv6 at all.
    #[serde(rename = "OSHasIPv6")]
    pub os_has_ipv6: Option<bool>,
    /// Whether UDP reaches the internet.
    #[serde(rename = "WorkingUDP")]
    pub working_udp: Option<bool>,
    /// Whether ICMP reaches the internet.
    #[serde(rename = "WorkingICMPv4")]
    pub working_icmp_v4: Option<bool>,
    /// Whether a port mapping is in place.
    #[serde(skip_serializing_if = "go::is_default")]
    pub have_port_map: bool,
    /// Whether the router speaks UPnP.
    #[serde(rename = "UPnP")]
    pub upnp: Option<bool>,
    /// Whether the router speaks NAT-PMP.
    #[serde(rename = "PMP")]
    pub pmp: Option<bool>,
    /// Whether the router speaks PCP.
    #[serde(rename = "PCP")]
    pub pcp: Option<bool>,
    /// The relay region that the node calls home; peers learn it as [`crate::Node::home_derp`].
    #[serde(rename = "PreferredDERP", skip_serializing_if = "RegionId::is_none")]
    pub preferred_derp: RegionId,
    /// `wired`, `wifi` or `mobile`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link_type: String,
    /// Seconds to each region, keyed `<region>-v4` and `<region>-v6`.
    #[serde(rename = "DERPLatency", deserialize_with = "go::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub derp_latency: BTreeMap<String, f64>,
    /// How the node sets its firewall, and why so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub firewall_mode: String,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// Where a node is.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Location {
    /// The country's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub country: String,
    /// Its two-letter code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub country_code: String,
    /// The city's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub city: String,
    /// Its code.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub city_code: String,
    /// Degrees north.
    #[serde(skip_serializing_if = "go::is_default")]
    pub latitude: f64,
    /// Degrees east.
    #[serde(skip_serializing_if = "go::is_default")]
    pub longitude: f64,
    /// Which exit node of a place to prefer; the highest wins.
    #[serde(skip_serializing_if = "go::is_default")]
    pub priority: i64,
}
