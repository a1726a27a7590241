//! Small tailnets and policies, and what they mean read word by word: no sets, no indices, no merging. Property tests and
//! fuzzers make them of numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use filter::{AddressRange, Protocol};
use ipnet::IpNet;
use policy::{Node, NodeId, Owner, PostureValue, Role, Service, Tag, Topology, User, UserId};

pub(crate) const USERS: [(&str, Role); 3] =
    [("ann@example.com", Role::Owner), ("bob@example.com", Role::Member), ("cat@example.org", Role::Admin)];
pub(crate) const TAGS: [&str; 3] = ["tag:web", "tag:db", "tag:gate"];
const ROUTES: [&str; 4] = ["10.33.0.0/16", "10.44.0.0/16", "0.0.0.0/0", "fd00:1::/64"];
const HOSTS: [(&str, &str); 4] =
    [("office", "10.33.0.0/16"), ("second", "100.64.0.2"), ("resolver", "8.8.8.0/24"), ("six", "fd7a:115c:a1e0::3")];
const GROUPS: [(&str, &[&str]); 2] =
    [("group:dev", &["ann@example.com", "cat@example.org"]), ("group:ops", &["bob@example.com"])];

/// Addresses in ranges, as they are written and what they come to.
const MIXED: (&str, &[&str], &[&str]) = (
    "ipset:mixed",
    &["10.33.0.0/16", "remove 10.33.9.0/24", "add 100.64.0.2"],
    &["10.33.0.0-10.33.8.255", "10.33.10.0-10.33.255.255", "100.64.0.2"],
);
/// A service that some nodes host.
pub(crate) const SHOP: &str = "svc:shop";
const SHOP_ADDRESS: &str = "100.64.1.1";
/// Who has which attributes.
const ATTRIBUTES: [(&str, &str); 3] =
    [("tag:web", "funnel"), ("bob@example.com", "disable-ipv4"), ("tag:gate", "dns-subdomain-resolve")];

/// Aliases for either side; the last ones are for destinations only.
pub(crate) const ALIASES: [&str; 23] = [
    "*",
    "ann@example.com",
    "bob@example.com",
    "user:*@example.com",
    "group:dev",
    "group:ops",
    "tag:web",
    "tag:db",
    "tag:gate",
    "autogroup:member",
    "autogroup:tagged",
    "autogroup:admin",
    "office",
    "second",
    "six",
    "100.64.0.3",
    "10.33.5.0/24",
    "resolver",
    "ipset:mixed",
    "autogroup:danger-all",
    "autogroup:internet",
    "autogroup:self",
    SHOP,
];
pub(crate) const SOURCES: usize = 20;
pub(crate) const PORTS: [&str; 8] = ["*", "tcp:80", "udp:53", "22-25", "icmp:*", "47:*", "tcp:20-24,80", "udp:26-60"];

/// Who may be a source of an SSH rule, and on which devices.
pub(crate) const SSH_SOURCES: [&str; 10] = [
    "ann@example.com",
    "bob@example.com",
    "user:*@example.com",
    "group:dev",
    "group:ops",
    "tag:web",
    "tag:db",
    "autogroup:member",
    "autogroup:tagged",
    "autogroup:admin",
];
pub(crate) const SSH_DESTINATIONS: [&str; 8] = [
    "tag:web",
    "tag:db",
    "tag:gate",
    "autogroup:tagged",
    "autogroup:self",
    "autogroup:member",
    "autogroup:admin",
    "ann@example.com",
];
pub(crate) const SSH_USERS: [&str; 4] = ["root", "autogroup:nonroot", "deploy", "localpart:*@example.com"];
/// Accounts that are asked for.
pub(crate) const ACCOUNTS: [&str; 5] = ["root", "deploy", "ann", "bob", "other"];

/// A tailnet and its policy.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) grants: Vec<Grant>,
    pub(crate) ssh: Vec<SshSpec>,
    /// Whether rules that ask for no posture ask for that of managed devices.
    pub(crate) default_managed: bool,
    /// Which nodes host the service, by bits.
    pub(crate) shop: usize,
}

