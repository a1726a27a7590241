//! Whom a change of the tailnet or the policy concerns.

use super::*;

#[test]
fn who_hears_of_a_changed_device_is_who_is_concerned() {
    let mut compiled = compile(&SSH.replace(
        r#""grants": []"#,
        r#""grants": [{"src": ["tag:web"], "dst": ["tag:db"], "ip": ["22"]}, {"src": ["ben@example.com"], "dst": ["tag:exit"], "ip": ["22"]}]"#,
    ));
    // Nobody's rule changes with a name.
    let renamed = Node { name: "other".into(), ..nodes()[3].1.clone() };
    let affected = compiled.apply(Change::Node(WEB, Box::new(renamed)));
    assert_eq!(affected.nodes, [WEB].into());
    assert!(affected.met.is_empty() && affected.parted.is_empty());
    // A new device of Ben's may log in where he may.
    let tablet = node(NodeId(8), "tablet", Owner::User(UserId(2)), &[]);
    let affected = compiled.apply(Change::Node(NodeId(8), Box::new(tablet)));
    assert_eq!(affected.nodes, [NodeId(8)].into());
    assert_eq!(affected.met, [Pair::new(NodeId(8), EXIT)].into());
    assert!(affected.filters.contains(&EXIT) && !affected.filters.contains(&DB) && !affected.filters.contains(&LAPTOP));
    for node in [DB, EXIT, BEN, NodeId(8)] {
        assert!(affected.ssh.contains(&node), "{node:?} learns of a login: {:?}", affected.ssh);
    }
    assert!(!affected.ssh.contains(&LAPTOP));
    assert!(affected.concerned().is_superset(&[DB, EXIT, BEN, NodeId(8)].into()));
    let affected = compiled.apply(Change::NodeGone(NodeId(8)));
    assert_eq!((affected.parted, affected.nodes), ([Pair::new(EXIT, NodeId(8))].into(), [].into()));
    assert_eq!(compiled.apply(Change::NodeGone(NodeId(8))), Default::default());
    // The recorder's address is told with the logins that it records.
    let affected = compiled.apply(Change::NodeGone(EXIT));
    assert!(affected.ssh.is_superset(&[WEB, DB].into()), "{:?}", affected.ssh);
}

#[test]
fn who_hears_of_routers_services_users_and_policies_is_who_is_concerned() {
    let mut compiled = grants(
        r#"{"src": ["ben@example.com"], "dst": ["office", "svc:shop"], "ip": ["22"]}, {"src": ["autogroup:admin"], "dst": ["tag:exit"], "ip": ["22"]}"#,
    );
    let route: IpNet = "10.20.0.0/16".parse().unwrap();
    assert_eq!(compiled.apply(Change::Routers(route, vec![DB])).nodes, [WEB, DB].into());
    assert_eq!(routes_told(&compiled, BEN, DB), [route]);
    assert_eq!(compiled.apply(Change::Routers(route, Vec::new())).nodes, [DB].into());
    assert!(compiled.topology().routers.is_empty());
    compiled.apply(Change::Routers(route, vec![WEB, DB]));
    let moved = Service { hosts: [DB].into(), ..compiled.topology().services["svc:shop"].clone() };
    let affected = compiled.apply(Change::Service("svc:shop".into(), Some(moved)));
    assert_eq!((affected.filters, affected.nodes), ([WEB, DB].into(), [].into()));
    assert!(filter(&compiled, DB)[0].contains("100.64.1.1:22"));
    let affected = compiled.apply(Change::Service("svc:shop".into(), None));
    assert_eq!(affected.filters, [DB].into());
    let promoted = User { role: Role::Admin, ..compiled.topology().users[&UserId(2)].clone() };
    assert_eq!(compiled.apply(Change::User(UserId(2), promoted)).met, [Pair::new(BEN, EXIT)].into());
    let affected = compiled.apply(Change::UserGone(UserId(2)));
    assert_eq!(affected.parted, [Pair(BEN, WEB), Pair(BEN, DB), Pair(BEN, EXIT)].into());
    let text = format!(
        r#"{{{HEAD} "grants": [{{"src": ["ann@example.com"], "dst": ["office"], "ip": ["22"]}}], "nodeAttrs": [{{"target": ["tag:exit"], "attr": ["x"]}}]}}"#
    );
    let affected = compiled.replace_policy(Arc::new(Policy::parse(&text).unwrap()));
    assert_eq!(affected.filters, [WEB, DB, EXIT].into());
    assert_eq!(affected.nodes, [EXIT].into());
    assert_eq!(affected.parted, [Pair(LAPTOP, EXIT), Pair(PHONE, EXIT)].into());
    assert_eq!(affected.met.len(), 4);
}

