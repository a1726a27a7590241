//! How names resolve, in the API's words.

use std::collections::BTreeMap;

use api::{
    ApiError, DnsConfiguration, DnsConfigurationPreferences, DnsNameservers, DnsResolver, DnsSearchPaths, InTailnet,
    SplitDns,
};
use tailnet::{Command, DnsPatch, DnsSettings, Domain, NameServer};

use super::{Identity, Rest};

impl Rest {
    /// Changes how names resolve, and answers how they do then. What the change does not name stays, whoever else changes
    /// it at the same time.
    pub(super) async fn change_dns(
        &self,
        who: &Identity,
        at: &InTailnet,
        patch: DnsPatch,
    ) -> Result<DnsSettings, ApiError> {
        self.look_at(who, at, |_| Ok(()))?;
        self.execute(who, Command::UpdateDns(patch)).await?;
        self.look(who, |tailnet| Ok(tailnet.dns().clone()))
    }
}

/// The resolvers that every device uses.
pub(super) fn nameservers(dns: &DnsSettings) -> DnsNameservers {
    DnsNameservers { dns: dns.nameservers.iter().map(|server| server.address.clone()).collect() }
}

/// The domains that a short name is tried in.
pub(super) fn search_paths(dns: &DnsSettings) -> DnsSearchPaths {
    DnsSearchPaths { search_paths: dns.search.iter().map(ToString::to_string).collect() }
}

pub(super) fn read_search_paths(paths: &[String]) -> Result<Vec<Domain>, ApiError> {
    paths.iter().map(|domain| parse(domain)).collect()
}

/// The domains that have resolvers of their own.
pub(super) fn split(dns: &DnsSettings) -> SplitDns {
    let addresses = |servers: &Vec<NameServer>| servers.iter().map(|server| server.address.clone()).collect();
    SplitDns(dns.split.iter().map(|(domain, servers)| (domain.to_string(), Some(addresses(servers)))).collect())
}

/// Domains with their resolvers; none where a domain is to be taken out.
pub(super) fn read_split(set: SplitDns) -> Result<BTreeMap<Domain, Vec<NameServer>>, ApiError> {
    let read = |(domain, addresses): (String, Option<Vec<String>>)| -> Result<_, ApiError> {
        let servers = addresses.unwrap_or_default().into_iter().map(NameServer::plain);
        Ok((parse(&domain)?, servers.collect()))
    };
    set.0.into_iter().map(read).collect()
}

/// Domains with their resolvers, and none without.
pub(super) fn read_whole_split(set: SplitDns) -> Result<BTreeMap<Domain, Vec<NameServer>>, ApiError> {
    let mut split = read_split(set)?;
    split.retain(|_, servers| !servers.is_empty());
    Ok(split)
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

pub(super) fn read_configuration(set: DnsConfiguration) -> Result<DnsSettings, ApiError> {
    let server = |resolver: DnsResolver| NameServer {
        address: resolver.address,
        use_with_exit_node: resolver.use_with_exit_node,
    };
    let mut split = BTreeMap::new();
    for (domain, resolvers) in set.split_dns {
        if let Some(resolvers) = resolvers.filter(|resolvers| !resolvers.is_empty()) {
            split.insert(parse(&domain)?, resolvers.into_iter().map(server).collect());
        }
    }
    Ok(DnsSettings {
        magic_dns: set.preferences.magic_dns,
        override_local: set.preferences.override_local_dns,
        nameservers: set.nameservers.into_iter().map(server).collect(),
        split,
        search: read_search_paths(&set.search_paths)?,
    })
}

fn parse(domain: &str) -> Result<Domain, ApiError> {
    domain.parse().map_err(|error: tailnet::DomainError| ApiError::bad_request(error.to_string()))
}
