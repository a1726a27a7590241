//! What a change of policy opens and closes, and what it takes from whom.
#![expect(clippy::unwrap_used, reason = "a scenario test")]

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
    let cut = old.would_cut_off(&compile(r#"{"grants": []}"#), UserId(1)).unwrap();
    assert!(cut.own_devices && cut.everything);
    assert_eq!(cut.lost.len(), 2);
    assert_eq!(old.would_cut_off(&compile(BEFORE), UserId(1)), None);
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
    let accounts: Vec<String> = (0..100).map(|at| format!("\"account{at}\"")).collect();
    let difference = Difference::between(&many(&ssh("\"a\"")), &many(&ssh(&accounts.join(","))));
    let told = difference.opened.iter().any(|reach| {
        reach.to_string() == "autogroup:member -> autogroup:member: ssh account0, account1, account2, account3, account4, account5 and more, line 1"
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
