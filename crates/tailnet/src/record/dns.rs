use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
}

/// A change of how names resolve; what it does not name stays as it is when the change is decided on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsPatch {
    /// Whether names of devices resolve.
    MagicDns(bool),
    /// The addresses of the resolvers for every name. A resolver that stays keeps what is known of it besides.
    NameServers(Vec<String>),
    /// Domains in which a short name is tried.
    Search(Vec<Domain>),
    /// The resolvers of some domains; none takes a domain out.
    Split(BTreeMap<Domain, Vec<NameServer>>),
    /// All domains that have resolvers of their own.
    WholeSplit(BTreeMap<Domain, Vec<NameServer>>),
    /// Everything.
    Whole(DnsSettings),
}

impl DnsSettings {
    /// These settings with a change applied.
    pub fn patched(&self, patch: DnsPatch) -> Self {
        let mut dns = self.clone();
        match patch {
            DnsPatch::MagicDns(magic_dns) => dns.magic_dns = magic_dns,
            DnsPatch::NameServers(addresses) => {
                let keep = |address: String| {
                    let known = self.nameservers.iter().find(|server| server.address == address).cloned();
                    known.unwrap_or_else(|| NameServer::plain(address))
                };
                dns.nameservers = addresses.into_iter().map(keep).collect();
            }
            DnsPatch::Search(search) => dns.search = search,
            DnsPatch::Split(split) => {
                dns.split.extend(split);
                dns.split.retain(|_, servers| !servers.is_empty());
            }
            DnsPatch::WholeSplit(split) => dns.split = split,
            DnsPatch::Whole(whole) => dns = whole,
        }
        dns
    }
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

impl NameServer {
    /// A resolver of which nothing but its address is known.
    pub fn plain(address: String) -> Self {
        Self { address, use_with_exit_node: false }
    }
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            magic_dns: true,
            override_local: false,
            nameservers: Vec::new(),
            split: BTreeMap::new(),
            search: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(addresses: &[&str]) -> Vec<NameServer> {
        addresses.iter().map(|address| NameServer::plain((*address).to_owned())).collect()
    }

    #[test]
    fn a_resolver_that_stays_keeps_what_is_known_of_it() {
        let known = NameServer { use_with_exit_node: true, ..NameServer::plain("9.9.9.9".to_owned()) };
        let dns = DnsSettings { nameservers: vec![known.clone()], ..DnsSettings::default() };
        let dns = dns.patched(DnsPatch::NameServers(vec!["1.1.1.1".to_owned(), "9.9.9.9".to_owned()]));
        assert_eq!(dns.nameservers, [NameServer::plain("1.1.1.1".to_owned()), known]);
    }

    #[test]
    fn domains_come_go_and_stay() {
        let domain = |text: &str| text.parse::<Domain>().unwrap();
        let split =
            BTreeMap::from([(domain("a.test"), servers(&["10.0.0.1"])), (domain("b.test"), servers(&["10.0.0.2"]))]);
        let dns = DnsSettings::default().patched(DnsPatch::WholeSplit(split));
        let change = BTreeMap::from([(domain("a.test"), Vec::new()), (domain("c.test"), servers(&["10.0.0.3"]))]);
        let dns = dns.patched(DnsPatch::Split(change));
        assert_eq!(dns.split.keys().map(Domain::as_str).collect::<Vec<_>>(), ["b.test", "c.test"]);
        assert!(dns.magic_dns);
    }

    #[test]
    fn settings_that_were_written_with_records_of_nobody_still_read() {
        let written = r#"{"magic_dns": false, "extra_records": [{"Name": "db.corp", "Value": "100.64.0.9"}]}"#;
        let read: DnsSettings = serde_json::from_str(written).unwrap();
        assert_eq!(read, DnsSettings { magic_dns: false, ..DnsSettings::default() });
    }
}
