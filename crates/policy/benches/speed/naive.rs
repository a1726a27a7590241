//! The meaning of a policy without anything shared, as one would write it first: every rule resolved by a walk over all
//! nodes, every node's filter by a walk over all rules.

use std::time::Duration;

use filter::{AddressRange, DstPort, Rule as FilterRule};
use policy::{Alias, Autogroup, Effect, Node, Policy, Rule, Topology};

use crate::spent;

/// How many nodes' filters are made; the time of all is reckoned from theirs.
const SAMPLE: usize = 50;

/// A rule with its addresses written out.
struct Resolved<'a> {
    rule: &'a Rule,
    sources: Vec<String>,
    destinations: Vec<(AddressRange, String)>,
}

/// The time that all nodes' filters take, resolved, cut down and encoded.
pub(crate) fn all(policy: &Policy, topology: &Topology) -> Duration {
    let start = spent();
    let resolved: Vec<Resolved<'_>> = policy.rules().iter().map(|rule| resolve(rule, policy, topology)).collect();
    let resolving = spent() - start;
    let start = spent();
    let step = topology.nodes.len() / SAMPLE;
    let mut bytes = 0;
    for node in topology.nodes.values().step_by(step) {
        let filter = reduce(&resolved, node, policy, topology);
        bytes += serde_json::to_string(&filter).expect("rules are JSON").len();
    }
    assert!(bytes > 0, "the sampled nodes have filters");
    resolving + (spent() - start) * u32::try_from(step).expect("a small number")
}

fn resolve<'a>(rule: &'a Rule, policy: &Policy, topology: &Topology) -> Resolved<'a> {
    let mut sources = Vec::new();
    let mut destinations = Vec::new();
    for alias in rule.sources.iter() {
        sources.extend(ranges(alias, policy, topology).into_iter().map(|(_, text)| text));
    }
    for alias in &rule.destinations {
        destinations.extend(ranges(alias, policy, topology));
    }
    Resolved { rule, sources, destinations }
}

fn ranges(alias: &Alias, policy: &Policy, topology: &Topology) -> Vec<(AddressRange, String)> {
    match alias {
        Alias::Anyone => ["0.0.0.0/0", "::/0"].map(|all| (all.parse().expect("a range"), "*".to_owned())).into(),
        Alias::Host(name) => policy.host(name).map(|range| (range, range.to_string())).into_iter().collect(),
        Alias::Literal(range) => vec![(*range, range.to_string())],
        _ => {
            let nodes = topology.nodes.values().filter(|node| means(alias, node, policy, topology));
            let addresses = nodes.flat_map(|node| &node.addresses);
            addresses.map(|address| (AddressRange::single(*address), address.to_string())).collect()
        }
    }
}

fn means(alias: &Alias, node: &Node, policy: &Policy, topology: &Topology) -> bool {
    let user = topology.user_of(node);
    match alias {
        Alias::User(login) => user.is_some_and(|user| user.login == *login),
        Alias::Group(name) => user.is_some_and(|user| {
            policy.group(name).unwrap_or_default().iter().any(|member| member.matches(&user.login))
        }),
        Alias::Tag(tag) => node.tags().any(|own| own == tag),
        Alias::Auto(Autogroup::Member) => user.is_some(),
        _ => false,
    }
}

fn reduce(resolved: &[Resolved<'_>], node: &Node, policy: &Policy, topology: &Topology) -> Vec<FilterRule> {
    let own: Vec<AddressRange> = node.addresses.iter().map(|address| AddressRange::single(*address)).collect();
    let routes: Vec<AddressRange> = node.subnets().map(AddressRange::prefix).collect();
    let mut filter: Vec<FilterRule> = Vec::new();
    for Resolved { rule, sources, destinations } in resolved {
        let Effect::Ports(ports) = &rule.effect else { continue };
        let (sources, texts) = if rule.is_own_devices() {
            let mine = topology.nodes.values().filter(|other| node.user().is_some() && other.user() == node.user());
            let mine = mine.filter(|other| rule.sources.iter().any(|alias| means(alias, other, policy, topology)));
            let sources: Vec<String> = mine.flat_map(|other| &other.addresses).map(ToString::to_string).collect();
            let texts = node.addresses.iter().map(ToString::to_string).filter(|_| node.user().is_some());
            (sources, texts.collect::<Vec<String>>())
        } else {
            let tagged = rule.via.is_empty() || node.tags().any(|tag| rule.via.contains(tag));
            let answers = |range: &AddressRange| {
                routes.iter().any(|route| route.overlaps(range))
                    || (rule.via.is_empty() && own.iter().any(|own| own.overlaps(range)))
            };
            let kept = destinations.iter().filter(|(range, _)| tagged && answers(range));
            let texts: Vec<String> = kept.map(|(_, text)| text.clone()).collect();
            (if texts.is_empty() { Vec::new() } else { sources.clone() }, texts)
        };
        if texts.is_empty() {
            continue;
        }
        for ports in ports {
            let destinations = texts.iter().flat_map(|text| {
                ports.ranges.iter().map(|range| DstPort { ip: text.clone(), bits: None, ports: *range })
            });
            let protocols = ports.protocol.iter().map(|protocol| i64::from(protocol.0)).collect();
            let new = FilterRule {
                sources: sources.clone().into(),
                destinations: destinations.collect(),
                protocols,
                ..FilterRule::default()
            };
            match filter.iter_mut().find(|known| known.sources == new.sources && known.protocols == new.protocols) {
                Some(known) => known.destinations.extend(new.destinations),
                None => filter.push(new),
            }
        }
    }
    filter
}
