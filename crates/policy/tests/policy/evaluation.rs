//! What a compiled policy tells the nodes of a small tailnet: filters, routes, logins, approvals, and who hears of changes.

mod changes;
mod logins;
mod reasons;
mod routes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use filter::Protocol;
use ipnet::IpNet;
use policy::{
    Affected, AllowedIps, Change, Compiled, Decision, Lack, NearMiss, Node, NodeId, Owner, OwnerIdentity, Pair, Party,
    Policy, PostureValue, Query, Question, Role, Service, SshAction, SshDecision, Subject, Tag, Topology, User, UserId,
};

const LAPTOP: NodeId = NodeId(1);
const PHONE: NodeId = NodeId(2);
const BEN: NodeId = NodeId(3);
const WEB: NodeId = NodeId(4);
const DB: NodeId = NodeId(5);
const EXIT: NodeId = NodeId(6);
const GUEST: NodeId = NodeId(7);

const HEAD: &str = r#""groups": {"group:dev": ["ann@example.com", "user:*@example.net"]}, "hosts": {"office": "10.20.0.0/16"},
    "tagOwners": {"tag:web": [], "tag:db": [], "tag:exit": []}, "postures": {"posture:linux": ["node:os == 'linux'"]},"#;

const SSH: &str = r#""grants": [], "ssh": [
    {"action": "accept", "src": ["ann@example.com"], "dst": ["tag:web"], "users": ["root", "autogroup:nonroot"],
     "acceptEnv": ["GIT_*"], "recorder": ["tag:exit"], "enforceRecorder": true},
    {"action": "check", "checkPeriod": "20h", "src": ["ben@example.com"], "dst": ["tag:db"], "users": ["postgres"]},
    {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"], "users": ["autogroup:nonroot"]},
    {"action": "accept", "src": ["ben@example.com"], "dst": ["tag:exit"], "users": ["localpart:*@example.com"]}]"#;

fn tag(name: &str) -> Tag {
    Tag::parse(name).unwrap()
}

fn tagged(names: &[&str]) -> Owner {
    Owner::Tags(names.iter().map(|name| tag(name)).collect())
}

