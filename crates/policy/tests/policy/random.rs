//! Any tailnet and any policy, for property tests.

use policy::Role;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{
    ALIASES, Grant, GrantSpec, NodeSpec, PORTS, SOURCES, SSH_DESTINATIONS, SSH_SOURCES, SSH_USERS, SshSpec, TAGS,
    USERS, World,
};

/// The most nodes of a tailnet.
pub(crate) const NODES: usize = 7;

/// A change of a tailnet by the places of what changes.
#[derive(Clone, Debug)]
pub(crate) enum ChangeSpec {
    Node(usize, Option<NodeSpec>),
    User(usize, Option<Role>),
    /// The routers of a route turned by so many places; none of them is known any more at 0.
    Routers(usize, usize),
    Service(Option<usize>),
    Https(bool),
}

pub(crate) fn node_spec() -> impl Strategy<Value = NodeSpec> {
    let routes = prop_oneof![3 => Just(0_usize), 2 => 0_usize..16];
    let approved = prop_oneof![3 => Just(15_usize), 1 => 0_usize..16];
    (0_usize..10, routes, approved, any::<bool>()).prop_map(|(owner, routes, approved, managed)| NodeSpec {
        owner,
        routes,
        approved,
        managed,
    })
}

fn rarely() -> impl Strategy<Value = bool> {
    prop_oneof![4 => Just(false), 1 => Just(true)]
}

pub(crate) fn grant() -> impl Strategy<Value = Grant> {
    let sides = (vec(0..SOURCES, 1..4), vec(0..ALIASES.len(), 1..4), vec(0..PORTS.len(), 0..3));
    let via = prop_oneof![4 => Just(None), 1 => (0..TAGS.len()).prop_map(Some)];
    (sides, any::<bool>(), via, rarely(), rarely()).prop_map(
        |((sources, destinations, ports), app, via, managed, acl)| {
            Grant::from(GrantSpec { sources, destinations, ports, app, via, managed, acl })
        },
    )
}

fn ssh_rule() -> impl Strategy<Value = SshSpec> {
    let sides = (vec(0..SSH_SOURCES.len(), 1..3), vec(0..SSH_DESTINATIONS.len(), 1..3), vec(0..SSH_USERS.len(), 1..3));
    (sides, rarely(), rarely(), rarely()).prop_map(|((sources, destinations, users), check, managed, recorded)| {
        SshSpec { check, sources, destinations, users, managed, recorded }
    })
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    let nodes = vec(node_spec(), 1..NODES);
    (nodes, vec(grant(), 0..7), vec(ssh_rule(), 0..5), rarely(), 0_usize..64)
        .prop_map(|(nodes, grants, ssh, default_managed, shop)| World { nodes, grants, ssh, default_managed, shop })
}

pub(crate) fn change() -> impl Strategy<Value = ChangeSpec> {
    let role = prop_oneof![Just(Role::Admin), Just(Role::Member), Just(Role::Owner)];
    prop_oneof![
        8 => (0..NODES, proptest::option::weighted(0.8, node_spec())).prop_map(|(at, spec)| ChangeSpec::Node(at, spec)),
        2 => (0..USERS.len(), proptest::option::weighted(0.7, role)).prop_map(|(at, role)| ChangeSpec::User(at, role)),
        2 => (0_usize..3, 0_usize..4).prop_map(|(route, turn)| ChangeSpec::Routers(route, turn)),
        1 => proptest::option::of(0_usize..64).prop_map(ChangeSpec::Service),
        1 => any::<bool>().prop_map(ChangeSpec::Https),
    ]
}
