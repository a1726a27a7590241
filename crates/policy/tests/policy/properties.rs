//! What must hold of any policy and any tailnet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::random::{ChangeSpec, change, world};
use crate::world::{self, ACCOUNTS, Packet, SHOP, SshSpec, USERS, World};
use filter::{AddressRange, CapMap, Filter, Flow, FlowTable, Payload, Protocol, Rule, Standing};
use ipnet::IpNet;
use policy::{
    Affected, AllowedIps, Change, Compiled, Difference, NodeId, Owner, Pair, Party, Policy, Query, Question, SshAction,
    SshDecision, SshGrant, SshTest, Subject, Tag, Topology, User, UserId, Verdict,
};
use proptest::prelude::*;

fn compile(world: &World) -> Compiled {
    Compiled::new(Arc::new(Policy::parse(&world.text()).unwrap()), world.topology())
}

fn filters(world: &World, compiled: &Compiled) -> Vec<Filter> {
    let filter = |node| Filter::compile(&compiled.filter(NodeId(node as u64)), world.local(node)).unwrap();
    (0..world.nodes.len()).map(filter).collect()
}

fn passes(filter: &Filter, packet: &Packet) -> bool {
    let payload = match packet.protocol {
        Protocol::TCP => Payload::TcpSyn,
        Protocol::ICMPV4 | Protocol::ICMPV6 => Payload::IcmpOther,
        _ => Payload::Plain,
    };
    let flow = Flow {
        protocol: packet.protocol,
        source: SocketAddr::new(packet.from, 9),
        destination: SocketAddr::new(packet.to, packet.port),
        payload,
    };
    filter.judge(&flow, &mut FlowTable::new(1, 0), &Standing::default()).is_accept()
}

fn decisions(world: &World) -> Vec<bool> {
    let filters = filters(world, &compile(world));
    world.packets().iter().map(|packet| passes(&filters[packet.at], packet)).collect()
}

/// Names that turn the order of the old ones round, where it has one.
const RENAMED: [(&str, &str); 11] = [
    ("ipset:mixed", "ipset:a"),
    ("group:dev", "group:z9"),
    ("group:ops", "group:a0"),
    ("tag:web", "tag:zz"),
    ("tag:db", "tag:mm"),
    ("tag:gate", "tag:aa"),
    ("posture:managed", "posture:p"),
    ("office", "aardvark"),
    ("second", "zebra"),
    ("resolver", "moth"),
    ("six", "bee"),
];

fn renamed(text: &str) -> String {
    // With a quotation mark behind it, or with the ports of an ACL's destination.
    let rename = |text: String, (old, new): &(&str, &str)| {
        ['"', ':'].iter().fold(text, |text, end| text.replace(&format!("\"{old}{end}"), &format!("\"{new}{end}")))
    };
    RENAMED.iter().fold(text.to_owned(), rename)
}

fn renamed_tags(mut topology: Topology) -> Topology {
    for node in topology.nodes.values_mut() {
        if let Owner::Tags(tags) = &mut node.owner {
            let name = |tag: &Tag| RENAMED.iter().find(|(old, _)| *old == tag.as_str()).unwrap().1;
            *tags = tags.iter().map(|tag| Tag::parse(name(tag)).unwrap()).collect();
        }
    }
    topology
}

/// What a node is told.
#[derive(Clone, Debug, PartialEq)]
struct Told {
    filter: Vec<Rule>,
    peers: BTreeMap<NodeId, AllowedIps>,
    own: Vec<IpNet>,
    ssh: Vec<SshGrant>,
    attributes: CapMap,
    /// What its peers are told of it.
    of_it: CapMap,
}

/// Everything that a tailnet's nodes are told.
fn told(compiled: &Compiled) -> BTreeMap<NodeId, Told> {
    let view = |node: NodeId| {
        let peers = compiled.peers(node).into_iter().map(|peer| (peer, compiled.allowed_ips(node, peer)));
        let told = Told {
            filter: compiled.filter(node),
            peers: peers.collect(),
            own: compiled.own_allowed_ips(node),
            ssh: compiled.ssh(node),
            attributes: compiled.attributes(node),
            of_it: compiled.peer_attributes(node),
        };
        (node, told)
    };
    compiled.topology().nodes.keys().copied().map(view).collect()
}

