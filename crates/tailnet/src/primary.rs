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
}

/// A device that may serve routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Router {
    pub(crate) node: NodeId,
    pub(crate) online: bool,
    pub(crate) routes: Vec<IpNet>,
}

impl Primaries {
    /// The device that serves a route.
    pub(crate) fn of(&self, route: &IpNet) -> Option<NodeId> {
        self.by_route.get(route).copied()
    }

    /// The routes that a device serves.
    pub(crate) fn routes_of(&self, node: NodeId) -> impl Iterator<Item = IpNet> {
        self.by_route.iter().filter(move |(_, primary)| **primary == node).map(|(route, _)| *route)
    }

    /// Says which device served a route before a restart.
    pub(crate) fn restore(&mut self, route: IpNet, node: NodeId) {
        self.by_route.insert(route, node);
    }

    /// Chooses anew among all routers, in the order of their numbers; says which devices gained or lost a route.
    pub(crate) fn elect(&mut self, routers: &[Router]) -> BTreeSet<NodeId> {
        let mut candidates: BTreeMap<IpNet, Vec<&Router>> = BTreeMap::new();
        for router in routers {
            for route in &router.routes {
                candidates.entry(*route).or_default().push(router);
            }
        }
        let chosen: BTreeMap<_, _> = candidates
            .into_iter()
            .filter_map(|(route, candidates)| Some((route, choose(self.of(&route), &candidates)?)))
            .collect();
        let moved = |ours: &BTreeMap<IpNet, NodeId>, theirs: &BTreeMap<IpNet, NodeId>| -> Vec<NodeId> {
            ours.iter().filter(|(route, node)| theirs.get(route) != Some(node)).map(|(_, node)| *node).collect()
        };
        let mut changed: BTreeSet<_> = moved(&self.by_route, &chosen).into_iter().collect();
        changed.extend(moved(&chosen, &self.by_route));
        self.by_route = chosen;
        changed
    }
}

fn choose(current: Option<NodeId>, candidates: &[&Router]) -> Option<NodeId> {
    let sitting = candidates.iter().find(|router| Some(router.node) == current);
    if let Some(sitting) = sitting
        && sitting.online
    {
        return Some(sitting.node);
    }
    let next = candidates.iter().find(|router| router.online);
    next.or(sitting).or(candidates.first()).map(|router| router.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(node: u64, online: bool) -> Router {
        Router { node: NodeId(node), online, routes: vec!["10.0.0.0/16".parse().unwrap()] }
    }

    fn primary(primaries: &mut Primaries, routers: &[Router]) -> Option<u64> {
        let _ = primaries.elect(routers);
        primaries.of(&"10.0.0.0/16".parse().unwrap()).map(|node| node.0)
    }

    #[test]
    fn the_lowest_connected_device_serves_and_keeps_serving() {
        let mut primaries = Primaries::default();
        assert_eq!(primary(&mut primaries, &[router(1, false), router(2, true)]), Some(2));
        assert_eq!(primary(&mut primaries, &[router(1, true), router(2, true)]), Some(2));
        assert_eq!(primary(&mut primaries, &[router(1, true), router(2, false)]), Some(1));
        assert_eq!(primary(&mut primaries, &[router(1, true), router(2, true)]), Some(1));
    }

    #[test]
    fn with_none_connected_the_route_stays() {
        let mut primaries = Primaries::default();
        assert_eq!(primary(&mut primaries, &[router(1, true), router(2, true)]), Some(1));
        assert_eq!(primary(&mut primaries, &[router(1, false), router(2, false)]), Some(1));
        assert_eq!(primary(&mut primaries, &[router(2, false)]), Some(2));
        assert_eq!(primary(&mut primaries, &[]), None);
    }

    #[test]
    fn who_gains_and_who_loses_is_told() {
        let mut primaries = Primaries::default();
        assert_eq!(primaries.elect(&[router(1, true)]), BTreeSet::from([NodeId(1)]));
        assert_eq!(primaries.elect(&[router(1, false), router(2, true)]), BTreeSet::from([NodeId(1), NodeId(2)]));
        assert_eq!(primaries.elect(&[router(1, false), router(2, true)]), BTreeSet::new());
        assert_eq!(primaries.elect(&[]), BTreeSet::from([NodeId(2)]));
    }
}
