//! What must hold of any policy and any tailnet.
#![expect(clippy::unwrap_used, reason = "a scenario test")]

#[path = "properties/random.rs"]
mod random;
#[path = "properties/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use filter::{AddressRange, Filter, Flow, FlowTable, Payload, Protocol, Rule, Standing};
use policy::{
    Affected, Change, Compiled, NodeId, Owner, Pair, Party, Policy, Query, Question, Role, Subject, Tag, Topology,
    User, UserId, Verdict,
};
use proptest::prelude::*;
use random::{node_spec, world};
use world::{Packet, World};

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
const RENAMED: [(&str, &str); 10] = [
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
    RENAMED.iter().fold(text.to_owned(), |text, (old, new)| text.replace(&format!("{old:?}"), &format!("{new:?}")))
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

/// Everything that a tailnet's nodes are told, in an order of its own.
fn told(compiled: &Compiled) -> BTreeMap<NodeId, (Vec<Rule>, BTreeSet<NodeId>, String)> {
    let nodes = compiled.topology().nodes.keys().copied();
    let view = |node: NodeId| {
        let peers = compiled.peers(node);
        let routes: Vec<_> = peers.iter().map(|peer| compiled.allowed_ips(node, *peer)).collect();
        let rest = format!(
            "{routes:?} {:?} {:?} {:?}",
            compiled.ssh(node),
            compiled.attributes(node),
            compiled.peer_attributes(node)
        );
        (node, (compiled.filter(node), peers, rest))
    };
    nodes.map(view).collect()
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
    fn the_order_of_rules_changes_no_decision(world in world().prop_filter("two grants", |w| w.grants.len() > 1), turn in 1_usize..7) {
        let mut turned = world.clone();
        let by = turn % turned.grants.len();
        turned.grants.rotate_left(by);
        prop_assert_eq!(decisions(&world), decisions(&turned));
    }

    #[test]
    fn splitting_a_rule_changes_no_decision(world in world()) {
        let mut split = world.clone();
        split.grants = world.grants.iter().flat_map(|grant| {
            let each = grant.destinations.iter().flat_map(|destination| grant.sources.iter().map(move |source| (source, destination)));
            each.map(|(source, destination)| world::Grant { sources: vec![source], destinations: vec![destination], ..grant.clone() })
        }).collect();
        prop_assert_eq!(decisions(&world), decisions(&split), "{}\n{}", world.text(), split.text());
    }

    #[test]
    fn renaming_groups_hosts_postures_and_tags_changes_no_decision(world in world()) {
        let topology = renamed_tags(world.topology());
        let text = renamed(&world.text());
        let compiled = Compiled::new(Arc::new(Policy::parse(&text).unwrap()), topology);
        let filters = filters(&world, &compiled);
        let after: Vec<bool> = world.packets().iter().map(|packet| passes(&filters[packet.at], packet)).collect();
        prop_assert_eq!(decisions(&world), after, "{}\n{}", world.text(), text);
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
        changes in proptest::collection::vec((0_usize..7, proptest::option::weighted(0.8, node_spec()), 0_usize..3), 1..5),
    ) {
        let mut compiled = compile(&world);
        let mut topology = world.topology();
        for (at, spec, user) in changes {
            let before = told(&compiled);
            let id = NodeId(at as u64);
            let change = match (spec, at) {
                (_, 6) => Change::User(UserId(user as u64), User { role: Role::Admin, ..topology.users[&UserId(user as u64)].clone() }),
                (Some(spec), _) => Change::Node(id, Box::new(spec.node(at))),
                (None, _) => Change::NodeGone(id),
            };
            match &change {
                Change::Node(id, node) => { topology.nodes.insert(*id, (**node).clone()); }
                Change::User(id, user) => { topology.users.insert(*id, user.clone()); }
                _ => { topology.nodes.remove(&id); }
            }
            let affected = compiled.apply(change);
            let after = told(&Compiled::new(compiled.policy().clone(), topology.clone()));
            prop_assert_eq!(told(&compiled), after.clone(), "{}", world.text());
            check_affected(&before, &after, &affected)?;
        }
    }

    #[test]
    fn a_policy_replaced_is_as_if_compiled_anew(world in world(), other in world()) {
        let mut compiled = compile(&world);
        let next = Arc::new(Policy::parse(&World { nodes: world.nodes.clone(), grants: other.grants }.text()).unwrap());
        let before = told(&compiled);
        let affected = compiled.replace_policy(next.clone());
        let after = told(&Compiled::new(next, world.topology()));
        prop_assert_eq!(told(&compiled), after.clone());
        check_affected(&before, &after, &affected)?;
    }
}

type Told = BTreeMap<NodeId, (Vec<Rule>, BTreeSet<NodeId>, String)>;

fn sorted(filter: &[Rule]) -> Vec<String> {
    let mut rules: Vec<String> = filter.iter().map(|rule| format!("{rule:?}")).collect();
    rules.sort();
    rules
}

/// Everyone to whom something else is told must have been named.
fn check_affected(before: &Told, after: &Told, affected: &Affected) -> Result<(), TestCaseError> {
    let pairs = |told: &Told| -> BTreeSet<Pair> {
        told.iter().flat_map(|(node, (_, peers, _))| peers.iter().map(|peer| Pair::new(*node, *peer))).collect()
    };
    let (old, new) = (pairs(before), pairs(after));
    prop_assert_eq!(affected.met.clone(), new.difference(&old).copied().collect::<BTreeSet<_>>());
    prop_assert_eq!(affected.parted.clone(), old.difference(&new).copied().collect::<BTreeSet<_>>());
    for (node, (filter, ..)) in after {
        // A filter whose rules only stand in another order lets the same packets in: nobody needs to hear of that.
        let same = before.get(node).is_some_and(|(old, ..)| sorted(old) == sorted(filter));
        prop_assert!(same || affected.filters.contains(node), "the filter of {:?} changed unnoticed", node);
    }
    Ok(())
}
