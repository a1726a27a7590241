//! Any tailnet and any policy, for property tests.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{ALIASES, Grant, GrantSpec, NodeSpec, PORTS, SOURCES, TAGS, World};

pub(crate) fn node_spec() -> impl Strategy<Value = NodeSpec> {
    let routes = prop_oneof![3 => Just(0_usize), 2 => 0_usize..16];
    (0_usize..10, routes, any::<bool>()).prop_map(|(owner, routes, managed)| NodeSpec { owner, routes, managed })
}

pub(crate) fn grant() -> impl Strategy<Value = Grant> {
    let sides = (vec(0..SOURCES, 1..4), vec(0..ALIASES.len(), 1..4), vec(0..PORTS.len(), 0..3));
    let via = prop_oneof![4 => Just(None), 1 => (0..TAGS.len()).prop_map(Some)];
    let managed = prop_oneof![4 => Just(false), 1 => Just(true)];
    (sides, any::<bool>(), via, managed).prop_map(|((sources, destinations, ports), app, via, managed)| {
        Grant::from(GrantSpec { sources, destinations, ports, app, via, managed })
    })
}

pub(crate) fn world() -> impl Strategy<Value = World> {
    (vec(node_spec(), 1..7), vec(grant(), 0..7)).prop_map(|(nodes, grants)| World { nodes, grants })
}
