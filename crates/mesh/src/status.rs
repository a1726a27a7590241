use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::NodePublic;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tailcfg::{CapMap, Location, Node, NodeId, RegionId, StableNodeId, Time, UserId, UserProfile};

use crate::Mesh;
use crate::exit_node::{ExitNode, is_offered};
use crate::netmap::suffix_of;
use crate::state::addresses;

/// Where a node stands between being started and being connected, with the names and numbers of the LocalAPI.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum BackendState {
    /// Nothing is known yet.
    #[default]
    NoState,
    /// Another user of the machine has it.
    InUseOtherUser,
    /// Somebody has to log in.
    NeedsLogin,
    /// An administrator has to let the node in.
    NeedsMachineAuth,
    /// The user turned it off.
    Stopped,
    /// It is on its way.
    Starting,
    /// It is connected.
    Running,
}

impl BackendState {
    /// The number that notifications carry.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// The name that [`Status`] carries.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoState => "NoState",
            Self::InUseOtherUser => "InUseOtherUser",
            Self::NeedsLogin => "NeedsLogin",
            Self::NeedsMachineAuth => "NeedsMachineAuth",
            Self::Stopped => "Stopped",
            Self::Starting => "Starting",
            Self::Running => "Running",
        }
    }
}

/// What only the running data plane knows of a peer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LivePeer {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// The UDP endpoint in use; `None` when packets go by the relay.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake was done.
    pub handshake: Time,
    /// When something was last sent.
    pub written: Time,
    /// Whether packets passed lately.
    pub active: bool,
    /// Whether there is a session.
    pub has_session: bool,
}

/// What of a [`Status`] does not follow from the map.
#[derive(Debug, Clone, Default)]
pub struct LiveStatus {
    /// The version of this program.
    pub version: String,
    /// Whether packets pass an interface of the machine.
    pub tun: bool,
    /// Where the node stands.
    pub state: BackendState,
    /// Where the user logs in, when that is awaited.
    pub auth_url: String,
    /// What the user should know besides what [`Mesh::warnings`] says.
    pub health: Vec<String>,
    /// The node key, once there is one.
    pub node_key: Option<NodePublic>,
    /// The relay region where the node waits.
    pub home: RegionId,
    /// The node's own UDP endpoints.
    pub endpoints: Vec<SocketAddr>,
    /// The name of the machine.
    pub hostname: String,
    /// The peers by node key.
    pub peers: BTreeMap<NodePublic, LivePeer>,
}

/// Everything about a node and its peers (`ipnstate.Status`), with the field names of the LocalAPI's JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "the fields are the protocol's, documented at PeerStatus and Status of the LocalAPI")]
pub struct Status {
    pub version: String,
    #[serde(rename = "TUN")]
    pub tun: bool,
    pub backend_state: String,
    pub have_node_key: bool,
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    #[serde(rename = "TailscaleIPs")]
    pub addresses: Option<Vec<IpAddr>>,
    #[serde(rename = "Self")]
    pub node: PeerStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_node_status: Option<ExitNodeStatus>,
    pub health: Vec<String>,
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
    pub current_tailnet: Option<TailnetStatus>,
    pub cert_domains: Option<Vec<String>>,
    pub peer: Option<BTreeMap<NodePublic, PeerStatus>>,
    pub user: Option<BTreeMap<UserId, UserProfile>>,
    pub client_version: Option<Value>,
}

/// The exit node in use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "the fields are the protocol's")]
pub struct ExitNodeStatus {
    #[serde(rename = "ID")]
    pub id: StableNodeId,
    pub online: bool,
    #[serde(rename = "TailscaleIPs")]
    pub addresses: Vec<IpNet>,
}

/// The tailnet that the node is in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "the fields are the protocol's")]
pub struct TailnetStatus {
    pub name: String,
    #[serde(rename = "MagicDNSSuffix")]
    pub magic_dns_suffix: String,
    #[serde(rename = "MagicDNSEnabled")]
    pub magic_dns_enabled: bool,
}

