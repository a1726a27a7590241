//! The policies in `examples/`, and the one that a new tailnet has.

use std::sync::Arc;

use filter::Protocol;
use policy::hujson::{Document, Value};
use policy::{Compiled, Node, NodeId, Owner, OwnerIdentity, Party, Policy, Query, Role, Tag, Topology, User, UserId};

const POLICY: &str = include_str!("../../../../examples/policy.hujson");
const GRANTS: &str = include_str!("../../../../examples/article-grants.hujson");
const AUTO_APPROVERS: &str = include_str!("../../../../examples/article-auto-approvers.hujson");

const ADMIN: NodeId = NodeId(1);
const MEMBER: NodeId = NodeId(2);
const OPERATOR: NodeId = NodeId(3);
const CONNECTOR: NodeId = NodeId(4);
const SERVER: NodeId = NodeId(5);

fn node(name: &str, at: u8, owner: Owner, routes: &[&str]) -> Node {
    Node {
        name: name.into(),
        addresses: vec![format!("100.64.0.{at}").parse().unwrap(), format!("fd7a:115c:a1e0::{at}").parse().unwrap()],
        owner,
        advertised: routes.iter().map(|route| route.parse().unwrap()).collect(),
        approved: routes.iter().map(|route| route.parse().unwrap()).collect(),
        revoked: Default::default(),
        posture: Default::default(),
    }
}

fn tagged(tag: &str) -> Owner {
    Owner::Tags([Tag::parse(tag).unwrap()].into())
}

fn tailnet(policy: &str) -> Compiled {
    let mut topology = Topology::default();
    for (id, login, role) in [(1, "admin@example.com", Role::Admin), (2, "member@example.com", Role::Member)] {
        topology.users.insert(UserId(id), User { login: login.into(), role, shared: false });
    }
    let routes = ["192.168.50.0/24", "10.0.0.0/16", "10.1.0.0/16", "10.69.0.0/16"];
    topology.nodes.insert(ADMIN, node("laptop", 1, Owner::User(UserId(1)), &[]));
    topology.nodes.insert(MEMBER, node("phone", 2, Owner::User(UserId(2)), &[]));
    topology.nodes.insert(OPERATOR, node("tailscale-operator", 3, tagged("tag:k8s-operator"), &[]));
    topology.nodes.insert(CONNECTOR, node("robbinsdale-connector", 4, tagged("tag:k8s"), &routes));
    topology.nodes.insert(SERVER, node("robbinsdale", 5, tagged("tag:server"), &[]));
    topology.nodes.insert(NodeId(6), node("tablet", 6, Owner::User(UserId(2)), &[]));
    for route in routes {
        topology.routers.insert(route.parse().unwrap(), vec![CONNECTOR]);
    }
    Compiled::new(Arc::new(Policy::parse(policy).unwrap()), topology)
}

fn reaches(compiled: &Compiled, from: NodeId, to: &str, port: u16) -> bool {
    let destination = Party::Address(to.parse().unwrap());
    let query = Query { source: Party::Node(from), destination, protocol: Protocol::TCP, port };
    !compiled.decide(&query).allowed_by.is_empty()
}

fn minified(document: &Document, value: &Value) -> String {
    document.minify(value)
}

#[test]
fn the_merged_policy_has_every_grant_of_the_article() {
    let (merged, article) = (Document::parse(POLICY).unwrap(), Document::parse(GRANTS).unwrap());
    let grants = |document: &Document| -> Vec<String> {
        let list = document.root().get("grants").unwrap().elements().unwrap();
        list.iter().map(|grant| minified(document, grant)).collect()
    };
    let ours = grants(&merged);
    assert_eq!(article.root().members().unwrap().len(), 1);
    for grant in grants(&article) {
        assert!(ours.contains(&grant), "{grant}");
    }
}

