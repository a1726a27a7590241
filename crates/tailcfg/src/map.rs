use std::collections::BTreeMap;
use std::net::SocketAddr;

use crypto::{DiscoPublic, NodePublic};
use filter::Rule as FilterRule;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::capability::CapabilityVersion;
use crate::derp::DerpMap;
use crate::dns::DnsConfig;
use crate::go::{self, Time};
use crate::hostinfo::Hostinfo;
use crate::id::NodeId;
use crate::node::{Node, PeerChange};
use crate::notice::{ClientVersion, ControlDialPlan, Debug, DisplayMessage, LockStatus};
use crate::ping::PingRequest;
use crate::ssh::SshPolicy;
use crate::user::UserProfile;

/// A node asks for its map, or tells what became of it.
///
/// With [`stream`](Self::stream) the answer goes on for as long as the connection; without it and with
/// [`omit_peers`](Self::omit_peers) it is a lite update: new endpoints and host facts, answered with nothing.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MapRequest {
    /// What the client understands.
    pub version: CapabilityVersion,
    /// `zstd` to have each message compressed; empty otherwise.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub compress: String,
    /// Whether the server sends something every minute.
    pub keep_alive: bool,
    /// The node key; it must be the one that the channel's machine key registered.
    pub node_key: NodePublic,
    /// The disco key of this process.
    pub disco_key: DiscoPublic,
    /// Whether to keep the answer open.
    #[serde(skip_serializing_if = "go::is_default")]
    pub stream: bool,
    /// What the node says of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostinfo: Option<Hostinfo>,
    /// A session to resume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub map_session_handle: String,
    /// The last message of that session that was seen.
    #[serde(skip_serializing_if = "go::is_default")]
    pub map_session_seq: i64,
    /// Where the node may be reached by UDP; see [`go::endpoints`] for entries that don't parse.
    #[serde(with = "go::endpoints", skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SocketAddr>,
    /// What is known of each of [`Self::endpoints`], in the same order.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub endpoint_types: Vec<EndpointType>,
    /// The hash of the newest tailnet lock entry that the node has.
    #[serde(rename = "TKAHead", skip_serializing_if = "String::is_empty")]
    pub tka_head: String,
    /// Whether the request changes nothing; of old clients.
    #[serde(skip_serializing_if = "go::is_default")]
    pub read_only: bool,
    /// Whether the answer has no peers.
    #[serde(skip_serializing_if = "go::is_default")]
    pub omit_peers: bool,
    /// What the client was told to do differently.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub debug_flags: Vec<String>,
}

impl MapRequest {
    /// Whether the client reads compressed messages.
    pub fn wants_zstd(&self) -> bool {
        self.compress == "zstd"
    }
}

/// How a node learned an endpoint of its own.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointType {
    /// Not said, or a kind that is newer than this list.
    #[default]
    Unknown,
    /// An address of the machine.
    Local,
    /// As a STUN server saw it.
    Stun,
    /// A port mapping of the router.
    Portmapped,
    /// The STUN address with the local port, for routers that forward it by hand.
    StunWithLocalPort,
    /// Configured.
    Explicit,
}

impl EndpointType {
    const ALL: [Self; 6] =
        [Self::Unknown, Self::Local, Self::Stun, Self::Portmapped, Self::StunWithLocalPort, Self::Explicit];
}

impl Serialize for EndpointType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

impl<'de> Deserialize<'de> for EndpointType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        Ok(usize::try_from(number).ok().and_then(|at| Self::ALL.get(at).copied()).unwrap_or_default())
    }
}

