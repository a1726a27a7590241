use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use filter::AddressRange;
use ipnet::IpNet;

use crate::{PostureValue, Role, Tag};

/// A user's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(pub u64);

/// A node's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u64);

/// What a policy is compiled against: who and what there is in a tailnet.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// The users, with those who have no node.
    pub users: BTreeMap<UserId, User>,
    /// The nodes that take part: not those that are expired or wait for approval.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The services that nodes host together, by name (`svc:…`).
    pub services: BTreeMap<Arc<str>, Service>,
    /// Who serves a subnet route, in order of preference: the first is primary. Electing it is the caller's.
    pub routers: BTreeMap<IpNet, Vec<NodeId>>,
    /// The login domains that belong to the tailnet.
    pub domains: BTreeSet<String>,
    /// Whether nodes get certificates, so that funnel can work.
    pub https: bool,
}

/// A user of a tailnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// The login name, as policies write it.
    pub login: Arc<str>,
    /// What the user may do.
    pub role: Role,
    /// The user belongs to another tailnet and is here because nodes were shared.
    pub shared: bool,
}

/// A node of a tailnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The name, for explanations.
    pub name: Arc<str>,
    /// The tailnet addresses, of either family.
    pub addresses: Vec<IpAddr>,
    /// Who it belongs to.
    pub owner: Owner,
    /// The routes that it offers, exit routes included.
    pub advertised: BTreeSet<IpNet>,
    /// The routes that it may serve, offered or not.
    pub approved: BTreeSet<IpNet>,
    /// The routes that were taken back from it by hand: no policy approves them at once.
    pub revoked: BTreeSet<IpNet>,
    /// What is known of the device, for postures.
    pub posture: BTreeMap<String, PostureValue>,
}

/// Who a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A user.
    User(UserId),
    /// Nobody: it acts in the roles of its tags.
    Tags(BTreeSet<Tag>),
}

/// A service with addresses of its own, which several nodes may host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The service's addresses.
    pub addresses: Vec<IpAddr>,
    /// The nodes that host it and are approved to.
    pub hosts: BTreeSet<NodeId>,
    /// The service's own tags, for approval.
    pub tags: BTreeSet<Tag>,
}

impl Node {
    /// The subnet routes that it serves: offered and approved.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        self.advertised.intersection(&self.approved).copied().filter(|route| !is_exit_route(route))
    }

    /// The exit routes that it serves.
    pub fn exit_routes(&self) -> impl Iterator<Item = IpNet> {
        self.advertised.intersection(&self.approved).copied().filter(is_exit_route)
    }

    /// Whether it is an exit node.
    pub fn is_exit(&self) -> bool {
        self.exit_routes().next().is_some()
    }

    /// Its tags; none for a user's node.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        let tags = match &self.owner {
            Owner::Tags(tags) => Some(tags),
            Owner::User(_) => None,
        };
        tags.into_iter().flatten()
    }

    /// The user it belongs to; none for a tagged node.
    pub fn user(&self) -> Option<UserId> {
        match self.owner {
            Owner::User(user) => Some(user),
            Owner::Tags(_) => None,
        }
    }

    /// Its own addresses as ranges.
    pub(crate) fn own_ranges(&self) -> impl Iterator<Item = AddressRange> {
        self.addresses.iter().map(|address| AddressRange::single(*address))
    }
}

impl Topology {
    /// The user with this login name.
    pub fn user_by_login(&self, login: &str) -> Option<(UserId, &User)> {
        self.users.iter().find(|(_, user)| *user.login == *login).map(|(id, user)| (*id, user))
    }

    /// The user that a node belongs to.
    pub fn user_of(&self, node: &Node) -> Option<&User> {
        self.users.get(&node.user()?)
    }
}

/// Whether a route is one of those that make an exit node: everything, of one family.
pub fn is_exit_route(route: &IpNet) -> bool {
    route.prefix_len() == 0
}