/// A rule of SSH, by the places of its parts in [`SSH_SOURCES`], [`SSH_DESTINATIONS`] and [`SSH_USERS`].
#[derive(Clone, Debug)]
pub(crate) struct SshSpec {
    pub(crate) check: bool,
    pub(crate) sources: Vec<usize>,
    pub(crate) destinations: Vec<usize>,
    pub(crate) users: Vec<usize>,
    pub(crate) managed: bool,
    pub(crate) recorded: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct NodeSpec {
    /// Below 3: a user's. Above: tagged, by bits.
    pub(crate) owner: usize,
    /// Those that it offers, by bits.
    pub(crate) routes: usize,
    /// Those that it may serve, by bits.
    pub(crate) approved: usize,
    pub(crate) managed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) sources: Vec<&'static str>,
    pub(crate) destinations: Vec<&'static str>,
    pub(crate) ports: Vec<&'static str>,
    pub(crate) app: bool,
    pub(crate) via: Option<&'static str>,
    pub(crate) managed: bool,
    /// Whether it is written as ACLs.
    pub(crate) acl: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet {
    pub(crate) from: IpAddr,
    pub(crate) at: usize,
    pub(crate) to: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

pub(crate) fn address(node: usize, v6: bool) -> IpAddr {
    let text = if v6 { format!("fd7a:115c:a1e0::{}", node + 1) } else { format!("100.64.0.{}", node + 1) };
    text.parse().unwrap()
}

/// A grant by the places of its parts in [`ALIASES`], [`PORTS`] and [`TAGS`].
#[derive(Clone, Debug)]
pub(crate) struct GrantSpec {
    pub(crate) sources: Vec<usize>,
    pub(crate) destinations: Vec<usize>,
    pub(crate) ports: Vec<usize>,
    pub(crate) app: bool,
    pub(crate) via: Option<usize>,
    pub(crate) managed: bool,
    pub(crate) acl: bool,
}

impl From<GrantSpec> for Grant {
    fn from(spec: GrantSpec) -> Self {
        let grant = Self {
            sources: spec.sources.into_iter().map(|at| ALIASES[at]).collect(),
            destinations: spec.destinations.into_iter().map(|at| ALIASES[at]).collect(),
            ports: spec.ports.into_iter().map(|at| PORTS[at]).collect(),
            app: spec.app,
            via: spec.via.map(|at| TAGS[at]),
            managed: spec.managed,
            acl: spec.acl,
        };
        grant.valid()
    }
}

impl Grant {
    /// Makes of any combination one that a policy may have.
    fn valid(mut self) -> Self {
        self.destinations.iter_mut().filter(|alias| **alias == "autogroup:danger-all").for_each(|alias| *alias = "*");
        if self.destinations.contains(&"autogroup:self") {
            let people =
                |alias: &&str| alias.contains('@') || alias.starts_with("group:") || *alias == "autogroup:member";
            self.sources.retain(people);
            if self.sources.is_empty() {
                self.sources.push("autogroup:member");
            }
        }
        if self.acl {
            self.via = None;
        }
        if self.acl || self.destinations.contains(&"autogroup:internet") || self.via.is_some() {
            self.app = false;
        }
        if self.ports.is_empty() && !self.app {
            self.ports.push("*");
        }
        self
    }

    fn text(&self) -> String {
        let mut parts = vec![format!("\"src\": {:?}", self.sources), format!("\"dst\": {:?}", self.destinations)];
        if !self.ports.is_empty() {
            parts.push(format!("\"ip\": {:?}", self.ports));
        }
        if self.app {
            parts.push("\"app\": {\"example.com/cap\": [{\"a\": 1}], \"tailscale.com/cap/drive\": [{}]}".to_owned());
        }
        if let Some(tag) = self.via {
            parts.push(format!("\"via\": [{tag:?}]"));
        }
        if self.managed {
            parts.push("\"srcPosture\": [\"posture:managed\"]".to_owned());
        }
        format!("{{{}}}", parts.join(", "))
    }

    /// An ACL for each protocol with its ports.
    fn acl_texts(&self) -> impl Iterator<Item = String> {
        self.ports.iter().map(|ports| {
            let (proto, ports) = ports.split_once(':').unwrap_or(("", ports));
            let proto = if proto.is_empty() { String::new() } else { format!("\"proto\": {proto:?}, ") };
            let to: Vec<String> = self.destinations.iter().map(|alias| format!("{alias}:{ports}")).collect();
            let posture = if self.managed { ", \"srcPosture\": [\"posture:managed\"]" } else { "" };
            format!("{{\"action\": \"accept\", {proto}\"src\": {:?}, \"dst\": {to:?}{posture}}}", self.sources)
        })
    }

    /// Whether the grant lets a packet in at a node, by what it says.
    fn allows(&self, world: &World, packet: &Packet) -> bool {
        self.ports.iter().any(|ports| opens(ports, packet))
            && self.sources.iter().any(|alias| self.is_source(alias, world, packet))
            && self.destinations.iter().any(|alias| self.is_destination(alias, world, packet))
    }

    /// Whether the grant gives a packet's sender capabilities on the address that it goes to, one of the node's own.
    fn gives(&self, world: &World, packet: &Packet) -> bool {
        self.app
            && self.via.is_none()
            && self.sources.iter().any(|alias| self.is_source(alias, world, packet))
            && self.destinations.iter().any(|alias| self.is_destination(alias, world, packet))
    }

    fn is_source(&self, alias: &str, world: &World, packet: &Packet) -> bool {
        let node = world.node_at(packet.from);
        if (self.managed || world.default_managed) && !node.is_some_and(|node| world.nodes[node].managed) {
            return false;
        }
        if let Some(ranges) = ranges_of(alias) {
            return ranges.iter().any(|range| range.contains(packet.from));
        }
        match (alias, node) {
            ("autogroup:danger-all", _) | ("*", Some(_)) => true,
            ("*", None) => world.nodes.iter().flat_map(NodeSpec::subnets).any(|route| route.contains(&packet.from)),
            (_, Some(node)) => world.nodes[node].is(alias),
            (_, None) => false,
        }
    }

    fn is_destination(&self, alias: &str, world: &World, packet: &Packet) -> bool {
        let node = &world.nodes[packet.at];
        let own = world.node_at(packet.to) == Some(packet.at);
        if let Some(tag) = self.via {
            let serves = |range: &AddressRange| node.subnets().any(|route| AddressRange::prefix(route).overlaps(range));
            let leads = match (alias, ranges_of(alias)) {
                ("*", _) => node.subnets().next().is_some(),
                ("autogroup:internet", _) => node.is_exit() && is_public(packet.to),
                (_, Some(ranges)) => ranges.iter().any(serves) && ranges.iter().any(|range| range.contains(packet.to)),
                _ => false,
            };
            return leads && node.is(tag);
        }
        if let Some(ranges) = ranges_of(alias) {
            let answers = own
                || node.subnets().any(|route| route.contains(&packet.to))
                || (node.is_exit() && is_public(packet.to));
            return ranges.iter().any(|range| range.contains(packet.to)) && answers;
        }
        match alias {
            "*" => true,
            SHOP => world.hosts_shop(packet.at) && packet.to == shop_address(),
            "autogroup:internet" => node.is_exit() && is_public(packet.to),
            "autogroup:self" => {
                let from = world.node_at(packet.from).map(|from| world.nodes[from].owner);
                own && node.owner < USERS.len() && from == Some(node.owner)
            }
            _ => own && node.is(alias),
        }
    }
}

/// What a grant says of routes.
impl Grant {
    /// Whether somebody whom it lets in is a node, or lies behind it.
    fn is_from(&self, world: &World, viewer: &NodeSpec, at: usize) -> bool {
        let asks = self.managed || world.default_managed;
        let is_source = |alias: &&str| match (*alias, ranges_of(alias)) {
            ("*" | "autogroup:danger-all", _) => true,
            (_, Some(ranges)) => {
                let own = [false, true].map(|v6| address(at, v6));
                let behind = || viewer.subnets().any(|route| overlaps(&ranges, &route));
                ranges.iter().any(|range| own.iter().any(|own| range.contains(*own))) || (!asks && behind())
            }
            (alias, None) => viewer.is(alias),
        };
        (!asks || viewer.managed) && self.sources.iter().any(is_source)
    }

    /// Whether some of what it opens lies in a network; everything is for packets only.
    fn is_into(&self, route: &IpNet) -> bool {
        let lies = |alias: &&str| match (*alias, ranges_of(alias)) {
            ("*", _) => !self.ports.is_empty(),
            (_, ranges) => ranges.is_some_and(|ranges| overlaps(&ranges, route)),
        };
        self.destinations.iter().any(lies)
    }

    /// Whether packets from a network may come by it, which devices that are asked for a posture don't.
    fn is_heard_from(&self, world: &World, route: &IpNet) -> bool {
        let from = |alias: &&str| match (*alias, ranges_of(alias)) {
            ("*" | "autogroup:danger-all", _) => true,
            (_, ranges) => ranges.is_some_and(|ranges| overlaps(&ranges, route)),
        };
        !(self.managed || world.default_managed) && self.sources.iter().any(from)
    }

    /// Whether it is about what a node has, hosts or leads to.
    fn is_at(&self, world: &World, at: usize) -> bool {
        let node = &world.nodes[at];
        let behind = |ranges: &[AddressRange]| node.subnets().any(|route| overlaps(ranges, &route));
        let leads = |alias: &&str| match (*alias, ranges_of(alias)) {
            ("autogroup:self", _) => false,
            ("*", _) => self.via.is_none() || node.subnets().next().is_some(),
            ("autogroup:internet", _) => node.is_exit(),
            (SHOP, _) => self.via.is_none() && world.hosts_shop(at),
            (_, Some(ranges)) if self.via.is_some() => behind(&ranges),
            (_, Some(ranges)) => {
                let own = [false, true].map(|v6| address(at, v6));
                let public = ranges.contains(&"8.8.8.0/24".parse().unwrap());
                let has_own = ranges.iter().any(|range| own.iter().any(|own| range.contains(*own)));
                has_own || behind(&ranges) || (public && node.is_exit() && !self.ports.is_empty())
            }
            (alias, None) => self.via.is_none() && node.is(alias),
        };
        self.via.is_none_or(|tag| node.is(tag)) && self.destinations.iter().any(leads)
    }

    /// Whether it lets packets go on to the Internet from an exit node.
    fn is_out_by(&self, exit: &NodeSpec) -> bool {
        let goes = |alias: &&str| match *alias {
            "autogroup:internet" => true,
            // Behind a router that it names the Internet doesn't lie.
            "*" | "resolver" => self.via.is_none(),
            _ => false,
        };
        !self.ports.is_empty() && self.via.is_none_or(|tag| exit.is(tag)) && self.destinations.iter().any(goes)
    }
}

fn overlaps(ranges: &[AddressRange], route: &IpNet) -> bool {
    ranges.iter().any(|range| AddressRange::prefix(*route).overlaps(range))
}

impl NodeSpec {
    fn is(&self, alias: &str) -> bool {
        let Some((login, role)) = USERS.get(self.owner) else {
            let tagged = TAGS.iter().enumerate().any(|(bit, tag)| *tag == alias && self.tag_bits() & (1 << bit) != 0);
            return tagged || alias == "autogroup:tagged";
        };
        match alias {
            "autogroup:member" => true,
            "autogroup:admin" => matches!(role, Role::Owner | Role::Admin),
            "user:*@example.com" => login.ends_with("@example.com"),
            _ => alias == *login || GROUPS.iter().any(|(group, members)| *group == alias && members.contains(login)),
        }
    }

    fn tag_bits(&self) -> usize {
        self.owner - USERS.len() + 1
    }

    /// The routes that it serves.
    fn routes(&self) -> impl Iterator<Item = IpNet> {
        routes_of(self.routes & self.approved)
    }

    pub(crate) fn served(&self) -> impl Iterator<Item = IpNet> {
        self.routes()
    }

    pub(crate) fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.routes().filter(|route| route.prefix_len() > 0)
    }

    pub(crate) fn is_exit(&self) -> bool {
        self.routes().any(|route| route.prefix_len() == 0)
    }

    pub(crate) fn node(&self, index: usize) -> Node {
        let tags = TAGS.iter().enumerate().filter(|(bit, _)| self.owner >= 3 && self.tag_bits() & (1 << bit) != 0);
        let owner = match USERS.get(self.owner) {
            Some(_) => Owner::User(UserId(self.owner as u64)),
            None => Owner::Tags(tags.map(|(_, tag)| Tag::parse(tag).unwrap()).collect()),
        };
        let managed = ("custom:managed".to_owned(), PostureValue::Bool(self.managed));
        Node {
            name: format!("node-{index}").into(),
            addresses: vec![address(index, false), address(index, true)],
            owner,
            advertised: routes_of(self.routes).collect(),
            approved: routes_of(self.approved).collect(),
            revoked: BTreeSet::new(),
            posture: BTreeMap::from([managed]),
        }
    }
}

impl SshSpec {
    fn sources(&self) -> Vec<&'static str> {
        self.sources.iter().map(|at| SSH_SOURCES[*at]).collect()
    }