/// What a policy comes to, however its rules are put: which packets and logins pass, what capabilities are given, and who is
/// told of whom and what.
#[derive(Debug, PartialEq)]
struct Outcome {
    packets: Vec<bool>,
    /// By who asks and the address that they ask of.
    capabilities: Vec<BTreeMap<String, BTreeSet<String>>>,
    /// Whether it asks for a check, who records it, and the account.
    logins: Vec<Option<(bool, Vec<IpAddr>, String)>>,
    decided: Vec<Option<bool>>,
    told: BTreeMap<NodeId, Told>,
}

impl Outcome {
    fn of(world: &World) -> Self {
        let compiled = compile(world);
        let filters = filters(world, &compiled);
        let mut told = told(&compiled);
        for told in told.values_mut() {
            // How rules are put is what these look like.
            (told.filter, told.ssh) = (Vec::new(), Vec::new());
        }
        let nodes = || 0..world.nodes.len();
        let pairs: Vec<(usize, usize)> = nodes().flat_map(|from| nodes().map(move |to| (from, to))).collect();
        let capabilities = pairs.iter().flat_map(|(from, to)| [false, true].map(|v6| (*from, *to, v6)));
        let capabilities = capabilities.map(|(from, to, v6)| {
            let given = filters[to].capabilities(world::address(from, v6), world::address(to, v6), &|_| false);
            let texts = |values: Option<Vec<filter::RawJson>>| {
                values.unwrap_or_default().iter().map(|value| value.as_str().to_owned()).collect::<BTreeSet<_>>()
            };
            given.0.into_iter().map(|(name, values)| (name, texts(values))).collect()
        });
        let capabilities = capabilities.collect();
        let (mut logins, mut decided) = (Vec::new(), Vec::new());
        for (from, to) in &pairs {
            let rules = compiled.ssh(NodeId(*to as u64));
            let parties = [from, to].map(|node| Party::Node(NodeId(*node as u64)));
            for account in ACCOUNTS {
                let fits = |grant: &&SshGrant| {
                    grant.principals.contains(&world::address(*from, true)) && grant.account(account).is_some()
                };
                let first = rules.iter().find(fits);
                logins.push(first.map(|grant| {
                    let check = grant.action != SshAction::Accept;
                    (check, grant.recorders.clone(), grant.account(account).unwrap().to_owned())
                }));
                decided.push(match compiled.decide_ssh(&parties[0], &parties[1], account) {
                    SshDecision::Accept { .. } => Some(false),
                    SshDecision::Check { .. } => Some(true),
                    SshDecision::Refuse { .. } => None,
                });
            }
        }
        let packets = world.packets().iter().map(|packet| passes(&filters[packet.at], packet)).collect();
        Self { packets, capabilities, logins, decided, told }
    }
}