/// A message of the map stream: what changed. What is absent is as it was.
///
/// `P` is how peers are carried: [`Node`] to read them, [`crate::Encoded`] to send ones encoded before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, bound(serialize = "P: Serialize", deserialize = "P: Deserialize<'de>"))]
pub struct MapResponse<P = Node> {
    /// A name for this session, to resume it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub map_session_handle: String,
    /// The number of this message in the session.
    #[serde(skip_serializing_if = "go::is_default")]
    pub seq: i64,
    /// Nothing changed, the connection lives. Of the other fields only [`Self::ping_request`],
    /// [`Self::control_time`], [`Self::pop_browser_url`], [`Self::client_version`] and [`Self::control_dial_plan`] are
    /// read then.
    #[serde(skip_serializing_if = "go::is_default")]
    pub keep_alive: bool,
    /// Something to ping or to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_request: Option<PingRequest>,
    /// A page to show to the user.
    #[serde(rename = "PopBrowserURL", skip_serializing_if = "String::is_empty")]
    pub pop_browser_url: String,
    /// The node itself; the first message of a stream must have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Node>,
    /// The relays; a first message without them leaves a client without relays until it restarts.
    #[serde(rename = "DERPMap", skip_serializing_if = "Option::is_none")]
    pub derp_map: Option<DerpMap>,
    /// All peers, by ascending number. Empty reads as "unchanged": that there is none can only be said by removing.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<P>,
    /// Peers to add or to replace, by ascending number.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub peers_changed: Vec<P>,
    /// Peers to take out.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub peers_removed: Vec<NodeId>,
    /// Fields of peers that changed.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub peers_changed_patch: Vec<PeerChange>,
    /// Peers that were seen just now (`true`) or whose last sight is unknown (`false`).
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub peer_seen_change: BTreeMap<NodeId, bool>,
    /// Peers that came or went.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub online_change: BTreeMap<NodeId, bool>,
    /// How names resolve.
    #[serde(rename = "DNSConfig", skip_serializing_if = "Option::is_none")]
    pub dns_config: Option<DnsConfig>,
    /// The tailnet's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Whether the node reports what listens on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collect_services: Option<bool>,
    /// The filter's chunk `base`: `None` leaves it, an empty list blocks everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet_filter: Option<Vec<FilterRule>>,
    /// Named chunks of the filter, which is their concatenation by name. `None` deletes a chunk; the name `*` with `None`
    /// deletes all, before the others are set.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub packet_filters: BTreeMap<String, Option<Vec<FilterRule>>>,
    /// Users that nodes name, new or changed; by ascending number.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub user_profiles: Vec<UserProfile>,
    /// Warnings in the form before [`Self::display_messages`]: `None` leaves them, an empty list clears them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Vec<String>>,
    /// Warnings by name; `None` clears one, the name `*` with `None` clears all first.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub display_messages: BTreeMap<String, Option<DisplayMessage>>,
    /// Who may open SSH sessions on the node.
    #[serde(rename = "SSHPolicy", skip_serializing_if = "Option::is_none")]
    pub ssh_policy: Option<SshPolicy>,
    /// The server's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_time: Option<Time>,
    /// Where tailnet lock stands.
    #[serde(rename = "TKAInfo", skip_serializing_if = "Option::is_none")]
    pub lock_status: Option<LockStatus>,
    /// Where the tailnet's traffic logs go.
    #[serde(rename = "DomainDataPlaneAuditLogID", skip_serializing_if = "String::is_empty")]
    pub domain_data_plane_audit_log_id: String,
    /// Orders for tests and emergencies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub debug: Option<Debug>,
    /// Where else the server can be reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_dial_plan: Option<ControlDialPlan>,
    /// Which client version to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<ClientVersion>,
}

impl<P> Default for MapResponse<P> {
    fn default() -> Self {
        Self {
            map_session_handle: String::new(),
            seq: 0,
            keep_alive: false,
            ping_request: None,
            pop_browser_url: String::new(),
            node: None,
            derp_map: None,
            peers: Vec::new(),
            peers_changed: Vec::new(),
            peers_removed: Vec::new(),
            peers_changed_patch: Vec::new(),
            peer_seen_change: BTreeMap::new(),
            online_change: BTreeMap::new(),
            dns_config: None,
            domain: String::new(),
            collect_services: None,
            packet_filter: None,
            packet_filters: BTreeMap::new(),
            user_profiles: Vec::new(),
            health: None,
            display_messages: BTreeMap::new(),
            ssh_policy: None,
            control_time: None,
            lock_status: None,
            domain_data_plane_audit_log_id: String::new(),
            debug: None,
            control_dial_plan: None,
            client_version: None,
        }
    }
}

impl<P> MapResponse<P> {
    /// The message that only keeps the connection alive.
    pub fn keep_alive() -> Self {
        Self { keep_alive: true, ..Self::default() }
    }
}