#[test]
fn the_merged_policy_approves_every_route_of_the_article() {
    let article = Document::parse(&format!("{{{AUTO_APPROVERS}}}")).unwrap();
    let merged = Document::parse(POLICY).unwrap();
    let routes = |document: &Document| {
        let routes = document.root().get("autoApprovers").unwrap().get("routes").unwrap();
        minified(document, routes)
    };
    assert_eq!(routes(&article), routes(&merged));
}

#[test]
fn the_merged_policy_holds_what_the_walkthrough_says() {
    let compiled = tailnet(POLICY);
    compiled.verify().unwrap();
    assert_eq!(compiled.policy().warnings(), []);
    for to in ["100.64.0.5", "10.0.1.2", "10.1.0.1", "192.168.50.60", "10.69.0.9"] {
        assert!(reaches(&compiled, ADMIN, to, 80), "{to}");
        assert!(!reaches(&compiled, MEMBER, to, 80), "{to}");
    }
    assert!(reaches(&compiled, MEMBER, "100.64.0.3", 443));
    assert!(!reaches(&compiled, MEMBER, "100.64.0.3", 80));
    assert!(reaches(&compiled, CONNECTOR, "100.64.0.5", 22));
    assert!(!compiled.peers(MEMBER).contains(&CONNECTOR));
    assert_eq!(compiled.allowed_ips(ADMIN, CONNECTOR).primary.len(), 4);
}

#[test]
fn the_merged_policy_impersonates_by_role() {
    let compiled = tailnet(POLICY);
    let groups = |from| {
        let decision = compiled.decide_capabilities(&Party::Node(from), &Party::Node(OPERATOR));
        let values = decision.capabilities.values("tailscale.com/cap/kubernetes").unwrap_or_default().to_vec();
        values.iter().map(|value| value.as_str().to_owned()).collect::<Vec<_>>()
    };
    let members = r#"{"impersonate":{"groups":["tailnet-readers"]}}"#;
    assert_eq!(groups(MEMBER), [members]);
    assert_eq!(groups(ADMIN), [r#"{"impersonate":{"groups":["system:masters"]}}"#, members]);
    assert!(groups(SERVER).is_empty());
}

#[test]
fn the_merged_policy_lets_the_operator_tag_its_proxies_and_approves_them() {
    let compiled = tailnet(POLICY);
    let tag = |name: &str| Tag::parse(name).unwrap();
    let operator = OwnerIdentity::Tags([tag("tag:k8s-operator")].into());
    assert!(compiled.may_give_tag(&operator, &tag("tag:k8s")));
    assert!(!compiled.may_give_tag(&operator, &tag("tag:server")));
    assert!(compiled.may_give_tag(&OwnerIdentity::User(UserId(1)), &tag("tag:k8s-operator")));
    assert!(!compiled.may_give_tag(&OwnerIdentity::User(UserId(2)), &tag("tag:k8s-operator")));
    assert!(compiled.approves_route(CONNECTOR, &"10.69.0.0/16".parse().unwrap()));
    assert!(!compiled.approves_route(CONNECTOR, &"10.70.0.0/16".parse().unwrap()));
    assert!(!compiled.approves_route(SERVER, &"10.69.0.0/16".parse().unwrap()));
    assert!(compiled.approves_exit_node(CONNECTOR));
    assert!(!compiled.approves_exit_node(ADMIN));
}

#[test]
fn in_a_new_tailnet_a_user_reaches_their_own_devices_only() {
    let compiled = tailnet(Policy::default_for_new_tailnet());
    compiled.verify().unwrap();
    assert!(reaches(&compiled, MEMBER, "100.64.0.6", 22));
    for to in ["100.64.0.1", "100.64.0.3", "100.64.0.5", "10.0.0.1"] {
        assert!(!reaches(&compiled, MEMBER, to, 22), "{to}");
    }
    assert_eq!(compiled.peers(MEMBER), [NodeId(6)].into());
    assert_eq!(compiled.peers(SERVER), [].into());
}