/// A change in full, made to a tailnet.
fn made(spec: ChangeSpec, topology: &mut Topology) -> Change {
    match spec {
        ChangeSpec::Node(at, spec) => {
            let id = NodeId(at as u64);
            match spec {
                Some(spec) => {
                    topology.nodes.insert(id, spec.node(at));
                    Change::Node(id, Box::new(spec.node(at)))
                }
                None => {
                    topology.nodes.remove(&id);
                    Change::NodeGone(id)
                }
            }
        }
        ChangeSpec::User(at, role) => {
            let id = UserId(at as u64);
            match role {
                Some(role) => {
                    let user = User { login: USERS[at].0.into(), role, shared: false };
                    topology.users.insert(id, user.clone());
                    Change::User(id, user)
                }
                None => {
                    topology.users.remove(&id);
                    Change::UserGone(id)
                }
            }
        }
        ChangeSpec::Routers(at, turn) => {
            let routes: BTreeSet<IpNet> = topology.nodes.values().flat_map(|node| node.subnets()).collect();
            let route = routes.iter().nth(at).copied().unwrap_or_else(|| "10.33.0.0/16".parse().unwrap());
            let serves = |(_, node): &(&NodeId, &policy::Node)| node.subnets().any(|served| served == route);
            let mut routers: Vec<NodeId> = topology.nodes.iter().filter(serves).map(|(id, _)| *id).collect();
            let count = routers.len().max(1);
            match turn {
                0 => routers.clear(),
                _ => routers.rotate_left(turn % count),
            }
            match routers.is_empty() {
                true => drop(topology.routers.remove(&route)),
                false => drop(topology.routers.insert(route, routers.clone())),
            }
            Change::Routers(route, routers)
        }
        ChangeSpec::Service(hosts) => {
            let service = hosts.map(world::shop);
            match service.clone() {
                Some(service) => drop(topology.services.insert(SHOP.into(), service)),
                None => drop(topology.services.remove(SHOP)),
            }
            Change::Service(SHOP.into(), service)
        }
        ChangeSpec::Https(https) => {
            topology.https = https;
            Change::Https(https)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::default())]

    #[test]
    fn filters_agree_packet_by_packet_with_the_policy_read_word_by_word(world in world()) {
        let filters = filters(&world, &compile(&world));
        for packet in world.packets() {
            prop_assert_eq!(passes(&filters[packet.at], &packet), world.allows(&packet), "{:?}\n{}", packet, world.text());
        }
    }

    #[test]
    fn decisions_agree_with_the_filters_of_the_nodes_asked(world in world()) {
        let compiled = compile(&world);
        let filters = filters(&world, &compiled);
        for packet in world.packets().into_iter().filter(|packet| world.node_at(packet.to) == Some(packet.at)) {
            let query = Query {
                source: Party::Address(packet.from),
                destination: Party::Address(packet.to),
                protocol: packet.protocol,
                port: packet.port,
            };
            let decision = compiled.decide(&query);
            let foreign_icmp = matches!(packet.protocol, Protocol::ICMPV4 if packet.to.is_ipv6())
                || matches!(packet.protocol, Protocol::ICMPV6 if packet.to.is_ipv4());
            // ICMP of the other family is a question that nobody asks.
            if !foreign_icmp {
                let filter = passes(&filters[packet.at], &packet);
                prop_assert_eq!(!decision.allowed_by.is_empty(), filter, "{:?}\n{}", packet, world.text());
                prop_assert!(filter || !decision.near_misses.is_empty() || compiled.policy().rules().is_empty()
                    || world.grants.iter().all(|grant| grant.ports.is_empty()));
            }
        }
    }

    #[test]
    fn decisions_about_what_lies_beyond_agree_with_the_filters_of_those_who_lead_there(world in world()) {
        let compiled = compile(&world);
        let filters = filters(&world, &compiled);
        let beyond = |packet: &Packet| packet.at == 0 && world.node_at(packet.to).is_none();
        for packet in world.packets().into_iter().filter(beyond) {
            let leads = (0..world.nodes.len()).filter(|node| world.answers(*node, packet.to));
            let through: Vec<bool> = leads.map(|at| passes(&filters[at], &Packet { at, ..packet })).collect();
            let foreign_icmp = packet.protocol == if packet.to.is_ipv4() { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
            if through.is_empty() || foreign_icmp {
                continue;
            }
            let (source, destination) = (Party::Address(packet.from), Party::Address(packet.to));
            let query = Query { source, destination, protocol: packet.protocol, port: packet.port };
            let allowed = !compiled.decide(&query).allowed_by.is_empty();
            prop_assert_eq!(allowed, through.contains(&true), "{:?}\n{}", packet, world.text());
        }
    }

    #[test]
    fn logins_are_decided_as_the_device_that_is_logged_in_to_decides_them(world in world()) {
        let compiled = compile(&world);
        let count = world.nodes.len();
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            let addresses = [false, true].map(|v6| world::address(from, v6));
            let rules = compiled.ssh(NodeId(to as u64));
            for account in ACCOUNTS {
                let fits = |grant: &&SshGrant| {
                    grant.principals.iter().any(|from| addresses.contains(from)) && grant.account(account).is_some()
                };
                let first = rules.iter().find(fits).map(|grant| (grant.rule, grant.action != SshAction::Accept));
                let said = world.login(from, to, account);
                prop_assert_eq!(first, said, "{} -> {} as {}\n{}", from, to, account, world.text());

                // Only a user can confirm.
                let lets_in = said.filter(|(_, check)| !check || world.nodes[from].owner < USERS.len());
                let parties = [from, to].map(|node| Party::Node(NodeId(node as u64)));
                let decided = match compiled.decide_ssh(&parties[0], &parties[1], account) {
                    SshDecision::Accept { rule } => Some((rule, false)),
                    SshDecision::Check { rule, .. } => Some((rule, true)),
                    SshDecision::Refuse { near_misses } => {
                        prop_assert!(near_misses.iter().all(|miss| !miss.lacks.is_empty()));
                        None
                    }
                };
                prop_assert_eq!(decided, lets_in, "{} -> {} as {}\n{}", from, to, account, world.text());

                let accounts = |wanted: bool| if wanted { vec![account.to_owned()] } else { Vec::new() };
                let test = SshTest {
                    source: addresses[0].to_string(),
                    destinations: vec![world::address(to, true).to_string()],
                    accept: accounts(lets_in.is_some_and(|(_, check)| !check)),
                    check: accounts(lets_in.is_some_and(|(_, check)| check)),
                    deny: accounts(lets_in.is_none()),
                    attributes: world.nodes[from].node(from).posture,
                    ..SshTest::default()
                };
                prop_assert_eq!(compiled.run_ssh_test(&test), None, "{:?}\n{}", test, world.text());
            }
        }
    }

    #[test]
    fn capabilities_agree_with_the_policy_read_word_by_word(world in world()) {
        let compiled = compile(&world);
        let filters = filters(&world, &compiled);
        let to_nodes = world.packets().into_iter().filter(|packet| world.node_at(packet.to) == Some(packet.at));
        // The kinds of packets differ only in what capabilities don't look at.
        for packet in to_nodes.filter(|packet| packet.protocol == Protocol::TCP) {
            let given = world.gives(&packet);
            let told = filters[packet.at].capabilities(packet.from, packet.to, &|_| false);
            prop_assert_eq!(told.has("example.com/cap"), given, "{:?}\n{}", packet, world.text());
            let decided = compiled.decide_capabilities(&Party::Address(packet.from), &Party::Address(packet.to));
            prop_assert_eq!(decided.capabilities.has("example.com/cap"), given, "{:?}\n{}", packet, world.text());
            prop_assert_eq!(decided.given_by.is_empty(), !given);
        }
    }

    #[test]
    fn routes_agree_with_the_policy_read_word_by_word(world in world()) {
        let compiled = compile(&world);
        let id = |at: usize| NodeId(at as u64);
        let count = world.nodes.len();
        for (viewer, peer) in (0..count).flat_map(|viewer| (0..count).map(move |peer| (viewer, peer))) {
            let sorted = |mut routes: Vec<IpNet>| {
                routes.sort();
                routes
            };
            let has_ipv4 = |at: usize| USERS.get(world.nodes[at].owner).is_none_or(|(login, _)| *login != "bob@example.com");
            let families = [false, true].into_iter().filter(|v6| *v6 || (has_ipv4(viewer) && has_ipv4(peer)));
            let own: Vec<IpNet> = families.map(|v6| world::address(peer, v6).into()).collect();
            let place = || format!("{viewer} is told of {peer}\n{world:?}\n{}", world.text());
            if viewer == peer {
                let served = sorted(world.nodes[viewer].served().collect());
                let told = compiled.own_allowed_ips(id(viewer));
                prop_assert_eq!(&told[..own.len()], &own[..], "{}", place());
                prop_assert_eq!(sorted(told[own.len()..].to_vec()), served, "{}", place());
                continue;
            }
            let AllowedIps { allowed, primary } = compiled.allowed_ips(id(viewer), id(peer));
            let (subnets, exits) = (world.subnets_told(viewer, peer), world.exits_told(viewer, peer));
            prop_assert_eq!(&allowed[..own.len()], &own[..], "{}", place());
            prop_assert_eq!(sorted(primary), sorted(subnets.clone()), "{}", place());
            prop_assert_eq!(sorted(allowed[own.len()..].to_vec()), sorted([subnets, exits].concat()), "{}", place());
        }
    }

    #[test]
    fn the_order_of_rules_changes_nothing(world in world().prop_filter("two grants", |w| w.grants.len() > 1), turn in 1_usize..7) {
        let mut turned = world.clone();
        let by = turn % turned.grants.len();
        turned.grants.rotate_left(by);
        prop_assert_eq!(Outcome::of(&world), Outcome::of(&turned), "{}", world.text());
        let difference = Difference::between(&compile(&world), &compile(&turned));
        prop_assert!(difference.is_empty(), "{difference}\n{}", world.text());
    }

    #[test]
    fn splitting_a_rule_changes_nothing(world in world()) {
        let mut split = world.clone();
        split.grants = world.grants.iter().flat_map(|grant| {
            let each = grant.destinations.iter().flat_map(|destination| grant.sources.iter().map(move |source| (source, destination)));
            each.map(|(source, destination)| world::Grant { sources: vec![source], destinations: vec![destination], ..grant.clone() })
        }).collect();
        split.ssh = world.ssh.iter().flat_map(SshSpec::split).collect();
        prop_assert_eq!(Outcome::of(&world), Outcome::of(&split), "{}\n{}", world.text(), split.text());
        let difference = Difference::between(&compile(&world), &compile(&split));
        prop_assert!(difference.is_empty(), "{difference}\n{}\n{}", world.text(), split.text());
    }

    #[test]
    fn renaming_groups_hosts_postures_and_tags_changes_nothing_that_is_told(world in world()) {
        let text = renamed(&world.text());
        let after = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), renamed_tags(world.topology()));
        prop_assert_eq!(told(&compile(&world)), told(&after), "{}\n{}", world.text(), text);
    }

    #[test]
    fn removing_a_rule_opens_nothing(world in world().prop_filter("a grant", |w| !w.grants.is_empty()), which in 0_usize..7) {
        let mut fewer = world.clone();
        fewer.grants.remove(which % world.grants.len());
        for (before, after) in decisions(&world).into_iter().zip(decisions(&fewer)) {
            prop_assert!(before || !after);
        }
        let (before, after) = (compile(&world), compile(&fewer));
        for node in world.topology().nodes.keys() {
            prop_assert!(after.peers(*node).is_subset(&before.peers(*node)));
        }
    }

    #[test]
    fn nodes_know_each_other_exactly_where_a_filter_of_either_names_the_other(world in world()) {
        let compiled = compile(&world);
        let topology = world.topology();
        let names = |at: NodeId, other: NodeId| {
            let node = &topology.nodes[&other];
            compiled.filter(at).iter().flat_map(|rule| rule.sources.iter()).any(|source| {
                let own = node.addresses.iter().map(|address| AddressRange::single(*address));
                let mut mine = own.chain(node.subnets().map(AddressRange::prefix));
                source == "*" || mine.any(|range| source.parse::<AddressRange>().unwrap().overlaps(&range))
            })
        };
        for one in topology.nodes.keys() {
            let implied: BTreeSet<NodeId> = topology.nodes.keys().copied()
                .filter(|other| other != one && (names(*one, *other) || names(*other, *one))).collect();
            prop_assert_eq!(compiled.peers(*one), implied, "{:?}\n{}", one, world.text());
            for other in topology.nodes.keys().filter(|other| *other != one) {
                prop_assert_eq!(compiled.are_peers(*one, *other), compiled.are_peers(*other, *one));
                let subject = Subject::Visibility { destination: topology.nodes[other].name.to_string() };
                let question = Question { source: topology.nodes[one].name.to_string(), subject };
                let explained = compiled.explain(&question).unwrap();
                let answer = &explained.answers[0];
                prop_assert_eq!(answer.verdict == Verdict::Yes, compiled.are_peers(*one, *other), "{}", world.text());
                prop_assert_eq!(answer.allowed_by.is_empty(), answer.verdict == Verdict::No);
            }
        }
    }

    #[test]
    fn a_change_applied_is_as_if_compiled_anew_and_names_everyone_concerned(
        world in world(),
        changes in proptest::collection::vec(change(), 1..5),
    ) {
        let mut compiled = compile(&world);
        let mut topology = world.topology();
        for spec in changes {
            let before = told(&compiled);
            let change = made(spec, &mut topology);
            let affected = compiled.apply(change.clone());
            let after = told(&Compiled::new(compiled.policy().clone(), topology.clone()));
            prop_assert_eq!(told(&compiled), after.clone(), "{:?}\n{}", change, world.text());
            if let Err(error) = check_affected(&before, &after, &affected) {
                return Err(TestCaseError::fail(format!("{error}\n{change:?}\n{}", world.text())));
            }
        }
    }

    #[test]
    fn a_policy_replaced_is_as_if_compiled_anew(world in world(), other in world()) {
        let mut compiled = compile(&world);
        let next = Arc::new(Policy::parse(&World { nodes: world.nodes.clone(), ..other }.text()).unwrap());
        let before = told(&compiled);
        let affected = compiled.replace_policy(next.clone());
        let after = told(&Compiled::new(next, world.topology()));
        prop_assert_eq!(told(&compiled), after.clone());
        check_affected(&before, &after, &affected)?;
    }
}