/// One node in a [`Status`] (`ipnstate.PeerStatus`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[expect(missing_docs, reason = "the fields are the protocol's")]
pub struct PeerStatus {
    #[serde(rename = "ID")]
    pub id: StableNodeId,
    #[serde(rename = "NodeID", skip_serializing_if = "is_no_node")]
    pub node_id: NodeId,
    pub public_key: NodePublic,
    pub host_name: String,
    #[serde(rename = "DNSName")]
    pub dns_name: String,
    #[serde(rename = "OS")]
    pub os: String,
    #[serde(rename = "UserID")]
    pub user_id: UserId,
    #[serde(rename = "AltSharerUserID", skip_serializing_if = "is_no_user")]
    pub sharer: UserId,
    #[serde(rename = "TailscaleIPs")]
    pub addresses: Option<Vec<IpAddr>>,
    #[serde(rename = "AllowedIPs", skip_serializing_if = "Vec::is_empty")]
    pub allowed_ips: Vec<IpNet>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub primary_routes: Vec<IpNet>,
    pub addrs: Option<Vec<SocketAddr>>,
    pub cur_addr: String,
    pub relay: String,
    pub peer_relay: String,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub created: Time,
    pub last_write: Time,
    pub last_seen: Time,
    pub last_handshake: Time,
    pub online: bool,
    pub exit_node: bool,
    pub exit_node_option: bool,
    pub active: bool,
    #[serde(rename = "PeerAPIURL")]
    pub peer_api_url: Option<Vec<String>>,
    pub taildrop_target: i64,
    pub no_file_sharing_reason: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    #[serde(skip_serializing_if = "CapMap::is_empty")]
    pub cap_map: CapMap,
    #[serde(rename = "sshHostKeys", skip_serializing_if = "Vec::is_empty")]
    pub ssh_host_keys: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sharee_node: bool,
    pub in_network_map: bool,
    pub in_magic_sock: bool,
    pub in_engine: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_expiry: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
}

impl Mesh {
    /// Everything about the node and its peers; without the peers when they aren't asked for.
    pub fn status(&self, live: &LiveStatus, with_peers: bool) -> Status {
        let mut health = live.health.clone();
        health.extend(self.warnings());
        let mut status = Status {
            version: live.version.clone(),
            tun: live.tun,
            backend_state: live.state.name().to_owned(),
            have_node_key: live.node_key.is_some(),
            auth_url: live.auth_url.clone(),
            health,
            ..Status::default()
        };
        let Some(netmap) = self.netmap() else {
            status.node.public_key = live.node_key.unwrap_or_default();
            status.node.host_name.clone_from(&live.hostname);
            return status;
        };
        let suffix = netmap.magic_dns_suffix().to_owned();
        status.addresses = Some(self.addresses());
        status.node = self.self_status(live);
        status.exit_node_status = self.exit_node_status();
        status.magic_dns_suffix.clone_from(&suffix);
        status.current_tailnet = Some(TailnetStatus {
            name: netmap.domain().to_owned(),
            magic_dns_suffix: suffix,
            magic_dns_enabled: netmap.dns().proxied,
        });
        status.cert_domains = Some(netmap.dns().cert_domains.clone()).filter(|domains| !domains.is_empty());
        if with_peers {
            let exit = self.exit_node();
            let peers = netmap.peers().values().map(|peer| (peer.key, self.peer_status(peer, &exit, live)));
            status.peer = Some(peers.collect());
            status.user = Some(netmap.users().clone());
        }
        status
    }

    fn self_status(&self, live: &LiveStatus) -> PeerStatus {
        let Some(netmap) = self.netmap() else { return PeerStatus::default() };
        let node = netmap.node();
        PeerStatus {
            host_name: live.hostname.clone(),
            os: "linux".to_owned(),
            addrs: Some(live.endpoints.clone()),
            relay: self.region_code(live.home),
            online: live.state == BackendState::Running,
            exit_node_option: self.preferences().advertises_exit_node() && is_offered(node),
            in_engine: false,
            ..self.known_of(node)
        }
    }

