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
    assert_eq!(difference(BEFORE), "opens and closes nothing\n");
    let split = BEFORE.replace(r#"["tcp:22", "tcp:80-90"]"#, r#"["tcp:80-85", "tcp:22", "tcp:84-90"]"#);
    assert_eq!(difference(&split), "opens and closes nothing\n");
}

#[test]
fn a_change_of_ports_is_told_by_user_tag_and_port() {
    let after = BEFORE.replace(r#""tcp:80-90""#, r#""tcp:85-95", "udp:53""#);
    let expected = "opens:\n  ann@example.com -> tag:web: tcp:91-95\n  ann@example.com -> tag:web: udp:53\n\
                    closes:\n  ann@example.com -> tag:web: tcp:80-84\n";
    assert_eq!(difference(&after), expected);
}

#[test]
fn a_new_member_of_a_group_and_a_tag_without_a_device_are_seen() {
    let after = BEFORE.replace(r#"["ann@example.com"]"#, r#"["ann@example.com", "bob@example.com"]"#);
    assert_eq!(difference(&after), "opens:\n  bob@example.com -> tag:web: tcp:22,80-90\n");
    let after = BEFORE.replace("5432", "5433");
    assert_eq!(difference(&after), "opens:\n  tag:web -> tag:db: 5433\ncloses:\n  tag:web -> tag:db: 5432\n");
}

#[test]
fn networks_and_capabilities_are_told() {
    let more = r#"{"src": ["tag:web"], "dst": ["10.0.0.0/8"], "ip": ["*"], "app": {"example.com/cap": [{"a": 1}]}}, {"src": ["tag:web"]"#;
    let after = BEFORE.replace(r#"{"src": ["tag:web"]"#, more);
    let expected = "opens:\n  tag:web -> 10.0.0.0/8: *\n  tag:web -> 10.0.0.0/8: example.com/cap {\"a\":1}\n";
    assert_eq!(difference(&after), expected);
}

#[test]
fn networks_as_sources_are_told() {
    let more = r#"{"src": ["10.50.0.0/16"], "dst": ["tag:web"], "ip": ["tcp:25"]}, {"src": ["tag:web"]"#;
    let after = BEFORE.replace(r#"{"src": ["tag:web"]"#, more);
    assert_eq!(difference(&after), "opens:\n  10.50.0.0/16 -> tag:web: tcp:25\n");
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
