use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tailcfg::{DnsConfig, Node, Resolver, cap};

use crate::Mesh;
use crate::local::is_mesh_address;
use crate::netmap::suffix_of;
use crate::state::addresses;

/// Where every node finds MagicDNS by IPv4.
pub const SERVICE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(100, 100, 100, 100));
/// Where every node finds MagicDNS by IPv6.
pub const SERVICE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd7a, 0x115c, 0xa1e0, 0, 0, 0, 0, 0x53));

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The full name, in any case, with or without a trailing dot.
    pub name: String,
    /// The kind of record.
    pub kind: QuestionKind,
}

/// The kinds of record that MagicDNS treats differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionKind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// The name of an address.
    Ptr,
    /// Addresses of both families.
    Any,
    /// Kinds that are not answered about the tailnet's names: NS, SOA, AXFR, HINFO.
    Zone,
    /// Any other.
    Other,
}

/// What becomes of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolution {
    /// These are the addresses; none when the name is there and has no such record.
    Addresses(Vec<IpAddr>),
    /// This is the name.
    Name(String),
    /// There is no such name.
    NoSuchName,
    /// Such questions are not answered.
    NotImplemented,
    /// These resolvers are to be asked, and no others.
    Forward(Vec<Resolver>),
    /// The resolvers that the machine had before are to be asked.
    ForwardToSystem,
}

/// What the machine's name settings should be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemDns {
    /// The name servers; none leaves the machine's settings alone.
    pub servers: Vec<IpAddr>,
    /// Search domains, without trailing dots.
    pub search: Vec<String>,
    /// Suffixes that the servers are for, where the system can tell names apart.
    pub matches: Vec<String>,
}

/// What MagicDNS knows: the names of nodes, further records, and who answers for the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    hosts: BTreeMap<String, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, String>,
    /// Names below which every name is the node's.
    with_subdomains: BTreeSet<String>,
    /// Suffixes about which nobody else is asked.
    own: BTreeSet<String>,
    routes: BTreeMap<String, Vec<Resolver>>,
    upstreams: Vec<Resolver>,
    /// Resolvers for a machine that has none of its own.
    fallback: Vec<Resolver>,
}

impl Names {
    /// Answers a question, or says who does.
    pub fn resolve(&self, question: &Question) -> Resolution {
        let name = normal(&question.name);
        if is_within(&name, "onion") {
            return Resolution::NoSuchName;
        }
        if let Some(address) = reverse(&name) {
            return self.resolve_reverse(address, &name, question.kind);
        }
        if let Some(addresses) = self.host(&name) {
            return match question.kind {
                QuestionKind::A => Resolution::Addresses(of_family(addresses, IpAddr::is_ipv4)),
                QuestionKind::Aaaa => Resolution::Addresses(of_family(addresses, IpAddr::is_ipv6)),
                QuestionKind::Any => Resolution::Addresses(addresses.to_vec()),
                QuestionKind::Zone => Resolution::NotImplemented,
                QuestionKind::Ptr | QuestionKind::Other => Resolution::Addresses(Vec::new()),
            };
        }
        if let Some(via) = self.via(&name) {
            let wanted = matches!(question.kind, QuestionKind::Aaaa | QuestionKind::Any);
            return Resolution::Addresses(if wanted { vec![via] } else { Vec::new() });
        }
        self.forward(&name, question.kind)
    }

    /// Resolvers for a machine that has none of its own to fall back on.
    pub fn fallback(&self) -> &[Resolver] {
        &self.fallback
    }

    /// The addresses of a name, when it is one of the tailnet's: what a program on this node dials.
    pub fn addresses_of(&self, name: &str) -> Option<&[IpAddr]> {
        self.host(&normal(name))
    }

    fn host(&self, name: &str) -> Option<&[IpAddr]> {
        if let Some(addresses) = self.hosts.get(name) {
            return Some(addresses);
        }
        let above = ancestors(name).find(|above| self.with_subdomains.contains(*above))?;
        self.hosts.get(above).map(Vec::as_slice)
    }

    /// The address that `<a-b-c-d>-via-<site>` stands for below the tailnet's suffix: an IPv4 address behind a site.
    fn via(&self, name: &str) -> Option<IpAddr> {
        let (label, suffix) = name.split_once('.').unwrap_or((name, ""));
        if !suffix.is_empty() && !self.own.contains(suffix) {
            return None;
        }
        let (address, site) = label.split_once("-via-")?;
        let address: Ipv4Addr = address.replace('-', ".").parse().ok()?;
        let site: u32 = site.parse().ok()?;
        let prefix = u128::from_be_bytes([0xfd, 0x7a, 0x11, 0x5c, 0xa1, 0xe0, 0x0b, 0x1a, 0, 0, 0, 0, 0, 0, 0, 0]);
        Some(IpAddr::V6(Ipv6Addr::from_bits(prefix | u128::from(site) << 32 | u128::from(address.to_bits()))))
    }

    fn resolve_reverse(&self, address: IpAddr, name: &str, kind: QuestionKind) -> Resolution {
        match (self.names.get(&address), kind) {
            (Some(name), QuestionKind::Ptr | QuestionKind::Any) => Resolution::Name(name.clone()),
            (Some(_), _) => Resolution::Addresses(Vec::new()),
            // Who has which address of the mesh is nobody else's business.
            (None, _) if is_mesh_address(address) => Resolution::NoSuchName,
            (None, kind) => self.forward(name, kind),
        }
    }

