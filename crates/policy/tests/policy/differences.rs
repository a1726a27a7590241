//! What a change of policy opens and closes, and what it takes from whom.

use std::net::IpAddr;
use std::sync::Arc;

use policy::{Compiled, Difference, Node, NodeId, Owner, Policy, Tag, Topology, User, UserId};

const BEFORE: &str = r#"{
    "tagOwners": {"tag:web": [], "tag:db": []},
    "groups": {"group:dev": ["ann@example.com"]},
    "grants": [
        {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]},
        {"src": ["group:dev"], "dst": ["tag:web"], "ip": ["tcp:22", "tcp:80-90"]},
        {"src": ["tag:web"], "dst": ["tag:db"], "ip": ["5432"]},
    ],
}"#;

fn topology() -> Topology {
    let mut topology = Topology::default();
    let node = |at: u8, owner| Node {
        name: format!("node-{at}").into(),
        addresses: vec![format!("100.64.0.{at}").parse().unwrap()],
        owner,
        advertised: Default::default(),
        approved: Default::default(),
        revoked: Default::default(),
        posture: Default::default(),
    };
    for (id, login) in [(1, "ann@example.com"), (2, "bob@example.com")] {
        topology.users.insert(UserId(id), User { login: login.into(), ..User::default() });
        topology.nodes.insert(NodeId(id), node(id as u8, Owner::User(UserId(id))));
    }
    let tags = |tag: &str| Owner::Tags([Tag::parse(tag).unwrap()].into());
    topology.nodes.insert(NodeId(3), node(3, tags("tag:web")));
    topology.nodes.insert(NodeId(4), node(4, tags("tag:web")));
    topology
}

fn compile(text: &str) -> Compiled {
    Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology())
}

fn difference(after: &str) -> String {
    Difference::between(&compile(BEFORE), &compile(after)).to_string()
}

