use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use filter::AddressRange;
use roaring::RoaringBitmap;

use crate::{Alias, Autogroup, GroupMember, Node, Owner, Policy, Topology, User, internet};

/// An alias's number.
pub(super) type AliasId = u32;

/// Every alias that a policy's rules use, each once, with the slots of the nodes it means.
#[derive(Clone, Debug, Default)]
pub(super) struct AliasTable {
    pub(super) entries: Vec<AliasEntry>,
    ids: BTreeMap<Alias, AliasId>,
    by_login: HashMap<Arc<str>, Vec<AliasId>>,
    by_domain: HashMap<Arc<str>, Vec<AliasId>>,
    by_address: HashMap<IpAddr, Vec<AliasId>>,
    /// Ranges of more than one address.
    wide: RangeIndex,
    /// Services, which are few.
    services: Vec<AliasId>,
    /// All ranges, for those who serve routes.
    ranged: Vec<AliasId>,
}

/// An alias and what it means in the tailnet.
#[derive(Clone, Debug)]
pub(super) struct AliasEntry {
    pub(super) meaning: Meaning,
    /// Nodes that it names, or one of whose own addresses lies in its ranges.
    pub(super) named: RoaringBitmap,
    /// Nodes that serve a subnet route which overlaps its ranges.
    pub(super) routed: RoaringBitmap,
    /// Sets that have it as a member.
    pub(super) source_sets: Vec<u32>,
    pub(super) destination_sets: Vec<u32>,
}

/// What kind of thing an alias means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `*`
    Everyone,
    /// `autogroup:danger-all`
    Everything,
    /// `autogroup:internet`
    Internet,
    /// Nodes by who they belong to.
    Nodes,
    /// Addresses, with their texts. `public` holds if all of one of them lies on the Internet.
    Ranges { ranges: Vec<(AddressRange, Arc<str>)>, public: bool },
    /// A service's addresses; `named` are its hosts.
    Service(Vec<AddressRange>),
}

/// The aliases that mean a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Membership {
    pub(super) named: Vec<AliasId>,
    pub(super) routed: Vec<AliasId>,
}

impl AliasTable {
    /// The number of an alias; one that is new is entered.
    pub(super) fn intern(&mut self, alias: &Alias, policy: &Policy, topology: &Topology) -> AliasId {
        if let Some(id) = self.ids.get(alias) {
            return *id;
        }
        let id = self.entries.len() as AliasId;
        self.ids.insert(alias.clone(), id);
        let meaning = meaning(alias, policy, topology);
        self.enter(id, alias, &meaning, policy);
        self.entries.push(AliasEntry {
            meaning,
            named: RoaringBitmap::new(),
            routed: RoaringBitmap::new(),
            source_sets: Vec::new(),
            destination_sets: Vec::new(),
        });
        id
    }

    pub(super) fn id(&self, alias: &Alias) -> Option<AliasId> {
        self.ids.get(alias).copied()
    }

    pub(super) fn entry(&self, id: AliasId) -> &AliasEntry {
        &self.entries[id as usize]
    }

    /// The aliases that mean a node, ascending.
    pub(super) fn membership(&self, node: &Node, topology: &Topology) -> Membership {
        let mut named: Vec<AliasId> = Vec::new();
        let mut add = |alias: Alias| named.extend(self.id(&alias));
        add(Alias::Anyone);
        add(Alias::Auto(Autogroup::DangerAll));
        match (&node.owner, topology.user_of(node)) {
            (Owner::Tags(_), _) => {
                add(Alias::Auto(Autogroup::Tagged));
                node.tags().for_each(|tag| add(Alias::Tag(tag.clone())));
            }
            (Owner::User(_), Some(user)) => self.add_user(user, &mut named),
            // A node whose user isn't known is nobody's.
            (Owner::User(_), None) => {}
        }
        for address in &node.addresses {
            self.add_ranged(*address, &mut named);
        }
        named.sort_unstable();
        named.dedup();
        Membership { named, routed: self.routed(node) }
    }

