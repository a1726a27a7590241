//! How names resolve, in the API's words.

use api::{
    ApiError, DnsConfiguration, DnsConfigurationPreferences, DnsNameservers, DnsResolver, DnsSearchPaths, InTailnet,
    SplitDns,
};
use tailnet::{Command, DnsSettings, Domain, NameServer};

use super::{Identity, Rest};

impl Rest {
    /// Changes how names resolve; what is not changed stays as it is.
    pub(super) async fn change_dns(
        &self,
        who: &Identity,
        at: &InTailnet,
        change: impl FnOnce(DnsSettings) -> Result<DnsSettings, ApiError>,
    ) -> Result<DnsSettings, ApiError> {
        let before = self.look_at(who, at, |tailnet| Ok(tailnet.dns().clone()))?;
        self.execute(who, Command::SetDns(change(before)?)).await?;
        self.look(who, |tailnet| Ok(tailnet.dns().clone()))
    }
}

/// The resolvers that every device uses.
pub(super) fn nameservers(dns: &DnsSettings) -> DnsNameservers {
    DnsNameservers { dns: dns.nameservers.iter().map(|server| server.address.clone()).collect() }
}

pub(super) fn set_nameservers(dns: DnsSettings, set: DnsNameservers) -> Result<DnsSettings, ApiError> {
    // A resolver that stays keeps what is known of it besides its address.
    let keep = |address: String| {
        let known = dns.nameservers.iter().find(|server| server.address == address).cloned();
        known.unwrap_or(NameServer { address, use_with_exit_node: false })
    };
    let nameservers = set.dns.into_iter().map(keep).collect();
    Ok(DnsSettings { nameservers, ..dns })
}

/// The domains that a short name is tried in.
pub(super) fn search_paths(dns: &DnsSettings) -> DnsSearchPaths {
    DnsSearchPaths { search_paths: dns.search.iter().map(ToString::to_string).collect() }
}

pub(super) fn set_search_paths(dns: DnsSettings, set: DnsSearchPaths) -> Result<DnsSettings, ApiError> {
    let search = set.search_paths.iter().map(|domain| parse(domain)).collect::<Result<_, _>>()?;
    Ok(DnsSettings { search, ..dns })
}

/// The domains that have resolvers of their own.
pub(super) fn split(dns: &DnsSettings) -> SplitDns {
    let addresses = |servers: &Vec<NameServer>| servers.iter().map(|server| server.address.clone()).collect();
    SplitDns(dns.split.iter().map(|(domain, servers)| (domain.to_string(), Some(addresses(servers)))).collect())
}

/// Sets the resolvers of some domains; `null` takes a domain out.
pub(super) fn update_split(mut dns: DnsSettings, set: SplitDns) -> Result<DnsSettings, ApiError> {
    for (domain, addresses) in set.0 {
        let domain = parse(&domain)?;
        match addresses.filter(|addresses| !addresses.is_empty()) {
            Some(addresses) => {
                let plain = |address| NameServer { address, use_with_exit_node: false };
                dns.split.insert(domain, addresses.into_iter().map(plain).collect());
            }
            None => {
                dns.split.remove(&domain);
            }
        }
    }
    Ok(dns)
}

/// Everything about names.
pub(super) fn configuration(dns: &DnsSettings) -> DnsConfiguration {
    let resolver = |server: &NameServer| DnsResolver {
        address: server.address.clone(),
        use_with_exit_node: server.use_with_exit_node,
    };
    let split = |(domain, servers): (&Domain, &Vec<NameServer>)| {
        (domain.to_string(), Some(servers.iter().map(resolver).collect()))
    };
    DnsConfiguration {
        nameservers: dns.nameservers.iter().map(resolver).collect(),
        split_dns: dns.split.iter().map(split).collect(),
        search_paths: search_paths(dns).search_paths,
        preferences: DnsConfigurationPreferences { override_local_dns: dns.override_local, magic_dns: dns.magic_dns },
    }
}

pub(super) fn configure(dns: DnsSettings, set: DnsConfiguration) -> Result<DnsSettings, ApiError> {
    let server = |resolver: DnsResolver| NameServer {
        address: resolver.address,
        use_with_exit_node: resolver.use_with_exit_node,
    };
    let mut split = std::collections::BTreeMap::new();
    for (domain, resolvers) in set.split_dns {
        if let Some(resolvers) = resolvers.filter(|resolvers| !resolvers.is_empty()) {
            split.insert(parse(&domain)?, resolvers.into_iter().map(server).collect());
        }
    }
    let search = set.search_paths.iter().map(|domain| parse(domain)).collect::<Result<_, _>>()?;
    Ok(DnsSettings {
        magic_dns: set.preferences.magic_dns,
        override_local: set.preferences.override_local_dns,
        nameservers: set.nameservers.into_iter().map(server).collect(),
        split,
        search,
        extra_records: dns.extra_records,
    })
}

fn parse(domain: &str) -> Result<Domain, ApiError> {
    domain.parse().map_err(|error: tailnet::DomainError| ApiError::bad_request(error.to_string()))
}
