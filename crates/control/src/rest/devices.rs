//! Devices in the API's words.

use std::time::{Duration, Instant};

use api::{
    ApiError, ClientConnectivity, ClientSupports, Device, DeviceList, DevicePing, DeviceQuery, DeviceRoutes, Distro,
    InTailnet, PingDevice, PingKind, RegionLatency,
};
use tailcfg::{NetInfo, NodeId, RegionId};
use tailnet::{Node, Owner, Presence, Tailnet, TokenHolder};

use super::{Identity, Rest};
use crate::coordination::PingWhat;

impl Rest {
    /// The devices that a query asks for.
    pub(super) fn devices(&self, who: &Identity, at: &InTailnet, query: &DeviceQuery) -> Result<DeviceList, ApiError> {
        self.look_at(who, at, |tailnet| {
            // A filter that names no field is an error even where there are no devices.
            query.admits(&Device::default())?;
            let mut devices = Vec::new();
            for node in tailnet.nodes() {
                let device = describe(tailnet, node);
                if query.admits(&device)? {
                    devices.push(query.fields.prune(device));
                }
            }
            Ok(DeviceList { devices })
        })
    }
}

/// How long a device may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Rest {
    /// Asks a device to show that it is there, or to ping a peer.
    pub(super) async fn ping(&self, who: &Identity, id: NodeId, ping: PingDevice) -> Result<DevicePing, ApiError> {
        let what = if ping.address.is_empty() {
            PingWhat::Itself
        } else {
            let address =
                ping.address.parse().map_err(|_| ApiError::bad_request("address must be a peer's address"))?;
            let kind = match ping.kind {
                PingKind::Disco => "disco",
                PingKind::Tsmp => "TSMP",
                PingKind::Icmp => "ICMP",
                PingKind::PeerApi => "peerapi",
            };
            PingWhat::Peer(address, kind)
        };
        let asked = Instant::now();
        Ok(match self.coordination.ping(who.tailnet, id, what, PATIENCE).await {
            Ok(response) => {
                let response = response.unwrap_or_default();
                let reached = matches!(what, PingWhat::Peer(..)) && response.err.is_empty();
                DevicePing {
                    answered: true,
                    answered_after_ms: asked.elapsed().as_secs_f64() * 1000.0,
                    peer_latency_ms: reached.then_some(response.latency_seconds * 1000.0),
                    endpoint: response.endpoint,
                    relay: response.derp_region_code,
                    error: response.err,
                }
            }
            Err(error) => DevicePing { error: error.to_string(), ..DevicePing::default() },
        })
    }
}

/// The name that a device is to have. The whole name is taken too, as the list of devices shows it.
pub(super) fn label(tailnet: &Tailnet, name: &str) -> String {
    let whole = name.trim_end_matches('.');
    let label = whole.strip_suffix(tailnet.domain().as_str()).and_then(|name| name.strip_suffix('.'));
    label.unwrap_or(whole).to_owned()
}

/// A device with all its fields.
pub(super) fn show(tailnet: &Tailnet, id: NodeId) -> Result<Device, ApiError> {
    tailnet.node(id).map(|node| describe(tailnet, node)).ok_or_else(gone)
}

/// A device's routes.
pub(super) fn routes(tailnet: &Tailnet, id: NodeId) -> Result<DeviceRoutes, ApiError> {
    let node = tailnet.node(id).ok_or_else(gone)?;
    Ok(DeviceRoutes { advertised_routes: advertised(node), enabled_routes: enabled(node) })
}

fn gone() -> ApiError {
    ApiError::not_found("there is no such device in this tailnet")
}

fn advertised(node: &Node) -> Vec<String> {
    node.hostinfo.routable_ips.iter().map(ToString::to_string).collect()
}

fn enabled(node: &Node) -> Vec<String> {
    node.approved_routes.iter().map(ToString::to_string).collect()
}

fn describe(tailnet: &Tailnet, node: &Node) -> Device {
    let host = &node.hostinfo;
    let gone = Presence::default();
    let presence = tailnet.presence(node.id).unwrap_or(&gone);
    let distro = Distro {
        name: host.distro.clone(),
        version: host.distro_version.clone(),
        code_name: host.distro_code_name.clone(),
    };
    Device {
        addresses: node.addresses.both().iter().map(ToString::to_string).collect(),
        id: node.id.to_string(),
        node_id: node.stable_id.to_string(),
        user: owner_name(tailnet, node),
        name: tailnet.full_name(node),
        hostname: host.hostname.clone(),
        client_version: host.ipn_version.clone(),
        os: host.os.clone(),
        created: Some(node.created),
        connected_to_control: presence.online,
        last_seen: presence.last_seen.filter(|_| !presence.online),
        key_expiry_disabled: node.key_expiry_disabled || node.owner.is_tagged(),
        expires: node.key_expiry,
        authorized: node.authorized,
        machine_key: node.machine_key.to_string(),
        node_key: node.node_key.to_string(),
        blocks_incoming_connections: host.shields_up,
        enabled_routes: Some(enabled(node)),
        advertised_routes: Some(advertised(node)),
        client_connectivity: Some(connectivity(tailnet, presence)),
        tags: node.owner.tags().map(ToString::to_string).collect(),
        ssh_enabled: Some(!host.ssh_host_keys.is_empty()),
        is_ephemeral: node.ephemeral,
        distro: (!distro.name.is_empty()).then_some(distro),
        ..Device::default()
    }
}

/// The login name of a device's owner; of a tagged device, of who let it in, as far as that is known.
fn owner_name(tailnet: &Tailnet, node: &Node) -> String {
    let user = match &node.owner {
        Owner::User(id) => Some(*id),
        Owner::Tags(_) => node.joined_with.as_ref().and_then(|key| match tailnet.auth_key(key)?.maker {
            TokenHolder::User(id) => Some(id),
            TokenHolder::Client(_) => None,
        }),
    };
    let login = user.and_then(|id| tailnet.user(id)).map(|user| user.login.to_string());
    login.unwrap_or_else(|| "tagged-devices".to_owned())
}

fn connectivity(tailnet: &Tailnet, presence: &Presence) -> ClientConnectivity {
    let unknown = NetInfo::default();
    let net = presence.net_info.as_deref().unwrap_or(&unknown);
    let mut latency = std::collections::BTreeMap::<String, RegionLatency>::new();
    for (key, seconds) in &net.derp_latency {
        let Some(region) = key.split('-').next().and_then(|id| id.parse().ok()).map(RegionId) else { continue };
        let name =
            tailnet.relays().region(region).map_or_else(|| region.to_string(), |region| region.region_name.clone());
        let milliseconds = seconds * 1000.0;
        let entry = latency.entry(name).or_insert(RegionLatency { preferred: false, latency_ms: milliseconds });
        entry.latency_ms = entry.latency_ms.min(milliseconds);
        entry.preferred = region == presence.home;
    }
    ClientConnectivity {
        endpoints: presence.endpoints.iter().map(ToString::to_string).collect(),
        mapping_varies_by_dest_ip: net.mapping_varies_by_dest_ip,
        latency,
        client_supports: ClientSupports {
            hair_pinning: None,
            ipv6: net.working_ipv6,
            pcp: net.pcp,
            pmp: net.pmp,
            udp: net.working_udp,
            upnp: net.upnp,
        },
    }
}
