//! Small tailnets and policies, and what they mean read word by word: no sets, no indices, no merging. Property tests and
//! fuzzers make them of numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use filter::{AddressRange, Protocol};
use ipnet::IpNet;
use policy::{Node, NodeId, Owner, PostureValue, Role, Tag, Topology, User, UserId};

pub(crate) const USERS: [(&str, Role); 3] =
    [("ann@example.com", Role::Owner), ("bob@example.com", Role::Member), ("cat@example.org", Role::Admin)];
pub(crate) const TAGS: [&str; 3] = ["tag:web", "tag:db", "tag:gate"];
const ROUTES: [&str; 4] = ["10.33.0.0/16", "10.44.0.0/16", "0.0.0.0/0", "fd00:1::/64"];
const HOSTS: [(&str, &str); 4] =
    [("office", "10.33.0.0/16"), ("second", "100.64.0.2"), ("resolver", "8.8.8.0/24"), ("six", "fd7a:115c:a1e0::3")];
const GROUPS: [(&str, &[&str]); 2] =
    [("group:dev", &["ann@example.com", "cat@example.org"]), ("group:ops", &["bob@example.com"])];

/// Aliases for either side; the last ones are for destinations only.
pub(crate) const ALIASES: [&str; 20] = [
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
    "autogroup:internet",
    "autogroup:self",
];
pub(crate) const SOURCES: usize = 18;
pub(crate) const PORTS: [&str; 6] = ["*", "tcp:80", "udp:53", "22-25", "icmp:*", "47:*"];

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) nodes: Vec<NodeSpec>,
    pub(crate) grants: Vec<Grant>,
}

#[derive(Clone, Debug)]
pub(crate) struct NodeSpec {
    /// Below 3: a user's. Above: tagged, by bits.
    pub(crate) owner: usize,
    /// By bits.
    pub(crate) routes: usize,
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
        };
        grant.valid()
    }
}