    fn peer_status(&self, peer: &Arc<Node>, exit: &ExitNode, live: &LiveStatus) -> PeerStatus {
        let hostinfo = peer.hostinfo.as_ref();
        let here = live.peers.get(&peer.key).cloned().unwrap_or_default();
        PeerStatus {
            host_name: hostinfo.map(|host| host.hostname.clone()).unwrap_or_default(),
            os: hostinfo.map(|host| host.os.clone()).unwrap_or_default(),
            addrs: None,
            cur_addr: here.endpoint.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
            relay: peer.home_region().map(|region| self.region_code(region)).unwrap_or_default(),
            rx_bytes: here.received,
            tx_bytes: here.sent,
            last_write: here.written,
            last_handshake: here.handshake,
            online: peer.online.unwrap_or_default(),
            exit_node: exit.is(peer),
            exit_node_option: is_offered(peer),
            active: here.active,
            in_magic_sock: self.is_usable(peer),
            in_engine: here.has_session,
            ..self.known_of(peer)
        }
    }

    /// What the map says of a node.
    fn known_of(&self, node: &Node) -> PeerStatus {
        let hostinfo = node.hostinfo.as_ref();
        PeerStatus {
            id: node.stable_id.clone(),
            node_id: node.id,
            public_key: node.key,
            dns_name: node.name.clone(),
            user_id: node.user,
            sharer: node.sharer,
            addresses: Some(addresses(node)),
            allowed_ips: node.allowed_ips().to_vec(),
            tags: node.tags.clone(),
            primary_routes: node.primary_routes.clone(),
            created: node.created,
            last_seen: node.last_seen.unwrap_or_default(),
            peer_api_url: peer_api_urls(node),
            capabilities: node.capabilities.clone(),
            cap_map: node.cap_map.clone(),
            ssh_host_keys: hostinfo.map(|host| host.ssh_host_keys.clone()).unwrap_or_default(),
            in_network_map: true,
            expired: node.expired,
            key_expiry: (!node.key_expiry.is_zero()).then_some(node.key_expiry),
            location: hostinfo.and_then(|host| host.location.clone()),
            ..PeerStatus::default()
        }
    }

    fn exit_node_status(&self) -> Option<ExitNodeStatus> {
        match self.exit_node() {
            ExitNode::Peer(peer) => Some(ExitNodeStatus {
                id: peer.stable_id.clone(),
                online: peer.online.unwrap_or_default(),
                addresses: peer.addresses.clone(),
            }),
            ExitNode::None | ExitNode::Missing => None,
        }
    }

    /// The short code of a relay region; its number in words when the map has none.
    fn region_code(&self, region: RegionId) -> String {
        if region.is_none() {
            return String::new();
        }
        let known = self.netmap().and_then(|netmap| netmap.relays().region(region));
        known.map_or_else(|| region.to_string(), |region| region.region_code.clone())
    }

    /// The short name of a node: its first label below the tailnet's suffix, the full name when it is of another.
    pub fn short_name(&self, node: &Node) -> String {
        let own = self.netmap().map(|netmap| netmap.magic_dns_suffix()).unwrap_or_default();
        let name = node.name.trim_end_matches('.');
        match name.split_once('.') {
            Some((first, _)) if suffix_of(name) == own => first.to_owned(),
            _ => name.to_owned(),
        }
    }
}

fn peer_api_urls(node: &Node) -> Option<Vec<String>> {
    let services = &node.hostinfo.as_ref()?.services;
    let urls = services.iter().filter_map(|service| {
        let wanted: fn(&IpAddr) -> bool = match &*service.proto {
            "peerapi4" => IpAddr::is_ipv4,
            "peerapi6" => IpAddr::is_ipv6,
            _ => return None,
        };
        let address = addresses(node).into_iter().find(wanted)?;
        Some(format!("http://{}", SocketAddr::new(address, service.port)))
    });
    Some(urls.collect::<Vec<_>>()).filter(|urls| !urls.is_empty())
}

fn is_no_node(id: &NodeId) -> bool {
    *id == NodeId::default()
}

fn is_no_user(id: &UserId) -> bool {
    *id == UserId::default()
}
