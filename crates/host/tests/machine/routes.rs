use std::collections::BTreeSet;

use host::{RouteChange, RouteKind, Router, RouterConfig, Tun, TunConfig};
use ipnet::IpNet;

use crate::namespace::Namespace;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn exit_node() -> RouterConfig {
    RouterConfig {
        interface: "tailscale0".to_owned(),
        addresses: [net("100.64.0.1/32"), net("fd7a:115c:a1e0::1/128")].into(),
        routes: [
            net("100.64.0.0/10"),
            net("100.100.100.100/32"),
            net("192.168.50.0/24"),
            net("fd7a:115c:a1e0::/48"),
            net("0.0.0.0/0"),
        ]
        .into(),
        blackholes: [net("::/0")].into(),
        throws: [net("172.20.30.0/24"), net("fd00:1::/64")].into(),
    }
}

fn apply(namespace: &Namespace, config: &RouterConfig) -> Vec<RouteChange> {
    namespace.run(|| {
        let mut router = Router::new().unwrap();
        let planned = router.plan(config).unwrap();
        let applied = router.apply(config).unwrap();
        assert!(applied.failures.is_empty(), "{:?}", applied.failures);
        assert_eq!(planned, applied.changes, "the plan is what is done");
        applied.changes
    })
}

fn rules(namespace: &Namespace, family: &str) -> BTreeSet<String> {
    let listed = namespace.ip(&format!("{family} rule show"));
    let ours = listed.lines().filter(|line| line.starts_with("52"));
    ours.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn the_kernel_has_what_was_asked_for_and_asking_again_changes_nothing() {
    let namespace = Namespace::new();
    let _tun = namespace.run(|| Tun::open(TunConfig::new("tailscale0")).unwrap());
    let config = exit_node();
    assert!(!apply(&namespace, &config).is_empty());
    assert_eq!(apply(&namespace, &config), vec![]);

    let state = namespace.run(|| Router::new().unwrap().state("tailscale0").unwrap());
    assert_eq!(state.addresses, config.addresses);
    let of = |kind| -> BTreeSet<IpNet> {
        state.routes.iter().filter(|(_, route)| route.kind == kind).map(|(prefix, _)| *prefix).collect()
    };
    assert_eq!(of(RouteKind::Tunnel), config.routes);
    assert_eq!(of(RouteKind::Blackhole), config.blackholes);
    assert_eq!(of(RouteKind::Throw), config.throws);
    assert_eq!(state.rules.len(), 8);

    for family in ["-4", "-6"] {
        let expected = [
            "5210: from all fwmark 0x80000/0xff0000 lookup main proto 52",
            "5230: from all fwmark 0x80000/0xff0000 lookup default proto 52",
            "5250: from all fwmark 0x80000/0xff0000 unreachable proto 52",
            "5270: from all lookup 52 proto 52",
        ];
        assert_eq!(rules(&namespace, family), expected.map(str::to_owned).into(), "{family}");
    }
    let routes = namespace.ip("route show table 52");
    assert!(routes.contains("default dev tailscale0 proto 52 scope link"), "{routes}");
    assert!(routes.contains("throw 172.20.30.0/24 proto 52"), "{routes}");
    let routes = namespace.ip("-6 route show table 52");
    assert!(routes.contains("blackhole default dev lo proto 52"), "{routes}");
}

#[test]
fn a_change_touches_only_what_differs() {
    let namespace = Namespace::new();
    let _tun = namespace.run(|| Tun::open(TunConfig::new("tailscale0")).unwrap());
    apply(&namespace, &exit_node());
    let mut config = exit_node();
    config.blackholes = BTreeSet::new();
    config.routes.insert(net("::/0"));
    config.routes.remove(&net("192.168.50.0/24"));
    config.addresses.remove(&net("100.64.0.1/32"));
    config.addresses.insert(net("100.64.0.2/32"));
    let changes: Vec<_> = apply(&namespace, &config).iter().map(RouteChange::to_string).collect();
    assert_eq!(
        changes,
        [
            "add the address 100.64.0.2/32 to the tunnel",
            "route ::/0 into the tunnel",
            "remove the tunnel route 192.168.50.0/24 from table 52",
            "remove the address 100.64.0.1/32 from the tunnel",
        ]
    );
    assert_eq!(apply(&namespace, &config), vec![]);
    assert!(namespace.ip("-6 route show table 52").contains("default dev tailscale0"));
}

#[test]
fn cleaning_up_after_a_crash_removes_all_of_ours_and_nothing_else() {
    let namespace = Namespace::new();
    namespace.ip("link add eth0 type veth peer name eth1");
    namespace.ip("link set eth0 up");
    namespace.ip("route add 10.9.0.0/16 dev eth0 table 52");
    namespace.ip("rule add priority 5200 lookup main");
    let before = (namespace.ip("rule show"), namespace.ip("-6 rule show"), namespace.ip("route show table all"));
    let tun = namespace.run(|| Tun::open(TunConfig::new("tailscale0")).unwrap());
    apply(&namespace, &exit_node());
    // The process dies: the interface goes, what names no interface stays.
    drop(tun);
    assert!(namespace.ip("route show table 52").contains("throw"));
    let applied = namespace.run(|| Router::new().unwrap().cleanup().unwrap());
    assert!(applied.failures.is_empty(), "{:?}", applied.failures);
    let after = (namespace.ip("rule show"), namespace.ip("-6 rule show"), namespace.ip("route show table all"));
    assert_eq!(before, after);
}

#[test]
fn what_others_removed_comes_back() {
    let namespace = Namespace::new();
    let _tun = namespace.run(|| Tun::open(TunConfig::new("tailscale0")).unwrap());
    apply(&namespace, &exit_node());
    namespace.ip("rule del priority 5270");
    namespace.ip("route flush table 52");
    let changes = apply(&namespace, &exit_node());
    assert!(changes.iter().any(|change| change.to_string() == "add the policy rule 5270 (IPv4: lookup 52)"));
    assert_eq!(apply(&namespace, &exit_node()), vec![]);
}

#[test]
fn without_ipv6_on_the_interface_its_traffic_is_dropped_and_not_leaked() {
    let namespace = Namespace::new();
    namespace.ip("link add eth0 type veth peer name eth1");
    let _tun = namespace.run(|| Tun::open(TunConfig::new("tailscale0")).unwrap());
    namespace.set("ipv6/conf/tailscale0/disable_ipv6", "1");
    let mut config = exit_node();
    config.blackholes = BTreeSet::new();
    config.routes.insert(net("::/0"));
    apply(&namespace, &config);
    assert_eq!(apply(&namespace, &config), vec![]);
    assert!(namespace.ip("-6 route show table 52").contains("blackhole default"));
    assert!(namespace.ip("-6 rule show").contains("lookup 52"));
}

#[test]
fn a_route_without_the_interface_is_a_failure_that_names_it() {
    let namespace = Namespace::new();
    let applied = namespace.run(|| Router::new().unwrap().apply(&exit_node()).unwrap());
    assert!(applied.failures[0].to_string().starts_with("cannot route into tailscale0"), "{:?}", applied.failures);
}
