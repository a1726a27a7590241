//! Who is told of which routes, and what of a policy holds there.

use super::*;

/// A tailnet in which a node offers some routes, and may serve others.
fn with_router(rest: &str, id: NodeId, offered: &[&str], approved: &[&str]) -> Compiled {
    let mut compiled = grants(rest);
    let known = nodes().into_iter().find(|(known, _)| *known == id).unwrap().1;
    let [advertised, approved] = [offered, approved].map(|routes| prefixes(routes).into_iter().collect());
    compiled.apply(Change::Node(id, Box::new(Node { advertised, approved, ..known })));
    compiled
}

#[test]
fn a_route_is_served_where_it_is_offered_and_approved_and_nowhere_else() {
    let everything =
        r#"{"src": ["ann@example.com"], "dst": ["*", "10.40.1.0/24", "10.50.1.0/24", "8.8.8.0/24"], "ip": ["*"]}"#;
    let offered = ["10.20.0.0/16", "10.40.0.0/16", "0.0.0.0/0"];
    let compiled = with_router(everything, WEB, &offered, &["10.20.0.0/16", "10.50.0.0/16", "::/0"]);
    let own = ["100.64.0.4/32", "fd7a:115c:a1e0::4/128"];
    assert_eq!(compiled.own_allowed_ips(WEB), prefixes(&[&own[..], &["10.20.0.0/16"]].concat()));
    assert_eq!(routes_told(&compiled, LAPTOP, WEB), prefixes(&["10.20.0.0/16"]));
    assert_eq!(filter(&compiled, WEB), ["100.64.0.1 100.64.0.2 fd7a:115c:a1e0::1 fd7a:115c:a1e0::2 -> *:* []"]);
    assert!(!compiled.peer_attributes(WEB).has("suggest-exit-node"));
    // Once the other half is there, it is served.
    let compiled = with_router(everything, WEB, &offered, &offered);
    assert_eq!(
        compiled.own_allowed_ips(WEB),
        prefixes(&[&own[..], &["10.20.0.0/16", "10.40.0.0/16", "0.0.0.0/0"]].concat())
    );
    assert!(
        filter(&compiled, WEB)[0].ends_with("-> *:* 10.40.1.0/24:* 8.8.8.0/24:* []"),
        "{:?}",
        filter(&compiled, WEB)
    );
    assert!(compiled.peer_attributes(WEB).has("suggest-exit-node"));
}

#[test]
fn everything_by_some_routers_is_what_lies_behind_them_and_not_the_internet() {
    let routes = ["10.60.0.0/16", "0.0.0.0/0", "::/0"];
    let everything = |via: &str| format!(r#"{{"src": ["ann@example.com"], "dst": ["*"], "ip": ["*"]{via}}}"#);
    let compiled = with_router(&everything(r#", "via": ["tag:exit"]"#), EXIT, &routes, &routes);
    assert_eq!(routes_told(&compiled, LAPTOP, EXIT), prefixes(&["10.60.0.0/16"]));
    let mut compiled = with_router(&everything(""), EXIT, &routes, &routes);
    compiled.apply(Change::Routers("10.60.0.0/16".parse().unwrap(), vec![EXIT]));
    assert_eq!(routes_told(&compiled, LAPTOP, EXIT), prefixes(&routes));
}

#[test]
fn a_network_on_the_internet_does_not_lie_behind_a_router_that_is_named_for_another() {
    let routes = ["10.20.0.0/16", "0.0.0.0/0", "::/0"];
    let to = |destinations: &str| {
        let grant = r#"{"src": ["ann@example.com"], "dst": [TO], "ip": ["53"], "via": ["tag:exit"]}"#;
        let compiled = with_router(&grant.replace("TO", destinations), EXIT, &routes, &routes);
        let told = routes_told(&compiled, LAPTOP, EXIT);
        (told, !tcp(&compiled, Party::Node(LAPTOP), "8.8.8.8", 53).allowed_by.is_empty())
    };
    assert_eq!(to(r#""office", "8.8.8.0/24""#), (prefixes(&["10.20.0.0/16"]), false));
    assert_eq!(to(r#""office", "autogroup:internet""#), (prefixes(&routes), true));
}

#[test]
fn whoever_lets_everything_in_hears_from_every_network() {
    let compiled = grants(r#"{"src": ["autogroup:danger-all"], "dst": ["ben@example.com"], "ip": ["22"]}"#);
    assert!(compiled.are_peers(BEN, WEB));
    assert_eq!(routes_told(&compiled, BEN, WEB), prefixes(&["10.20.0.0/16"]));
    assert_eq!(routes_told(&compiled, LAPTOP, WEB), []);
}

#[test]
fn capabilities_on_a_service_hold_on_its_hosts_and_at_its_address() {
    let compiled =
        grants(r#"{"src": ["ben@example.com"], "dst": ["svc:shop", "tag:db"], "app": {"example.com/x": []}}"#);
    let ben = "100.64.0.3 fd7a:115c:a1e0::3";
    assert_eq!(filter(&compiled, WEB), [format!("{ben} -> example.com/x on 100.64.1.1/32 []")]);
    let db = format!("{ben} -> example.com/x on 100.64.0.5/32 fd7a:115c:a1e0::5/128 []");
    assert_eq!(filter(&compiled, DB), [db]);
}

#[test]
fn a_capability_in_the_other_direction_holds_on_those_addresses_that_are_sources() {
    let drive = |source: &str| {
        let grant = r#"{"src": [SOURCE], "dst": ["tag:exit"], "app": {"tailscale.com/cap/drive": []}}"#;
        filter(&grants(&grant.replace("SOURCE", source)), BEN)
    };
    let exit = "100.64.0.6 fd7a:115c:a1e0::6";
    let sharer = |on: &str| vec![format!("{exit} -> tailscale.com/cap/drive-sharer on {on} []")];
    assert_eq!(drive(r#""100.64.0.3""#), sharer("100.64.0.3/32"));
    assert_eq!(drive(r#""fd7a:115c:a1e0::/64""#), sharer("fd7a:115c:a1e0::3/128"));
    for both in [r#""*""#, r#""ben@example.com""#, r#""autogroup:danger-all""#] {
        assert_eq!(drive(both), sharer("100.64.0.3/32 fd7a:115c:a1e0::3/128"), "{both}");
    }
    assert_eq!(drive(r#""100.64.0.4""#), Vec::<String>::new());
}
