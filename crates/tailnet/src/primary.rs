use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use tailcfg::NodeId;

/// Which of the devices that may serve a route serves it.
///
/// The choice sticks: the one that serves goes on while it is connected. When it is gone, the connected one with the
/// lowest number takes over; with none connected it stays where it was.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Primaries {
    by_route: BTreeMap<IpNet, NodeId>,
    /// The devices that may serve each route, and whether they are connected.
    candidates: BTreeMap<IpNet, BTreeMap<NodeId, bool>>,
    by_node: BTreeMap<NodeId, BTreeSet<IpNet>>,
}

impl Primaries {
    /// The device that serves a route.
    pub(crate) fn of(&self, route: &IpNet) -> Option<NodeId> {
        self.by_route.get(route).copied()
    }

    /// The routes that a device serves.
    pub(crate) fn routes_of(&self, node: NodeId) -> impl Iterator<Item = IpNet> {
        let offered = self.by_node.get(&node).into_iter().flatten();
        offered.filter(move |route| self.of(route) == Some(node)).copied()
    }

    /// The routes that there are.
    pub(crate) fn routes(&self) -> impl Iterator<Item = IpNet> {
        self.candidates.keys().copied()
    }

    /// Who serves a route, in order of preference: the primary, then the others by number.
    pub(crate) fn preferences(&self, route: &IpNet) -> Vec<NodeId> {
        let primary = self.of(route);
        let all = self.candidates.get(route).into_iter().flat_map(BTreeMap::keys).copied();
        primary.into_iter().chain(all.filter(|node| Some(*node) != primary)).collect()
    }

    /// Says which device served a route before a restart.
    pub(crate) fn restore(&mut self, route: IpNet, node: NodeId) {
        self.by_route.insert(route, node);
    }

    /// Says which routes a device may serve from now on, and whether it is connected. Gives the routes for which it came,
    /// went, or changed: they wait for [`Primaries::elect`].
    pub(crate) fn set(&mut self, node: NodeId, online: bool, routes: BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        let before = self.by_node.remove(&node).unwrap_or_default();
        let mut touched = BTreeSet::new();
        for route in before.difference(&routes) {
            if let Some(candidates) = self.candidates.get_mut(route) {
                candidates.remove(&node);
                if candidates.is_empty() {
                    self.candidates.remove(route);
                }
            }
            touched.insert(*route);
        }
        for route in &routes {
            if self.candidates.entry(*route).or_default().insert(node, online) != Some(online) {
                touched.insert(*route);
            }
        }
        if !routes.is_empty() {
            self.by_node.insert(node, routes);
        }
        touched
    }

    /// Chooses anew for a route; says which devices gained or lost it.
    pub(crate) fn elect(&mut self, route: &IpNet) -> BTreeSet<NodeId> {
        let before = self.of(route);
        let after = self.candidates.get(route).and_then(|candidates| choose(before, candidates));
        match after {
            Some(after) => self.by_route.insert(*route, after),
            None => self.by_route.remove(route),
        };
        if before == after { BTreeSet::new() } else { before.into_iter().chain(after).collect() }
    }
}

fn choose(current: Option<NodeId>, candidates: &BTreeMap<NodeId, bool>) -> Option<NodeId> {
    let sitting = current.filter(|node| candidates.contains_key(node));
    if sitting.is_some_and(|node| candidates.get(&node) == Some(&true)) {
        return sitting;
    }
    let next = candidates.iter().find(|(_, online)| **online).map(|(node, _)| *node);
    next.or(sitting).or(candidates.keys().next().copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "10.0.0.0/16";

    /// Says who there is, and answers who serves.
    fn primary(primaries: &mut Primaries, routers: &[(u64, bool)]) -> Option<u64> {
        elect(primaries, routers);
        primaries.of(&ROUTE.parse().unwrap()).map(|node| node.0)
    }

    fn elect(primaries: &mut Primaries, routers: &[(u64, bool)]) -> BTreeSet<u64> {
        let route: IpNet = ROUTE.parse().unwrap();
        for node in 1..=2 {
            let known = routers.iter().find(|(known, _)| *known == node);
            let routes = known.map(|_| route).into_iter().collect();
            primaries.set(NodeId(node), known.is_some_and(|(_, online)| *online), routes);
        }
        primaries.elect(&route).into_iter().map(|node| node.0).collect()
    }

    #[test]
    fn the_lowest_connected_device_serves_and_keeps_serving() {
        let mut primaries = Primaries::default();
        assert_eq!(primary(&mut primaries, &[(1, false), (2, true)]), Some(2));
        assert_eq!(primary(&mut primaries, &[(1, true), (2, true)]), Some(2));
        assert_eq!(primary(&mut primaries, &[(1, true), (2, false)]), Some(1));
        assert_eq!(primary(&mut primaries, &[(1, true), (2, true)]), Some(1));
    }

    #[test]
    fn with_none_connected_the_route_stays() {
        let mut primaries = Primaries::default();
        assert_eq!(primary(&mut primaries, &[(1, true), (2, true)]), Some(1));
        assert_eq!(primary(&mut primaries, &[(1, false), (2, false)]), Some(1));
        assert_eq!(primary(&mut primaries, &[(2, false)]), Some(2));
        assert_eq!(primary(&mut primaries, &[]), None);
        assert_eq!(primaries, Primaries::default(), "nothing is left of what is gone");
    }

    #[test]
    fn who_gains_and_who_loses_is_told() {
        let mut primaries = Primaries::default();
        assert_eq!(elect(&mut primaries, &[(1, true)]), BTreeSet::from([1]));
        assert_eq!(elect(&mut primaries, &[(1, false), (2, true)]), BTreeSet::from([1, 2]));
        assert_eq!(elect(&mut primaries, &[(1, false), (2, true)]), BTreeSet::new());
        assert_eq!(elect(&mut primaries, &[]), BTreeSet::from([2]));
    }

    #[test]
    fn only_routes_for_which_something_changed_are_looked_at() {
        let mut primaries = Primaries::default();
        let routes = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<BTreeSet<IpNet>>();
        assert_eq!(primaries.set(NodeId(1), true, routes(&[ROUTE, "10.1.0.0/16"])), routes(&[ROUTE, "10.1.0.0/16"]));
        assert_eq!(primaries.set(NodeId(1), true, routes(&[ROUTE, "10.1.0.0/16"])), routes(&[]));
        assert_eq!(
            primaries.set(NodeId(1), true, routes(&[ROUTE, "10.2.0.0/16"])),
            routes(&["10.1.0.0/16", "10.2.0.0/16"])
        );
    }
}
