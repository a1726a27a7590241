//! Any grants on any small tailnet: filters agree with the policy read word by word, who knows whom is what filters imply,
//! and what is brought up to date by changes is as if compiled anew.
#![no_main]

// Property tests use the rest of it.
#[expect(dead_code, reason = "shared with the property tests")]
#[path = "../../crates/policy/tests/policy/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use filter::{AddressRange, Filter, Flow, FlowTable, Payload, Protocol, Standing};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use policy::{Change, Compiled, NodeId, Party, Policy, Query, Topology};
use world::{
    ALIASES, Grant, GrantSpec, NodeSpec, PORTS, Packet, SOURCES, SSH_DESTINATIONS, SSH_SOURCES, SSH_USERS, SshSpec,
    TAGS, World,
};

/// How many packets of a tailnet's are tried.
const TRIED: usize = 96;

/// What one input says.
struct Case {
    world: World,
    changes: Vec<(usize, Option<NodeSpec>)>,
    first_packet: usize,
}

fuzz_target!(|data: &[u8]| {
    let Ok(case) = case(&mut Unstructured::new(data)) else { return };
    let world = &case.world;
    let policy = Arc::new(Policy::parse(&world.text()).expect("the grants are a policy"));
    let mut compiled = Compiled::new(policy.clone(), world.topology());
    check_packets(&case, &compiled);
    check_visibility(&compiled);
    check_routes(world, &compiled);
    let mut topology = world.topology();
    for (at, spec) in case.changes {
        let id = NodeId(at as u64);
        let change = match spec {
            Some(spec) => {
                topology.nodes.insert(id, spec.node(at));
                Change::Node(id, Box::new(spec.node(at)))
            }
            None => {
                topology.nodes.remove(&id);
                Change::NodeGone(id)
            }
        };
        compiled.apply(change);
        check_same(&compiled, &Compiled::new(policy.clone(), topology.clone()), &topology);
    }
});

fn case(input: &mut Unstructured<'_>) -> Result<Case> {
    let nodes = (0..input.int_in_range(1..=6)?).map(|_| node(input)).collect::<Result<_>>()?;
    let grants = (0..input.int_in_range(0..=6)?).map(|_| grant(input)).collect::<Result<_>>()?;
    let changes = (0..input.int_in_range(0..=3)?).map(|_| {
        let at = input.int_in_range(0..=6)?;
        Ok((at, if input.ratio(4, 5)? { Some(node(input)?) } else { None }))
    });
    let changes = changes.collect::<Result<_>>()?;
    let ssh = (0..input.int_in_range(0..=3)?).map(|_| ssh_rule(input)).collect::<Result<_>>()?;
    let (default_managed, shop) = (input.ratio(1, 5)?, input.int_in_range(0..=63)?);
    let world = World { nodes, grants, ssh, default_managed, shop };
    Ok(Case { world, changes, first_packet: input.int_in_range(0..=4095)? })
}

fn node(input: &mut Unstructured<'_>) -> Result<NodeSpec> {
    let owner = input.int_in_range(0..=9)?;
    let routes = if input.arbitrary()? { input.int_in_range(0..=15)? } else { 0 };
    let approved = if input.ratio(3, 4)? { 15 } else { input.int_in_range(0..=15)? };
    Ok(NodeSpec { owner, routes, approved, managed: input.arbitrary()? })
}

fn grant(input: &mut Unstructured<'_>) -> Result<Grant> {
    let mut places = |least: usize, most: usize, of: usize| -> Result<Vec<usize>> {
        (0..input.int_in_range(least..=most)?).map(|_| input.int_in_range(0..=of - 1)).collect()
    };
    let (sources, destinations) = (places(1, 3, SOURCES)?, places(1, 3, ALIASES.len())?);
    let ports = places(0, 2, PORTS.len())?;
    let via = if input.ratio(1, 5)? { Some(input.int_in_range(0..=TAGS.len() - 1)?) } else { None };
    let (app, managed, acl) = (input.arbitrary()?, input.ratio(1, 5)?, input.ratio(1, 5)?);
    Ok(GrantSpec { sources, destinations, ports, app, via, managed, acl }.into())
}

fn ssh_rule(input: &mut Unstructured<'_>) -> Result<SshSpec> {
    let mut places = |of: usize| -> Result<Vec<usize>> {
        (0..input.int_in_range(1..=2)?).map(|_| input.int_in_range(0..=of - 1)).collect()
    };
    let (sources, destinations) = (places(SSH_SOURCES.len())?, places(SSH_DESTINATIONS.len())?);
    let users = places(SSH_USERS.len())?;
    let (check, managed, recorded) = (input.ratio(1, 4)?, input.ratio(1, 4)?, input.ratio(1, 4)?);
    Ok(SshSpec { check, sources, destinations, users, managed, recorded })
}

