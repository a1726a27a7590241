//! The policy in force, compiled against the tailnet: the one place where rows become what policy speaks of.

mod follow;

use std::collections::BTreeSet;
use std::sync::Arc;

use filter::{CapMap, Rule};
use ipnet::{IpNet, Ipv4Net};
use policy::{Affected, AllowedIps, Change, Compiled, OwnerIdentity, Policy, PolicyError, SshGrant, Topology};
use tailcfg::{NodeId, UserId};

use crate::record::{Node, Owner, Role, Service, User};
use crate::tag::Tag;

/// A policy that lets nothing through.
const BLOCKING: &str = r#"{"acls": []}"#;

/// The node attribute that hides IPv4 addresses.
const DISABLE_IPV4: &str = "disable-ipv4";

/// How many changes are applied one by one; with more, compiling anew is as fast.
pub(crate) const MOST_CHANGES: usize = 64;

/// A policy, compiled against the tailnet: the one in force, or one that is about to be.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    /// Shared with those who try a policy on it; a change while they do makes a copy.
    compiled: Arc<Compiled>,
    etag: String,
    /// Why the policy that should be in force is not: then nothing is let through.
    fault: Option<PolicyError>,
    hides_ipv4: bool,
}

/// Equal if the texts are: against what they are compiled follows from the tailnet.
impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.policy().text() == other.policy().text()
    }
}

/// Who wants to give a tag.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TagGiver<'a> {
    /// A user.
    User(UserId),
    /// A program that has these tags.
    Tags(&'a BTreeSet<Tag>),
}

impl Rules {
    /// Compiles a policy. A text that is none, which can only be one that an older version took, blocks everything.
    pub(crate) fn new(text: &str, topology: Topology) -> Self {
        let (policy, fault) = match Policy::parse(text) {
            Ok(policy) => (policy, None),
            Err(fault) => {
                let blocking = Policy::parse(BLOCKING).expect("a constant that a test parses");
                (blocking, Some(fault))
            }
        };
        Self { fault, ..Self::of(Compiled::new(Arc::new(policy), topology)) }
    }

    /// Takes a policy that is compiled already.
    pub(crate) fn of(compiled: Compiled) -> Self {
        let policy = compiled.policy();
        let etag = etag(policy);
        let hides_ipv4 = policy.settings().disable_ipv4
            || policy.node_attributes().iter().any(|entry| entry.attributes.has(DISABLE_IPV4));
        Self { compiled: Arc::new(compiled), etag, fault: None, hides_ipv4 }
    }

    /// Applies changes of the tailnet to what the policy was compiled against; says whom they concern.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Affected {
        let mut affected = Affected::default();
        if changes.is_empty() {
            return affected;
        }
        let compiled = Arc::make_mut(&mut self.compiled);
        changes.into_iter().for_each(|change| affected.join(compiled.apply(change)));
        affected
    }

    /// Compiles the same policy against another tailnet.
    pub(crate) fn recompile(&mut self, topology: Topology) {
        self.compiled = Arc::new(Compiled::new(Arc::clone(self.compiled.policy()), topology));
    }

    pub(crate) fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    pub(crate) fn policy(&self) -> &Arc<Policy> {
        self.compiled.policy()
    }

    pub(crate) fn shared(&self) -> Arc<Compiled> {
        Arc::clone(&self.compiled)
    }

    pub(crate) fn topology(&self) -> &Topology {
        self.compiled.topology()
    }

    pub(crate) fn etag(&self) -> &str {
        &self.etag
    }

    pub(crate) fn fault(&self) -> Option<&PolicyError> {
        self.fault.as_ref()
    }

    /// Whether the policy has a tag.
    pub(crate) fn knows_tag(&self, tag: &Tag) -> bool {
        as_policy_tag(tag).is_some_and(|tag| self.compiled.policy().tag_owners(&tag).is_some())
    }

    /// Whether the policy lets somebody give a tag.
    pub(crate) fn may_give(&self, giver: TagGiver<'_>, tag: &Tag) -> bool {
        let giver = match giver {
            TagGiver::User(id) => OwnerIdentity::User(policy::UserId(id.0)),
            // A program that has the very tag may give it, whoever owns it.
            TagGiver::Tags(tags) if tags.contains(tag) => return self.knows_tag(tag),
            TagGiver::Tags(tags) => OwnerIdentity::Tags(tags.iter().filter_map(as_policy_tag).collect()),
        };
        as_policy_tag(tag).is_some_and(|tag| self.compiled.may_give_tag(&giver, &tag))
    }

    /// Which of the routes that a device offers need no approval.
    pub(crate) fn auto_approved(&self, node: &Node) -> BTreeSet<IpNet> {
        auto_approved(&self.compiled, node)
    }

    /// Which of the routes that a device offers need no approval once its user is like this.
    pub(crate) fn auto_approved_of(&self, node: &Node, user: &User) -> BTreeSet<IpNet> {
        let user = as_policy_user(user);
        node.routes_for_policy().filter(|route| self.compiled.approves_route_of_user(&user, route)).collect()
    }

    /// The networks that a new device's IPv4 address should be from, none for any; and all that are kept for somebody.
    pub(crate) fn address_pools(&self, owner: &Owner) -> (Vec<Ipv4Net>, Vec<Ipv4Net>) {
        let own = self.compiled.address_pools_of(&as_policy_owner(owner));
        let entries = self.compiled.policy().node_attributes().iter();
        (own, entries.flat_map(|entry| entry.pools.iter().copied()).collect())
    }

    /// Whether the policy lets anybody log in by SSH.
    pub(crate) fn has_ssh(&self) -> bool {
        !self.compiled.policy().ssh_rules().is_empty()
    }

    /// The SSH rules of a device.
    pub(crate) fn ssh(&self, node: NodeId) -> Vec<SshGrant> {
        self.compiled.ssh(policy::NodeId(node.0))
    }

    /// Whether two devices know each other.
    pub(crate) fn are_peers(&self, one: NodeId, other: NodeId) -> bool {
        self.compiled.are_peers(policy::NodeId(one.0), policy::NodeId(other.0))
    }

    /// The devices that a device knows; the relation goes both ways.
    pub(crate) fn peers(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        self.compiled.peers(policy::NodeId(node.0)).into_iter().map(|id| NodeId(id.0))
    }

    /// The packet filter of a device.
    pub(crate) fn filter(&self, node: NodeId) -> Vec<Rule> {
        self.compiled.filter(policy::NodeId(node.0))
    }

    /// Whether what a viewer is told of a device's addresses can be anything but the addresses themselves.
    pub(crate) fn is_special(&self, node: &Node) -> bool {
        self.hides_ipv4 || node.served_routes().next().is_some()
    }

    /// What a viewer is told of a device's addresses.
    pub(crate) fn allowed_ips(&self, viewer: NodeId, peer: NodeId) -> AllowedIps {
        self.compiled.allowed_ips(policy::NodeId(viewer.0), policy::NodeId(peer.0))
    }

    /// What a device is told of its own addresses.
    pub(crate) fn own_allowed_ips(&self, node: NodeId) -> Vec<IpNet> {
        self.compiled.own_allowed_ips(policy::NodeId(node.0))
    }

    /// The capabilities that policy gives a device.
    pub(crate) fn attributes(&self, node: NodeId) -> CapMap {
        self.compiled.attributes(policy::NodeId(node.0))
    }

    /// Those that its peers are told of.
    pub(crate) fn peer_attributes(&self, node: NodeId) -> CapMap {
        self.compiled.peer_attributes(policy::NodeId(node.0))
    }
}

