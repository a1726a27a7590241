//! What a change of policy opens and closes, by user, tag and port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use filter::{AddressRange, PortRange, Protocol};
use roaring::RoaringBitmap;

use crate::policy::{Effect, Rule};
use crate::{Alias, Autogroup, Compiled, Node, Owner, Party, UserId};

/// How many pairs of parties are compared; beyond, a difference says that it is cut short.
const MOST_PAIRS: usize = 50_000;

/// What one policy allows and another doesn't.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// What the new policy allows and the old one doesn't.
    pub opened: Vec<Reach>,
    /// What the old policy allows and the new one doesn't.
    pub closed: Vec<Reach>,
    /// More differs than was compared.
    pub cut_short: bool,
}

/// Something that a source may do with a destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reach {
    /// A user's login, tags, or addresses.
    pub source: String,
    /// A user's login, tags, addresses or `autogroup:internet`.
    pub destination: String,
    /// Ports (`tcp:22,80-90`, `*`), or a capability.
    pub what: String,
}

/// What a new policy takes away from a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutOff {
    /// The user's devices don't reach each other any more.
    pub own_devices: bool,
    /// The user's devices reach nothing at all any more.
    pub everything: bool,
    /// What they don't reach any more.
    pub lost: Vec<Reach>,
}

/// Parties that no rule of either policy tells apart.
struct Class {
    label: String,
    party: Party,
}

/// Ports by protocol and capabilities by name, as far as a pair of parties has them.
#[derive(Default)]
struct Allowed {
    ports: BTreeMap<Protocol, Vec<PortRange>>,
    capabilities: BTreeSet<String>,
}

impl fmt::Display for Reach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} -> {}: {}", self.source, self.destination, self.what)
    }
}

impl Difference {
    /// Compares two policies that are compiled for the same tailnet. Only what rules that differ are about is looked at.
    pub fn between(old: &Compiled, new: &Compiled) -> Self {
        let classes = classes(old, new);
        let (before, after) = (Matches::new(old, &classes), Matches::new(new, &classes));
        let mut pairs = BTreeSet::new();
        let mut difference = Self::default();
        for (matches, changed) in [(&before, changed_rules(old, new)), (&after, changed_rules(new, old))] {
            for rule in changed {
                let product = matches.pairs_of(rule);
                if pairs.len() + product.len() > MOST_PAIRS {
                    difference.cut_short = true;
                    break;
                }
                pairs.extend(product);
            }
        }
        let mut opened = BTreeSet::new();
        let mut closed = BTreeSet::new();
        for (source, destination) in pairs {
            let (was, is) = (before.allowed(source, destination), after.allowed(source, destination));
            let reach = |what: String| Reach {
                source: classes[source].label.clone(),
                destination: classes[destination].label.clone(),
                what,
            };
            opened.extend(is.without(&was).into_iter().map(reach));
            closed.extend(was.without(&is).into_iter().map(reach));
        }
        difference.opened = opened.into_iter().collect();
        difference.closed = closed.into_iter().collect();
        difference
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.opened.is_empty() && self.closed.is_empty() && !self.cut_short
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, reaches) in [("opens", &self.opened), ("closes", &self.closed)] {
            if !reaches.is_empty() {
                writeln!(formatter, "{title}:")?;
            }
            for reach in reaches {
                writeln!(formatter, "  {reach}")?;
            }
        }
        match (self.is_empty(), self.cut_short) {
            (true, _) => writeln!(formatter, "opens and closes nothing"),
            (_, true) => writeln!(formatter, "and more: not everything was compared"),
            _ => Ok(()),
        }
    }
}

impl Compiled {
    /// What `next`, compiled for the same tailnet, takes away from a user; `None` if they keep all that they reach.
    pub fn would_cut_off(&self, next: &Self, user: UserId) -> Option<CutOff> {
        let classes = classes(self, next);
        let login = self.topology().users.get(&user)?.login.to_string();
        let (before, after) = (Matches::new(self, &classes), Matches::new(next, &classes));
        let mut lost = BTreeSet::new();
        let (mut reached, mut reaches, mut own_before, mut own_after) = (false, false, false, false);
        for source in (0..classes.len()).filter(|at| classes[*at].label == login) {
            for (destination, class) in classes.iter().enumerate() {
                let (was, is) = (before.allowed(source, destination), after.allowed(source, destination));
                reached |= !was.ports.is_empty();
                reaches |= !is.ports.is_empty();
                if class.label == login {
                    own_before |= !was.ports.is_empty();
                    own_after |= !is.ports.is_empty();
                }
                let reach = |what| Reach { source: login.clone(), destination: class.label.clone(), what };
                lost.extend(was.without(&is).into_iter().map(reach));
            }
        }
        let cut = CutOff {
            own_devices: own_before && !own_after,
            everything: reached && !reaches,
            lost: lost.into_iter().collect(),
        };
        (!cut.lost.is_empty()).then_some(cut)
    }
}

