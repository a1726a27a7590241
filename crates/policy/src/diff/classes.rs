use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::addresses::{Piece, Pieces};
use super::found::Label;
use crate::compiled::{Mark, NodeClasses, Side};
use crate::verify::device;
use crate::{Alias, Autogroup, Compiled, NodeId, Owner, Party, Tag, UserId, internet};

/// How many rules the sides of all kinds have in all.
const MOST_RULES: u64 = 40_000_000;

/// Parties that no rule of either policy tells apart, and that are called alike.
pub(super) struct Class {
    pub(super) label: Label,
    pub(super) party: Party,
    /// Another of them, if it is known.
    pub(super) twin: Option<Party>,
    /// The login of the user that they belong to.
    pub(super) login: Option<Arc<str>>,
}

/// Classes that no rule tells apart but for whose they are.
pub(super) struct Kind {
    /// The rules of either policy.
    pub(super) sides: [Rc<Sides>; 2],
    pub(super) classes: Vec<usize>,
    /// Those that are users', by user.
    pub(super) by_login: HashMap<Arc<str>, Vec<usize>>,
}

/// A party as either side of a policy's rules.
pub(super) struct Sides {
    pub(super) source: Side,
    pub(super) destination: Side,
}

/// The classes of a tailnet under two policies.
pub(super) struct Classes<'c> {
    pub(super) all: Vec<Class>,
    pub(super) kinds: Vec<Kind>,
    /// Aliases of whose addresses not all are there.
    pub(super) coarse: HashSet<&'c Alias>,
    /// Whether not all parties are there: they have too many rules.
    pub(super) is_partial: bool,
}

/// A user's number, or tags.
type OwnerKey = (Option<UserId>, BTreeSet<Tag>);

/// An owner, and the classes of a node by both policies.
type NodeKey = (OwnerKey, [Option<u32>; 2]);

/// The marks of a party by both policies.
type Marks = [Mark; 2];

