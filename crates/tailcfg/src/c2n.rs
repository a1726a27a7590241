//! Requests of the server to a node: HTTP/1.1 carried in a [`crate::PingRequest`] of type `c2n`, and their answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::go;

/// What [`crate::PingRequest::types`] says for such a request.
pub const TYPE: &str = "c2n";

/// `GET` it to have the request's body sent back.
pub const ECHO: &str = "/echo";

/// `GET` it for [`VipServices`].
pub const VIP_SERVICES: &str = "/vip-services";

/// `GET` it for [`AppConnectorRoutes`].
pub const APP_CONNECTOR_ROUTES: &str = "/appconnector/routes";

/// `GET` it for [`PostureIdentity`].
pub const POSTURE_IDENTITY: &str = "/posture/identity";

/// `GET` it with `?domain=` for [`TlsCertStatus`].
pub const TLS_CERT_STATUS: &str = "/tls-cert-status";

/// The services that a node hosts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VipServices {
    /// The services.
    #[serde(rename = "VIPServices", deserialize_with = "go::nullable")]
    pub vip_services: Vec<VipService>,
    /// The hash that [`crate::Hostinfo::services_hash`] has for them.
    pub services_hash: String,
}

/// A service that a node hosts.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VipService {
    /// `svc:` and a name.
    pub name: String,
    /// Ports as `tcp:443` or `tcp:80-90`.
    #[serde(deserialize_with = "go::nullable")]
    pub ports: Vec<String>,
    /// Whether the node takes connections for it now.
    pub active: bool,
}

/// The addresses that an app connector found behind its domains.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AppConnectorRoutes {
    /// Addresses by domain.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<String, Vec<std::net::IpAddr>>,
}

/// What identifies the device behind a node.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PostureIdentity {
    /// Serial numbers.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub serial_numbers: Vec<String>,
    /// MAC addresses.
    #[serde(rename = "IfaceHardwareAddrs", deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub hardware_addresses: Vec<String>,
    /// Whether the user turned the report off.
    #[serde(skip_serializing_if = "go::is_default")]
    pub posture_disabled: bool,
}

/// How a node's certificate for a domain stands.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TlsCertStatus {
    /// Whether it is there and good.
    #[serde(skip_serializing_if = "go::is_default")]
    pub valid: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Whether there is none.
    #[serde(skip_serializing_if = "go::is_default")]
    pub missing: bool,
    /// Whether its time is over.
    #[serde(skip_serializing_if = "go::is_default")]
    pub expired: bool,
    /// Since when it counts, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub not_before: String,
    /// Until when it counts, RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub not_after: String,
}