    /// Of any combination of destinations, those that a policy may have with the sources.
    fn destinations(&self) -> Vec<&'static str> {
        let sources = self.sources();
        let tagged = sources.iter().any(|source| source.starts_with("tag:") || *source == "autogroup:tagged");
        let fits = |alias: &&str| match *alias {
            "ann@example.com" => sources.iter().all(|source| *source == "ann@example.com"),
            "autogroup:self" | "autogroup:member" | "autogroup:admin" => !tagged,
            _ => true,
        };
        let mut fitting: Vec<&str> = self.destinations.iter().map(|at| SSH_DESTINATIONS[*at]).filter(fits).collect();
        if fitting.is_empty() {
            fitting.push("tag:web");
        }
        fitting
    }

    /// A rule for each source and destination. Its accounts stay together: what one of them gives, all do.
    pub(crate) fn split(&self) -> Vec<Self> {
        let destinations = self.destinations().into_iter();
        let destinations = destinations.map(|alias| SSH_DESTINATIONS.iter().position(|known| *known == alias).unwrap());
        let destinations: Vec<usize> = destinations.collect();
        let each = destinations.iter().flat_map(|to| self.sources.iter().map(move |from| (*from, *to)));
        each.map(|(from, to)| Self { sources: vec![from], destinations: vec![to], ..self.clone() }).collect()
    }

    fn users(&self) -> Vec<&'static str> {
        self.users.iter().map(|at| SSH_USERS[*at]).collect()
    }

    fn text(&self) -> String {
        let mut parts = vec![
            format!("\"action\": {:?}", if self.check { "check" } else { "accept" }),
            format!("\"src\": {:?}, \"dst\": {:?}", self.sources(), self.destinations()),
            format!("\"users\": {:?}", self.users()),
        ];
        if self.managed {
            parts.push("\"srcPosture\": [\"posture:managed\"]".to_owned());
        }
        if self.recorded {
            parts.push("\"recorder\": [\"tag:gate\"]".to_owned());
        }
        format!("{{{}}}", parts.join(", "))
    }

    fn is_source(&self, node: &NodeSpec) -> bool {
        (!self.managed || node.managed) && self.sources().iter().any(|alias| node.is(alias))
    }

    /// Whether the rule fits a login from one node to another, by what it says.
    fn fits(&self, world: &World, from: usize, to: usize, account: &str) -> bool {
        let (source, destination) = (&world.nodes[from], &world.nodes[to]);
        let of_user = destination.owner < USERS.len();
        let own = if of_user { source.owner == destination.owner } else { from == to };
        let leads = |alias: &&str| match *alias {
            "autogroup:self" => of_user && own,
            alias if of_user => destination.is(alias) && own,
            alias => destination.is(alias),
        };
        // A rule by local part is also one among the own devices of its sources.
        let by_local_part = self.users().contains(&"localpart:*@example.com");
        let among_own = by_local_part && own && self.is_source(destination);
        let login = USERS.get(source.owner).map(|(login, _)| *login);
        let is_account = |user: &&str| match *user {
            "autogroup:nonroot" => account != "root",
            "localpart:*@example.com" => login == Some(&format!("{account}@example.com")),
            name => name == account,
        };
        self.is_source(source)
            && (self.destinations().iter().any(leads) || among_own)
            && self.users().iter().any(is_account)
    }
}

