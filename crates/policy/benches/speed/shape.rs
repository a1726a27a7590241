use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use policy::{Change, Node, NodeId, Owner, Role, Tag, Topology, User, UserId};

const NODES: u64 = 10_000;
const USERS: u64 = 500;
const DEVICES_OF_A_USER: u64 = 4;
const TAGS: u64 = 390;
const ROUTERS: u64 = 100;
const GROUPS: u64 = 200;

/// The node that comes, becomes another's and goes.
const GUEST: NodeId = NodeId(NODES + 1);

/// The route of a guest that is a subnet router: nobody else has it.
const GUEST_SUBNET: &str = "10.200.0.0/16";

/// What the guest is.
#[derive(Clone, Copy)]
pub(crate) enum Guest {
    Tagged,
    OfUser,
    Router,
    ExitNode,
}

impl Guest {
    pub(crate) const ALL: [Self; 4] = [Self::Tagged, Self::OfUser, Self::Router, Self::ExitNode];

    /// What happens to it in a round, in this order.
    pub(crate) fn steps(self) -> [&'static str; 3] {
        match self {
            Self::Tagged => ["one node added", "one node retagged", "one node removed"],
            Self::OfUser => ["a user's device added", "a user's device becomes another's", "a user's device removed"],
            Self::Router => ["a subnet router added", "a subnet router retagged", "a subnet router removed"],
            Self::ExitNode => ["an exit node added", "an exit node retagged", "an exit node removed"],
        }
    }

    /// The routes that it serves.
    pub(crate) fn routes(self) -> &'static [&'static str] {
        match self {
            Self::Tagged | Self::OfUser => &[],
            Self::Router => &[GUEST_SUBNET],
            Self::ExitNode => &["0.0.0.0/0", "::/0"],
        }
    }

    fn owner(self, round: u64) -> Owner {
        match self {
            Self::Tagged | Self::ExitNode => Owner::Tags([tag(round % TAGS)].into()),
            Self::OfUser => Owner::User(UserId(round % USERS)),
            Self::Router => Owner::Tags([router_tag(round % (ROUTERS / 2))].into()),
        }
    }
}

/// A policy over a tailnet, and the same with one rule edited.
pub(crate) struct Shape {
    pub(crate) text: String,
    pub(crate) edited: String,
    pub(crate) topology: Topology,
}

impl Shape {
    /// The changes of a round by step, which lead back to where it began.
    pub(crate) fn changes(&self, guest: Guest, round: u64) -> [Vec<Change>; 3] {
        let routes: Vec<String> = guest.routes().iter().map(|route| (*route).to_owned()).collect();
        let owned = |round: u64| Change::Node(GUEST, Box::new(node(GUEST.0, guest.owner(round), &routes)));
        let served = |routers: &[NodeId]| match guest {
            Guest::Router => Some(Change::Routers(GUEST_SUBNET.parse().expect("a route"), routers.to_vec())),
            Guest::Tagged | Guest::OfUser | Guest::ExitNode => None,
        };
        [
            [owned(round)].into_iter().chain(served(&[GUEST])).collect(),
            vec![owned(round + 7)],
            [Change::NodeGone(GUEST)].into_iter().chain(served(&[])).collect(),
        ]
    }
}

fn tag(number: u64) -> Tag {
    Tag::parse(&format!("tag:t{number}")).expect("a tag")
}

fn router_tag(number: u64) -> Tag {
    Tag::parse(&format!("tag:r{number}")).expect("a tag")
}

fn node(id: u64, owner: Owner, routes: &[String]) -> Node {
    let routes: BTreeSet<IpNet> = routes.iter().map(|route| route.parse().expect("a route")).collect();
    let v4: IpAddr = [100, 64 + (id >> 16) as u8, (id >> 8) as u8, id as u8].into();
    let v6: IpAddr = format!("fd7a:115c:a1e0::{:x}:{:x}", id >> 16, id & 0xffff).parse().expect("an address");
    Node {
        name: format!("node-{id}").into(),
        addresses: vec![v4, v6],
        owner,
        advertised: routes.clone(),
        approved: routes,
        revoked: BTreeSet::new(),
        posture: BTreeMap::new(),
    }
}