impl<'c> Classes<'c> {
    /// One party of each kind and owner that rules of either policy can tell apart: nodes, users and tags that have no node
    /// yet, and the addresses that some of the rules name.
    pub(super) fn new(policies: [&'c Compiled; 2], rules: &[RoaringBitmap; 2]) -> Self {
        let nodes = policies.map(NodeClasses::new);
        let mut parties = of_nodes(policies, &nodes);
        let known: BTreeSet<Label> = parties.iter().map(|(class, _)| class.label.clone()).collect();
        parties.extend(without_node(policies).into_iter().filter(|(class, _)| !known.contains(&class.label)));
        let pieces = Pieces::of(policies, rules);
        let coarse = pieces.coarse.clone();
        parties.extend(of_addresses(pieces, policies, &nodes));
        let mut classes = Self { all: Vec::new(), kinds: Vec::new(), coarse, is_partial: false };
        classes.enter(parties, policies);
        classes
    }

    /// Whether two classes are the devices of one user.
    pub(super) fn are_one_users(&self, one: usize, other: usize) -> bool {
        let (one, other) = (&self.all[one].login, &self.all[other].login);
        one.is_some() && one == other
    }

    fn enter(&mut self, parties: Vec<(Class, Marks)>, policies: [&Compiled; 2]) {
        let mut numbers: HashMap<Marks, usize> = HashMap::new();
        let mut sides = [Interned::default(), Interned::default()];
        let mut left = MOST_RULES;
        for (class, marks) in parties {
            let kind = match numbers.get(&marks) {
                Some(kind) => *kind,
                None => {
                    let [old, new] = &marks;
                    let both =
                        [sides[0].of(old, &class.party, policies[0]), sides[1].of(new, &class.party, policies[1])];
                    let size = both.iter().map(|sides| 1 + sides.source.size() + sides.destination.size()).sum();
                    let Some(rest) = left.checked_sub(size) else {
                        self.is_partial = true;
                        return;
                    };
                    left = rest;
                    self.kinds.push(Kind { sides: both, classes: Vec::new(), by_login: HashMap::new() });
                    numbers.insert(marks, self.kinds.len() - 1);
                    self.kinds.len() - 1
                }
            };
            let kind = &mut self.kinds[kind];
            kind.classes.push(self.all.len());
            if let Some(login) = &class.login {
                kind.by_login.entry(login.clone()).or_default().push(self.all.len());
            }
            self.all.push(class);
        }
    }
}

/// The sides that parties have by their marks.
#[derive(Default)]
struct Interned(HashMap<Mark, Rc<Sides>>);

impl Interned {
    fn of(&mut self, mark: &Mark, party: &Party, compiled: &Compiled) -> Rc<Sides> {
        if let Some(known) = self.0.get(mark) {
            return known.clone();
        }
        let source = compiled.source_side(party).shared();
        let destination = compiled.destination_side(party).shared();
        let sides = Rc::new(Sides { source, destination });
        self.0.insert(mark.clone(), sides.clone());
        sides
    }
}

/// Nodes by owner and by what rules tell them apart by.
fn of_nodes(policies: [&Compiled; 2], classes: &[NodeClasses; 2]) -> Vec<(Class, Marks)> {
    let mut found: BTreeMap<NodeKey, (NodeId, Option<NodeId>)> = BTreeMap::new();
    for (id, node) in &policies[0].topology().nodes {
        let numbers = classes.each_ref().map(|classes| classes.of(*id));
        let entry = found.entry((owner_key(&node.owner), numbers));
        entry.and_modify(|(_, twin)| *twin = twin.or(Some(*id))).or_insert((*id, None));
    }
    let mut parties = Vec::new();
    for ((owner, _), (id, twin)) in found {
        let class = Class {
            label: owner_label(&owner, policies[0]),
            party: Party::Node(id),
            twin: twin.map(Party::Node),
            login: login_of(&owner, policies[0]),
        };
        let marks = [0, 1].map(|at: usize| policies[at].mark_of_node(id, &classes[at]));
        parties.push((class, marks));
    }
    parties.sort_by(|one, other| one.0.label.cmp(&other.0.label));
    parties
}

/// Users and tags as devices of theirs would be.
fn without_node(policies: [&Compiled; 2]) -> Vec<(Class, Marks)> {
    let users = policies[0].topology().users.keys().map(|id| Owner::User(*id));
    let tags: BTreeSet<&Tag> = policies.iter().flat_map(|compiled| compiled.policy().tags()).collect();
    let tags = tags.into_iter().map(|tag| Owner::Tags([tag.clone()].into()));
    let class = |owner: Owner| {
        let key = owner_key(&owner);
        let node = device(owner);
        let marks = policies.map(|compiled| compiled.mark_of_device(&node));
        let user = node.user().and_then(|id| policies[0].topology().users.get(&id)).cloned();
        let (label, login) = (owner_label(&key, policies[0]), login_of(&key, policies[0]));
        let party = Party::Device(node, user);
        (Class { label, twin: Some(party.clone()), party, login }, marks)
    };
    users.chain(tags).map(class).collect()
}

/// Addresses that are no node's. What of the Internet no rule tells apart, where rules are about all of it, is one.
fn of_addresses(pieces: Pieces<'_>, policies: [&Compiled; 2], classes: &[NodeClasses; 2]) -> Vec<(Class, Marks)> {
    let marks_of = |piece: &Piece| [0, 1].map(|at: usize| policies[at].mark_of_address(piece.sample, &classes[at]));
    let marked = pieces.all.into_iter().map(|piece| {
        let marks = marks_of(&piece);
        (piece, marks)
    });
    let marked: Vec<(Piece, Marks)> = marked.collect();
    let common = if pieces.internet { most_of_the_internet(&marked) } else { HashSet::new() };
    let mut parties = Vec::new();
    let mut seen = HashSet::new();
    let services = policies[0].topology().services.iter();
    let services: HashMap<IpAddr, &Arc<str>> =
        services.flat_map(|(name, service)| service.addresses.iter().map(move |address| (*address, name))).collect();
    for (piece, marks) in marked {
        let is_common = common.contains(&marks) && internet::contains(&piece.range);
        if is_common && !seen.insert(marks.clone()) {
            continue;
        }
        let service = services.get(&piece.sample).filter(|_| piece.range.is_single());
        let label = match is_common {
            true => Label::Text(Alias::Auto(Autogroup::Internet).to_string().into()),
            false => Label::Range(piece.range, service.map(|name| (&***name).into())),
        };
        parties.push((Class { label, party: Party::Address(piece.sample), twin: None, login: None }, marks));
    }
    parties
}

/// For each family the marks that most addresses of the Internet have.
fn most_of_the_internet(marked: &[(Piece, Marks)]) -> HashSet<Marks> {
    let mut sizes: HashMap<&Marks, (bool, u128, Reverse<usize>)> = HashMap::new();
    for (at, (piece, marks)) in marked.iter().enumerate().filter(|(_, (piece, _))| internet::contains(&piece.range)) {
        let (_, size, _) = sizes.entry(marks).or_insert((piece.sample.is_ipv4(), 0, Reverse(at)));
        *size = size.saturating_add(bits(piece.range.last()) - bits(piece.range.first()));
    }
    let of_family = |is_ipv4: bool| sizes.iter().filter(move |(_, (family, ..))| *family == is_ipv4);
    let largest = |is_ipv4: bool| of_family(is_ipv4).max_by_key(|(_, size)| **size).map(|(marks, _)| (*marks).clone());
    [true, false].into_iter().filter_map(largest).collect()
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn owner_key(owner: &Owner) -> OwnerKey {
    match owner {
        Owner::User(id) => (Some(*id), BTreeSet::new()),
        Owner::Tags(tags) => (None, tags.clone()),
    }
}

fn owner_label((user, tags): &OwnerKey, compiled: &Compiled) -> Label {
    let text = match user {
        Some(id) => {
            compiled.topology().users.get(id).map_or_else(|| format!("user {}", id.0), |user| user.login.to_string())
        }
        None => tags.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
    };
    Label::Text(text.into())
}

fn login_of((user, _): &OwnerKey, compiled: &Compiled) -> Option<Arc<str>> {
    Some(compiled.topology().users.get(&(*user)?)?.login.clone())
}