/// Which rules are about which classes.
struct Matches<'c> {
    compiled: &'c Compiled,
    /// By class: the rules of which it is a source, and a destination.
    sources: Vec<RoaringBitmap>,
    destinations: Vec<RoaringBitmap>,
    /// By class: the user it belongs to.
    logins: Vec<Option<String>>,
}

impl<'c> Matches<'c> {
    fn new(compiled: &'c Compiled, classes: &[Class]) -> Self {
        let logins = classes.iter().map(|class| compiled.login_of(&class.party)).collect();
        let sources = classes.iter().map(|class| compiled.rules_from(&class.party)).collect();
        let destinations = classes.iter().map(|class| compiled.rules_to(&class.party)).collect();
        Self { compiled, sources, destinations, logins }
    }

    fn pairs_of(&self, rule: u32) -> Vec<(usize, usize)> {
        let of = |all: &[RoaringBitmap]| -> Vec<usize> {
            all.iter().enumerate().filter(|(_, rules)| rules.contains(rule)).map(|(at, _)| at).collect()
        };
        let (sources, destinations) = (of(&self.sources), of(&self.destinations));
        let product =
            sources.iter().flat_map(|source| destinations.iter().map(move |destination| (*source, *destination)));
        product.filter(|(source, destination)| self.fits(rule, *source, *destination)).take(MOST_PAIRS + 1).collect()
    }

    /// Whether a rule whose two sides match also matches the pair.
    fn fits(&self, rule: u32, source: usize, destination: usize) -> bool {
        let own = self.compiled.policy().rules()[rule as usize].is_own_devices();
        !own || (self.logins[source].is_some() && self.logins[source] == self.logins[destination])
    }

    fn allowed(&self, source: usize, destination: usize) -> Allowed {
        let mut allowed = Allowed::default();
        for rule in &self.sources[source] & &self.destinations[destination] {
            if !self.fits(rule, source, destination) {
                continue;
            }
            match &self.compiled.policy().rules()[rule as usize].effect {
                Effect::Ports(all) => {
                    for ports in all {
                        let named = ports.protocol.map_or(vec![Protocol::TCP, Protocol::UDP], |named| vec![named]);
                        for protocol in named {
                            allowed.ports.entry(protocol).or_default().extend(&ports.ranges);
                        }
                    }
                }
                Effect::Capabilities(all) => {
                    for (name, values) in &all.0 {
                        match values.as_deref().unwrap_or_default() {
                            [] => allowed.capabilities.extend([name.clone()]),
                            values => {
                                let words = values.iter().map(|value| format!("{name} {}", value.as_str()));
                                allowed.capabilities.extend(words);
                            }
                        }
                    }
                }
            }
        }
        allowed.ports.values_mut().for_each(join);
        allowed
    }
}

impl Allowed {
    /// What of this isn't in the other, in words.
    fn without(&self, other: &Self) -> Vec<String> {
        let mut words = Vec::new();
        let mut left: BTreeMap<Vec<PortRange>, Vec<Protocol>> = BTreeMap::new();
        for (protocol, ranges) in &self.ports {
            let more = subtract(ranges, other.ports.get(protocol).map(Vec::as_slice).unwrap_or_default());
            if !more.is_empty() {
                left.entry(more).or_default().push(*protocol);
            }
        }
        for (ranges, protocols) in left {
            let ports: Vec<String> = ranges.iter().map(PortRange::to_string).collect();
            let ports = ports.join(",");
            match protocols.as_slice() {
                [Protocol::TCP, Protocol::UDP] => words.push(ports),
                _ => words.extend(protocols.iter().map(|protocol| format!("{protocol}:{ports}"))),
            }
        }
        words.extend(self.capabilities.difference(&other.capabilities).cloned());
        words
    }
}

/// Sorts ranges and joins those that touch.
fn join(ranges: &mut Vec<PortRange>) {
    ranges.sort();
    let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges.iter() {
        match joined.last_mut() {
            Some(last) if u32::from(range.first) <= u32::from(last.last) + 1 => last.last = last.last.max(range.last),
            _ => joined.push(*range),
        }
    }
    *ranges = joined;
}

fn subtract(from: &[PortRange], holes: &[PortRange]) -> Vec<PortRange> {
    let mut left = from.to_vec();
    for hole in holes {
        left = left
            .into_iter()
            .flat_map(|range| {
                if hole.last < range.first || hole.first > range.last {
                    return vec![range];
                }
                let below = (range.first < hole.first).then(|| PortRange { last: hole.first - 1, ..range });
                let above = (range.last > hole.last).then(|| PortRange { first: hole.last + 1, ..range });
                below.into_iter().chain(above).collect()
            })
            .collect();
    }
    left
}

