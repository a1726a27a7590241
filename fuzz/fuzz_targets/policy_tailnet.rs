//! Any policy on a small tailnet: what is compiled is whole, both sides of a pair see each other, and what is brought up
//! to date is as if compiled anew.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use filter::{AddressRange, Filter, Local};
use libfuzzer_sys::fuzz_target;
use policy::{
    Change, Compiled, Node, NodeId, Owner, Policy, PostureValue, Question, Role, Service, Subject, Tag, Topology, User,
    UserId,
};

fn node(id: u64, owner: Owner, routes: &[&str]) -> Node {
    let routes: BTreeSet<_> = routes.iter().map(|route| route.parse().expect("a route")).collect();
    let addresses = [format!("100.64.0.{id}"), format!("fd7a:115c:a1e0::{id}")];
    Node {
        name: format!("node-{id}").into(),
        addresses: addresses.iter().map(|address| address.parse().expect("an address")).collect(),
        owner,
        advertised: routes.clone(),
        approved: routes,
        revoked: BTreeSet::new(),
        posture: BTreeMap::from([("node:os".to_owned(), PostureValue::Text("linux".to_owned()))]),
    }
}

fn tagged(names: &[&str]) -> Owner {
    Owner::Tags(names.iter().map(|name| Tag::parse(name).expect("a tag")).collect())
}

fn tailnet() -> Topology {
    let mut topology = Topology { domains: ["example.com".to_owned()].into(), ..Topology::default() };
    for (id, login, role) in [(1, "ann@example.com", Role::Owner), (2, "ben@example.com", Role::Member)] {
        topology.users.insert(UserId(id), User { login: login.into(), role, shared: false });
    }
    let nodes = [
        node(1, Owner::User(UserId(1)), &[]),
        node(2, Owner::User(UserId(1)), &["192.168.0.0/24"]),
        node(3, Owner::User(UserId(2)), &[]),
        node(4, tagged(&["tag:web"]), &["10.20.0.0/16"]),
        node(5, tagged(&["tag:db", "tag:web"]), &["10.20.0.0/16"]),
        node(6, tagged(&["tag:exit"]), &["0.0.0.0/0", "::/0"]),
    ];
    for (node, id) in nodes.into_iter().zip(1..) {
        for route in node.subnets() {
            topology.routers.entry(route).or_default().push(NodeId(id));
        }
        topology.nodes.insert(NodeId(id), node);
    }
    let shop: IpAddr = "100.64.1.1".parse().expect("an address");
    topology
        .services
        .insert("svc:shop".into(), Service { addresses: vec![shop], hosts: [NodeId(4)].into(), tags: BTreeSet::new() });
    topology
}

fn check(compiled: &Compiled) {
    for (id, node) in &compiled.topology().nodes {
        let own = node.addresses.iter().map(|address| AddressRange::single(*address));
        let local = Local::new(own.chain(node.subnets().chain(node.exit_routes()).map(AddressRange::prefix)));
        Filter::compile(&compiled.filter(*id), local).expect("a compiled filter is whole");
        for peer in compiled.peers(*id) {
            assert!(compiled.peers(peer).contains(id), "a pair sees each other");
            compiled.allowed_ips(*id, peer);
            let subject = Subject::Visibility { destination: format!("node-{}", peer.0) };
            let explained = compiled.explain(&Question { source: format!("node-{}", id.0), subject });
            let explained = explained.expect("both are there");
            assert!(!explained.answers[0].allowed_by.is_empty(), "a reason is known");
        }
        compiled.ssh(*id);
        compiled.attributes(*id);
    }
    let _ = compiled.verify();
}

fuzz_target!(|text: &str| {
    let Ok(policy) = Policy::parse(text) else { return };
    let policy = Arc::new(policy);
    let mut compiled = Compiled::new(policy.clone(), tailnet());
    check(&compiled);
    for change in [
        Change::Node(NodeId(3), Box::new(node(3, tagged(&["tag:web"]), &["10.20.30.0/24"]))),
        Change::NodeGone(NodeId(1)),
        Change::Node(NodeId(7), Box::new(node(7, Owner::User(UserId(2)), &["0.0.0.0/0", "::/0"]))),
    ] {
        compiled.apply(change);
        let anew = Compiled::new(policy.clone(), compiled.topology().clone());
        for id in anew.topology().nodes.keys() {
            assert_eq!(compiled.filter(*id), anew.filter(*id), "brought up to date is as if compiled anew");
            assert_eq!(compiled.peers(*id), anew.peers(*id));
        }
    }
});