    /// The aliases of those to whom something belongs, whatever addresses it has: `*` and `autogroup:danger-all` too.
    pub(super) fn of_owner(&self, owner: &Owner, user: Option<&User>) -> Vec<AliasId> {
        let mut ids: Vec<AliasId> = Vec::new();
        let mut add = |alias: Alias| ids.extend(self.id(&alias));
        add(Alias::Anyone);
        add(Alias::Auto(Autogroup::DangerAll));
        match (user, owner) {
            (Some(user), _) => self.add_user(user, &mut ids),
            (None, Owner::Tags(tags)) => {
                add(Alias::Auto(Autogroup::Tagged));
                tags.iter().for_each(|tag| add(Alias::Tag(tag.clone())));
            }
            (None, Owner::User(_)) => {}
        }
        ids
    }

    /// The aliases that have an address among their ranges.
    pub(super) fn add_ranged(&self, address: IpAddr, ids: &mut Vec<AliasId>) {
        ids.extend(self.by_address.get(&address).into_iter().flatten());
        self.wide.add(address, ids);
    }

    /// The services that have an address.
    pub(super) fn add_services(&self, address: IpAddr, ids: &mut Vec<AliasId>) {
        let has = |id: &&AliasId| self.entry(**id).meaning.overlaps(&AddressRange::single(address));
        ids.extend(self.services.iter().filter(has));
    }

    /// Makes the index of ranges, once all aliases are entered.
    pub(super) fn seal(&mut self) {
        self.wide.seal();
    }

    fn add_user(&self, user: &User, named: &mut Vec<AliasId>) {
        let mut add = |group: Autogroup| named.extend(self.id(&Alias::Auto(group)));
        if user.shared {
            add(Autogroup::Shared);
        } else {
            add(Autogroup::Member);
            use crate::Role::*;
            [Owner, Admin, ItAdmin, NetworkAdmin, BillingAdmin, Auditor, Member]
                .into_iter()
                .filter(|role| user.role.includes(*role))
                .for_each(|role| add(Autogroup::Role(role)));
        }
        named.extend(self.by_login.get(&user.login).into_iter().flatten());
        let domain = user.login.rsplit_once('@').map(|(_, domain)| domain);
        named.extend(domain.and_then(|domain| self.by_domain.get(domain)).into_iter().flatten());
    }

    fn routed(&self, node: &Node) -> Vec<AliasId> {
        let subnets: Vec<AddressRange> = node.subnets().map(AddressRange::prefix).collect();
        if subnets.is_empty() {
            return Vec::new();
        }
        let mut routed: Vec<AliasId> = self.id(&Alias::Anyone).into_iter().collect();
        for id in &self.ranged {
            let ranges = self.entry(*id).meaning.ranges();
            if ranges.iter().any(|(range, _)| subnets.iter().any(|subnet| subnet.overlaps(range))) {
                routed.push(*id);
            }
        }
        routed.sort_unstable();
        routed
    }

    /// Enters an alias into the indices that lead from a node to it.
    fn enter(&mut self, id: AliasId, alias: &Alias, meaning: &Meaning, policy: &Policy) {
        match alias {
            Alias::User(login) => self.by_login.entry(login.clone()).or_default().push(id),
            Alias::UsersOf(domain) => self.by_domain.entry(domain.clone()).or_default().push(id),
            Alias::Group(name) => {
                for member in policy.group(name).unwrap_or_default() {
                    match member {
                        GroupMember::User(login) => self.by_login.entry(login.clone()).or_default().push(id),
                        GroupMember::UsersOf(domain) => self.by_domain.entry(domain.clone()).or_default().push(id),
                    }
                }
            }
            _ => {}
        }
        if let Meaning::Service(_) = meaning {
            self.services.push(id);
        }
        if let Meaning::Ranges { ranges, .. } = meaning {
            self.ranged.push(id);
            for (range, _) in ranges {
                match range.is_single() {
                    true => self.by_address.entry(range.first()).or_default().push(id),
                    false => self.wide.ranges.push((*range, id)),
                }
            }
        }
    }
}