#[test]
fn the_same_policy_in_other_words_opens_and_closes_nothing() {
    assert_eq!(difference(BEFORE), "It opens and closes nothing.\n");
    let split = BEFORE.replace(r#"["tcp:22", "tcp:80-90"]"#, r#"["tcp:80-85", "tcp:22", "tcp:84-90"]"#);
    assert_eq!(difference(&split), "It opens and closes nothing.\n");
}

#[test]
fn a_change_of_ports_is_told_by_user_tag_and_port() {
    let after = BEFORE.replace(r#""tcp:80-90""#, r#""tcp:85-95", "udp:53""#);
    let expected = "It opens:\n  ann@example.com -> tag:web: tcp:91-95\n  ann@example.com -> tag:web: udp:53\n\
                    It closes:\n  ann@example.com -> tag:web: tcp:80-84\n";
    assert_eq!(difference(&after), expected);
}

#[test]
fn a_new_member_of_a_group_and_a_tag_without_a_device_are_seen() {
    let after = BEFORE.replace(r#"["ann@example.com"]"#, r#"["ann@example.com", "bob@example.com"]"#);
    assert_eq!(difference(&after), "It opens:\n  bob@example.com -> tag:web: tcp:22,80-90\n");
    let after = BEFORE.replace("5432", "5433");
    assert_eq!(difference(&after), "It opens:\n  tag:web -> tag:db: 5433\nIt closes:\n  tag:web -> tag:db: 5432\n");
}

#[test]
fn networks_and_capabilities_are_told() {
    let more = r#"{"src": ["tag:web"], "dst": ["10.0.0.0/8"], "ip": ["*"], "app": {"example.com/cap": [{"a": 1}]}}, {"src": ["tag:web"]"#;
    let after = BEFORE.replace(r#"{"src": ["tag:web"]"#, more);
    let expected = "It opens:\n  tag:web -> 10.0.0.0/8: *\n  tag:web -> 10.0.0.0/8: example.com/cap {\"a\":1}\n";
    assert_eq!(difference(&after), expected);
}

#[test]
fn networks_as_sources_are_told() {
    let more = r#"{"src": ["10.50.0.0/16"], "dst": ["tag:web"], "ip": ["tcp:25"]}, {"src": ["tag:web"]"#;
    let after = BEFORE.replace(r#"{"src": ["tag:web"]"#, more);
    assert_eq!(difference(&after), "It opens:\n  10.50.0.0/16 -> tag:web: tcp:25\n");
}

#[test]
fn who_loses_their_own_devices_or_everything_is_told() {
    let old = compile(BEFORE);
    let without_own = BEFORE.replace(r#""dst": ["autogroup:self"]"#, r#""dst": ["tag:db"]"#);
    let cut = old.would_cut_off(&compile(&without_own), UserId(2)).unwrap();
    assert!(cut.own_devices && !cut.everything);
    assert!(cut.warning("bob@example.com").starts_with("this policy parts the devices of bob@example.com: "));
    let cut = old.would_cut_off(&compile(r#"{"grants": []}"#), UserId(1)).unwrap();
    assert!(cut.own_devices && cut.everything);
    assert_eq!(old.would_cut_off(&compile(BEFORE), UserId(1)), None);
    let to_bob = compile(r#"{"grants": [{"src": ["ann@example.com"], "dst": ["bob@example.com"], "ip": ["22"]}]}"#);
    let cut = old.would_cut_off(&to_bob, UserId(1)).unwrap();
    assert!(cut.own_devices && !cut.everything, "bob has a device");
    let to_nobody = compile(r#"{"grants": [{"src": ["ann@example.com"], "dst": ["eve@example.com"], "ip": ["22"]}]}"#);
    assert!(old.would_cut_off(&to_nobody, UserId(1)).unwrap().everything, "eve has none");
    let more = BEFORE.replace("tcp:22", "tcp:20-25");
    assert_eq!(old.would_cut_off(&compile(&more), UserId(1)), None);
}

const SSH: &str = r#"{
    "tagOwners": {"tag:web": ["group:dev"], "tag:db": []},
    "groups": {"group:dev": ["ann@example.com"]},
    "grants": [],
    "ssh": [
        {"action": "check", "src": ["group:dev"], "dst": ["tag:web"], "users": ["ubuntu"]},
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]},
    ],
}"#;

fn changes(before: &str, replaced: &[(&str, &str)]) -> String {
    let after = replaced.iter().fold(before.to_owned(), |text, (old, new)| {
        assert!(text.contains(old), "{old}");
        text.replace(old, new)
    });
    Difference::between(&compile(before), &compile(&after)).to_string()
}

#[test]
fn logins_are_told_by_user_tag_and_account() {
    assert_eq!(changes(SSH, &[]), "It opens and closes nothing.\n");
    let root = changes(SSH, &[(r#"["ubuntu"]"#, r#"["ubuntu", "root"]"#)]);
    assert_eq!(root, "It opens:\n  ann@example.com -> tag:web: ssh root (check)\n");
    let everybody = changes(SSH, &[(r#""src": ["group:dev"]"#, r#""src": ["autogroup:member"]"#)]);
    assert_eq!(everybody, "It opens:\n  bob@example.com -> tag:web: ssh ubuntu (check)\n");
    let accepted = changes(SSH, &[(r#""action": "check""#, r#""action": "accept""#)]);
    let expected = "It opens:\n  ann@example.com -> tag:web: ssh ubuntu\nIt closes:\n  ann@example.com -> tag:web: ssh ubuntu (check)\n";
    assert_eq!(accepted, expected);
    let longer = changes(SSH, &[(r#""action": "check""#, r#""action": "check", "checkPeriod": "90m""#)]);
    assert!(longer.contains("ssh ubuntu (check for 1h30m)"), "{longer}");
    let members =
        SSH.replace(r#""src": ["group:dev"]"#, r#""src": ["autogroup:member"]"#).replace("group:dev", "group:ops");
    let both = changes(&members, &[(r#"["ubuntu"]"#, r#"["ubuntu", "root"]"#)]);
    let expected = "  ann@example.com -> tag:web: ssh root (check)\n  bob@example.com -> tag:web: ssh root (check)\n";
    assert_eq!(both, format!("It opens:\n{expected}"));
    let elsewhere = changes(SSH, &[(r#""dst": ["tag:web"]"#, r#""dst": ["tag:db"]"#)]);
    assert!(elsewhere.contains("It opens:\n  ann@example.com -> tag:db: ssh ubuntu (check)\n"), "{elsewhere}");
    let own = changes(SSH, &[(r#""users": ["autogroup:nonroot"]"#, r#""users": ["root"]"#)]);
    for line in [
        "It opens:\n  ann@example.com -> ann@example.com: ssh root\n  bob@example.com -> bob@example.com: ssh root\n",
        "It closes:\n  ann@example.com -> ann@example.com: ssh any account but root\n",
    ] {
        assert!(own.contains(line), "{own}");
    }
    assert!(!own.contains("ann@example.com -> bob@example.com"), "{own}");
    let recorded = changes(
        SSH,
        &[(r#""users": ["ubuntu"]"#, r#""users": ["ubuntu"], "recorder": ["tag:db"], "acceptEnv": ["LANG"]"#)],
    );
    assert!(recorded.contains("ssh ubuntu (check), recorded by tag:db, with LANG"), "{recorded}");
}

#[test]
fn who_may_give_tags_and_need_not_ask_is_told_by_entry() {
    let owners = changes(SSH, &[(r#""tag:web": ["group:dev"]"#, r#""tag:web": ["bob@example.com"]"#)]);
    let expected = "It opens:\n  bob@example.com -> tag:web: may give the tag\nIt closes:\n  group:dev -> tag:web: may give the tag\n";
    assert_eq!(owners, expected);
    let members = changes(
        SSH,
        &[(r#""group:dev": ["ann@example.com"]"#, r#""group:dev": ["ann@example.com", "bob@example.com"]"#)],
    );
    assert!(members.contains("  bob@example.com -> tag:web: may give the tag\n"), "{members}");
    let more = r#""grants": [], "nodeAttrs": [{"target": ["tag:web"], "attr": ["funnel"]}],
        "autoApprovers": {"routes": {"10.0.0.0/8": ["tag:web"]}, "exitNode": ["group:dev"], "services": {"svc:a": ["tag:db"]}}"#;
    let expected = "It opens:\n  group:dev -> exit node: approved at once\n  tag:db -> svc:a: service approved at once\n  \
                    tag:web -> 10.0.0.0/8: route approved at once\n  tag:web -> nodeAttrs: funnel\n";
    assert_eq!(changes(SSH, &[(r#""grants": []"#, more)]), expected);
}

#[test]
fn postures_and_settings_are_told_as_they_are_and_were() {
    let before = BEFORE.replace(r#""grants""#, r#""postures": {"posture:a": ["node:os == 'linux'"]}, "grants""#);
    let told = changes(
        &before,
        &[("== 'linux'", "IN ['linux', 'macos']"), (r#""postures""#, r#""disableIPv4": true, "postures""#)],
    );
    let expected = "It changes:\n  disableIPv4: on instead of off\n  posture:a: node:os IN ['linux', 'macos'] instead of node:os == 'linux'\n";
    assert_eq!(told, expected);
}

/// Three hundred users with a device each, which no rule about two of them has in common.
fn many(text: &str) -> Compiled {
    let mut topology = Topology::default();
    for id in 1..=300 {
        let login = format!("u{id}@example.com");
        topology.users.insert(UserId(id), User { login: login.as_str().into(), ..User::default() });
    }
    Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology)
}

#[test]
fn a_rule_about_more_pairs_than_are_compared_is_told_as_it_stands_and_the_others_by_pair() {
    let before = r#"{"tagOwners": {"tag:a": []}, "grants": [
        {"src": ["u1@example.com"], "dst": ["tag:a"], "ip": ["22"]},
        {"src": ["*"], "dst": ["*"], "ip": ["tcp:80-90"]}]}"#;
    let after = before.replace("80-90", "80,443").replace("22", "23");
    let difference = Difference::between(&many(before), &many(&after));
    let expected = "It opens:\n  * -> *: tcp:443, line 3\n  u1@example.com -> tag:a: tcp:23,443\n  u1@example.com -> tag:a: udp:23\n\
                    It closes:\n  * -> *: tcp:81-90, line 3\n  u1@example.com -> tag:a: tcp:22,81-90\n  u1@example.com -> tag:a: udp:22\n\
                    Not everything was compared one by one: a rule about too many is told as it stands.\n";
    assert_eq!(difference.to_string(), expected);
    let ssh = |users: &str| {
        format!(
            r#"{{"grants": [], "ssh": [{{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:member"], "users": [{users}]}}]}}"#
        )
    };
    let accounts: Vec<String> = (0..200).map(|at| format!("\"account{at}\"")).collect();
    let difference = Difference::between(&many(&ssh("\"a\"")), &many(&ssh(&accounts.join(","))));
    let told = difference.opened.iter().any(|reach| {
        reach.to_string() == "autogroup:member -> autogroup:member: ssh account0, account1, account2, account3, account4, account5 and 194 more, line 1"
    });
    assert!(difference.cut_short && told, "{difference}");
}

#[test]
fn a_set_with_more_networks_than_are_compared_is_told_by_the_rule_that_has_it() {
    let with = |port: &str| {
        let set: Vec<String> = (0..5_000).map(|at| format!("\"10.{}.{}.0/25\"", at >> 8, at & 255)).collect();
        format!(
            r#"{{"ipsets": {{"ipset:a": [{}]}}, "grants": [{{"src": ["u1@example.com"], "dst": ["ipset:a"], "ip": ["{port}"]}}]}}"#,
            set.join(",")
        )
    };
    let (old, new) = (many(&with("22")), many(&with("23")));
    let difference = Difference::between(&old, &new).to_string();
    assert!(difference.contains("It opens:\n  u1@example.com -> ipset:a: 23, line 1\n"), "{difference}");
    let cut = old.would_cut_off(&many(r#"{"grants": []}"#), UserId(1)).unwrap();
    assert!(cut.everything);
}

/// What a grant that becomes another opens and closes.
fn grants(before: &str, after: &str, topology: &Topology) -> String {
    let compile = |grants: &str| {
        let text = format!(
            r#"{{"tagOwners": {{"tag:web": [], "tag:gateway": []}}, "hosts": {{"site": "10.0.0.0/16"}}, "grants": [{grants}]}}"#
        );
        Compiled::new(Arc::new(Policy::parse(&text).unwrap()), topology.clone())
    };
    Difference::between(&compile(before), &compile(after)).to_string()
}

fn to(destinations: &str) -> String {
    format!(r#"{{"src": ["ann@example.com"], "dst": [{destinations}], "ip": ["*"]}}"#)
}

#[test]
fn a_network_that_is_widened_or_narrowed_is_told_by_what_it_gains_or_loses() {
    let told = |before: &str, after: &str| grants(&to(before), &to(after), &topology());
    let wider = "It opens:\n  ann@example.com -> 10.1.0.0-10.255.255.255: *\n";
    assert_eq!(told(r#""10.0.0.0/16""#, r#""10.0.0.0/8""#), wider);
    assert_eq!(told(r#""site""#, r#""10.0.0.0/8""#), wider);
    assert_eq!(told(r#""10.0.0.0/8""#, r#""10.0.0.0/16""#), wider.replace("opens", "closes"));
    assert_eq!(told(r#""10.0.0.0/16""#, r#""10.0.0.0/16", "10.0.0.0/8""#), wider);
    assert_eq!(
        told(r#""1.1.1.1""#, r#""autogroup:internet""#),
        "It opens:\n  ann@example.com -> autogroup:internet: *\n"
    );
    assert_eq!(told(r#""10.0.0.0/8""#, r#""10.0.0.0/9", "10.128.0.0/9""#), "It opens and closes nothing.\n");
    let internet = r#"{"src": ["bob@example.com"], "dst": ["autogroup:internet"], "ip": ["*"]}"#;
    let mut of_both_families = topology();
    for node in of_both_families.nodes.values_mut() {
        let IpAddr::V4(address) = node.addresses[0] else { unreachable!() };
        node.addresses.push(format!("fd7a:115c:a1e0::{:x}", address.octets()[3]).parse().unwrap());
    }
    for network in ["203.0.112.0/24", "2001:4860::/32"] {
        let told = grants(internet, &format!("{internet}, {}", to(&format!("{network:?}"))), &of_both_families);
        assert_eq!(told, format!("It opens:\n  ann@example.com -> {network}: *\n"));
    }
    let from = |sources: &str| format!(r#"{{"src": [{sources}], "dst": ["tag:web"], "ip": ["22"]}}"#);
    let wider = "It opens:\n  10.1.0.0-10.255.255.255 -> tag:web: 22\n";
    assert_eq!(grants(&from(r#""10.0.0.0/16""#), &from(r#""10.0.0.0/8""#), &topology()), wider);
}

#[test]
fn a_network_is_told_as_one_where_other_rules_are_about_parts_of_it() {
    let other = r#"{"src": ["bob@example.com"], "dst": ["10.1.2.3", "10.64.0.0/10"], "ip": ["22"]}"#;
    let told = grants(other, &format!("{other}, {}", to(r#""10.0.0.0/8""#)), &topology());
    assert_eq!(told, "It opens:\n  ann@example.com -> 10.0.0.0/8: *\n");
    let own = other.replace("bob", "ann");
    let told = grants(&own, &format!("{own}, {}", to(r#""10.1.2.0/24""#)), &topology());
    let expected = "It opens:\n  ann@example.com -> 10.1.2.0-10.1.2.2: *\n  ann@example.com -> 10.1.2.3: 0-21,23-65535\n  \
                    ann@example.com -> 10.1.2.4-10.1.2.255: *\n";
    assert_eq!(told, expected);
}

/// With a gateway to some networks.
fn with_gateway(routes: &[&str]) -> Topology {
    let mut topology = topology();
    let routes: std::collections::BTreeSet<_> = routes.iter().map(|route| route.parse().unwrap()).collect();
    let gateway = Node {
        name: "gateway".into(),
        addresses: vec!["100.64.0.5".parse().unwrap()],
        owner: Owner::Tags([Tag::parse("tag:gateway").unwrap()].into()),
        advertised: routes.clone(),
        approved: routes,
        revoked: Default::default(),
        posture: Default::default(),
    };
    topology.nodes.insert(NodeId(5), gateway);
    topology
}

#[test]
fn what_lies_behind_routers_is_told_of_all_destinations() {
    let (before, after) = (to(r#""tag:gateway""#), to(r#""*""#));
    let told = grants(&before, &after, &with_gateway(&["10.20.0.0/16"]));
    assert!(told.contains("  ann@example.com -> 10.20.0.0/16: *\n"), "{told}");
    assert!(!told.contains("autogroup:internet") && !told.contains("-> tag:gateway"), "{told}");
    let told = grants(&before, &after, &with_gateway(&["0.0.0.0/0", "::/0"]));
    assert!(told.contains("  ann@example.com -> autogroup:internet: *\n"), "{told}");
    let from = |sources: &str| format!(r#"{{"src": [{sources}], "dst": ["tag:web"], "ip": ["22"]}}"#);
    let told = grants(&from(r#""tag:web""#), &from(r#""*""#), &with_gateway(&["10.20.0.0/16"]));
    assert!(told.contains("  10.20.0.0/16 -> tag:web: 22\n"), "{told}");
}

#[test]
fn a_service_is_told_by_its_name() {
    let mut topology = topology();
    let service = policy::Service { addresses: vec!["100.64.1.1".parse().unwrap()], ..Default::default() };
    topology.services.insert("svc:shop".into(), service);
    let told = grants("", &to(r#""svc:shop""#), &topology);
    assert_eq!(told, "It opens:\n  ann@example.com -> svc:shop: *\n");
    let told = grants("", &to(r#""100.64.1.0/24""#), &topology);
    assert_eq!(told, "It opens:\n  ann@example.com -> 100.64.1.0/24: *\n");
}

#[test]
fn an_account_that_another_rule_names_is_told_where_a_rule_for_any_account_goes() {
    let named = r#"{"action": "accept", "src": ["group:dev"], "dst": ["tag:web"], "users": ["ubuntu", "localpart:*@example.com"]}"#;
    let any =
        named.replace("accept", "check").replace(r#""ubuntu", "localpart:*@example.com""#, r#""autogroup:nonroot""#);
    let with = |rules: &str| {
        format!(
            r#"{{"tagOwners": {{"tag:web": []}}, "groups": {{"group:dev": ["ann@example.com"]}}, "grants": [], "ssh": [{rules}]}}"#
        )
    };
    let (both, alone) = (compile(&with(&format!("{named}, {any}"))), compile(&with(named)));
    let line = |text: &str| format!("  ann@example.com -> tag:web: ssh {text}\n");
    let expected = ["ann", "ubuntu"].map(line).concat();
    let closed = ["ann (check)", "any account but root (check)", "ubuntu (check)"].map(line).concat();
    let told = Difference::between(&both, &alone).to_string();
    assert_eq!(told, format!("It opens:\n{expected}It closes:\n{closed}"));
}

#[test]
fn a_login_that_a_device_has_on_itself_only_is_told() {
    let with = |users: &str| {
        let rule = format!(
            r#"{{"action": "accept", "src": ["tag:web"], "dst": ["tag:db"], "users": ["localpart:*@example.com", {users}]}}"#
        );
        compile(&format!(r#"{{"tagOwners": {{"tag:web": [], "tag:db": []}}, "grants": [], "ssh": [{rule}]}}"#))
    };
    let told = Difference::between(&with("\"a\""), &with("\"b\"")).to_string();
    let lines = |account: &str| format!("  tag:web -> tag:db: ssh {account}\n  tag:web -> tag:web: ssh {account}\n");
    assert_eq!(told, format!("It opens:\n{}It closes:\n{}", lines("b"), lines("a")));
}

#[test]
fn rules_with_the_same_sides_are_compared_once() {
    let with = |first: usize| {
        let grants = (1..=1_000).map(|port| {
            let range = format!("tcp:{}-{}", port * 2 + first, port * 2 + first + 1);
            format!(r#"{{"src": ["*"], "dst": ["*"], "ip": ["{range}"]}}"#)
        });
        many(&format!(r#"{{"grants": [{}]}}"#, grants.collect::<Vec<_>>().join(",")))
    };
    let mut topology = Topology::default();
    topology.clone_from(with(0).topology());
    topology.users.retain(|id, _| id.0 <= 150);
    let [old, new] = [0, 1].map(|first| Compiled::new(with(first).policy().clone(), topology.clone()));
    let difference = Difference::between(&old, &new);
    assert!(!difference.cut_short);
    assert_eq!((difference.opened.len(), difference.closed.len()), (150 * 150, 150 * 150));
}

#[test]
fn a_rule_too_large_to_compare_hides_no_other_about_the_same() {
    let with = |letter: &str, port: u16| {
        let value = letter.repeat(1_200_000);
        let grants = (1..=300)
            .map(|at| format!(r#"{{"src": ["u{at}@example.com"], "dst": ["tag:a"], "ip": ["tcp:{port}"]}}"#))
            .collect::<Vec<_>>();
        let large = format!(
            r#"{{"src": ["autogroup:member"], "dst": ["tag:a"], "app": {{"example.com/cap": [{{"a": "{value}"}}]}}}}"#
        );
        many(&format!(r#"{{"tagOwners": {{"tag:a": []}}, "grants": [{large}, {}]}}"#, grants.join(",")))
    };
    let difference = Difference::between(&with("x", 22), &with("y", 23));
    let is_told = |at: usize| {
        let source = format!("u{at}@example.com");
        difference.opened.iter().any(|reach| reach.source == source && reach.what.starts_with("tcp:23"))
    };
    let untold: Vec<usize> = (1..=300).filter(|at| !is_told(*at)).collect();
    assert_eq!(untold, Vec::<usize>::new());
}

#[test]
fn a_posture_is_read_once_however_many_rules_ask_for_it() {
    let with = |port: u16| {
        let conditions = (0..100).map(|at| format!("\"node:os != '{}{at}'\"", "x".repeat(1_000)));
        let grants = (0..20_000).map(|at| {
            let to = format!("10.0.{}.{}", at >> 8, at & 255);
            let port = if at == 7 { port } else { 22 };
            format!(r#"{{"src": ["u{at}@example.com"], "dst": ["{to}"], "ip": ["tcp:{port}"], "srcPosture": ["posture:a"]}}"#)
        });
        many(&format!(
            r#"{{"postures": {{"posture:a": [{}]}}, "grants": [{}]}}"#,
            conditions.collect::<Vec<_>>().join(","),
            grants.collect::<Vec<_>>().join(",")
        ))
    };
    let told = Difference::between(&with(22), &with(23)).to_string();
    let expected =
        "It opens:\n  u7@example.com -> 10.0.0.7: tcp:23\nIt closes:\n  u7@example.com -> 10.0.0.7: tcp:22\n";
    assert_eq!(told, expected);
}

#[test]
fn a_host_or_a_set_of_addresses_that_means_others_is_told_of_attributes() {
    let before = r#"{"tagOwners": {"tag:a": []}, "hosts": {"one": "100.64.0.1"}, "ipsets": {"ipset:some": ["100.64.0.1", "100.64.0.3"]},
        "grants": [], "nodeAttrs": [{"target": ["one"], "attr": ["a"]}, {"target": ["ipset:some"], "attr": ["b"]}]}"#;
    let told = changes(before, &[(r#""one": "100.64.0.1""#, r#""one": "100.64.0.2""#)]);
    assert_eq!(told, "It opens:\n  100.64.0.2 -> nodeAttrs: a\nIt closes:\n  100.64.0.1 -> nodeAttrs: a\n");
    let told = changes(before, &[(r#", "100.64.0.3""#, "")]);
    assert_eq!(told, "It closes:\n  100.64.0.3 -> nodeAttrs: b\n");
}

#[test]
fn logins_of_which_another_rule_comes_to_be_the_first_are_told() {
    let rule = |variable: &str| {
        format!(
            r#"{{"action": "accept", "src": ["ann@example.com"], "dst": ["tag:web"], "users": ["root"], "acceptEnv": ["{variable}"]}}"#
        )
    };
    let with = |rules: &[String]| {
        compile(&format!(r#"{{"tagOwners": {{"tag:web": []}}, "grants": [], "ssh": [{}]}}"#, rules.join(",")))
    };
    let told = |before: &[&str], after: &[&str]| {
        let [before, after] =
            [before, after].map(|rules| with(&rules.iter().map(|name| rule(name)).collect::<Vec<_>>()));
        Difference::between(&before, &after).to_string()
    };
    let line = |variable: &str| format!("  ann@example.com -> tag:web: ssh root, with {variable}\n");
    let turned = format!("It opens:\n{}It closes:\n{}", line("LANG"), line("GIT_*"));
    assert_eq!(told(&["GIT_*", "LANG"], &["LANG", "GIT_*"]), turned);
    assert_eq!(told(&["GIT_*", "LANG"], &["LANG"]), turned);
    assert_eq!(told(&["GIT_*", "LANG"], &["GIT_*"]), "It opens and closes nothing.\n");
}

#[test]
fn how_long_a_check_holds_is_told_of_logins() {
    let with = |period: &str| {
        changes(SSH, &[(r#""action": "check""#, &format!(r#""action": "check", "checkPeriod": "{period}""#))])
    };
    for (period, words) in [("always", "check each time"), ("90m", "check for 1h30m")] {
        let line = |check: &str| format!("  ann@example.com -> tag:web: ssh ubuntu ({check})\n");
        assert_eq!(with(period), format!("It opens:\n{}It closes:\n{}", line(words), line("check")));
    }
    assert_eq!(with("12h"), "It opens and closes nothing.\n");
}

#[test]
fn more_ranges_of_ports_than_are_told_of_a_pair_are_counted() {
    let told = |count: u16| {
        let ports: Vec<String> = (1..=count).map(|at| (at * 2).to_string()).collect();
        let grant = |ports: &str| {
            format!(r#"{{"src": ["ann@example.com"], "dst": ["bob@example.com"], "ip": ["tcp:{ports}"]}}"#)
        };
        (grants("", &grant(&ports.join(",")), &topology()), ports)
    };
    let (all, ports) = told(50);
    assert_eq!(all, format!("It opens:\n  ann@example.com -> bob@example.com: tcp:{}\n", ports.join(",")));
    let (some, ports) = told(52);
    let ports = format!("{},and 2 more", ports[..50].join(","));
    assert_eq!(some, format!("It opens:\n  ann@example.com -> bob@example.com: tcp:{ports}\n"));
}
