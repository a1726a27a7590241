use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The resolvers that every device uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsNameservers {
    /// Addresses, or `https://` URLs for DNS over HTTPS.
    #[serde(default, deserialize_with = "crate::json::null_is_default")]
    pub dns: Vec<String>,
}

/// The resolvers as they are after a change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsNameserversSet {
    /// The resolvers.
    pub dns: Vec<String>,
    /// Whether names of the tailnet still resolve.
    #[serde(rename = "magicDNS")]
    pub magic_dns: bool,
}

/// Whether names of the tailnet resolve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsPreferences {
    /// Whether they do.
    #[serde(rename = "magicDNS")]
    pub magic_dns: bool,
}

/// The domains that a short name is tried in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DnsSearchPaths {
    /// Domains, in order.
    #[serde(deserialize_with = "crate::json::null_is_default")]
    pub search_paths: Vec<String>,
}

/// Domains whose names are asked of resolvers of their own; `null` takes a domain out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SplitDns(pub BTreeMap<String, Option<Vec<String>>>);

/// A resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsResolver {
    /// An address, or an `https://` URL for DNS over HTTPS.
    pub address: String,
    /// Whether it is used beside an exit node too.
    pub use_with_exit_node: bool,
}

/// How names are preferred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DnsConfigurationPreferences {
    /// Whether the tailnet's resolvers replace the device's own.
    #[serde(rename = "overrideLocalDNS")]
    pub override_local_dns: bool,
    /// Whether names of the tailnet resolve.
    #[serde(rename = "magicDNS")]
    pub magic_dns: bool,
}

/// Everything about names at once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DnsConfiguration {
    /// The resolvers that every device uses.
    #[serde(deserialize_with = "crate::json::null_is_default")]
    pub nameservers: Vec<DnsResolver>,
    /// Domains whose names are asked of resolvers of their own.
    #[serde(rename = "splitDNS", deserialize_with = "crate::json::null_is_default")]
    pub split_dns: BTreeMap<String, Option<Vec<DnsResolver>>>,
    /// The domains that a short name is tried in.
    #[serde(deserialize_with = "crate::json::null_is_default")]
    pub search_paths: Vec<String>,
    /// How names are preferred.
    pub preferences: DnsConfigurationPreferences,
}