fn check_packets(case: &Case, compiled: &Compiled) {
    let world = &case.world;
    let filter = |node| Filter::compile(&compiled.filter(NodeId(node as u64)), world.local(node));
    let filters: Vec<Filter> = (0..world.nodes.len()).map(|node| filter(node).expect("a whole filter")).collect();
    let packets = world.packets();
    // A step that shares no factor with the number of kinds, so that all of them come round.
    for packet in packets.iter().cycle().skip(case.first_packet).step_by(101).take(TRIED) {
        let allowed = world.allows(packet);
        assert_eq!(passes(&filters[packet.at], packet), allowed, "{packet:?}\n{}", world.text());
        let family = packet.to.is_ipv4();
        let foreign = packet.protocol == if family { Protocol::ICMPV6 } else { Protocol::ICMPV4 };
        if world.node_at(packet.to) == Some(packet.at) && !foreign {
            let (source, destination) = (Party::Address(packet.from), Party::Address(packet.to));
            let query = Query { source, destination, protocol: packet.protocol, port: packet.port };
            let decision = compiled.decide(&query);
            assert_eq!(!decision.allowed_by.is_empty(), allowed, "{packet:?}\n{}", world.text());
            let given = filters[packet.at].capabilities(packet.from, packet.to, &|_| false);
            assert_eq!(given.has("example.com/cap"), world.gives(packet), "{packet:?}\n{}", world.text());
        }
    }
}

fn passes(filter: &Filter, packet: &Packet) -> bool {
    let payload = match packet.protocol {
        Protocol::TCP => Payload::TcpSyn,
        Protocol::ICMPV4 | Protocol::ICMPV6 => Payload::IcmpOther,
        _ => Payload::Plain,
    };
    let (source, destination) = (SocketAddr::new(packet.from, 9), SocketAddr::new(packet.to, packet.port));
    let flow = Flow { protocol: packet.protocol, source, destination, payload };
    filter.judge(&flow, &mut FlowTable::new(1, 0), &Standing::default()).is_accept()
}

fn check_routes(world: &World, compiled: &Compiled) {
    let nodes = 0..world.nodes.len();
    for (viewer, peer) in nodes.clone().flat_map(|viewer| nodes.clone().map(move |peer| (viewer, peer))) {
        if viewer != peer {
            let told = compiled.allowed_ips(NodeId(viewer as u64), NodeId(peer as u64));
            let (subnets, exits) = (world.subnets_told(viewer, peer), world.exits_told(viewer, peer));
            assert_eq!(told.primary.iter().copied().collect::<BTreeSet<_>>(), subnets.iter().copied().collect());
            let all: BTreeSet<_> = subnets.into_iter().chain(exits).collect();
            let routes = told.allowed.into_iter().filter(|network| network.addr() != network.broadcast());
            assert_eq!(routes.collect::<BTreeSet<_>>(), all, "{viewer} of {peer}\n{}", world.text());
        }
    }
}

fn check_visibility(compiled: &Compiled) {
    let nodes = &compiled.topology().nodes;
    let named: Vec<(NodeId, BTreeSet<NodeId>)> = nodes.keys().map(|at| (*at, named_by(compiled, *at))).collect();
    for (one, names) in &named {
        let back = named.iter().filter(|(_, names)| names.contains(one)).map(|(other, _)| *other);
        let mut implied: BTreeSet<NodeId> = names.iter().copied().chain(back).collect();
        implied.remove(one);
        assert_eq!(compiled.peers(*one), implied, "{one:?} knows whom filters name\n{}", compiled.policy().text());
    }
}

/// The nodes of which an address, or a network behind them, is a source in a node's filter.
fn named_by(compiled: &Compiled, at: NodeId) -> BTreeSet<NodeId> {
    let rules = compiled.filter(at);
    let sources: Vec<Option<AddressRange>> =
        rules.iter().flat_map(|rule| rule.sources.iter()).map(|text| text.parse().ok()).collect();
    let nodes = compiled.topology().nodes.iter().filter(|(_, node)| {
        let own = node.addresses.iter().map(|address| AddressRange::single(*address));
        let mut mine = own.chain(node.subnets().map(AddressRange::prefix));
        // What is no range is `*`.
        mine.any(|range| sources.iter().any(|source| source.is_none_or(|source| source.overlaps(&range))))
    });
    nodes.map(|(id, _)| *id).collect()
}

fn check_same(compiled: &Compiled, anew: &Compiled, topology: &Topology) {
    for id in topology.nodes.keys() {
        assert_eq!(compiled.filter(*id), anew.filter(*id), "brought up to date is as if compiled anew");
        assert_eq!(compiled.peers(*id), anew.peers(*id));
        assert_eq!(compiled.ssh(*id), anew.ssh(*id));
        assert_eq!(compiled.attributes(*id), anew.attributes(*id));
        for peer in anew.peers(*id) {
            assert_eq!(compiled.allowed_ips(*id, peer), anew.allowed_ips(*id, peer));
        }
    }
}
