//! From a desired state and the observed one to the changes between them, in an order that never leaks.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    Family, Ipv6, PolicyRule, RULES_BASE, RouteChange, RouteKind, RouterConfig, RouterState, RuleAction, TABLE,
};

const MAIN: u32 = 254;
const DEFAULT: u32 = 253;

/// The changes that make `state` what `config` asks for.
///
/// What opens comes before what closes: addresses, then routes (exceptions before what they are exceptions to), then
/// rules by their priority, so that the node's own packets go past the tunnel before anything goes into it.
pub(super) fn changes(config: &RouterConfig, state: &RouterState) -> Vec<RouteChange> {
    let wanted = Wanted::new(config, state);
    let mut changes = Vec::new();

    changes.extend(wanted.addresses.difference(&state.addresses).copied().map(RouteChange::AddAddress));

    let mut set: Vec<_> = wanted.routes.iter().filter(|(prefix, kind)| !wanted.has(state, prefix, **kind)).collect();
    set.sort_by_key(|(prefix, kind)| (**kind != RouteKind::Throw, std::cmp::Reverse(prefix.prefix_len())));
    changes.extend(set.into_iter().map(|(prefix, kind)| RouteChange::SetRoute(*prefix, *kind)));

    changes.extend(wanted.rules.difference(&state.rules).copied().map(RouteChange::AddRule));
    let surplus = state.rules.iter().rev().filter(|rule| !wanted.rules.contains(rule));
    changes.extend(surplus.copied().map(RouteChange::RemoveRule));

    let mut remove: Vec<_> = state.routes.iter().filter(|(prefix, _)| !wanted.routes.contains_key(*prefix)).collect();
    remove.sort_by_key(|(prefix, _)| prefix.prefix_len());
    changes.extend(remove.into_iter().map(|(prefix, route)| RouteChange::RemoveRoute(*prefix, *route)));

    changes.extend(state.addresses.difference(&wanted.addresses).copied().map(RouteChange::RemoveAddress));
    changes
}

/// The configuration as this machine can have it.
struct Wanted {
    interface: Option<u32>,
    addresses: BTreeSet<IpNet>,
    routes: BTreeMap<IpNet, RouteKind>,
    rules: BTreeSet<PolicyRule>,
}

impl Wanted {
    fn new(config: &RouterConfig, state: &RouterState) -> Self {
        let exists = state.interface.is_some();
        let addressable =
            |address: &&IpNet| exists && (Family::of(address) == Family::V4 || state.ipv6 == Ipv6::Usable);
        let mut routes = BTreeMap::new();
        let kinds = [
            (&config.routes, RouteKind::Tunnel),
            (&config.blackholes, RouteKind::Blackhole),
            (&config.throws, RouteKind::Throw),
        ];
        for (prefixes, kind) in kinds {
            for prefix in prefixes {
                if let Some(kind) = possible(Family::of(prefix), kind, state) {
                    routes.insert(prefix.trunc(), kind);
                }
            }
        }
        let families = [Family::V4, Family::V6].into_iter().filter(|family| possible_family(*family, state));
        let rules = if routes.is_empty() { BTreeSet::new() } else { families.flat_map(rules).collect() };
        Self {
            interface: state.interface,
            addresses: config.addresses.iter().filter(addressable).copied().collect(),
            routes,
            rules,
        }
    }

    fn has(&self, state: &RouterState, prefix: &IpNet, kind: RouteKind) -> bool {
        state
            .routes
            .get(prefix)
            .is_some_and(|route| route.kind == kind && (kind != RouteKind::Tunnel || route.interface == self.interface))
    }
}

fn possible_family(family: Family, state: &RouterState) -> bool {
    family == Family::V4 || state.ipv6 != Ipv6::Absent
}

fn possible(family: Family, kind: RouteKind, state: &RouterState) -> Option<RouteKind> {
    let barred = family == Family::V6 && state.ipv6 == Ipv6::OffOnInterface;
    match kind {
        _ if !possible_family(family, state) => None,
        RouteKind::Tunnel if state.interface.is_none() => None,
        RouteKind::Tunnel if barred => Some(RouteKind::Blackhole),
        kind => Some(kind),
    }
}