#[test]
fn a_policy_that_only_sends_a_route_elsewhere_tells_of_the_routers() {
    let direct = r#"{"src": ["ben@example.com"], "dst": ["tag:web", "office"], "ip": ["22"]}"#;
    let mut compiled = grants(direct);
    let by_db = format!(
        r#"{{{HEAD} "grants": [{{"src": ["ben@example.com"], "dst": ["tag:web"], "ip": ["22"]}},
        {{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:db"]}}]}}"#
    );
    let affected = compiled.replace_policy(Arc::new(Policy::parse(&by_db).unwrap()));
    assert_eq!(affected.nodes, [WEB, DB].into());
    assert!(affected.met.is_empty() && affected.parted.is_empty());
    assert_eq!((routes_told(&compiled, BEN, WEB), routes_told(&compiled, BEN, DB).len()), (vec![], 1));
}

#[test]
fn a_router_that_a_via_turns_to_as_another_changes_is_named_too() {
    let mut compiled = grants(r#"{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:web"]}"#);
    let route: IpNet = "10.20.0.0/16".parse().unwrap();
    compiled.apply(Change::Routers(route, Vec::new()));
    assert_eq!((routes_told(&compiled, BEN, WEB), routes_told(&compiled, BEN, DB)), (vec![route], vec![]));
    let retagged = Node { owner: tagged(&["tag:exit"]), ..nodes()[3].1.clone() };
    let affected = compiled.apply(Change::Node(WEB, Box::new(retagged)));
    assert_eq!(routes_told(&compiled, BEN, DB), [route]);
    assert_eq!(affected.nodes, [WEB, DB].into());
    // So too where they share more than one route.
    let mut compiled = grants(r#"{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:web"]}"#);
    for (id, name, tags) in [(WEB, "web", &["tag:web"]), (DB, "db", &["tag:web"])] {
        let both = node(id, name, tagged(tags), &["10.20.0.0/16", "10.30.0.0/16"]);
        compiled.apply(Change::Node(id, Box::new(both)));
    }
    assert_eq!(compiled.apply(Change::NodeGone(WEB)).nodes, [DB].into());
    // Without a choice, nobody else is named.
    let mut compiled = grants(r#"{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"]}"#);
    let renamed = Node { name: "other".into(), ..nodes()[3].1.clone() };
    assert_eq!(compiled.apply(Change::Node(WEB, Box::new(renamed))).nodes, [WEB].into());
}

#[test]
fn who_is_concerned_by_one_of_several_changes_is_concerned_by_all_of_them() {
    let of = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
    let (one, other) = (Pair::new(LAPTOP, WEB), Pair::new(BEN, WEB));
    let mut affected = Affected {
        nodes: of(&[LAPTOP]),
        met: [one].into(),
        parted: [other].into(),
        filters: of(&[PHONE]),
        ssh: of(&[BEN]),
    };
    let later = Affected {
        nodes: of(&[DB]),
        met: [other].into(),
        parted: [one].into(),
        filters: of(&[EXIT]),
        ssh: of(&[GUEST]),
    };
    affected.join(later);
    let both = Affected {
        nodes: of(&[LAPTOP, DB]),
        met: [one, other].into(),
        parted: [one, other].into(),
        filters: of(&[PHONE, EXIT]),
        ssh: of(&[BEN, GUEST]),
    };
    assert_eq!(affected, both);
}

#[test]
fn a_filter_whose_rules_come_to_stand_in_another_order_is_named() {
    // The last rule has the sources of the first, by address, and stands where that does.
    let mut compiled = grants(
        r#"{"src": ["tag:web"], "dst": ["tag:exit"], "ip": ["tcp:1"]},
           {"src": ["ben@example.com"], "dst": ["ann@example.com"], "ip": ["tcp:2"]},
           {"src": ["100.64.0.4", "fd7a:115c:a1e0::4", "100.64.0.5", "fd7a:115c:a1e0::5"], "dst": ["ann@example.com"], "ip": ["tcp:3"]}"#,
    );
    let order = |compiled: &Compiled| -> Vec<u16> {
        compiled.filter(LAPTOP).iter().map(|rule| rule.destinations[0].ports.first).collect()
    };
    assert_eq!(order(&compiled), [3, 2]);
    let third = node(NodeId(8), "third", tagged(&["tag:web"]), &[]);
    let affected = compiled.apply(Change::Node(NodeId(8), Box::new(third)));
    assert_eq!(order(&compiled), [2, 3]);
    assert_eq!(affected.filters, [LAPTOP, PHONE, EXIT, NodeId(8)].into());
    let affected = compiled.apply(Change::NodeGone(NodeId(8)));
    assert_eq!(order(&compiled), [3, 2]);
    assert!(affected.filters.is_superset(&[LAPTOP, PHONE, EXIT].into()), "{:?}", affected.filters);
    // A rule that leaves others with the same sources behind it turns nothing round.
    let renamed = Node { name: "other".into(), ..nodes()[3].1.clone() };
    assert_eq!(compiled.apply(Change::Node(WEB, Box::new(renamed))).filters, [WEB].into());
}

#[test]
fn rules_that_come_to_have_the_sources_of_others_concern_their_own_receivers_only() {
    let mut compiled = grants(
        r#"{"src": ["tag:db"], "dst": ["tag:exit"], "ip": ["22"]}, {"src": ["tag:web"], "dst": ["ben@example.com"], "ip": ["22"]}"#,
    );
    let given_away = Node { owner: Owner::User(UserId(3)), ..nodes()[3].1.clone() };
    let affected = compiled.apply(Change::Node(WEB, Box::new(given_away)));
    assert_eq!(affected.filters, [BEN, WEB].into());
    assert_eq!(affected.parted, [Pair(BEN, WEB)].into());
}
