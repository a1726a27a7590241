use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::go;
use crate::id::RegionId;

/// The server asks the node to show that it is there, or to ping a peer, or to run a request ([`crate::c2n`]).
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PingRequest {
    /// Where the answer goes; a URL seen before is not answered again.
    #[serde(rename = "URL")]
    pub url: String,
    /// Whether the answer goes through the Noise channel.
    #[serde(rename = "URLIsNoise", skip_serializing_if = "go::is_default")]
    pub url_is_noise: bool,
    /// Whether the node logs the ping.
    #[serde(skip_serializing_if = "go::is_default")]
    pub log: bool,
    /// Kinds of ping, comma separated: `disco`, `TSMP`, `ICMP`, `peerapi`, or `c2n`. Empty asks for a HEAD of the URL.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub types: String,
    /// The peer to ping.
    #[serde(rename = "IP", with = "go::optional_text", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The HTTP/1.1 request to run.
    #[serde(with = "go::bytes", skip_serializing_if = "Vec::is_empty")]
    pub payload: Vec<u8>,
}

/// What came of pinging a peer.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PingResponse {
    /// The kind of ping.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The address pinged.
    #[serde(rename = "IP", skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// The peer's mesh address.
    #[serde(rename = "NodeIP", skip_serializing_if = "String::is_empty")]
    pub node_ip: String,
    /// The peer's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node_name: String,
    /// What went wrong, or empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub err: String,
    /// The round trip.
    #[serde(skip_serializing_if = "go::is_default")]
    pub latency_seconds: f64,
    /// The UDP endpoint that answered, when it was direct.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The peer relay that answered, when it was one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer_relay: String,
    /// The relay region that the answer came through.
    #[serde(rename = "DERPRegionID", skip_serializing_if = "RegionId::is_none")]
    pub derp_region_id: RegionId,
    /// Its code.
    #[serde(rename = "DERPRegionCode", skip_serializing_if = "String::is_empty")]
    pub derp_region_code: String,
    /// The port of the peer's peer API.
    #[serde(rename = "PeerAPIPort", skip_serializing_if = "go::is_default")]
    pub peer_api_port: u16,
    /// Whether the address pinged is the node's own.
    #[serde(rename = "IsLocalIP", skip_serializing_if = "go::is_default")]
    pub is_local_ip: bool,
}