/// Ranges by the addresses in them: a search tree over the ranges in the order of their beginnings, in which each knows
/// how far those below it reach.
#[derive(Clone, Debug, Default)]
struct RangeIndex {
    ranges: Vec<(AddressRange, AliasId)>,
    /// For the middle of each half of halves: the highest address in that part.
    reach: Vec<IpAddr>,
}

impl RangeIndex {
    fn seal(&mut self) {
        self.ranges.sort_unstable();
        self.reach = self.ranges.iter().map(|(range, _)| range.last()).collect();
        self.measure(0, self.ranges.len());
    }

    fn measure(&mut self, start: usize, end: usize) -> Option<IpAddr> {
        if start >= end {
            return None;
        }
        let middle = start + (end - start) / 2;
        let sides = self.measure(start, middle).max(self.measure(middle + 1, end));
        let all = Some(self.ranges[middle].0.last()).max(sides)?;
        self.reach[middle] = all;
        Some(all)
    }

    fn add(&self, address: IpAddr, ids: &mut Vec<AliasId>) {
        let mut parts = vec![(0, self.ranges.len())];
        while let Some((start, end)) = parts.pop() {
            if start >= end {
                continue;
            }
            let middle = start + (end - start) / 2;
            if self.reach[middle] < address {
                continue;
            }
            parts.push((start, middle));
            let (range, id) = self.ranges[middle];
            if range.first() <= address {
                ids.extend(range.contains(address).then_some(id));
                parts.push((middle + 1, end));
            }
        }
    }
}

impl Meaning {
    pub(super) fn ranges(&self) -> &[(AddressRange, Arc<str>)] {
        match self {
            Self::Ranges { ranges, .. } => ranges,
            _ => &[],
        }
    }

    /// Whether an exit node takes traffic for it.
    pub(super) fn is_public(&self) -> bool {
        matches!(self, Self::Internet | Self::Ranges { public: true, .. })
    }

    /// Whether some of its addresses overlap a range; `*` does.
    pub(super) fn overlaps(&self, other: &AddressRange) -> bool {
        match self {
            Self::Everyone | Self::Everything => true,
            Self::Internet => internet::ranges().iter().any(|range| range.overlaps(other)),
            Self::Nodes => false,
            Self::Ranges { ranges, .. } => ranges.iter().any(|(range, _)| range.overlaps(other)),
            Self::Service(addresses) => addresses.iter().any(|range| range.overlaps(other)),
        }
    }
}

fn meaning(alias: &Alias, policy: &Policy, topology: &Topology) -> Meaning {
    let ranges = match alias {
        Alias::Anyone => return Meaning::Everyone,
        Alias::Auto(Autogroup::DangerAll) => return Meaning::Everything,
        Alias::Auto(Autogroup::Internet) => return Meaning::Internet,
        Alias::Service(name) => {
            let service = topology.services.get(name);
            let addresses = service.map(|service| service.addresses.as_slice()).unwrap_or_default();
            return Meaning::Service(addresses.iter().map(|address| AddressRange::single(*address)).collect());
        }
        Alias::Literal(range) => vec![*range],
        Alias::Host(name) => policy.host(name).into_iter().collect(),
        Alias::IpSet(name) => policy.ip_set(name).unwrap_or_default().to_vec(),
        Alias::User(_) | Alias::UsersOf(_) | Alias::Group(_) | Alias::Tag(_) | Alias::Auto(_) => return Meaning::Nodes,
    };
    let public = ranges.iter().any(internet::contains);
    Meaning::Ranges { ranges: ranges.into_iter().map(|range| (range, range.to_string().into())).collect(), public }
}
