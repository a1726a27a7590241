use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::{DiscoPublic, NodePublic};
use filter::Filter;
use ipnet::IpNet;
use path::RegionId;
use tailcfg::{DerpMap, NodeId};

use crate::Routes;

/// What the data plane is shown of the network. It changes only as a whole: a thread that has loaded one sees peers,
/// routes and filter of the same netmap.
#[derive(Debug, Clone)]
pub struct View {
    /// The node's own addresses in the network, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The peers, by node key.
    pub peers: BTreeMap<NodePublic, PeerView>,
    /// Where a packet that leaves the node goes: longest prefix first, with only the routes that the node accepts and
    /// the exit node that it uses.
    pub routes: Routes,
    /// Which packets are let in.
    pub filter: Arc<Filter>,
    /// Whether only answers are let in (`ShieldsUp`).
    pub shields_up: bool,
    /// The relays; regions the node was told to leave out are not in it.
    pub relays: Arc<DerpMap>,
    /// The largest packet in bytes that the node's interface takes.
    pub mtu: u16,
}

/// One peer as the data plane sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerView {
    /// Its number in the netmap.
    pub id: NodeId,
    /// Its first name, for messages and logs.
    pub name: String,
    /// Its disco key; zero when it has told none yet, so that only the relay leads to it.
    pub disco: DiscoPublic,
    /// The relay region where it waits.
    pub home: Option<RegionId>,
    /// Where it said that it can be reached by UDP.
    pub endpoints: Vec<SocketAddr>,
    /// Its own addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The source addresses that its packets may carry (`AllowedIPs`), whether or not the node routes to them.
    pub allowed: Vec<IpNet>,
    /// Its node capabilities, for filter rules whose source is `cap:…`.
    pub capabilities: Arc<BTreeSet<String>>,
    /// Whether it may only answer (`IsJailed`).
    pub jailed: bool,
    /// Whether it speaks nothing but WireGuard (`IsWireGuardOnly`).
    pub wireguard_only: bool,
    /// The address as which this peer knows the node in IPv4, when not the node's own.
    pub masquerade_v4: Option<IpAddr>,
    /// The same for IPv6.
    pub masquerade_v6: Option<IpAddr>,
}