/// Users with four devices each, then routers, then tagged nodes, twenty for each tag.
fn tailnet() -> Topology {
    let mut topology = Topology { domains: ["example.com".to_owned()].into(), ..Topology::default() };
    for id in 0..USERS {
        let role = if id == 0 { Role::Owner } else { Role::Member };
        topology.users.insert(UserId(id), User { login: login(id).into(), role, shared: false });
    }
    for id in 0..NODES {
        let after_users = id.checked_sub(USERS * DEVICES_OF_A_USER);
        let new = match after_users {
            None => node(id, Owner::User(UserId(id / DEVICES_OF_A_USER)), &[]),
            Some(router) if router < ROUTERS => {
                node(id, Owner::Tags([router_tag(router / 2)].into()), &[subnet(router / 2)])
            }
            Some(other) => node(id, Owner::Tags([tag((other - ROUTERS) % TAGS)].into()), &[]),
        };
        for route in new.subnets() {
            topology.routers.entry(route).or_default().push(NodeId(id));
        }
        topology.nodes.insert(NodeId(id), new);
    }
    topology
}

fn login(user: u64) -> String {
    format!("user{user}@example.com")
}

fn subnet(number: u64) -> String {
    format!("10.{number}.0.0/16")
}

/// 15,000 rules in which everybody is named by group, tag or host.
pub(crate) fn grouped() -> Shape {
    let text = |first_port: u64| {
        let mut text = String::from("{\n\"groups\": {\n");
        for group in 0..GROUPS {
            let members: Vec<String> = (0..5).map(|at| format!("\"{}\"", login((group * 5 + at) % USERS))).collect();
            writeln!(text, "\"group:g{group}\": [{}],", members.join(", ")).expect("a text");
        }
        text.push_str("},\n\"hosts\": {\n");
        for host in 0..200 {
            writeln!(text, "\"h{host}\": \"10.{}.{host}.0/24\",", host % (ROUTERS / 2)).expect("a text");
        }
        text.push_str("},\n\"tagOwners\": {\n");
        for number in 0..TAGS {
            writeln!(text, "\"{}\": [],", tag(number)).expect("a text");
        }
        for number in 0..ROUTERS / 2 {
            writeln!(text, "\"{}\": [],", router_tag(number)).expect("a text");
        }
        text.push_str("},\n\"grants\": [\n");
        let mut grant = |source: String, destination: String, port: u64, via: Option<Tag>| {
            let via = via.map(|tag| format!(", \"via\": [\"{tag}\"]")).unwrap_or_default();
            let line =
                format!("{{\"src\": [\"{source}\"], \"dst\": [\"{destination}\"], \"ip\": [\"tcp:{port}\"]{via}}},\n");
            text.push_str(&line);
        };
        // Each group has ten ports on five tags: 10,000.
        for rule in 0..10_000 {
            let (group, which, port) = (rule / 50, rule / 10 % 5, rule % 10);
            let port = if rule == 0 { first_port } else { 1000 + port };
            grant(format!("group:g{group}"), tag((group * 2 + which) % TAGS).to_string(), port, None);
        }
        // Each tag has five ports on two others: 3,900.
        for rule in 0..TAGS * 10 {
            let (from, which, port) = (rule / 10, rule / 5 % 2, rule % 5);
            grant(tag(from).to_string(), tag((from + 3 + which) % TAGS).to_string(), 2000 + port, None);
        }
        // Users on hosts behind routers: 800; the same by a router of their own: 200.
        for rule in 0..1000 {
            let host = rule % 200;
            let via = (rule >= 800).then(|| router_tag(host % (ROUTERS / 2)));
            grant(format!("user{}@example.com", rule % USERS), format!("h{host}"), 3000 + rule, via);
        }
        // Users among their own devices: 100.
        for port in 0..100 {
            grant("autogroup:member".to_owned(), "autogroup:self".to_owned(), 4000 + port, None);
        }
        text.push_str("]}\n");
        text
    };
    Shape { text: text(22), edited: text(23), topology: tailnet() }
}

/// Everybody reaches everybody.
pub(crate) fn flat() -> Shape {
    let tags: Vec<String> = (0..TAGS).map(|number| format!("\"{}\": []", tag(number))).collect();
    let routers: Vec<String> = (0..ROUTERS / 2).map(|number| format!("\"{}\": []", router_tag(number))).collect();
    // As large as a group of the other shape, for questions; no rule is about it.
    let group: Vec<String> = (35..40).map(|user| format!("\"{}\"", login(user))).collect();
    let text = |port: &str| {
        format!(
            "{{\"groups\": {{\"group:g7\": [{}]}}, \"tagOwners\": {{{}, {}}}, \"grants\": [{{\"src\": [\"*\"], \"dst\": [\"*\"], \"ip\": [\"{port}\"]}}]}}",
            group.join(", "),
            tags.join(", "),
            routers.join(", ")
        )
    };
    Shape { text: text("*"), edited: text("tcp:*"), topology: tailnet() }
}
