use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::query::{Parameter, Query};
use crate::time;

/// A device of a tailnet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// Its addresses in the tailnet.
    pub addresses: Vec<String>,
    /// Its number, as text; paths take this or `nodeId`.
    pub id: String,
    /// Its stable id.
    pub node_id: String,
    /// The login name of its owner; of a tagged device, of who let it in.
    pub user: String,
    /// Its whole name in the tailnet, without a dot at the end.
    pub name: String,
    /// What it calls itself.
    pub hostname: String,
    /// The version of its client.
    pub client_version: String,
    /// Whether a newer client exists.
    pub update_available: bool,
    /// Its operating system.
    pub os: String,
    /// When it joined; empty for a device that is shared in.
    #[serde(with = "time::empty_is_none")]
    #[schemars(with = "String")]
    pub created: Option<Timestamp>,
    /// Whether it is connected now.
    pub connected_to_control: bool,
    /// When it was last connected; absent while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_seen: Option<Timestamp>,
    /// Whether its key never expires.
    pub key_expiry_disabled: bool,
    /// When its key expires; year 1 when it does not.
    #[serde(with = "time::zero_is_none")]
    #[schemars(with = "String")]
    pub expires: Option<Timestamp>,
    /// Whether an administrator has let it in, where that is asked for.
    pub authorized: bool,
    /// Whether it belongs to another tailnet and is shared in.
    pub is_external: bool,
    /// Whether two clients use its keys at once.
    pub multiple_connections: bool,
    /// Its machine key.
    pub machine_key: String,
    /// Its node key.
    pub node_key: String,
    /// Whether it takes no connections.
    pub blocks_incoming_connections: bool,
    /// The routes that others may use through it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled_routes: Option<Vec<String>>,
    /// The routes that it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertised_routes: Option<Vec<String>>,
    /// How it is connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_connectivity: Option<ClientConnectivity>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What is wrong with its tailnet lock signature.
    pub tailnet_lock_error: String,
    /// Its tailnet lock key.
    pub tailnet_lock_key: String,
    /// Whether it serves SSH in the tailnet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_enabled: Option<bool>,
    /// What identifies the hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posture_identity: Option<PostureIdentity>,
    /// Whether it goes away by itself when it is gone.
    pub is_ephemeral: bool,
    /// Its Linux distribution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distro: Option<Distro>,
}

/// How a device is connected.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientConnectivity {
    /// Where peers may reach it.
    pub endpoints: Vec<String>,
    /// Whether its NAT gives each destination another port.
    #[serde(rename = "mappingVariesByDestIP", skip_serializing_if = "Option::is_none")]
    pub mapping_varies_by_dest_ip: Option<bool>,
    /// How far each relay region is.
    pub latency: BTreeMap<String, RegionLatency>,
    /// What its network can do.
    pub client_supports: ClientSupports,
}

/// How far a relay region is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RegionLatency {
    /// Whether it is the device's home.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub preferred: bool,
    /// Milliseconds there and back.
    pub latency_ms: f64,
}

/// What a device's network can do, as far as known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientSupports {
    /// Reach itself by its outer address.
    pub hair_pinning: Option<bool>,
    /// IPv6.
    pub ipv6: Option<bool>,
    /// Port mapping by PCP.
    pub pcp: Option<bool>,
    /// Port mapping by NAT-PMP.
    pub pmp: Option<bool>,
    /// UDP at all.
    pub udp: Option<bool>,
    /// Port mapping by UPnP.
    pub upnp: Option<bool>,
}

/// What identifies a device's hardware.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PostureIdentity {
    /// Serial numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub serial_numbers: Vec<String>,
    /// Whether the device keeps them to itself.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

/// A Linux distribution.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Distro {
    /// `debian`.
    pub name: String,
    /// `12.4`.
    pub version: String,
    /// `bookworm`.
    pub code_name: String,
}

/// The devices of a tailnet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceList {
    /// All of them at once.
    pub devices: Vec<Device>,
}

/// Which of a device's fields are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceFields {
    /// Without routes, connectivity and hardware.
    #[default]
    Default,
    /// All.
    All,
}

impl DeviceFields {
    fn parse(text: &str) -> Result<Self, ApiError> {
        match text {
            "" | "default" => Ok(Self::Default),
            "all" => Ok(Self::All),
            _ => Err(ApiError::bad_request("fields is \"all\" or \"default\"")),
        }
    }

    /// Takes away what was not asked for.
    pub fn prune(self, mut device: Device) -> Device {
        if self == Self::Default {
            device.enabled_routes = None;
            device.advertised_routes = None;
            device.client_connectivity = None;
            device.posture_identity = None;
            device.ssh_enabled = None;
            device.distro = None;
        }
        device
    }
}

const FIELDS: Parameter = Parameter { name: "fields", required: false, values: &["all", "default"] };

impl Query for DeviceFields {
    const PARAMETERS: &'static [Parameter] = &[FIELDS];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        Self::parse(pairs.iter().find_map(|(name, value)| (name == "fields").then_some(value.as_str())).unwrap_or(""))
    }

    fn write(&self) -> Vec<(String, String)> {
        match self {
            Self::Default => Vec::new(),
            Self::All => vec![("fields".to_owned(), "all".to_owned())],
        }
    }
}

/// Which devices are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeviceQuery {
    /// Which of their fields.
    pub fields: DeviceFields,
    /// Only devices whose field of this name has (or, for lists, contains) this value; all must hold.
    pub filters: Vec<(String, String)>,
}

