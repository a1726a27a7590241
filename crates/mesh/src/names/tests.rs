use tailcfg::{MapResponse, NodeId};

use super::*;
use crate::Preferences;

fn node(id: u64, name: &str, addresses: &[&str]) -> Node {
    Node {
        id: NodeId(id),
        stable_id: tailcfg::StableNodeId(format!("n{id}")),
        key: crypto::NodePublic::from_bytes([id as u8; 32]),
        name: name.to_owned(),
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        ..Node::default()
    }
}

fn resolver(addr: &str) -> Resolver {
    Resolver { addr: addr.to_owned(), ..Resolver::default() }
}

fn names(dns: DnsConfig, peers: Vec<Node>) -> Names {
    let mut mesh = Mesh::new(Preferences::default(), jiff::Timestamp::UNIX_EPOCH);
    let own = node(1, "laptop.example.ts.net.", &["100.64.0.1/32", "fd7a:115c:a1e0::1/128"]);
    let map = MapResponse { node: Some(own), dns_config: Some(dns), peers, ..MapResponse::default() };
    mesh.handle_first_map(map, jiff::Timestamp::UNIX_EPOCH).unwrap();
    mesh.names()
}

fn magic() -> DnsConfig {
    DnsConfig {
        proxied: true,
        routes: [("example.ts.net".to_owned(), Vec::new()), ("corp.example".to_owned(), vec![resolver("10.0.0.53")])]
            .into(),
        resolvers: vec![resolver("9.9.9.9")],
        extra_records: vec![tailcfg::DnsRecord {
            name: "svc.example.ts.net".to_owned(),
            kind: String::new(),
            value: "100.64.0.77".to_owned(),
        }],
        ..DnsConfig::default()
    }
}

fn some() -> Names {
    names(magic(), vec![node(2, "db.example.ts.net.", &["100.64.0.2/32", "fd7a:115c:a1e0::2/128"])])
}

fn ask(names: &Names, name: &str, kind: QuestionKind) -> Resolution {
    names.resolve(&Question { name: name.to_owned(), kind })
}

fn v4(texts: &[&str]) -> Resolution {
    Resolution::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
}

#[test]
fn a_nodes_full_name_resolves_in_any_case_with_or_without_a_dot() {
    for name in ["db.example.ts.net", "db.example.ts.net.", "DB.Example.TS.net."] {
        assert_eq!(ask(&some(), name, QuestionKind::A), v4(&["100.64.0.2"]));
    }
    assert_eq!(ask(&some(), "laptop.example.ts.net", QuestionKind::A), v4(&["100.64.0.1"]));
    assert_eq!(ask(&some(), "svc.example.ts.net", QuestionKind::A), v4(&["100.64.0.77"]));
}

#[test]
fn another_kind_of_record_is_empty_and_an_unknown_name_is_none() {
    assert_eq!(ask(&some(), "db.example.ts.net", QuestionKind::Aaaa), v4(&[]));
    assert_eq!(ask(&some(), "db.example.ts.net", QuestionKind::Other), v4(&[]));
    assert_eq!(ask(&some(), "no.example.ts.net", QuestionKind::A), Resolution::NoSuchName);
    assert_eq!(ask(&some(), "example.ts.net", QuestionKind::A), v4(&[]));
    assert_eq!(ask(&some(), "example.ts.net", QuestionKind::Zone), Resolution::NotImplemented);
    assert_eq!(ask(&some(), "x.onion", QuestionKind::A), Resolution::NoSuchName);
}

#[test]
fn a_node_that_is_called_like_the_world_hijacks_no_bare_name() {
    let names = names(
        magic(),
        vec![node(3, "github.", &["100.64.0.3/32"]), node(4, "github.example.ts.net.", &["100.64.0.4/32"])],
    );
    assert_eq!(ask(&names, "github", QuestionKind::A), Resolution::Forward(vec![resolver("9.9.9.9")]));
    assert_eq!(ask(&names, "github.com", QuestionKind::A), Resolution::Forward(vec![resolver("9.9.9.9")]));
    assert_eq!(ask(&names, "github.example.ts.net", QuestionKind::A), v4(&["100.64.0.4"]));
}

#[test]
fn addresses_of_the_mesh_resolve_back_and_are_never_asked_about_outside() {
    let name = |text: &str| Resolution::Name(text.to_owned());
    assert_eq!(ask(&some(), "2.0.64.100.in-addr.arpa", QuestionKind::Ptr), name("db.example.ts.net."));
    let v6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa.";
    assert_eq!(ask(&some(), v6, QuestionKind::Ptr), name("db.example.ts.net."));
    assert_eq!(ask(&some(), "9.0.64.100.in-addr.arpa", QuestionKind::Ptr), Resolution::NoSuchName);
    assert_eq!(ask(&some(), "8.8.8.8.in-addr.arpa", QuestionKind::Ptr), Resolution::Forward(vec![resolver("9.9.9.9")]));
}

#[test]
fn the_longest_suffix_says_who_is_asked() {
    assert_eq!(ask(&some(), "a.b.corp.example", QuestionKind::A), Resolution::Forward(vec![resolver("10.0.0.53")]));
    assert_eq!(ask(&some(), "notcorp.example", QuestionKind::A), Resolution::Forward(vec![resolver("9.9.9.9")]));
    let split = DnsConfig { resolvers: Vec::new(), ..magic() };
    assert_eq!(ask(&names(split, Vec::new()), "example.org", QuestionKind::A), Resolution::ForwardToSystem);
}

#[test]
fn ipv6_is_shown_when_a_node_has_nothing_else_or_the_tailnet_wants_it() {
    let names = names(magic(), vec![node(5, "six.example.ts.net.", &["fd7a:115c:a1e0::5/128"])]);
    assert_eq!(ask(&names, "six.example.ts.net", QuestionKind::Aaaa), v4(&["fd7a:115c:a1e0::5"]));
}

#[test]
fn an_address_behind_a_site_has_a_name() {
    let via = ask(&some(), "10-1-1-16-via-7.example.ts.net", QuestionKind::Aaaa);
    assert_eq!(via, v4(&["fd7a:115c:a1e0:b1a:0:7:a01:110"]));
    assert_eq!(
        ask(&some(), "10-1-1-16-via-7.example.org", QuestionKind::Aaaa),
        Resolution::Forward(vec![resolver("9.9.9.9")])
    );
}

#[test]
fn names_below_a_node_are_the_nodes_when_it_may_have_them() {
    let mut web = node(6, "web.example.ts.net.", &["100.64.0.6/32"]);
    web.cap_map.grant(cap::DNS_SUBDOMAIN_RESOLVE);
    let names = names(magic(), vec![web]);
    assert_eq!(ask(&names, "a.b.web.example.ts.net", QuestionKind::A), v4(&["100.64.0.6"]));
    assert_eq!(ask(&some(), "a.db.example.ts.net", QuestionKind::A), Resolution::NoSuchName);
}

#[test]
fn odd_reverse_names_are_just_names() {
    for name in ["1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "x.1.2.3.in-addr.arpa", "1.ip6.arpa", "zz.ip6.arpa"] {
        assert_eq!(ask(&some(), name, QuestionKind::Ptr), Resolution::Forward(vec![resolver("9.9.9.9")]), "{name}");
    }
}