impl World {
    pub(crate) fn text(&self) -> String {
        let (acls, grants): (Vec<&Grant>, Vec<&Grant>) = self.grants.iter().partition(|grant| grant.acl);
        let grants: Vec<String> = grants.into_iter().map(Grant::text).collect();
        let acls: Vec<String> = acls.into_iter().flat_map(Grant::acl_texts).collect();
        let ssh: Vec<String> = self.ssh.iter().map(SshSpec::text).collect();
        let groups: Vec<String> = GROUPS.iter().map(|(name, members)| format!("{name:?}: {members:?}")).collect();
        let hosts: Vec<String> = HOSTS.iter().map(|(name, address)| format!("{name:?}: {address:?}")).collect();
        let tags: Vec<String> = TAGS.iter().map(|tag| format!("{tag:?}: []")).collect();
        let attribute = |(target, name): &(&str, &str)| format!("{{\"target\": [{target:?}], \"attr\": [{name:?}]}}");
        let attributes: Vec<String> = ATTRIBUTES.iter().map(attribute).collect();
        let postures = if self.default_managed { "[\"posture:managed\"]" } else { "[]" };
        format!(
            "{{\"groups\": {{{}}}, \"hosts\": {{{}}}, \"tagOwners\": {{{}}}, \"ipsets\": {{{:?}: {:?}}},\n\
             \"postures\": {{\"posture:managed\": [\"custom:managed == true\"]}}, \"defaultSrcPosture\": {postures},\n\
             \"nodeAttrs\": [{}],\n\"grants\": [\n{}\n],\n\"acls\": [\n{}\n],\n\"ssh\": [\n{}\n]}}",
            groups.join(", "),
            hosts.join(", "),
            tags.join(", "),
            MIXED.0,
            MIXED.1,
            attributes.join(", "),
            grants.join(",\n"),
            acls.join(",\n"),
            ssh.join(",\n")
        )
    }