impl DeviceQuery {
    /// Whether a device has what the filters ask for.
    ///
    /// # Errors
    ///
    /// A filter that names no field of a device, or one that holds no plain value.
    pub fn admits(&self, device: &Device) -> Result<bool, ApiError> {
        let serde_json::Value::Object(fields) = serde_json::to_value(device).unwrap_or_default() else {
            return Ok(false);
        };
        for (name, wanted) in &self.filters {
            if !Self::FILTERS.contains(&name.as_str()) {
                let name: String = name.chars().take(64).collect();
                return Err(ApiError::bad_request(format!("devices can't be filtered by {name:?}")));
            }
            let holds = match fields.get(name) {
                Some(serde_json::Value::Array(values)) => values.iter().any(|value| value == wanted),
                Some(serde_json::Value::String(value)) => value == wanted,
                Some(serde_json::Value::Bool(value)) => value.to_string() == *wanted,
                _ => wanted.is_empty(),
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }

    const FILTERS: [&'static str; 25] = [
        "addresses",
        "id",
        "nodeId",
        "user",
        "name",
        "hostname",
        "clientVersion",
        "updateAvailable",
        "os",
        "created",
        "connectedToControl",
        "lastSeen",
        "keyExpiryDisabled",
        "expires",
        "authorized",
        "isExternal",
        "machineKey",
        "nodeKey",
        "blocksIncomingConnections",
        "enabledRoutes",
        "advertisedRoutes",
        "tags",
        "isEphemeral",
        "sshEnabled",
        "multipleConnections",
    ];
}

impl Query for DeviceQuery {
    const PARAMETERS: &'static [Parameter] = &[FIELDS];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        let fields = DeviceFields::read(pairs)?;
        let filters = pairs.iter().filter(|(name, _)| name != "fields").cloned().collect();
        Ok(Self { fields, filters })
    }

    fn write(&self) -> Vec<(String, String)> {
        self.fields.write().into_iter().chain(self.filters.iter().cloned()).collect()
    }
}

/// The routes of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceRoutes {
    /// Those that it offers.
    pub advertised_routes: Vec<String>,
    /// Those that others may use.
    pub enabled_routes: Vec<String>,
}

/// Which routes of a device others may use from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetDeviceRoutes {
    /// All of them; a route that is not here is taken away.
    pub routes: Vec<String>,
}

/// Whether a device is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuthorizeDevice {
    /// Whether it is.
    pub authorized: bool,
}

/// A device's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetDeviceName {
    /// The first label of the name, or the whole; empty for the one that the device has of itself.
    pub name: String,
}

/// A device's tags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetDeviceTags {
    /// All of them; an empty list takes the tags away.
    pub tags: Vec<String>,
}

/// Whether a device's key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetDeviceKey {
    /// Whether it never does.
    pub key_expiry_disabled: bool,
}

/// What a device is asked to show: an extension of the official API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PingDevice {
    /// The address of a peer that it is to ping; empty for it to show only that it is there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// How it pings that peer.
    pub kind: PingKind,
}

/// A way to ping a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PingKind {
    /// Below WireGuard: finds the path.
    #[default]
    Disco,
    /// Within the tunnel, answered by the peer's node.
    Tsmp,
    /// Within the tunnel, answered by the peer's system.
    Icmp,
    /// By the peer's own API.
    PeerApi,
}

/// What a device showed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DevicePing {
    /// Whether the device answered.
    pub answered: bool,
    /// Milliseconds until it did.
    pub answered_after_ms: f64,
    /// Milliseconds to the peer and back, where it was to ping one and could.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_latency_ms: Option<f64>,
    /// The UDP endpoint of the peer that answered, when the path is direct.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The code of the relay region between, when it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub relay: String,
    /// What went wrong.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> DeviceQuery {
        DeviceQuery::read(&crate::urlencoded::decode_pairs(text)).unwrap()
    }

    #[test]
    fn filters_are_anded_and_look_into_lists() {
        let device = Device { tags: vec!["tag:x".into(), "tag:y".into()], is_ephemeral: true, ..Device::default() };
        assert!(query("isEphemeral=true&tags=tag:y").admits(&device).unwrap());
        assert!(!query("isEphemeral=false&tags=tag:y").admits(&device).unwrap());
        assert!(!query("tags=tag:z").admits(&device).unwrap());
        assert!(query("tagz=tag:z").admits(&device).unwrap_err().message.contains("\"tagz\""));
    }

    #[test]
    fn the_default_fields_leave_out_routes_and_connectivity() {
        let device =
            Device { enabled_routes: Some(vec![]), client_connectivity: Some(Default::default()), ..Device::default() };
        let json = serde_json::to_string(&query("").fields.prune(device.clone())).unwrap();
        assert!(!json.contains("enabledRoutes") && !json.contains("clientConnectivity"), "{json}");
        let json = serde_json::to_string(&query("fields=all").fields.prune(device)).unwrap();
        assert!(json.contains("enabledRoutes") && json.contains("clientConnectivity"), "{json}");
    }

    #[test]
    fn a_device_without_times_has_the_official_words_for_it() {
        let json = serde_json::to_value(Device::default()).unwrap();
        assert_eq!(json["created"], "");
        assert_eq!(json["expires"], "0001-01-01T00:00:00Z");
        assert!(json.get("lastSeen").is_none());
        let read: Device = serde_json::from_value(serde_json::json!({"created": "", "lastSeen": null})).unwrap();
        assert_eq!(read, Device::default());
    }
}
