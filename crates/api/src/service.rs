use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A virtual service: a name and addresses that several devices answer for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(rename = "VIPServiceInfo")]
pub struct VirtualService {
    /// `svc:` and a DNS label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its addresses, IPv4 and IPv6.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addrs: Vec<String>,
    /// What its maker wrote about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// What programs wrote about it, kept as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `tcp:443` and the like, or only `do-not-validate`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// The virtual services of a tailnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceList {
    /// All of them at once.
    pub vip_services: Vec<VirtualService>,
}