    pub(crate) fn topology(&self) -> Topology {
        let mut topology = Topology::default();
        for (id, (login, role)) in USERS.iter().enumerate() {
            topology.users.insert(UserId(id as u64), User { login: (*login).into(), role: *role, shared: false });
        }
        for (index, spec) in self.nodes.iter().enumerate() {
            let node = spec.node(index);
            for route in node.subnets() {
                topology.routers.entry(route).or_default().push(NodeId(index as u64));
            }
            topology.nodes.insert(NodeId(index as u64), node);
        }
        topology.services.insert(SHOP.into(), shop(self.shop));
        topology
    }

    /// The subnet routes of a peer that a node is told, by what the grants say: those of which the peer is the first router
    /// where the node may use them, hears from them or serves them too; else those to which a grant sends it by this
    /// peer.
    pub(crate) fn subnets_told(&self, viewer: usize, peer: usize) -> Vec<IpNet> {
        self.nodes[peer].subnets().filter(|route| self.is_told(viewer, peer, route)).collect()
    }

    /// The exit routes of a peer that a node is told: where it may use some of the Internet by it.
    pub(crate) fn exits_told(&self, viewer: usize, peer: usize) -> Vec<IpNet> {
        let (node, exit) = (&self.nodes[viewer], &self.nodes[peer]);
        let may = self.grants.iter().any(|grant| grant.is_from(self, node, viewer) && grant.is_out_by(exit));
        exit.routes().filter(|route| may && route.prefix_len() == 0).collect()
    }