impl Grant {
    /// Makes of any combination one that a policy may have.
    fn valid(mut self) -> Self {
        if self.destinations.contains(&"autogroup:self") {
            let people =
                |alias: &&str| alias.contains('@') || alias.starts_with("group:") || *alias == "autogroup:member";
            self.sources.retain(people);
            if self.sources.is_empty() {
                self.sources.push("autogroup:member");
            }
            self.via = None;
        }
        if self.destinations.contains(&"autogroup:internet") || self.via.is_some() {
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
        if self.managed && !node.is_some_and(|node| world.nodes[node].managed) {
            return false;
        }
        if let Some(range) = range_of(alias) {
            return range.contains(packet.from);
        }
        match (alias, node) {
            ("*", Some(_)) => true,
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
            let leads = match (alias, range_of(alias)) {
                ("*", _) => node.subnets().next().is_some(),
                ("autogroup:internet", _) => node.is_exit() && is_public(packet.to),
                (_, Some(range)) => serves(&range) && range.contains(packet.to),
                _ => false,
            };
            return leads && node.is(tag);
        }
        if let Some(range) = range_of(alias) {
            let answers = own
                || node.subnets().any(|route| route.contains(&packet.to))
                || (node.is_exit() && is_public(packet.to));
            return range.contains(packet.to) && answers;
        }
        match alias {
            "*" => true,
            "autogroup:internet" => node.is_exit() && is_public(packet.to),
            "autogroup:self" => {
                let from = world.node_at(packet.from).map(|from| world.nodes[from].owner);
                own && node.owner < USERS.len() && from == Some(node.owner)
            }
            _ => own && node.is(alias),
        }
    }
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

    fn routes(&self) -> impl Iterator<Item = IpNet> {
        let bits = self.routes;
        ROUTES
            .iter()
            .enumerate()
            .filter(move |(bit, _)| bits & (1 << bit) != 0)
            .map(|(_, route)| route.parse().unwrap())
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
        let routes: BTreeSet<IpNet> = self.routes().collect();
        let managed = ("custom:managed".to_owned(), PostureValue::Bool(self.managed));
        Node {
            name: format!("node-{index}").into(),
            addresses: vec![address(index, false), address(index, true)],
            owner,
            advertised: routes.clone(),
            approved: routes,
            posture: BTreeMap::from([managed]),
        }
    }
}

impl World {
    pub(crate) fn text(&self) -> String {
        let grants: Vec<String> = self.grants.iter().map(Grant::text).collect();
        let groups: Vec<String> = GROUPS.iter().map(|(name, members)| format!("{name:?}: {members:?}")).collect();
        let hosts: Vec<String> = HOSTS.iter().map(|(name, address)| format!("{name:?}: {address:?}")).collect();
        let tags: Vec<String> = TAGS.iter().map(|tag| format!("{tag:?}: []")).collect();
        format!(
            "{{\"groups\": {{{}}}, \"hosts\": {{{}}}, \"tagOwners\": {{{}}},\n\
             \"postures\": {{\"posture:managed\": [\"custom:managed == true\"]}},\n\"grants\": [\n{}\n],\n\
             \"ssh\": [{{\"action\": \"accept\", \"src\": [\"group:dev\"], \"dst\": [\"tag:web\", \"autogroup:self\"], \
             \"users\": [\"root\", \"localpart:*@example.com\"]}}]}}",
            groups.join(", "),
            hosts.join(", "),
            tags.join(", "),
            grants.join(",\n")
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
        topology
    }

    pub(crate) fn allows(&self, packet: &Packet) -> bool {
        let node = &self.nodes[packet.at];
        let local = self.node_at(packet.to) == Some(packet.at)
            || node.subnets().any(|route| route.contains(&packet.to))
            || (node.is_exit() && is_public(packet.to));
        local && self.grants.iter().any(|grant| grant.allows(self, packet))
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
        let exit = self.nodes[node].is_exit().then(|| range_of("8.8.8.0/24").unwrap());
        filter::Local::new(own.into_iter().chain(self.nodes[node].subnets().map(AddressRange::prefix)).chain(exit))
    }

    /// Packets that try every kind of rule: from and to nodes, networks behind routers and the Internet.
    pub(crate) fn packets(&self) -> Vec<Packet> {
        let networks =
            ["10.33.5.9", "10.33.9.9", "10.44.0.1", "fd00:1::5", "8.8.8.8"].map(|text| text.parse().unwrap());
        let nodes = (0..self.nodes.len()).flat_map(|node| [address(node, false), address(node, true)]);
        let ends: Vec<IpAddr> = nodes.chain(networks).collect();
        let kinds = [(6, 80), (6, 24), (17, 53), (17, 80), (1, 0), (58, 0), (47, 0)];
        let mut packets = Vec::new();
        for at in 0..self.nodes.len() {
            for from in &ends {
                for to in ends.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
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

fn range_of(alias: &str) -> Option<AddressRange> {
    let text = HOSTS.iter().find(|(name, _)| *name == alias).map_or(alias, |(_, address)| address);
    text.parse().ok()
}

/// Whether an entry of `ip` opens a packet's port.
fn opens(ports: &str, packet: &Packet) -> bool {
    let (tcp, udp) = (packet.protocol == Protocol::TCP, packet.protocol == Protocol::UDP);
    // Any port at all lets pings in.
    if packet.protocol == if packet.to.is_ipv4() { Protocol::ICMPV4 } else { Protocol::ICMPV6 } {
        return true;
    }
    match ports {
        "*" => tcp || udp || matches!(packet.protocol, Protocol::ICMPV4 | Protocol::ICMPV6),
        "tcp:80" => tcp && packet.port == 80,
        "udp:53" => udp && packet.port == 53,
        "22-25" => (tcp || udp) && (22..=25).contains(&packet.port),
        "icmp:*" => packet.protocol == Protocol::ICMPV4,
        _ => packet.protocol == Protocol(47),
    }
}