/// Which of the routes that a device offers a policy approves at once.
pub(crate) fn auto_approved(compiled: &Compiled, node: &Node) -> BTreeSet<IpNet> {
    let owner = as_policy_owner(&node.owner);
    node.routes_for_policy().filter(|route| compiled.approves_route_of(&owner, route)).collect()
}

/// The mark of a policy: the SHA-256 of its text in the one form that all tools agree on, as those that compare a file
/// with the policy in force compute it.
fn etag(policy: &Policy) -> String {
    crypto::sha256_hex(policy.formatted().as_bytes())
}

fn as_policy_tag(tag: &Tag) -> Option<policy::Tag> {
    policy::Tag::parse(tag.as_str()).ok()
}

fn as_policy_owner(owner: &Owner) -> policy::Owner {
    match owner {
        Owner::User(id) => policy::Owner::User(policy::UserId(id.0)),
        Owner::Tags(tags) => policy::Owner::Tags(tags.iter().filter_map(as_policy_tag).collect()),
    }
}

/// A device as policy sees it.
pub(crate) fn as_policy_node(node: &Node) -> policy::Node {
    let host = &node.hostinfo;
    let facts = [("node:os", &host.os), ("node:osVersion", &host.os_version), ("node:tsVersion", &host.ipn_version)];
    let text = |(key, value): (&str, &String)| (key.to_owned(), policy::PostureValue::Text(value.clone()));
    policy::Node {
        name: node.name.as_str().into(),
        addresses: node.addresses.both().to_vec(),
        owner: as_policy_owner(&node.owner),
        advertised: host.routable_ips.iter().copied().collect(),
        approved: node.approved_routes.clone(),
        revoked: node.revoked_routes.clone(),
        posture: facts.into_iter().filter(|(_, value)| !value.is_empty()).map(text).collect(),
    }
}

/// A user as policy sees them.
pub(crate) fn as_policy_user(user: &User) -> policy::User {
    let role = match user.role {
        Role::Owner => policy::Role::Owner,
        Role::Admin => policy::Role::Admin,
        Role::ItAdmin => policy::Role::ItAdmin,
        Role::NetworkAdmin => policy::Role::NetworkAdmin,
        Role::BillingAdmin => policy::Role::BillingAdmin,
        Role::Auditor => policy::Role::Auditor,
        Role::Member => policy::Role::Member,
    };
    policy::User { login: user.login.as_str().into(), role, shared: false }
}

/// A service as policy sees it. No device hosts one yet.
pub(crate) fn as_policy_service(service: &Service) -> policy::Service {
    policy::Service {
        addresses: service.addresses.both().to_vec(),
        hosts: BTreeSet::new(),
        tags: service.tags.iter().filter_map(as_policy_tag).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_does_not_parse_lets_nothing_through_and_says_so() {
        let rules = Rules::new("{ nonsense", Topology::default());
        assert!(rules.fault().is_some());
        assert!(rules.compiled().policy().rules().is_empty());
    }
}
