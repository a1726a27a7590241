use std::collections::BTreeSet;

use ipnet::IpNet;

use super::Compiled;
use crate::topology::is_exit_route;
use crate::{Alias, Autogroup, NodeId, Owner, Role, Tag, User, UserId};

/// Who asks to give a tag, or to have something approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnerIdentity {
    /// A user.
    User(UserId),
    /// A device, key or OAuth client that has tags.
    Tags(BTreeSet<Tag>),
}

impl Compiled {
    /// Whether the policy approves a route of a node at once, which it doesn't where it was taken back by hand. An exit route
    /// needs to be approved as such: a prefix that contains everything doesn't.
    pub fn approves_route(&self, node: NodeId, route: &IpNet) -> bool {
        let node = self.topology.nodes.get(&node).filter(|node| !node.revoked.contains(route));
        node.is_some_and(|node| self.approves_route_of(&node.owner, route))
    }

    /// [`Compiled::approves_route`] for a node that isn't in the tailnet yet.
    pub fn approves_route_of(&self, owner: &Owner, route: &IpNet) -> bool {
        self.approvers_of(route).any(|alias| self.is_alias_of(alias, owner))
    }

    /// [`Compiled::approves_route`] for a node of a user who isn't in the tailnet yet, or not like this.
    pub fn approves_route_of_user(&self, user: &User, route: &IpNet) -> bool {
        self.approvers_of(route).any(|alias| self.is_alias_of_user(alias, user))
    }

    fn approvers_of(&self, route: &IpNet) -> impl Iterator<Item = &Alias> {
        let approvers = self.policy.approvers();
        let exit = is_exit_route(route).then_some(&approvers.exit_node);
        // The networks that a route lies in are few; those that the policy names may be many.
        let within = std::iter::successors(Some(route.trunc()).filter(|_| exit.is_none()), IpNet::supernet);
        exit.into_iter().chain(within.filter_map(|prefix| approvers.routes.get(&prefix))).flatten()
    }

    /// Whether the policy approves a node as an exit node at once.
    pub fn approves_exit_node(&self, node: NodeId) -> bool {
        self.topology
            .nodes
            .get(&node)
            .is_some_and(|node| self.is_one_of(&self.policy.approvers().exit_node, &node.owner))
    }

    /// Whether the policy approves a node as a host of a service (`svc:…`) at once: by the service's name or by one of its
    /// tags.
    pub fn approves_service(&self, node: NodeId, service: &str) -> bool {
        let Some(node) = self.topology.nodes.get(&node) else {
            return false;
        };
        let tags = self.topology.services.get(service).map(|service| &service.tags);
        let keys = std::iter::once(service).chain(tags.into_iter().flatten().map(Tag::as_str));
        let approvers = &self.policy.approvers().services;
        keys.filter_map(|key| approvers.get(key)).any(|aliases| self.is_one_of(aliases, &node.owner))
    }

    /// Whether somebody may give a tag: the tag's owners, the owners of a tag that owns it, and who has such a tag. A tag
    /// without owners is for admins; a tag that the policy doesn't define is for nobody.
    pub fn may_give_tag(&self, giver: &OwnerIdentity, tag: &Tag) -> bool {
        let Some(listed) = self.policy.tag_owners(tag) else {
            return false;
        };
        let owner = match giver {
            OwnerIdentity::User(user) => Owner::User(*user),
            OwnerIdentity::Tags(tags) => Owner::Tags(tags.clone()),
        };
        if listed.is_empty() {
            return self.is_alias_of(&Alias::Auto(Autogroup::Role(Role::Admin)), &owner);
        }
        self.policy.all_tag_owners(tag).into_iter().any(|alias| self.is_alias_of(alias, &owner))
    }

    fn is_one_of(&self, aliases: &[Alias], owner: &Owner) -> bool {
        aliases.iter().any(|alias| self.is_alias_of(alias, owner))
    }

    /// Whether an alias means an owner. Aliases of addresses mean none.
    pub(crate) fn is_alias_of(&self, alias: &Alias, owner: &Owner) -> bool {
        match owner {
            Owner::Tags(tags) => match alias {
                Alias::Tag(tag) => tags.contains(tag),
                Alias::Auto(Autogroup::Tagged) => true,
                _ => matches!(alias, Alias::Anyone | Alias::Auto(Autogroup::DangerAll)),
            },
            Owner::User(id) => match self.topology.users.get(id) {
                Some(user) => self.is_alias_of_user(alias, user),
                None => matches!(alias, Alias::Anyone | Alias::Auto(Autogroup::DangerAll)),
            },
        }
    }

    pub(crate) fn is_alias_of_user(&self, alias: &Alias, user: &User) -> bool {
        match alias {
            Alias::Anyone | Alias::Auto(Autogroup::DangerAll) => true,
            Alias::User(login) => *login == user.login,
            Alias::UsersOf(domain) => user.login.rsplit_once('@').is_some_and(|(_, of)| *of == **domain),
            Alias::Group(name) => self.policy.is_in_group(name, &user.login),
            Alias::Auto(Autogroup::Member) => !user.shared,
            Alias::Auto(Autogroup::Shared) => user.shared,
            Alias::Auto(Autogroup::Role(role)) => !user.shared && user.role.includes(*role),
            _ => false,
        }
    }
}