fn sorted(filter: &[Rule]) -> Vec<String> {
    let mut rules: Vec<String> = filter.iter().map(|rule| format!("{rule:?}")).collect();
    rules.sort();
    rules
}

/// Everyone to whom something else is told must have been named.
fn check_affected(
    before: &BTreeMap<NodeId, Told>,
    after: &BTreeMap<NodeId, Told>,
    affected: &Affected,
) -> Result<(), TestCaseError> {
    let pairs = |told: &BTreeMap<NodeId, Told>| -> BTreeSet<Pair> {
        told.iter().flat_map(|(node, told)| told.peers.keys().map(|peer| Pair::new(*node, *peer))).collect()
    };
    let (old, new) = (pairs(before), pairs(after));
    prop_assert_eq!(affected.met.clone(), new.difference(&old).copied().collect::<BTreeSet<_>>());
    prop_assert_eq!(affected.parted.clone(), old.difference(&new).copied().collect::<BTreeSet<_>>());
    for (node, now) in after {
        let Some(was) = before.get(node) else {
            prop_assert!(affected.nodes.contains(node), "{:?} came unnoticed", node);
            continue;
        };
        // A filter whose rules only stand in another order lets the same packets in: nobody needs to hear of that.
        let same = sorted(&was.filter) == sorted(&now.filter);
        prop_assert!(same || affected.filters.contains(node), "the filter of {:?} changed unnoticed", node);
        prop_assert!(was.ssh == now.ssh || affected.ssh.contains(node), "the logins to {:?} changed unnoticed", node);
        let same = (&was.own, &was.attributes, &was.of_it) == (&now.own, &now.attributes, &now.of_it);
        prop_assert!(same || affected.nodes.contains(node), "{:?} changed unnoticed", node);
        // What a node is told of routes is looked at anew where it, or its filter, is another; else its peer has to be.
        let looks = affected.nodes.contains(node) || affected.filters.contains(node);
        for (peer, told) in &now.peers {
            let same = was.peers.get(peer).is_none_or(|was| was == told);
            let noticed = looks || affected.nodes.contains(peer);
            prop_assert!(same || noticed, "what {:?} is told of {:?} changed unnoticed", node, peer);
        }
    }
    Ok(())
}
