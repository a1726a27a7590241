use std::collections::{BTreeMap, BTreeSet, HashSet};

use filter::AddressRange;
use roaring::RoaringBitmap;

use crate::compiled::{NodeClasses, Side};
use crate::{Alias, Autogroup, Compiled, Node, Owner, Party};

/// How many addresses and networks are looked at one by one; of an alias that has more than are left, one stands for all.
const MOST_ADDRESSES: usize = 2_000;

/// Parties that no rule of either policy tells apart.
pub(super) struct Class {
    pub(super) label: String,
    pub(super) party: Party,
    pub(super) old: Sides,
    pub(super) new: Sides,
}

/// A party as either side of a policy's rules.
pub(super) struct Sides {
    pub(super) source: Side,
    pub(super) destination: Side,
}

impl Sides {
    fn of(party: &Party, compiled: &Compiled) -> Self {
        Self { source: compiled.source_side(party), destination: compiled.destination_side(party) }
    }
}

/// The classes of a tailnet under two policies.
pub(super) struct Classes<'c> {
    pub(super) all: Vec<Class>,
    /// Aliases of whose addresses not all are there.
    pub(super) coarse: HashSet<&'c Alias>,
}

impl<'c> Classes<'c> {
    /// One party of each kind that rules of either policy can tell apart: nodes by owner and by the aliases that name them,
    /// users and tags that have no node yet, and the addresses that some of the rules name.
    pub(super) fn new(policies: [(&'c Compiled, &RoaringBitmap); 2]) -> Self {
        let [(old, _), (new, _)] = policies;
        let numbers = [NodeClasses::new(old), NodeClasses::new(new)];
        let mut found = BTreeMap::new();
        for (id, node) in &old.topology().nodes {
            let [was, is] = numbers.each_ref().map(|numbers| numbers.of(*id));
            found.entry((owner_of(&node.owner), was, is)).or_insert(Party::Node(*id));
        }
        let found = found.into_iter();
        let mut parties: Vec<(String, Party)> =
            found.map(|((owner, ..), party)| (owner_label(&owner, old), party)).collect();
        parties.sort_by(|one, other| one.0.cmp(&other.0));
        let known: BTreeSet<String> = parties.iter().map(|(label, _)| label.clone()).collect();
        let mut coarse = HashSet::new();
        let more = nodeless(policies, &mut coarse);
        parties.extend(more.into_iter().filter(|(label, _)| !known.contains(label)));
        let class = |(label, party): (String, Party)| {
            let (old, new) = (Sides::of(&party, old), Sides::of(&party, new));
            Class { label, party, old, new }
        };
        Self { all: parties.into_iter().map(class).collect(), coarse }
    }
}

/// Parties that no node stands for.
fn nodeless<'c>(
    policies: [(&'c Compiled, &RoaringBitmap); 2],
    coarse: &mut HashSet<&'c Alias>,
) -> BTreeMap<String, Party> {
    let mut found = BTreeMap::new();
    for (id, user) in &policies[0].0.topology().users {
        found.insert(user.login.to_string(), Party::Device(device(Owner::User(*id)), Some(user.clone())));
    }
    let mut left = MOST_ADDRESSES;
    for (compiled, rules) in policies {
        for tag in compiled.policy().tags() {
            found.insert(tag.to_string(), Party::Device(device(Owner::Tags([tag.clone()].into())), None));
        }
        let mut seen = HashSet::new();
        let rules = rules.iter().map(|at| &compiled.policy().rules()[at as usize]);
        let mut last: Option<&std::sync::Arc<[Alias]>> = None;
        for rule in rules {
            let repeated = last.is_some_and(|last| std::sync::Arc::ptr_eq(last, &rule.sources));
            last = Some(&rule.sources);
            let sources = if repeated { &[] } else { &*rule.sources };
            for alias in sources.iter().chain(&rule.destinations).filter(|alias| seen.insert(*alias)) {
                if *alias == Alias::Auto(Autogroup::Internet) {
                    found.insert(alias.to_string(), Party::Address([1, 1, 1, 1].into()));
                }
                let mut ranges = alias_ranges(alias, compiled);
                if ranges.len() > left {
                    coarse.insert(alias);
                    ranges.truncate(1);
                }
                left -= ranges.len().min(left);
                for range in ranges {
                    if compiled.node_by_address(range.first()).is_none() {
                        found.insert(range.to_string(), Party::Address(range.first()));
                    }
                }
            }
        }
    }
    found
}

fn device(owner: Owner) -> Node {
    Node {
        name: "".into(),
        addresses: Vec::new(),
        owner,
        advertised: BTreeSet::new(),
        approved: BTreeSet::new(),
        posture: BTreeMap::new(),
    }
}

/// An owner as a key: a user's number, or tags.
fn owner_of(owner: &Owner) -> (Option<crate::UserId>, BTreeSet<crate::Tag>) {
    match owner {
        Owner::User(id) => (Some(*id), BTreeSet::new()),
        Owner::Tags(tags) => (None, tags.clone()),
    }
}

fn owner_label((user, tags): &(Option<crate::UserId>, BTreeSet<crate::Tag>), compiled: &Compiled) -> String {
    match user {
        Some(id) => {
            compiled.topology().users.get(id).map_or_else(|| format!("user {}", id.0), |user| user.login.to_string())
        }
        None => tags.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
    }
}

fn alias_ranges(alias: &Alias, compiled: &Compiled) -> Vec<AddressRange> {
    match alias {
        Alias::Literal(range) => vec![*range],
        Alias::Host(name) => compiled.policy().host(name).into_iter().collect(),
        Alias::IpSet(name) => compiled.policy().ip_set(name).unwrap_or_default().to_vec(),
        _ => Vec::new(),
    }
}