/// The rules of one policy that the other doesn't have in the same words and with the same meaning.
fn changed_rules(of: &Compiled, other: &Compiled) -> Vec<u32> {
    let known: BTreeSet<String> = other.policy().rules().iter().map(|rule| meaning(rule, other)).collect();
    let rules = of.policy().rules().iter().zip(0_u32..);
    rules.filter(|(rule, _)| !known.contains(&meaning(rule, of))).map(|(_, at)| at).collect()
}

/// A rule with the names in it resolved, as far as the policy defines them.
fn meaning(rule: &Rule, compiled: &Compiled) -> String {
    let policy = compiled.policy();
    let resolve = |aliases: &[Alias]| -> Vec<String> {
        let one = |alias: &Alias| match alias {
            Alias::Group(name) => format!("{alias} {:?}", policy.group(name)),
            Alias::Host(name) => format!("{:?}", policy.host(name)),
            Alias::IpSet(name) => format!("{:?}", policy.ip_set(name)),
            _ => alias.to_string(),
        };
        aliases.iter().map(one).collect()
    };
    let postures: Vec<_> = rule.postures.iter().map(|name| policy.posture(name)).collect();
    let (sources, destinations) = (resolve(&rule.sources), resolve(&rule.destinations));
    format!("{sources:?} {postures:?} {destinations:?} {:?} {:?}", rule.via, rule.effect)
}

/// One party of each kind that rules of either policy can tell apart: nodes by owner and by the aliases that name them,
/// users and tags that have no node yet, and addresses that rules name.
fn classes(old: &Compiled, new: &Compiled) -> Vec<Class> {
    let mut found: BTreeMap<String, Party> = BTreeMap::new();
    let (old_ranged, new_ranged) = (ranged(old), ranged(new));
    for (id, node) in &old.topology().nodes {
        let label = owner_label(&node.owner, old);
        let (was, is) = (signature(node, old, &old_ranged), signature(node, new, &new_ranged));
        let signature = format!("{label}\0{was:?}\0{is:?}\0{:?}", node.posture);
        found.entry(signature).or_insert(Party::Node(*id));
    }
    let mut classes: Vec<Class> = found
        .into_iter()
        .map(|(signature, party)| Class { label: signature.split('\0').next().unwrap_or_default().to_owned(), party })
        .collect();
    let known: BTreeSet<String> = classes.iter().map(|class| class.label.clone()).collect();
    for (label, party) in nodeless(old, new) {
        if !known.contains(&label) {
            classes.push(Class { label, party });
        }
    }
    classes
}

/// Parties that no node stands for.
fn nodeless(old: &Compiled, new: &Compiled) -> BTreeMap<String, Party> {
    let mut found = BTreeMap::new();
    let device = |owner| Node {
        name: "".into(),
        addresses: Vec::new(),
        owner,
        advertised: BTreeSet::new(),
        approved: BTreeSet::new(),
        posture: BTreeMap::new(),
    };
    for (id, user) in &old.topology().users {
        found.insert(user.login.to_string(), Party::Device(device(Owner::User(*id)), Some(user.clone())));
    }
    for compiled in [old, new] {
        for tag in compiled.policy().tags() {
            found.insert(tag.to_string(), Party::Device(device(Owner::Tags([tag.clone()].into())), None));
        }
        for rule in compiled.policy().rules() {
            for alias in rule.sources.iter().chain(&rule.destinations) {
                for range in alias_ranges(alias, compiled) {
                    if compiled.topology().node_at(range.first()).is_none() {
                        found.insert(range.to_string(), Party::Address(range.first()));
                    }
                }
                if *alias == Alias::Auto(Autogroup::Internet) {
                    found.insert(alias.to_string(), Party::Address([1, 1, 1, 1].into()));
                }
            }
        }
    }
    found
}

fn owner_label(owner: &Owner, compiled: &Compiled) -> String {
    match owner {
        Owner::User(id) => {
            compiled.topology().users.get(id).map_or_else(|| format!("user {}", id.0), |user| user.login.to_string())
        }
        Owner::Tags(tags) => tags.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
    }
}

/// The aliases of addresses that a policy's rules use.
fn ranged(compiled: &Compiled) -> BTreeSet<&Alias> {
    let aliases = compiled.policy().rules().iter().flat_map(|rule| rule.sources.iter().chain(&rule.destinations));
    aliases.filter(|alias| !alias_ranges(alias, compiled).is_empty()).collect()
}

/// Those of them that have an address of a node: what rules can tell it by, besides its owner.
fn signature(node: &Node, compiled: &Compiled, ranged: &BTreeSet<&Alias>) -> Vec<String> {
    ranged.iter().filter(|alias| compiled.is_alias_of_node(alias, node)).map(ToString::to_string).collect()
}

fn alias_ranges(alias: &Alias, compiled: &Compiled) -> Vec<AddressRange> {
    match alias {
        Alias::Literal(range) => vec![*range],
        Alias::Host(name) => compiled.policy().host(name).into_iter().collect(),
        Alias::IpSet(name) => compiled.policy().ip_set(name).unwrap_or_default().to_vec(),
        _ => Vec::new(),
    }
}
