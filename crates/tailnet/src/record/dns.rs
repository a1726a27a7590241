use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tailcfg::DnsRecord;

use crate::name::Domain;

/// How the devices of a tailnet resolve names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DnsSettings {
    /// Whether names of devices resolve.
    pub magic_dns: bool,
    /// Whether [`Self::nameservers`] replace a device's own resolvers.
    pub override_local: bool,
    /// Resolvers for every name.
    pub nameservers: Vec<NameServer>,
    /// Resolvers for names below a domain.
    pub split: BTreeMap<Domain, Vec<NameServer>>,
    /// Domains in which a short name is tried, behind the tailnet's own.
    pub search: Vec<Domain>,
    /// Records besides those of the devices.
    pub extra_records: Vec<DnsRecord>,
}

/// A resolver.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameServer {
    /// An address, `address:port`, or the URL of a DNS-over-HTTPS service.
    pub address: String,
    /// Whether it is asked even while an exit node is in use.
    #[serde(default)]
    pub use_with_exit_node: bool,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            magic_dns: true,
            override_local: false,
            nameservers: Vec::new(),
            split: BTreeMap::new(),
            search: Vec::new(),
            extra_records: Vec::new(),
        }
    }
}
