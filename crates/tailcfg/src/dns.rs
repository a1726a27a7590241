use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::go;

/// How the node resolves names; each one sent replaces the last as a whole.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsConfig {
    /// Resolvers for every name that no route claims; they override the machine's own.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub resolvers: Vec<Resolver>,
    /// Resolvers by suffix without a trailing dot. None for a suffix means that MagicDNS answers for it.
    #[serde(deserialize_with = "routes::deserialize", skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Vec<Resolver>>,
    /// Resolvers for a machine that has none of its own to fall back on.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub fallback_resolvers: Vec<Resolver>,
    /// Search domains, without trailing dots.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub domains: Vec<String>,
    /// Whether MagicDNS is on.
    #[serde(skip_serializing_if = "go::is_default")]
    pub proxied: bool,
    /// Resolvers in the form before [`Self::resolvers`].
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
    /// Names for which the node can have certificates, without trailing dots.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub cert_domains: Vec<String>,
    /// Records that MagicDNS answers besides the nodes' own.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub extra_records: Vec<DnsRecord>,
    /// Suffixes that an exit node does not resolve for its users.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub exit_node_filtered_set: Vec<String>,
}

/// One resolver.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resolver {
    /// An IP address, `ip:port`, or the URL of a DNS-over-HTTPS service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub addr: String,
    /// Addresses of the service's host.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub bootstrap_resolution: Vec<IpAddr>,
    /// Whether it is asked even while an exit node is in use.
    #[serde(skip_serializing_if = "go::is_default")]
    pub use_with_exit_node: bool,
}

/// A record that MagicDNS answers.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DnsRecord {
    /// The full name; a trailing dot is optional.
    pub name: String,
    /// `A` or `AAAA`; empty means by the value.
    #[serde(rename = "Type", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The address.
    pub value: String,
}

mod routes {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer};

    use super::Resolver;

    /// Reads a map in which a suffix may carry `null` for "no resolvers".
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Vec<Resolver>>, D::Error> {
        let map = Option::<BTreeMap<String, Option<Vec<Resolver>>>>::deserialize(deserializer)?.unwrap_or_default();
        Ok(map.into_iter().map(|(suffix, resolvers)| (suffix, resolvers.unwrap_or_default())).collect())
    }
}