    fn is_told(&self, viewer: usize, peer: usize, route: &IpNet) -> bool {
        let node = &self.nodes[viewer];
        let serves = |node: &NodeSpec| node.subnets().any(|served| served == *route);
        let servers: Vec<usize> = (0..self.nodes.len()).filter(|at| serves(&self.nodes[*at])).collect();
        let primary = servers[0];
        let uses =
            |grant: &Grant| grant.is_from(self, node, viewer) && grant.is_at(self, primary) && grant.is_into(route);
        let hears = |grant: &Grant| grant.is_at(self, viewer) && grant.is_heard_from(self, route);
        if serves(node) || self.grants.iter().any(|grant| uses(grant) || hears(grant)) {
            return peer == primary;
        }
        self.grants.iter().any(|grant| {
            let first = servers.iter().copied().find(|server| grant.is_at(self, *server));
            grant.via.is_some() && grant.is_from(self, node, viewer) && grant.is_into(route) && first == Some(peer)
        })
    }

    fn hosts_shop(&self, node: usize) -> bool {
        self.shop & (1 << node) != 0
    }

    /// The first rule that fits a login, by what the rules say: its number and whether it asks for a check. Those that do
    /// come first.
    pub(crate) fn login(&self, from: usize, to: usize, account: &str) -> Option<(usize, bool)> {
        let fits = |check: bool| {
            let mut rules = self.ssh.iter().enumerate().filter(move |(_, rule)| rule.check == check);
            rules.find(|(_, rule)| rule.fits(self, from, to, account)).map(|(at, _)| (at, check))
        };
        fits(true).or_else(|| fits(false))
    }

    pub(crate) fn allows(&self, packet: &Packet) -> bool {
        self.answers(packet.at, packet.to) && self.grants.iter().any(|grant| grant.allows(self, packet))
    }

    /// Whether packets to an address are for a node, or go on from it.
    pub(crate) fn answers(&self, node: usize, address: IpAddr) -> bool {
        let spec = &self.nodes[node];
        self.node_at(address) == Some(node)
            || spec.subnets().any(|route| route.contains(&address))
            || (spec.is_exit() && is_public(address))
            || (self.hosts_shop(node) && address == shop_address())
    }