/// The node's own packets follow the machine's tables and nothing else; everybody else's ask the tunnel's first.
fn rules(family: Family) -> [PolicyRule; 4] {
    let rule = |offset, marked, action| PolicyRule { family, priority: RULES_BASE + offset, marked, action };
    [
        rule(10, true, RuleAction::Table(MAIN)),
        rule(30, true, RuleAction::Table(DEFAULT)),
        rule(50, true, RuleAction::Unreachable),
        rule(70, false, RuleAction::Table(TABLE)),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::InstalledRoute;
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn exit_node() -> RouterConfig {
        RouterConfig {
            interface: "tailscale0".to_owned(),
            addresses: [net("100.64.0.1/32"), net("fd7a:115c:a1e0::1/128")].into(),
            routes: [net("100.64.0.0/10"), net("0.0.0.0/0"), net("::/0")].into(),
            blackholes: BTreeSet::new(),
            throws: [net("192.168.50.0/24")].into(),
        }
    }

    fn present(ipv6: Ipv6) -> RouterState {
        RouterState { interface: Some(7), ipv6, ..Default::default() }
    }

    /// What the kernel would have after the changes.
    fn after(mut state: RouterState, changes: &[RouteChange]) -> RouterState {
        for change in changes {
            match *change {
                RouteChange::AddAddress(address) => {
                    state.addresses.insert(address);
                }
                RouteChange::RemoveAddress(address) => {
                    state.addresses.remove(&address);
                }
                RouteChange::SetRoute(prefix, kind) => {
                    let interface = state.interface.filter(|_| kind == RouteKind::Tunnel);
                    state.routes.insert(prefix, InstalledRoute { kind, interface, metric: 0 });
                }
                RouteChange::RemoveRoute(prefix, _) => {
                    state.routes.remove(&prefix);
                }
                RouteChange::AddRule(rule) => {
                    state.rules.insert(rule);
                }
                RouteChange::RemoveRule(rule) => {
                    state.rules.remove(&rule);
                }
            }
        }
        state
    }

    #[test]
    fn the_local_networks_exception_comes_before_the_default_route() {
        let changes = changes(&exit_node(), &present(Ipv6::Usable));
        let place = |wanted| changes.iter().position(|change| *change == wanted).unwrap();
        let exception = place(RouteChange::SetRoute(net("192.168.50.0/24"), RouteKind::Throw));
        let default = place(RouteChange::SetRoute(net("0.0.0.0/0"), RouteKind::Tunnel));
        assert!(exception < default);
    }

    #[test]
    fn the_nodes_own_packets_are_let_past_before_others_are_led_in() {
        let changes = changes(&exit_node(), &present(Ipv6::Usable));
        let rules: Vec<_> = changes
            .iter()
            .filter_map(|change| match change {
                RouteChange::AddRule(rule) if rule.family == Family::V4 => Some((rule.priority, rule.marked)),
                _ => None,
            })
            .collect();
        assert_eq!(rules, [(5210, true), (5230, true), (5250, true), (5270, false)]);
    }

    #[test]
    fn without_ipv6_on_the_interface_its_default_route_is_a_black_hole() {
        let changes = changes(&exit_node(), &present(Ipv6::OffOnInterface));
        assert!(changes.contains(&RouteChange::SetRoute(net("::/0"), RouteKind::Blackhole)));
        assert!(!changes.contains(&RouteChange::AddAddress(net("fd7a:115c:a1e0::1/128"))));
    }

    #[test]
    fn without_ipv6_on_the_machine_nothing_of_it_is_touched() {
        let changes = changes(&exit_node(), &present(Ipv6::Absent));
        assert!(changes.iter().all(|change| !change.to_string().contains(':') || change.to_string().contains("IPv4:")));
    }

    #[test]
    fn a_route_into_an_interface_of_an_earlier_process_is_replaced() {
        let mut state = present(Ipv6::Usable);
        let stale = InstalledRoute { kind: RouteKind::Tunnel, interface: Some(3), metric: 0 };
        state.routes.insert(net("100.64.0.0/10"), stale);
        let changes = changes(&exit_node(), &state);
        assert!(changes.contains(&RouteChange::SetRoute(net("100.64.0.0/10"), RouteKind::Tunnel)));
    }

    fn prefixes() -> impl Strategy<Value = BTreeSet<IpNet>> {
        let v4 = (any::<[u8; 4]>(), 0..=32u8).prop_map(|(a, length)| IpNet::new(a.into(), length).unwrap());
        let v6 = (any::<[u8; 16]>(), 0..=128u8).prop_map(|(a, length)| IpNet::new(a.into(), length).unwrap());
        proptest::collection::btree_set(prop_oneof![v4, v6], 0..8)
    }

    fn configs() -> impl Strategy<Value = RouterConfig> {
        (prefixes(), prefixes(), prefixes(), prefixes()).prop_map(|(addresses, routes, blackholes, throws)| {
            RouterConfig { interface: "tailscale0".to_owned(), addresses, routes, blackholes, throws }
        })
    }

    proptest! {
        #[test]
        fn applied_twice_the_second_time_changes_nothing(
            first in configs(),
            second in configs(),
            ipv6 in prop_oneof![Just(Ipv6::Usable), Just(Ipv6::OffOnInterface), Just(Ipv6::Absent)],
        ) {
            let empty = present(ipv6);
            let before = after(empty.clone(), &changes(&first, &empty));
            let state = after(before.clone(), &changes(&second, &before));
            prop_assert_eq!(changes(&second, &state), vec![]);
            let cleaned = after(state.clone(), &changes(&RouterConfig::default(), &state));
            prop_assert_eq!(cleaned, empty);
        }
    }
}