fn node(id: NodeId, name: &str, owner: Owner, routes: &[&str]) -> Node {
    let routes: BTreeSet<IpNet> = routes.iter().map(|route| route.parse().unwrap()).collect();
    let addresses = [format!("100.64.0.{}", id.0), format!("fd7a:115c:a1e0::{}", id.0)];
    Node {
        name: name.into(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        owner,
        advertised: routes.clone(),
        approved: routes,
        revoked: BTreeSet::new(),
        posture: [("node:os".to_owned(), PostureValue::Text(if id == BEN { "linux" } else { "macos" }.to_owned()))]
            .into(),
    }
}

fn nodes() -> [(NodeId, Node); 7] {
    let user = |id| Owner::User(UserId(id));
    [
        (LAPTOP, node(LAPTOP, "laptop", user(1), &[])),
        (PHONE, node(PHONE, "phone", user(1), &[])),
        (BEN, node(BEN, "ben", user(2), &[])),
        (WEB, node(WEB, "web", tagged(&["tag:web"]), &["10.20.0.0/16"])),
        (DB, node(DB, "db", tagged(&["tag:db", "tag:web"]), &["10.20.0.0/16"])),
        (EXIT, node(EXIT, "exit", tagged(&["tag:exit"]), &["0.0.0.0/0", "::/0"])),
        (GUEST, node(GUEST, "guest", user(3), &[])),
    ]
}

fn topology() -> Topology {
    let domains = ["example.com", "example.net"].map(str::to_owned).into();
    let mut topology = Topology { nodes: nodes().into(), domains, ..Topology::default() };
    let users = [
        (1, "ann@example.com", Role::Owner, false),
        (2, "ben@example.com", Role::Member, false),
        (3, "eve@example.org", Role::Member, true),
    ];
    for (id, login, role, shared) in users {
        topology.users.insert(UserId(id), User { login: login.into(), role, shared });
    }
    topology.routers.insert("10.20.0.0/16".parse().unwrap(), vec![WEB, DB]);
    let shop =
        Service { addresses: vec!["100.64.1.1".parse().unwrap()], hosts: [WEB].into(), tags: [tag("tag:web")].into() };
    topology.services.insert("svc:shop".into(), shop);
    topology
}

fn compile(rest: &str) -> Compiled {
    Compiled::new(Arc::new(Policy::parse(&format!("{{{HEAD} {rest}}}")).unwrap()), topology())
}

fn grants(grants: &str) -> Compiled {
    compile(&format!(r#""grants": [{grants}]"#))
}

/// A node's filter, a line a rule.
fn filter(compiled: &Compiled, node: NodeId) -> Vec<String> {
    let line = |rule: filter::Rule| {
        let to = |port: &filter::DstPort| format!("{}:{}", port.ip, port.ports);
        let to: Vec<String> = rule.destinations.iter().map(to).collect();
        let given = rule.grants.iter().map(|grant| {
            let names: Vec<&str> = grant.capabilities.0.keys().map(String::as_str).collect();
            let on: Vec<String> = grant.destinations.iter().map(ToString::to_string).collect();
            format!("{} on {}", names.join(" "), on.join(" "))
        });
        let what = to.into_iter().chain(given).collect::<Vec<_>>().join(" ");
        format!("{} -> {what} {:?}", rule.sources.join(" "), rule.protocols)
    };
    compiled.filter(node).into_iter().map(line).collect()
}

fn prefixes(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn routes_told(compiled: &Compiled, viewer: NodeId, peer: NodeId) -> Vec<IpNet> {
    let AllowedIps { allowed, primary } = compiled.allowed_ips(viewer, peer);
    let own = prefixes(&[&format!("100.64.0.{}/32", peer.0), &format!("fd7a:115c:a1e0::{}/128", peer.0)]);
    assert!(allowed.starts_with(&own), "{allowed:?}");
    assert!(allowed[2..].starts_with(&primary), "{allowed:?}");
    allowed[2..].to_vec()
}

fn tcp(compiled: &Compiled, source: Party, to: &str, port: u16) -> Decision {
    let destination = Party::Address(to.parse().unwrap());
    compiled.decide(&Query { source, destination, protocol: Protocol::TCP, port })
}

#[test]
fn rules_of_one_source_and_protocol_are_one_in_the_place_of_the_first() {
    let compiled = grants(
        r#"{"src": ["ann@example.com"], "dst": ["tag:db"], "ip": ["tcp:1"]},
           {"src": ["ben@example.com"], "dst": ["tag:web"], "ip": ["tcp:2", "udp:2"]},
           {"src": ["ann@example.com"], "dst": ["tag:web"], "ip": ["tcp:3-4"]},
           {"src": ["tag:exit"], "dst": ["svc:shop"], "ip": ["443"]},
           {"src": ["tag:exit"], "dst": ["office"], "ip": ["*"]}"#,
    );
    let ann = "100.64.0.1 100.64.0.2 fd7a:115c:a1e0::1 fd7a:115c:a1e0::2";
    let ben = "100.64.0.3 fd7a:115c:a1e0::3";
    let exit = "100.64.0.6 fd7a:115c:a1e0::6";
    let web = [
        format!("{ann} -> 100.64.0.4:3-4 fd7a:115c:a1e0::4:3-4 [6]"),
        format!("{ben} -> 100.64.0.4:2 fd7a:115c:a1e0::4:2 [6]"),
        format!("{ben} -> 100.64.0.4:2 fd7a:115c:a1e0::4:2 [17]"),
        format!("{exit} -> 100.64.1.1:443 10.20.0.0/16:* []"),
    ];
    assert_eq!(filter(&compiled, WEB), web);
    let db = [
        format!("{ann} -> 100.64.0.5:1 fd7a:115c:a1e0::5:1 100.64.0.5:3-4 fd7a:115c:a1e0::5:3-4 [6]"),
        format!("{ben} -> 100.64.0.5:2 fd7a:115c:a1e0::5:2 [6]"),
        format!("{ben} -> 100.64.0.5:2 fd7a:115c:a1e0::5:2 [17]"),
        format!("{exit} -> 10.20.0.0/16:* []"),
    ];
    assert_eq!(filter(&compiled, DB), db);
    assert_eq!(filter(&compiled, LAPTOP), Vec::<String>::new());
    assert_eq!(filter(&compiled, NodeId(99)), Vec::<String>::new());
}

#[test]
fn capabilities_hold_on_the_nodes_own_addresses_and_some_in_the_other_direction() {
    let compiled = grants(
        r#"{"src": ["ben@example.com"], "dst": ["tag:web"], "app": {"tailscale.com/cap/drive": [{"a": 1}], "example.com/x": []}},
           {"src": ["tag:exit"], "dst": ["10.20.5.0/24", "100.64.0.4"], "app": {"example.com/y": []}},
           {"src": ["autogroup:member"], "dst": ["autogroup:self"], "app": {"tailscale.com/cap/relay": []}}"#,
    );
    let web = [
        "100.64.0.3 fd7a:115c:a1e0::3 -> example.com/x tailscale.com/cap/drive on 100.64.0.4/32 fd7a:115c:a1e0::4/128 []",
        "100.64.0.6 fd7a:115c:a1e0::6 -> example.com/y on 10.20.5.0/24 example.com/y on 100.64.0.4/32 []",
    ];
    assert_eq!(filter(&compiled, WEB), web);
    let ben = [
        "100.64.0.4 100.64.0.5 fd7a:115c:a1e0::4 fd7a:115c:a1e0::5 -> tailscale.com/cap/drive-sharer on 100.64.0.3/32 \
         fd7a:115c:a1e0::3/128 []",
        "100.64.0.3 fd7a:115c:a1e0::3 -> tailscale.com/cap/relay on 100.64.0.3/32 fd7a:115c:a1e0::3/128 []",
        "100.64.0.3 fd7a:115c:a1e0::3 -> tailscale.com/cap/relay-target on 100.64.0.3/32 fd7a:115c:a1e0::3/128 []",
    ];
    assert_eq!(filter(&compiled, BEN), ben);
    assert_eq!(filter(&compiled, EXIT), Vec::<String>::new());
    let given = |from, to| compiled.decide_capabilities(&Party::Node(from), &Party::Node(to));
    assert_eq!(given(BEN, WEB).given_by, [0]);
    assert_eq!(given(BEN, WEB).capabilities.values("tailscale.com/cap/drive").unwrap()[0].as_str(), r#"{"a":1}"#);
    assert_eq!((given(EXIT, WEB).given_by, given(LAPTOP, PHONE).given_by), (vec![1], vec![2]));
    assert!(given(EXIT, DB).given_by.is_empty() && given(LAPTOP, BEN).given_by.is_empty());
}

#[test]
fn rules_about_own_devices_list_the_devices_of_one_user() {
    let compiled = grants(
        r#"{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["22"]},
           {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["tcp:80"]}"#,
    );
    let ann = "100.64.0.1 100.64.0.2 fd7a:115c:a1e0::1 fd7a:115c:a1e0::2";
    let rules = [
        format!("{ann} -> 100.64.0.2:22 fd7a:115c:a1e0::2:22 []"),
        format!("{ann} -> 100.64.0.2:80 fd7a:115c:a1e0::2:80 [6]"),
    ];
    assert_eq!(filter(&compiled, PHONE), rules);
    assert_eq!(filter(&compiled, WEB), Vec::<String>::new());
    assert_eq!(filter(&compiled, GUEST), Vec::<String>::new());
    assert_eq!(compiled.peers(LAPTOP), [PHONE].into());
    assert!(compiled.peers(BEN).is_empty() && compiled.peers(NodeId(99)).is_empty());
    assert!(compiled.are_peers(LAPTOP, PHONE) && !compiled.are_peers(LAPTOP, NodeId(99)));
}

#[test]
fn everyone_is_the_tailnet_and_the_networks_behind_it() {
    let compiled = grants(r#"{"src": ["*"], "dst": ["tag:exit"], "ip": ["22"]}"#);
    let star = "10.20.0.0/16 100.64.0.0-100.115.91.255 100.115.94.0-100.127.255.255 fd7a:115c:a1e0::/48";
    assert_eq!(filter(&compiled, EXIT), [format!("{star} -> 100.64.0.6:22 fd7a:115c:a1e0::6:22 []")]);
    assert_eq!(compiled.peers(EXIT).len(), 6);
    let compiled = grants(r#"{"src": ["autogroup:danger-all"], "dst": ["tag:exit"], "ip": ["22"]}"#);
    assert_eq!(filter(&compiled, EXIT), ["* -> 100.64.0.6:22 fd7a:115c:a1e0::6:22 []"]);
    assert!(!tcp(&compiled, Party::Address("1.1.1.1".parse().unwrap()), "100.64.0.6", 22).allowed_by.is_empty());
}

#[test]
fn a_subnet_route_goes_to_those_who_may_use_it_hear_from_it_or_serve_it() {
    let subnet = prefixes(&["10.20.0.0/16"]);
    let compiled = grants(
        r#"{"src": ["ann@example.com"], "dst": ["10.20.7.0/24"], "ip": ["22"]},
           {"src": ["ben@example.com"], "dst": ["tag:web"], "ip": ["22"]},
           {"src": ["office"], "dst": ["tag:exit"], "ip": ["22"]}"#,
    );
    assert_eq!(routes_told(&compiled, LAPTOP, WEB), subnet);
    assert_eq!(routes_told(&compiled, LAPTOP, DB), []);
    assert_eq!(routes_told(&compiled, BEN, WEB), []);
    assert_eq!(routes_told(&compiled, EXIT, WEB), subnet);
    assert_eq!(routes_told(&compiled, DB, WEB), subnet);
    assert_eq!(routes_told(&compiled, WEB, DB), []);
    assert_eq!(compiled.allowed_ips(LAPTOP, NodeId(99)), AllowedIps::default());
    assert_eq!(compiled.allowed_ips(NodeId(99), WEB), AllowedIps::default());
    let own = ["100.64.0.4/32", "fd7a:115c:a1e0::4/128", "10.20.0.0/16"];
    assert_eq!(compiled.own_allowed_ips(WEB), prefixes(&own));
    let own = ["100.64.0.6/32", "fd7a:115c:a1e0::6/128", "0.0.0.0/0", "::/0"];
    assert_eq!(compiled.own_allowed_ips(EXIT), prefixes(&own));
    assert_eq!(compiled.own_allowed_ips(NodeId(99)), []);
}

#[test]
fn a_via_leads_by_its_own_router_unless_the_primary_does() {
    let subnet = prefixes(&["10.20.0.0/16"]);
    let compiled = grants(
        r#"{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:db"]},
           {"src": ["ann@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:db"]},
           {"src": ["ann@example.com"], "dst": ["office"], "ip": ["23"]}"#,
    );
    assert_eq!(routes_told(&compiled, BEN, DB), subnet);
    assert_eq!(routes_told(&compiled, BEN, WEB), []);
    assert_eq!(routes_told(&compiled, LAPTOP, DB), []);
    assert_eq!(routes_told(&compiled, LAPTOP, WEB), subnet);
    assert_eq!(compiled.peers(BEN), [DB].into());
    let both = grants(r#"{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:web"]}"#);
    assert_eq!(routes_told(&both, BEN, DB), []);
    let lacks = |compiled: &Compiled| tcp(compiled, Party::Node(BEN), "10.20.1.1", 22).near_misses;
    assert_eq!(lacks(&compiled), []);
    let nowhere = grants(r#"{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:exit"]}"#);
    assert_eq!(lacks(&nowhere), [NearMiss { rule: 0, lacks: vec![Lack::Via] }]);
    assert_eq!(filter(&nowhere, EXIT), Vec::<String>::new());
}

#[test]
fn of_routers_without_a_preference_the_one_with_the_lowest_number_serves_a_via() {
    let mut topology = topology();
    topology.routers.clear();
    let text = format!(
        r#"{{{HEAD} "grants": [{{"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:web"]}}]}}"#
    );
    let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), topology.clone());
    assert_eq!(routes_told(&compiled, BEN, WEB), prefixes(&["10.20.0.0/16"]));
    assert_eq!(routes_told(&compiled, BEN, DB), []);
    topology.routers.insert("10.20.0.0/16".parse().unwrap(), vec![LAPTOP, DB, WEB]);
    let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), topology);
    assert_eq!(routes_told(&compiled, BEN, WEB), []);
    assert_eq!(routes_told(&compiled, BEN, DB), prefixes(&["10.20.0.0/16"]));
}

#[test]
fn exit_routes_go_to_those_who_may_use_the_internet_there() {
    let exits = prefixes(&["0.0.0.0/0", "::/0"]);
    for (grant, ann, ben) in [
        (r#"{"src": ["ann@example.com"], "dst": ["autogroup:internet"], "ip": ["*"]}"#, true, false),
        (
            r#"{"src": ["ann@example.com"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:exit"]}"#,
            true,
            false,
        ),
        (
            r#"{"src": ["ann@example.com"], "dst": ["autogroup:internet"], "ip": ["*"], "via": ["tag:web"]}"#,
            false,
            false,
        ),
        (r#"{"src": ["ben@example.com"], "dst": ["*"], "ip": ["*"]}"#, false, true),
        (r#"{"src": ["ben@example.com"], "dst": ["*"], "app": {"example.com/x": []}}"#, false, false),
        (r#"{"src": ["ben@example.com"], "dst": ["8.8.8.0/24"], "ip": ["53"]}"#, false, true),
        (r#"{"src": ["ben@example.com"], "dst": ["tag:exit"], "ip": ["53"]}"#, false, false),
    ] {
        let compiled = grants(grant);
        let want = |told: bool| if told { exits.clone() } else { Vec::new() };
        assert_eq!(routes_told(&compiled, LAPTOP, EXIT), want(ann), "{grant}");
        assert_eq!(routes_told(&compiled, BEN, EXIT), want(ben), "{grant}");
        assert!(compiled.allowed_ips(BEN, WEB).allowed.iter().all(|route| route.prefix_len() > 0), "{grant}");
    }
}

#[test]
fn a_device_without_ipv4_neither_has_nor_sees_it() {
    let compiled = compile(r#""grants": [], "nodeAttrs": [{"target": ["tag:web"], "attr": ["disable-ipv4"]}]"#);
    let six = |id: NodeId| prefixes(&[&format!("fd7a:115c:a1e0::{}/128", id.0)]);
    assert_eq!(compiled.own_allowed_ips(WEB)[..1], six(WEB));
    assert_eq!(compiled.allowed_ips(LAPTOP, WEB).allowed, six(WEB));
    assert_eq!(compiled.allowed_ips(WEB, LAPTOP).allowed, six(LAPTOP));
    assert_eq!(compiled.allowed_ips(BEN, LAPTOP).allowed.len(), 2);
    let all = compile(r#""grants": [], "disableIPv4": true"#);
    assert_eq!(all.allowed_ips(BEN, LAPTOP).allowed, six(LAPTOP));
}

#[test]
fn attributes_are_those_of_every_entry_that_means_the_node() {
    let compiled = compile(
        r#""grants": [], "randomizeClientPort": true, "nodeAttrs": [
            {"target": ["tag:web"], "attr": ["funnel"]},
            {"target": ["tag:db"], "attr": ["dns-subdomain-resolve"]},
            {"target": ["group:dev"], "ipPool": ["100.80.0.0/16"]},
            {"target": ["ben@example.com"], "ipPool": ["100.90.0.0/16"]}]"#,
    );
    let names = |map: filter::CapMap| map.0.into_keys().collect::<Vec<String>>();
    let web = ["funnel", "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000"];
    let web = [&web[..], &["https://tailscale.com/cap/warn-funnel-no-https", "randomize-client-port"]].concat();
    assert_eq!(names(compiled.attributes(WEB)), web);
    assert_eq!(names(compiled.attributes(DB)), [&["dns-subdomain-resolve"], &web[..]].concat());
    assert_eq!(names(compiled.attributes(BEN)), ["randomize-client-port"]);
    assert_eq!(names(compiled.attributes(NodeId(99))), Vec::<String>::new());
    assert_eq!(names(compiled.peer_attributes(DB)), ["dns-subdomain-resolve"]);
    assert_eq!(names(compiled.peer_attributes(EXIT)), ["suggest-exit-node"]);
    assert_eq!(names(compiled.peer_attributes(WEB)), Vec::<String>::new());
    let pools = |node| compiled.address_pools(node).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((pools(LAPTOP), pools(BEN)), (vec!["100.80.0.0/16".to_owned()], vec!["100.90.0.0/16".to_owned()]));
    assert!(pools(WEB).is_empty());
    let of = |owner: Owner| compiled.address_pools_of(&owner).len();
    assert_eq!([of(Owner::User(UserId(1))), of(Owner::User(UserId(3))), of(tagged(&["tag:web"]))], [1, 0, 0]);
    let with_https = Compiled::new(compiled.policy().clone(), Topology { https: true, ..topology() });
    assert!(!with_https.attributes(WEB).has("https://tailscale.com/cap/warn-funnel-no-https"));
}

#[test]
fn own_devices_are_behind_no_router() {
    let compiled = grants(
        r#"{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"], "app": {"example.com/x": []}, "via": ["tag:web"]}"#,
    );
    for node in nodes().map(|(id, _)| id) {
        assert_eq!(filter(&compiled, node), Vec::<String>::new());
        assert!(compiled.peers(node).is_empty());
    }
    let refused = tcp(&compiled, Party::Node(LAPTOP), "100.64.0.2", 22);
    assert_eq!(refused.near_misses, [NearMiss { rule: 0, lacks: vec![Lack::Via] }]);
    assert_eq!(compiled.decide_capabilities(&Party::Node(LAPTOP), &Party::Node(PHONE)), Default::default());
    let warnings: Vec<String> = compiled.policy().warnings().iter().map(ToString::to_string).collect();
    let warned = r#""via" is for what lies behind routers: it leaves nothing of autogroup:self"#;
    assert!(warnings.len() == 1 && warnings[0].ends_with(warned), "{warnings:?}");
}

#[test]
fn approval_is_by_what_covers_the_route_and_by_name_or_tag_of_the_service() {
    let compiled = compile(
        r#""grants": [], "autoApprovers": {"routes": {"10.20.0.0/16": ["tag:web"], "10.30.0.0/16": ["group:dev"]},
            "exitNode": ["tag:exit"], "services": {"svc:mail": ["tag:db"], "tag:web": ["ann@example.com"]}}"#,
    );
    let route = |text: &str| text.parse::<IpNet>().unwrap();
    assert!(
        compiled.approves_route(WEB, &route("10.20.0.0/16")) && compiled.approves_route(WEB, &route("10.20.1.0/24"))
    );
    assert!(
        !compiled.approves_route(WEB, &route("10.0.0.0/8")) && !compiled.approves_route(WEB, &route("10.30.0.0/16"))
    );
    assert!(!compiled.approves_route(WEB, &route("0.0.0.0/0")) && compiled.approves_route(EXIT, &route("0.0.0.0/0")));
    assert!(
        compiled.approves_route(LAPTOP, &route("10.30.0.0/16"))
            && !compiled.approves_route(BEN, &route("10.30.0.0/16"))
    );
    assert!(!compiled.approves_route(NodeId(99), &route("10.20.0.0/16")));
    assert!(compiled.approves_route_of(&tagged(&["tag:web"]), &route("10.20.0.0/16")));
    assert!(!compiled.approves_route_of(&Owner::User(UserId(99)), &route("10.30.0.0/16")));
    // Whoever comes to be in the tailnet, or to be called or promoted so, is asked about before.
    let newcomer = |login: &str| User { login: login.into(), ..User::default() };
    let approves = |login: &str, text: &str| compiled.approves_route_of_user(&newcomer(login), &route(text));
    assert!(approves("zoe@example.net", "10.30.0.0/16") && approves("zoe@example.net", "10.30.7.0/24"));
    assert!(!approves("zoe@example.net", "10.20.0.0/16") && !approves("zoe@example.com", "10.30.0.0/16"));
    assert!(compiled.approves_exit_node(EXIT) && !compiled.approves_exit_node(WEB));
    assert!(!compiled.approves_exit_node(NodeId(99)));
    assert!(compiled.approves_service(DB, "svc:mail") && !compiled.approves_service(WEB, "svc:mail"));
    assert!(compiled.approves_service(LAPTOP, "svc:shop") && !compiled.approves_service(BEN, "svc:shop"));
    assert!(!compiled.approves_service(DB, "svc:shop") && !compiled.approves_service(NodeId(99), "svc:mail"));
}

#[test]
fn a_tag_is_given_by_its_owners_and_by_owners_of_what_owns_it() {
    let text = r#"{"tagOwners": {"tag:web": ["tag:db"], "tag:db": ["ben@example.com"], "tag:exit": []}, "grants": []}"#;
    let compiled = Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology());
    let may = |giver: &OwnerIdentity, name: &str| compiled.may_give_tag(giver, &tag(name));
    let user = |id| OwnerIdentity::User(UserId(id));
    assert!(may(&user(2), "tag:db") && may(&user(2), "tag:web") && !may(&user(2), "tag:exit"));
    assert!(may(&user(1), "tag:exit") && !may(&user(1), "tag:db"));
    assert!(may(&OwnerIdentity::Tags([tag("tag:db")].into()), "tag:web"));
    assert!(!may(&OwnerIdentity::Tags([tag("tag:web")].into()), "tag:db"));
    assert!(!may(&OwnerIdentity::Tags([tag("tag:exit")].into()), "tag:exit"));
    assert!(!may(&user(1), "tag:unknown") && !may(&user(99), "tag:exit") && !may(&user(3), "tag:exit"));
}

#[test]
fn users_are_meant_by_login_domain_group_role_and_membership() {
    for (alias, ann, ben, guest) in [
        ("ann@example.com", true, false, false),
        ("user:*@example.com", true, true, false),
        ("group:dev", true, false, false),
        ("autogroup:member", true, true, false),
        ("autogroup:shared", false, false, true),
        ("autogroup:admin", true, false, false),
        ("autogroup:owner", true, false, false),
        ("*", true, true, true),
    ] {
        let compiled = grants(&format!(r#"{{"src": [{alias:?}], "dst": ["tag:web"], "ip": ["22"]}}"#));
        let by_filter = |id: NodeId| compiled.are_peers(id, WEB);
        assert_eq!([by_filter(LAPTOP), by_filter(BEN), by_filter(GUEST)], [ann, ben, guest], "{alias}");
        let of_user = |id| compiled.rules_of_user(UserId(id)) == [0];
        assert_eq!([of_user(1), of_user(2), of_user(3)], [ann, ben, guest], "{alias}");
        let device = |id: u64| {
            Party::Device(
                Node { addresses: Vec::new(), ..nodes()[0].1.clone() },
                topology().users.get(&UserId(id)).cloned(),
            )
        };
        let imagined = |id| !tcp(&compiled, device(id), "100.64.0.4", 22).allowed_by.is_empty();
        assert_eq!([imagined(1), imagined(2), imagined(3)], [ann, ben, guest], "{alias}");
    }
    assert!(grants("").rules_of_user(UserId(99)).is_empty());
    assert_eq!(
        grants(r#"{"src": ["autogroup:members"], "dst": ["tag:web"], "ip": ["22"]}"#).peers(WEB),
        [LAPTOP, PHONE, BEN].into()
    );
    let by_address = grants(r#"{"src": ["100.64.0.1"], "dst": ["tag:web"], "ip": ["22"]}"#);
    assert_eq!([by_address.rules_of_user(UserId(1)), by_address.rules_of_user(UserId(2))], [vec![0], vec![]]);
    // None of the first user's devices runs Linux; one that the user gets might.
    let by_posture = r#"{"src": ["*"], "dst": ["tag:web"], "ip": ["22"], "srcPosture": ["posture:linux"]}"#;
    assert_eq!([1, 2].map(|id| grants(by_posture).rules_of_user(UserId(id))), [[0], [0]]);
}

#[test]
fn a_role_is_held_by_those_who_have_it_and_an_owner_is_an_admin_too() {
    let autogroups = ["owner", "admin", "it-admin", "network-admin", "billing-admin", "auditor"];
    for (role, held) in [
        (Role::Owner, &["owner", "admin"][..]),
        (Role::Admin, &["admin"]),
        (Role::ItAdmin, &["it-admin"]),
        (Role::NetworkAdmin, &["network-admin"]),
        (Role::BillingAdmin, &["billing-admin"]),
        (Role::Auditor, &["auditor"]),
        (Role::Member, &[]),
    ] {
        for name in autogroups {
            let alias = format!("autogroup:{name}");
            let mut compiled = compile(&format!(
                r#""grants": [{{"src": ["{alias}"], "dst": ["tag:exit"], "ip": ["22"]}}, {{"src": ["tag:db"], "dst": ["{alias}"], "ip": ["23"]}}],
                   "ssh": [{{"action": "accept", "src": ["{alias}"], "dst": ["tag:exit"], "users": ["root"]}}],
                   "nodeAttrs": [{{"target": ["{alias}"], "attr": ["x"]}}],
                   "autoApprovers": {{"exitNode": ["{alias}"]}}"#
            ));
            let ben = User { role, ..compiled.topology().users[&UserId(2)].clone() };
            compiled.apply(Change::User(UserId(2), ben));
            let has = held.contains(&name);
            let place = format!("{role:?} in {alias}");
            assert_eq!(compiled.are_peers(BEN, EXIT), has, "{place}");
            assert_eq!(filter(&compiled, EXIT).concat().contains("100.64.0.3"), has, "{place}");
            assert_eq!(compiled.filter(BEN).len(), usize::from(has), "{place}");
            let login = compiled.decide_ssh(&Party::Node(BEN), &Party::Node(EXIT), "root");
            assert_eq!(login == SshDecision::Accept { rule: 0 }, has, "{place}");
            let ben = "100.64.0.3".parse().unwrap();
            assert_eq!(compiled.ssh(EXIT).iter().any(|grant| grant.principals.contains(&ben)), has, "{place}");
            assert_eq!(compiled.attributes(BEN).has("x"), has, "{place}");
            assert_eq!(compiled.approves_exit_node(BEN), has, "{place}");
        }
    }
}

#[test]
fn a_posture_is_asked_of_devices_and_of_nothing_else() {
    let compiled = grants(
        r#"{"src": ["*"], "dst": ["tag:web"], "ip": ["22"], "srcPosture": ["posture:linux"]},
           {"src": ["100.64.0.0/24"], "dst": ["tag:db"], "ip": ["22"], "srcPosture": ["posture:linux"]}"#,
    );
    assert_eq!(filter(&compiled, WEB)[0], "100.64.0.3 fd7a:115c:a1e0::3 -> 100.64.0.4:22 fd7a:115c:a1e0::4:22 []");
    assert_eq!(filter(&compiled, DB)[1], "100.64.0.3 -> 100.64.0.5:22 fd7a:115c:a1e0::5:22 []");
    assert_eq!(compiled.peers(WEB), [BEN].into());
    let miss = |source| tcp(&compiled, source, "100.64.0.4", 22).near_misses;
    assert_eq!(miss(Party::Node(LAPTOP))[0], NearMiss { rule: 0, lacks: vec![Lack::Posture] });
    let stranger = Party::Address("10.20.0.9".parse().unwrap());
    assert_eq!(miss(stranger)[0], NearMiss { rule: 0, lacks: vec![Lack::Posture, Lack::Source] });
    // An address of the range that no device has is no source either.
    let nobody = tcp(&compiled, Party::Address("100.64.0.200".parse().unwrap()), "100.64.0.5", 22).near_misses;
    assert!(nobody.contains(&NearMiss { rule: 1, lacks: vec![Lack::Posture, Lack::Source] }), "{nobody:?}");
}

#[test]
fn refusals_name_what_is_nearest() {
    let compiled = grants(
        r#"{"src": ["ann@example.com"], "dst": ["tag:db"], "ip": ["tcp:22"]},
           {"src": ["ben@example.com"], "dst": ["tag:web"], "ip": ["udp:22"]},
           {"src": ["ben@example.com"], "dst": ["tag:db"], "ip": ["tcp:23"]},
           {"src": ["ben@example.com"], "dst": ["tag:db"], "app": {"example.com/x": []}}"#,
    );
    let misses = tcp(&compiled, Party::Node(BEN), "100.64.0.5", 22).near_misses;
    let expected = [(1, vec![Lack::Protocol]), (2, vec![Lack::Port]), (0, vec![Lack::Source])];
    let mut found: Vec<(usize, Vec<Lack>)> = misses.into_iter().map(|miss| (miss.rule, miss.lacks)).collect();
    assert_eq!(found[2], expected[2]);
    found.sort();
    assert_eq!(found, [expected[2].clone(), expected[0].clone(), expected[1].clone()]);
    let (ben, db, web) = (Party::Node(BEN), Party::Node(DB), Party::Node(WEB));
    let nearest = |to: &Party, name: &str| compiled.nearest_capability(&ben, to, name);
    assert_eq!(nearest(&web, "example.com/x"), [NearMiss { rule: 3, lacks: vec![Lack::Destination] }]);
    assert_eq!(nearest(&db, "example.com/y"), [NearMiss { rule: 3, lacks: vec![Lack::Capability] }]);
    assert_eq!(compiled.rules_to_address("100.64.0.5".parse().unwrap(), 22), [0, 1]);
    assert_eq!(compiled.rules_to_address("100.64.0.5".parse().unwrap(), 23), [2]);
    assert_eq!(compiled.rules_to_address("100.64.0.4".parse().unwrap(), 22), [1]);
}

#[test]
fn what_is_said_of_an_address_is_where_it_lies() {
    let compiled = grants(r#"{"src": ["ben@example.com"], "dst": ["*"], "ip": ["*"]}"#);
    let notes = |destination: &str| {
        let subject = Subject::Packets { destination: destination.to_owned(), protocol: Protocol::TCP, port: 22 };
        let explained = compiled.explain(&Question { source: "ben".to_owned(), subject }).unwrap();
        explained.answers[0].notes.clone()
    };
    assert_eq!(notes("web"), Vec::<String>::new());
    assert_eq!(notes("100.64.0.4"), Vec::<String>::new());
    assert_eq!(notes("svc:shop"), ["100.64.1.1 is svc:shop"]);
    assert_eq!(notes("10.20.0.9"), ["10.20.0.9 lies behind web, db, by the route 10.20.0.0/16"]);
    assert_eq!(notes("8.8.8.8"), ["8.8.8.8 is on the internet: ben gets there by an exit node (exit)"]);
    let nowhere = "no device serves a route to 10.99.0.1: nothing arrives there, whatever the policy says";
    assert_eq!(notes("10.99.0.1"), [nowhere]);
}

#[test]
fn what_a_rule_lacks_is_told_in_words() {
    let compiled = compile(
        r#""grants": [
            {"src": ["ann@example.com"], "dst": ["tag:db"], "ip": ["tcp:22", "80-90"]},
            {"src": ["ben@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:exit"]},
            {"src": ["*"], "dst": ["tag:exit"], "ip": ["22"], "srcPosture": ["posture:linux"]},
            {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["22"]},
            {"src": ["ben@example.com"], "dst": ["tag:web"], "app": {"example.com/x": [{"a": 1}]}}],
           "ssh": [{"action": "accept", "src": ["ann@example.com"], "dst": ["tag:web"], "users": ["git", "autogroup:nonroot"], "srcPosture": ["posture:linux"]}]"#,
    );
    let ask = |source: &str, subject: Subject| {
        compiled.explain(&Question { source: source.to_owned(), subject }).unwrap().answers.remove(0)
    };
    let lacks = |source: &str, destination: &str, protocol, port, rule: &str| {
        let subject = Subject::Packets { destination: destination.to_owned(), protocol, port };
        let answer = ask(source, subject);
        let cited = answer.nearest.into_iter().find(|citation| citation.place == rule);
        cited.unwrap_or_else(|| panic!("{rule} is not near")).lacks
    };
    let tcp = Protocol::TCP;
    assert_eq!(lacks("laptop", "db", tcp, 23, "grants[0]"), ["it is for other ports: tcp:22, 80-90"]);
    assert_eq!(lacks("laptop", "db", Protocol(47), 0, "grants[0]"), ["it is for other protocols: tcp:22, 80-90"]);
    assert_eq!(lacks("ben", "db", tcp, 22, "grants[0]"), ["ben is not among its sources: ann@example.com"]);
    let via = "it goes by routers with tag:exit, and none of them leads to 10.20.0.1";
    assert_eq!(lacks("ben", "10.20.0.1", tcp, 22, "grants[1]"), [via]);
    let posture = "laptop has none of its postures: posture:linux wants node:os == 'linux', which is 'macos'";
    assert_eq!(lacks("laptop", "exit", tcp, 22, "grants[2]"), [posture]);
    assert_eq!(lacks("laptop", "ben", tcp, 22, "grants[3]"), ["laptop and ben are not devices of one user"]);
    assert_eq!(lacks("laptop", "web", tcp, 22, "grants[0]"), ["web is not among its destinations: tag:db"]);
    let capability = |source: &str, name: &str| {
        ask(source, Subject::Capability { destination: "web".to_owned(), name: name.to_owned() })
    };
    assert_eq!(capability("ben", "example.com/x").notes, [r#"with {"a":1}"#]);
    assert_eq!(capability("ben", "example.com/y").nearest[0].lacks, ["it gives other capabilities: example.com/x"]);
    let login = |source: &str, account: &str| {
        ask(source, Subject::Ssh { destination: "web".to_owned(), account: account.to_owned() }).nearest[0]
            .lacks
            .clone()
    };
    assert_eq!(
        login("ben", "root"),
        [
            "\"root\" is not among its accounts: git, autogroup:nonroot".to_owned(),
            "ben is not among its sources: ann@example.com".to_owned(),
        ]
    );
    assert_eq!(login("laptop", "git"), [posture]);
}

#[test]
fn of_a_rules_addresses_a_node_gets_those_that_it_answers_for() {
    let compiled = grants(
        r#"{"src": ["tag:exit"], "dst": ["tag:web", "10.99.0.0/16", "10.20.1.0/24", "100.64.0.5"], "ip": ["22"]},
           {"src": ["tag:exit"], "dst": ["tag:exit", "8.8.8.0/24", "10.99.0.0/16"], "ip": ["53"]}"#,
    );
    let exit = "100.64.0.6 fd7a:115c:a1e0::6";
    assert_eq!(filter(&compiled, WEB), [format!("{exit} -> 100.64.0.4:22 fd7a:115c:a1e0::4:22 10.20.1.0/24:22 []")]);
    let db = format!("{exit} -> 100.64.0.5:22 fd7a:115c:a1e0::5:22 10.20.1.0/24:22 100.64.0.5:22 []");
    assert_eq!(filter(&compiled, DB), [db]);
    let own = format!("{exit} -> 100.64.0.6:53 fd7a:115c:a1e0::6:53 8.8.8.0/24:53 []");
    assert_eq!(filter(&compiled, EXIT), [own]);
}

#[test]
fn a_rule_without_sources_gives_nobody_anything() {
    let compiled = grants(r#"{"src": [], "dst": ["tag:web"], "ip": ["22"], "app": {"example.com/x": []}}"#);
    assert_eq!(filter(&compiled, WEB), Vec::<String>::new());
    assert!(compiled.peers(WEB).is_empty());
}

#[test]
fn a_test_from_tagged_devices_is_of_all_there_are() {
    let verified = |sources: &str, wanted: &str| {
        let grant = format!(r#"{{"src": [{sources}], "dst": ["tag:db"], "ip": ["22"]}}"#);
        let test = format!(r#"{{"src": "autogroup:tagged", "{wanted}": ["tag:db:22"]}}"#);
        compile(&format!(r#""grants": [{grant}], "tests": [{test}]"#)).verify().is_ok()
    };
    assert!(!verified(r#""tag:web""#, "deny"), "web may");
    assert!(!verified(r#""tag:web""#, "accept"), "exit may not");
    assert!(verified(r#""tag:web", "tag:exit", "tag:db""#, "accept"));
}

#[test]
fn a_test_may_be_about_somebody_who_is_not_there_yet() {
    let text = |port: u16| {
        format!(
            r#""grants": [{{"src": ["zoe@example.com"], "dst": ["tag:web"], "ip": ["tcp:22"]}}],
               "tests": [{{"src": "zoe@example.com", "proto": "tcp", "accept": ["tag:web:{port}"], "deny": ["tag:exit:22"]}},
                         {{"src": "yan@example.com", "deny": ["tag:web:{port}"]}}]"#
        )
    };
    assert!(compile(&text(22)).verify().is_ok());
    let refused = compile(&text(23)).verify().unwrap_err().to_string();
    assert!(refused.contains("test"), "{refused}");
}

#[test]
fn facts_of_a_test_are_texts_numbers_or_booleans() {
    let holds = |facts: &str, wanted: &str| {
        let text = format!(
            r#"{{"postures": {{"posture:fit": ["custom:managed == true", "custom:score >= 7"]}},
                "grants": [{{"src": ["ann@example.com"], "dst": ["100.64.0.4"], "ip": ["22"], "srcPosture": ["posture:fit"]}}],
                "tests": [{{"src": "ann@example.com", "srcPostureAttrs": {{{facts}}}, "{wanted}": ["100.64.0.4:22"]}}]}}"#
        );
        Compiled::new(Arc::new(Policy::parse(&text).unwrap()), topology()).verify().is_ok()
    };
    assert!(holds(r#""custom:managed": true, "custom:score": 8"#, "accept"));
    for facts in [
        r#""custom:managed": true, "custom:score": 6"#,
        r#""custom:managed": false, "custom:score": 8"#,
        r#""custom:managed": "true", "custom:score": 8"#,
        r#""custom:managed": true, "custom:score": "8""#,
    ] {
        assert!(holds(facts, "deny") && !holds(facts, "accept"), "{facts}");
    }
}

#[test]
fn the_internet_in_a_test_is_all_of_it() {
    let of = |grants: &str, source: &str, wanted: &str| {
        let test = format!(r#"{{"src": "{source}", "{wanted}": ["autogroup:internet:443"]}}"#);
        compile(&format!(r#""grants": [{grants}], "tests": [{test}]"#)).verify().is_ok()
    };
    let all = r#"{"src": ["ann@example.com"], "dst": ["autogroup:internet"], "ip": ["443"]}"#;
    assert!(of(all, "ann@example.com", "accept") && !of(all, "ann@example.com", "deny"));
    assert!(of(all, "ben@example.com", "deny") && !of(all, "ben@example.com", "accept"));
    // Some of it is not all of it, and more than nothing.
    let some = r#"{"src": ["ann@example.com"], "dst": ["11.0.0.0-100.63.255.255"], "ip": ["443"]}"#;
    assert!(!of(some, "ann@example.com", "accept") && !of(some, "ann@example.com", "deny"));
}

#[test]
fn own_devices_in_a_test_are_those_of_each_source_itself() {
    let of = |sources: &str, wanted: &str| {
        let text = format!(
            r#""grants": [{{"src": [{sources}], "dst": ["autogroup:self"], "ip": ["22"]}}],
               "tests": [{{"src": "autogroup:member", "{wanted}": ["autogroup:self:22"]}}]"#
        );
        compile(&text).verify().is_ok()
    };
    assert!(of("\"autogroup:member\"", "accept"), "everybody reaches their own, and not each other's");
    assert!(!of("\"autogroup:member\"", "deny"));
    assert!(!of("\"ann@example.com\"", "accept"), "others don't");
    assert!(!of("\"ann@example.com\"", "deny"), "ann does");
    assert!(of("\"zoe@example.com\"", "deny") && !of("\"zoe@example.com\"", "accept"));
    let each = |test: &str| {
        let grants = r#"{"src": ["ann@example.com"], "dst": ["autogroup:self"], "ip": ["22"]},
                        {"src": ["ben@example.com"], "dst": ["ben@example.com"], "ip": ["22"]}"#;
        compile(&format!(r#""grants": [{grants}], "tests": [{test}]"#)).verify().is_ok()
    };
    assert!(each(r#"{"src": "ann@example.com", "accept": ["autogroup:self:22"], "deny": ["autogroup:self:23"]}"#));
    assert!(each(r#"{"src": "ben@example.com", "accept": ["autogroup:self:22"], "deny": ["autogroup:self:23"]}"#));
}

#[test]
fn a_condition_is_told_in_the_words_of_the_policy() {
    let text = r#"{"postures": {"posture:a": ["node:os == \"it's\""]},
        "grants": [{"src": ["*"], "dst": ["*"], "ip": ["22"], "srcPosture": ["posture:a"]}]}"#;
    let compiled = Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology());
    let subject = Subject::Packets { destination: "web".to_owned(), protocol: Protocol::TCP, port: 22 };
    let answer = compiled.explain(&Question { source: "ben".to_owned(), subject }).unwrap().answers.remove(0);
    let lacks = &answer.nearest[0].lacks[0];
    assert!(lacks.contains("posture:a wants node:os == \"it's\", which is"), "{lacks}");
}

#[test]
fn a_name_of_the_policy_is_no_devices_full_name() {
    let text = r#"{"hosts": {"web.corp": "10.20.0.9"}, "grants": [{"src": ["*"], "dst": ["web.corp"], "ip": ["22"]}]}"#;
    let compiled = Compiled::new(Arc::new(Policy::parse(text).unwrap()), topology());
    let asked = |destination: &str| {
        let subject = Subject::Packets { destination: destination.to_owned(), protocol: Protocol::TCP, port: 22 };
        let answer = compiled.explain(&Question { source: "ben".to_owned(), subject }).unwrap().answers.remove(0);
        answer.parties[0].1.clone().unwrap()
    };
    assert_eq!([asked("web.corp"), asked("web.tailnet.example"), asked("web")], ["10.20.0.9", "web", "web"]);
}

#[test]
fn a_packet_has_addresses_of_one_family() {
    let compiled = grants(r#"{"src": ["100.64.0.3"], "dst": ["tag:web"], "ip": ["22"]}"#);
    assert_eq!(tcp(&compiled, Party::Node(BEN), "100.64.0.4", 22).allowed_by, [0]);
    let refused = tcp(&compiled, Party::Node(BEN), "fd7a:115c:a1e0::4", 22);
    assert_eq!(refused.near_misses, [NearMiss { rule: 0, lacks: vec![Lack::Source] }]);
}

#[test]
fn a_test_by_address_imagines_the_device_there_with_that_address_only() {
    let compiled = compile(
        r#""grants": [{"src": ["100.64.0.1"], "dst": ["tag:web"], "ip": ["tcp:22"], "srcPosture": ["posture:linux"]},
                      {"src": ["fd7a:115c:a1e0::1"], "dst": ["tag:web"], "ip": ["tcp:23"], "srcPosture": ["posture:linux"]}],
           "tests": [
               {"src": "100.64.0.1", "proto": "tcp", "srcPostureAttrs": {"node:os": "linux"}, "accept": ["tag:web:22"], "deny": ["tag:web:23"]},
               {"src": "100.64.0.1", "proto": "tcp", "deny": ["tag:web:22"]}]"#,
    );
    compiled.verify().unwrap();
}

#[test]
fn a_via_sends_its_sources_to_its_router_and_nobody_else() {
    let mut compiled = grants(
        r#"{"src": ["ann@example.com"], "dst": ["office"], "ip": ["22"], "via": ["tag:web"]},
           {"src": ["ben@example.com"], "dst": ["tag:web"], "ip": ["22"]},
           {"src": ["ben@example.com"], "dst": ["10.30.0.0/16"], "ip": ["22"], "via": ["tag:web"]}"#,
    );
    let [office, other]: [IpNet; 2] = ["10.20.0.0/16", "10.30.0.0/16"].map(|route| route.parse().unwrap());
    compiled
        .apply(Change::Node(WEB, Box::new(node(WEB, "web", tagged(&["tag:web"]), &["10.20.0.0/16", "10.30.0.0/16"]))));
    // No router is preferred, so that only a `via` tells which to take.
    compiled.apply(Change::Routers(office, Vec::new()));
    assert!(compiled.are_peers(BEN, WEB) && compiled.are_peers(LAPTOP, WEB));
    assert_eq!(routes_told(&compiled, LAPTOP, WEB), [office]);
    assert_eq!(routes_told(&compiled, BEN, WEB), [other]);
}

#[test]
fn of_several_destinations_a_via_leads_to_those_that_its_router_serves() {
    let mut compiled = grants(
        r#"{"src": ["ben@example.com"], "dst": ["autogroup:internet", "100.64.0.6", "office"], "ip": ["53"], "via": ["tag:exit"]},
           {"src": ["ann@example.com"], "dst": ["office", "8.8.8.0/24"], "ip": ["53"], "via": ["tag:exit"]}"#,
    );
    let both = node(EXIT, "exit", tagged(&["tag:exit"]), &["0.0.0.0/0", "::/0", "10.20.0.0/16"]);
    let reached = |compiled: &Compiled, from: NodeId| {
        ["8.8.8.8", "100.64.0.6", "10.20.0.9"].map(|to| !tcp(compiled, Party::Node(from), to, 53).allowed_by.is_empty())
    };
    assert_eq!(reached(&compiled, BEN), [true, false, false]);
    compiled.apply(Change::Node(EXIT, Box::new(both)));
    assert_eq!(reached(&compiled, BEN), [true, false, true]);
    assert_eq!(reached(&compiled, LAPTOP), [false, false, true]);
}

#[test]
fn devices_are_answered_together_where_all_that_is_said_of_them_is_the_same() {
    let compiled = grants(
        r#"{"src": ["tag:web"], "dst": ["tag:exit"], "ip": ["tcp:80"]}, {"src": ["100.64.0.4"], "dst": ["tag:exit"], "ip": ["tcp:22"]}"#,
    );
    let sources = |port: u16| -> Vec<Vec<String>> {
        let subject = Subject::Packets { destination: "exit".to_owned(), protocol: Protocol::TCP, port };
        let answers = compiled.explain(&Question { source: "tag:web".to_owned(), subject }).unwrap().answers;
        answers.into_iter().map(|answer| answer.parties.into_iter().map(|(from, _)| from).collect()).collect()
    };
    assert_eq!(sources(80), [["web", "db"]]);
    assert_eq!(sources(22), [["web"], ["db"]]);
    // Neither is let in, and what the nearest rules lack differs.
    assert_eq!(sources(443), [["web"], ["db"]]);
}

#[test]
fn an_attribute_that_no_entry_gives_is_said_to_follow_from_something_else() {
    let compiled = compile(r#""grants": [], "randomizeClientPort": true"#);
    let subject = Subject::Attribute("randomize-client-port".to_owned());
    let answer = compiled.explain(&Question { source: "web".to_owned(), subject }).unwrap().answers.remove(0);
    let note = "it follows from a setting, or from another attribute".to_owned();
    assert_eq!((answer.to_string().as_str(), answer.notes), ("yes", vec![note]));
}

#[test]
fn an_answer_names_whom_it_is_about() {
    let compiled = compile(r#""grants": [], "nodeAttrs": [{"target": ["tag:db"], "attr": ["x"]}]"#);
    let question = Question { source: "tag:web".to_owned(), subject: Subject::Attribute("x".to_owned()) };
    let answers = compiled.explain(&question).unwrap().answers;
    let parties: Vec<_> = answers.into_iter().map(|answer| answer.parties).collect();
    assert_eq!(parties, [[("web".to_owned(), None)], [("db".to_owned(), None)]]);
}
