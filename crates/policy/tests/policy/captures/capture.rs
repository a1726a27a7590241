//! The form of a recording, and the tailnet that it describes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use filter::{CapMap, RawJson};
use ipnet::IpNet;
use policy::{Compiled, Node, NodeId, Owner, Policy, Role, Tag, Topology, User, UserId};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What the service tells every node, whatever the policy.
const EVERY_NODE: [&str; 7] = [
    "https://tailscale.com/cap/file-sharing",
    "https://tailscale.com/cap/ssh",
    "https://tailscale.com/cap/tailnet-lock",
    "probe-udp-lifetime",
    "ssh-behavior-v1",
    "ssh-env-vars",
    "store-appc-routes",
];
/// What it tells every node, with the tailnet's name: that of its owner.
const DISPLAY_NAME: (&str, &str) = ("tailnet-display-name", r#""odin@example.com""#);
/// What it tells a node of the owner's and of an administrator's; and of the first every tagged one.
const IS_OWNER: &str = "https://tailscale.com/cap/is-owner";
const IS_ADMIN: &str = "https://tailscale.com/cap/is-admin";
/// What it tells every node of a tailnet whose setting is on; where that is off, it began to tell so between recordings.
const AUTO_UPDATE: &str = "default-auto-update";

#[derive(Deserialize)]
pub(crate) struct Capture {
    pub(crate) id: String,
    pub(crate) kind: String,
    policy: Value,
    #[serde(default)]
    tailnet: Value,
    pub(crate) status: u16,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) message: String,
    topology: RecordedTopology,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) nodes: BTreeMap<String, Answer>,
}

#[derive(Deserialize)]
struct RecordedTopology {
    users: Vec<RecordedUser>,
    nodes: BTreeMap<String, RecordedNode>,
}

#[derive(Deserialize)]
struct RecordedUser {
    name: String,
    email: String,
}

#[derive(Deserialize)]
struct RecordedNode {
    tags: Vec<String>,
    ipv4: String,
    ipv6: String,
    user: Option<String>,
    routable_ips: Option<BTreeSet<IpNet>>,
    approved_routes: Option<BTreeSet<IpNet>>,
}

/// What a node received.
#[derive(Deserialize)]
pub(crate) struct Answer {
    pub(crate) filter: Option<Vec<filter::Rule>>,
    pub(crate) ssh: Option<Vec<Value>>,
    #[serde(rename = "self")]
    pub(crate) own: OwnAnswer,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(crate) peers: Vec<PeerAnswer>,
}

#[derive(Deserialize)]
pub(crate) struct OwnAnswer {
    #[serde(rename = "CapMap", default, deserialize_with = "null_is_default")]
    pub(crate) attributes: filter::CapMap,
    #[serde(rename = "AllowedIPs")]
    pub(crate) allowed_ips: Option<BTreeSet<IpNet>>,
    #[serde(rename = "PrimaryRoutes")]
    primary_routes: Option<Vec<IpNet>>,
}

#[derive(Deserialize)]
pub(crate) struct PeerAnswer {
    pub(crate) name: String,
    pub(crate) allowed_ips: Option<BTreeSet<IpNet>>,
    pub(crate) primary_routes: Option<BTreeSet<IpNet>>,
    pub(crate) cap_map: Option<filter::CapMap>,
}

/// Recordings don't list roles. The first user made the tailnet, and the others administer it.
fn role_of(user: UserId) -> Role {
    if user.0 == 0 { Role::Owner } else { Role::Admin }
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) fn read(bytes: &[u8]) -> Vec<Capture> {
    let text =
        if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) { zstd::decode_all(bytes).unwrap() } else { bytes.to_vec() };
    let lines = String::from_utf8(text).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

impl Capture {
    pub(crate) fn policy_text(&self) -> String {
        match &self.policy {
            Value::String(text) => text.clone(),
            object => object.to_string(),
        }
    }

    pub(crate) fn node_id(&self, name: &str) -> NodeId {
        NodeId(self.topology.nodes.keys().position(|known| known == name).unwrap() as u64)
    }

    pub(crate) fn name_of(&self, id: NodeId) -> String {
        self.topology.nodes.keys().nth(id.0 as usize).unwrap().clone()
    }

