use std::collections::BTreeMap;

use tailcfg::{DnsConfig, DnsRecord, Resolver};

use crate::record::{NameServer, Node};
use crate::tailnet::Tailnet;

impl Tailnet {
    /// How a device resolves names.
    pub(super) fn dns_config(&self, node: &Node) -> DnsConfig {
        let dns = self.dns();
        let domain = self.domain().as_str();
        let mut routes: BTreeMap<String, Vec<Resolver>> = dns
            .split
            .iter()
            .map(|(domain, servers)| (domain.as_str().to_owned(), servers.iter().map(resolver).collect()))
            .collect();
        let mut domains: Vec<String> = Vec::new();
        if dns.magic_dns {
            // No resolvers means that the device answers for its tailnet's names itself.
            routes.insert(domain.to_owned(), Vec::new());
            domains.push(domain.to_owned());
        }
        domains.extend(dns.search.iter().map(|domain| domain.as_str().to_owned()));
        let global: Vec<Resolver> = dns.nameservers.iter().map(resolver).collect();
        let (resolvers, fallback_resolvers) =
            if dns.override_local { (global, Vec::new()) } else { (Vec::new(), global) };
        let cert_domains = if self.settings().https { vec![self.full_name(node)] } else { Vec::new() };
        DnsConfig {
            resolvers,
            routes,
            fallback_resolvers,
            domains,
            proxied: dns.magic_dns,
            nameservers: Vec::new(),
            cert_domains,
            extra_records: self.service_records().collect(),
            exit_node_filtered_set: Vec::new(),
        }
    }

    /// Virtual services are no peers: their names are records.
    fn service_records(&self) -> impl Iterator<Item = DnsRecord> {
        let named = self.services().filter_map(|service| Some((service.name.label()?, service)));
        named.flat_map(|(label, service)| {
            let name = self.domain().name(&label);
            service.addresses.both().map(|address| DnsRecord {
                name: name.clone(),
                kind: String::new(),
                value: address.to_string(),
            })
        })
    }
}

fn resolver(server: &NameServer) -> Resolver {
    Resolver {
        addr: server.address.clone(),
        bootstrap_resolution: Vec::new(),
        use_with_exit_node: server.use_with_exit_node,
    }
}