    /// The longest suffix with a route of its own decides; a suffix of the tailnet's own is never asked about outside.
    fn forward(&self, name: &str, kind: QuestionKind) -> Resolution {
        for suffix in [name].into_iter().chain(ancestors(name)) {
            if self.own.contains(suffix) {
                let zone = kind == QuestionKind::Zone;
                let at_top = suffix == name;
                return match (zone, at_top) {
                    (true, _) => Resolution::NotImplemented,
                    (false, true) => Resolution::Addresses(Vec::new()),
                    (false, false) => Resolution::NoSuchName,
                };
            }
            if let Some(resolvers) = self.routes.get(suffix) {
                return Resolution::Forward(resolvers.clone());
            }
        }
        if self.upstreams.is_empty() {
            Resolution::ForwardToSystem
        } else {
            Resolution::Forward(self.upstreams.clone())
        }
    }
}

impl Mesh {
    /// What MagicDNS is to answer now.
    pub fn names(&self) -> Names {
        let Some(netmap) = self.netmap() else { return Names::default() };
        let dns = netmap.dns();
        let mut names = Names { fallback: dns.fallback_resolvers.clone(), ..Names::default() };
        if dns.proxied {
            let both = netmap.node().cap_map.has(cap::MAGICDNS_AAAA);
            for node in [netmap.node()].into_iter().chain(netmap.peers().values()) {
                names.add_node(node, both);
            }
        }
        names.add_records(dns);
        if dns.proxied && !netmap.magic_dns_suffix().is_empty() {
            names.own.insert(normal(netmap.magic_dns_suffix()));
        }
        if self.preferences().corp_dns {
            for (suffix, resolvers) in &dns.routes {
                let suffix = normal(suffix);
                if resolvers.is_empty() {
                    names.own.insert(suffix);
                } else {
                    names.routes.insert(suffix, resolvers.clone());
                }
            }
            names.upstreams.clone_from(&dns.resolvers);
        }
        if let crate::ExitNode::Peer(peer) = self.exit_node() {
            names.use_exit_node(&peer);
        }
        names
    }

    /// What the machine's name settings should be now; empty leaves them alone.
    pub fn system_dns(&self) -> SystemDns {
        let Some(netmap) = self.netmap().filter(|_| self.preferences().corp_dns) else { return SystemDns::default() };
        let dns = netmap.dns();
        let needs_us = dns.proxied || !dns.routes.is_empty() || !dns.extra_records.is_empty();
        if !needs_us && dns.resolvers.is_empty() {
            return SystemDns::default();
        }
        let plain: Option<Vec<IpAddr>> = dns.resolvers.iter().map(|resolver| resolver.addr.parse().ok()).collect();
        let servers = match plain {
            Some(plain) if !needs_us => plain,
            _ => vec![SERVICE_V4],
        };
        let matches = if dns.resolvers.is_empty() { dns.routes.keys().cloned().collect() } else { Vec::new() };
        SystemDns { servers, search: dns.domains.clone(), matches }
    }
}

impl Names {
    fn add_node(&mut self, node: &Node, both: bool) {
        let name = normal(&node.name);
        if name.is_empty() || suffix_of(&name).is_empty() {
            // A bare name would stand for something else in everybody's resolver.
            return;
        }
        let all = addresses(node);
        for address in &all {
            self.names.entry(*address).or_insert_with(|| format!("{name}."));
        }
        let v4 = of_family(&all, IpAddr::is_ipv4);
        let shown = if both || v4.is_empty() { all } else { v4 };
        if node.cap_map.has(cap::DNS_SUBDOMAIN_RESOLVE) {
            self.with_subdomains.insert(name.clone());
        }
        self.hosts.entry(name).or_insert(shown);
    }

    fn add_records(&mut self, dns: &DnsConfig) {
        for record in &dns.extra_records {
            let Ok(address) = record.value.parse::<IpAddr>() else { continue };
            let fits = match &*record.kind {
                "" => true,
                "A" => address.is_ipv4(),
                "AAAA" => address.is_ipv6(),
                _ => false,
            };
            if fits {
                self.hosts.entry(normal(&record.name)).or_default().push(address);
            }
        }
    }

    /// With an exit node, names are asked where it says, but for resolvers that stay in use.
    fn use_exit_node(&mut self, peer: &Node) {
        let stays = |resolvers: &Vec<Resolver>| -> Vec<Resolver> {
            resolvers.iter().filter(|resolver| resolver.use_with_exit_node).cloned().collect()
        };
        let kept = stays(&self.upstreams);
        if !peer.exit_node_dns_resolvers.is_empty() {
            self.upstreams.clone_from(&peer.exit_node_dns_resolvers);
        } else if !kept.is_empty() {
            self.upstreams = kept;
        }
    }
}

/// The name in lower case without a trailing dot.
fn normal(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// The names above a name, nearest first.
fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(name.split_once('.').map(|(_, above)| above), |name| {
        name.split_once('.').map(|(_, above)| above)
    })
}

fn is_within(name: &str, suffix: &str) -> bool {
    name == suffix || name.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'))
}

fn of_family(addresses: &[IpAddr], family: fn(&IpAddr) -> bool) -> Vec<IpAddr> {
    addresses.iter().copied().filter(family).collect()
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` asks for.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(text) = name.strip_suffix(".in-addr.arpa") {
        let mut bytes = [0_u8; 4];
        let mut labels = text.split('.');
        for byte in bytes.iter_mut().rev() {
            *byte = labels.next()?.parse().ok()?;
        }
        return labels.next().is_none().then(|| IpAddr::from(bytes));
    }
    let text = name.strip_suffix(".ip6.arpa")?;
    let mut bits = 0_u128;
    let mut count = 0;
    for label in text.rsplit('.') {
        let digit = u8::from_str_radix(label, 16).ok().filter(|_| label.len() == 1)?;
        bits = bits << 4 | u128::from(digit);
        count += 1;
    }
    (count == 32).then(|| IpAddr::V6(Ipv6Addr::from_bits(bits)))
}

#[cfg(test)]
mod tests;