    /// Whether some grant gives a packet's sender capabilities on the address that it goes to, one of the node's own.
    pub(crate) fn gives(&self, packet: &Packet) -> bool {
        self.grants.iter().any(|grant| grant.gives(self, packet))
    }

    pub(crate) fn node_at(&self, wanted: IpAddr) -> Option<usize> {
        (0..self.nodes.len()).find(|node| [false, true].iter().any(|v6| address(*node, *v6) == wanted))
    }

    /// What a node answers for, as its packet filter is told.
    pub(crate) fn local(&self, node: usize) -> filter::Local {
        let own = [address(node, false), address(node, true)].map(AddressRange::single);
        let exit = self.nodes[node].is_exit().then(|| "8.8.8.0/24".parse().unwrap());
        let shop = self.hosts_shop(node).then(|| AddressRange::single(shop_address()));
        let routes = self.nodes[node].subnets().map(AddressRange::prefix);
        filter::Local::new(own.into_iter().chain(routes).chain(exit).chain(shop))
    }

    /// Packets that try every kind of rule: from and to nodes, networks behind routers and the Internet.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        let networks =
            ["10.33.5.9", "10.33.9.9", "10.44.0.1", "fd00:1::5", "8.8.8.8"].map(|text| text.parse().unwrap());
        let nodes = (0..self.nodes.len()).flat_map(|node| [address(node, false), address(node, true)]);
        let ends: Vec<IpAddr> = nodes.chain(networks).collect();
        let kinds = [(6, 80), (6, 25), (17, 53), (17, 26), (1, 0), (58, 0), (47, 0)];
        let mut packets = Vec::new();
        for at in 0..self.nodes.len() {
            for from in &ends {
                for to in ends.iter().chain([&shop_address()]).filter(|to| to.is_ipv4() == from.is_ipv4()) {
                    let of = |(number, port)| Packet { from: *from, at, to: *to, protocol: Protocol(number), port };
                    packets.extend(kinds.map(of));
                }
            }
        }
        packets
    }
}

fn is_public(address: IpAddr) -> bool {
    address == IpAddr::from([8, 8, 8, 8])
}

fn routes_of(bits: usize) -> impl Iterator<Item = IpNet> {
    let routes = ROUTES.iter().enumerate().filter(move |(bit, _)| bits & (1 << bit) != 0);
    routes.map(|(_, route)| route.parse().unwrap())
}

/// The service as some nodes host it, by bits.
pub(crate) fn shop(hosts: usize) -> Service {
    let hosts = (0..usize::BITS as u64).filter(|node| hosts & (1 << node) != 0).map(NodeId);
    Service { addresses: vec![shop_address()], hosts: hosts.collect(), ..Service::default() }
}

fn shop_address() -> IpAddr {
    SHOP_ADDRESS.parse().unwrap()
}

/// What an alias of addresses means.
fn ranges_of(alias: &str) -> Option<Vec<AddressRange>> {
    if alias == MIXED.0 {
        return Some(MIXED.2.iter().map(|range| range.parse().unwrap()).collect());
    }
    let text = HOSTS.iter().find(|(name, _)| *name == alias).map_or(alias, |(_, address)| address);
    text.parse().ok().map(|range| vec![range])
}

/// Whether an entry of `ip` opens a packet's port.
fn opens(ports: &str, packet: &Packet) -> bool {
    // Any port at all lets pings in.
    if packet.protocol == if packet.to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 } {
        return true;
    }
    let (protocol, ports) = ports.split_once(':').map_or((None, ports), |(name, ports)| (Some(name), ports));
    let fits = match protocol {
        None => matches!(packet.protocol, Protocol::TCP | Protocol::UDP | Protocol::ICMPV4 | Protocol::ICMPV6),
        Some("tcp") => packet.protocol == Protocol::TCP,
        Some("udp") => packet.protocol == Protocol::UDP,
        Some("icmp") => packet.protocol == Protocol::ICMPV4,
        Some(number) => packet.protocol == Protocol(number.parse().unwrap()),
    };
    let within = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        range == "*" || (first.parse().unwrap()..=last.parse().unwrap()).contains(&packet.port)
    };
    fits && ports.split(',').any(within)
}