    pub(crate) fn topology(&self) -> Topology {
        let mut topology = Topology::default();
        for user in &self.topology.users {
            let login = if user.email.is_empty() { &user.name } else { &user.email };
            let id = UserId(topology.users.len() as u64);
            let user = User { login: login.as_str().into(), role: role_of(id), shared: false };
            topology.users.insert(id, user);
        }
        let first = self.topology.users.first().and_then(|user| user.email.split_once('@'));
        topology.domains.extend(first.map(|(_, domain)| domain.to_owned()));
        for (name, node) in &self.topology.nodes {
            topology.nodes.insert(self.node_id(name), self.node(name, node));
        }
        self.approve(&mut topology);
        self.add_routers(&mut topology);
        topology
    }

    /// What the service tells a node of itself that no policy gives.
    pub(crate) fn besides_policy(&self, name: &str) -> CapMap {
        let mut caps = CapMap::default();
        EVERY_NODE.into_iter().for_each(|attribute| caps.grant(attribute));
        let with_value = |name: &str, value: &str| (name.to_owned(), Some(vec![RawJson::parse(value).unwrap()]));
        caps.0.extend([with_value(DISPLAY_NAME.0, DISPLAY_NAME.1)]);
        let role = self.node(name, &self.topology.nodes[name]).user().map(role_of);
        if role.is_none_or(|role| role == Role::Owner) {
            caps.grant(IS_OWNER);
        }
        if role.is_some_and(|role| matches!(role, Role::Owner | Role::Admin)) {
            caps.grant(IS_ADMIN);
        }
        let is_on = self.tailnet["settings"]["devices_auto_updates_on"] == true;
        if is_on || self.nodes[name].own.attributes.has(AUTO_UPDATE) {
            caps.0.extend([with_value(AUTO_UPDATE, if is_on { "true" } else { "false" })]);
        }
        caps
    }

    /// Whether a node serves other routes than those that the policy's approvers approve.
    pub(crate) fn wrong_approval(&self, name: &str, compiled: &Compiled) -> Option<String> {
        let node = &self.topology.nodes[name];
        let advertised = node.routable_ips.iter().flatten();
        let ours: BTreeSet<IpNet> =
            advertised.filter(|route| compiled.approves_route(self.node_id(name), route)).copied().collect();
        let mut theirs = self.nodes[name].own.allowed_ips.clone().unwrap_or_default();
        theirs.retain(|prefix| prefix.prefix_len() < prefix.max_prefix_len());
        (ours != theirs).then(|| format!("{name}: approved {ours:?}, should be {theirs:?}"))
    }

    /// Routes are approved as the policy comes; what is recorded as approved may be from just before.
    fn approve(&self, topology: &mut Topology) {
        let Ok(policy) = Policy::parse(&self.policy_text()) else { return };
        let compiled = Compiled::new(Arc::new(policy), topology.clone());
        for (id, node) in &mut topology.nodes {
            let approved = node.advertised.iter().filter(|route| compiled.approves_route(*id, route));
            node.approved.extend(approved);
        }
    }

    fn node(&self, name: &str, node: &RecordedNode) -> Node {
        let user = |login: &String| self.topology.users.iter().position(|user| user.name == *login).unwrap();
        let owner = match node.tags.is_empty() {
            true => Owner::User(UserId(node.user.as_ref().map_or(0, user) as u64)),
            false => Owner::Tags(node.tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect()),
        };
        Node {
            name: name.into(),
            addresses: vec![node.ipv4.parse().unwrap(), node.ipv6.parse().unwrap()],
            owner,
            advertised: node.routable_ips.clone().unwrap_or_default(),
            approved: node.approved_routes.clone().unwrap_or_default(),
            revoked: BTreeSet::new(),
            posture: BTreeMap::new(),
        }
    }

    /// The primary router of each route is the one that is told so.
    fn add_routers(&self, topology: &mut Topology) {
        for (id, node) in &topology.nodes {
            for route in node.subnets() {
                topology.routers.entry(route).or_default().push(*id);
            }
        }
        for (name, answer) in &self.nodes {
            for route in answer.own.primary_routes.iter().flatten() {
                let id = self.node_id(name);
                if let Some(routers) = topology.routers.get_mut(route) {
                    routers.sort_by_key(|router| *router != id);
                }
            }
        }
    }
}
