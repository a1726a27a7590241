//! The addresses that rules name, in pieces that no rule of either policy tells apart.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use filter::AddressRange;
use roaring::RoaringBitmap;

use crate::ranges::{Range, union};
use crate::{Alias, Autogroup, Compiled, internet};

/// How many addresses and networks that rules name are looked at, and how many pieces all rules cut them into. A rule that
/// has one for which there is no room is told as it stands.
const MOST_RANGES: usize = 2_000;
const MOST_PIECES: usize = 4_000;

/// Addresses without those of nodes.
pub(super) struct Piece {
    pub(super) range: AddressRange,
    /// One of them, to stand for all.
    pub(super) sample: IpAddr,
}

/// The addresses that some rules are about.
#[derive(Default)]
pub(super) struct Pieces<'c> {
    pub(super) all: Vec<Piece>,
    /// Whether the rules are about the Internet as such.
    pub(super) internet: bool,
    /// Aliases of whose addresses not all are there.
    pub(super) coarse: HashSet<&'c Alias>,
}

/// An alias with its addresses.
struct Named<'c> {
    alias: &'c Alias,
    ranges: Vec<AddressRange>,
    internet: bool,
}

impl<'c> Pieces<'c> {
    /// Those that some rules of each policy name.
    pub(super) fn of(policies: [&'c Compiled; 2], rules: &[RoaringBitmap; 2]) -> Self {
        let mut pieces = Self::default();
        let mut named = pieces.named(policies, rules);
        let within = union(named.iter().flat_map(|named| named.ranges.iter().copied()).collect());
        if within.is_empty() {
            return pieces;
        }
        let cuts = cuts(policies, &within);
        let mut left = MOST_PIECES;
        named.retain(|named| {
            let count: usize = named.ranges.iter().map(|range| 1 + cuts_of(range, &cuts).len()).sum();
            let fits = count <= left;
            match fits {
                true => left -= count,
                false => drop(pieces.coarse.insert(named.alias)),
            }
            fits
        });
        pieces.internet = named.iter().any(|named| named.internet);
        for range in union(named.into_iter().flat_map(|named| named.ranges).collect()) {
            pieces.cut(range, cuts_of(&range, &cuts), policies[0]);
        }
        pieces
    }

    /// The aliases of rules that have addresses, as long as there is room for these.
    fn named(&mut self, policies: [&'c Compiled; 2], rules: &[RoaringBitmap; 2]) -> Vec<Named<'c>> {
        let (mut all, mut left) = (Vec::new(), MOST_RANGES);
        for (compiled, rules) in policies.into_iter().zip(rules) {
            let mut seen = HashSet::new();
            let mut last: Option<&Arc<[Alias]>> = None;
            for rule in rules.iter().map(|at| &compiled.policy().rules()[at as usize]) {
                // The rules of one ACL share their sources, which may be as many as they are.
                let repeated = last.is_some_and(|last| Arc::ptr_eq(last, &rule.sources));
                last = Some(&rule.sources);
                let sources = if repeated { &[] } else { &*rule.sources };
                for (is_source, list) in [(true, sources), (false, &*rule.destinations)] {
                    for alias in list.iter().filter(|alias| seen.insert((is_source, *alias))) {
                        let fits = |named: &Named<'_>| named.ranges.len() <= left;
                        match named_by(alias, is_source, compiled, left) {
                            Some(named) if fits(&named) => {
                                left -= named.ranges.len();
                                all.push(named);
                            }
                            Some(_) => drop(self.coarse.insert(alias)),
                            None => {}
                        }
                    }
                }
            }
        }
        all
    }

    /// Cuts a range at the beginnings of pieces in it.
    fn cut(&mut self, range: AddressRange, cuts: &[IpAddr], compiled: &Compiled) {
        let mut first = range.first();
        for next in cuts.iter().copied().map(Some).chain([None]) {
            let last = next.and_then(AddressRange::before).unwrap_or(range.last());
            if let Some(range) = AddressRange::new(first, last) {
                let sample = unused(&range, compiled);
                self.all.extend(sample.map(|sample| Piece { range, sample }));
            }
            first = next.unwrap_or(first);
        }
    }
}

/// The addresses that an alias means, or at most one more than there is room for; `None` if it means nodes.
fn named_by<'c>(alias: &'c Alias, is_source: bool, compiled: &'c Compiled, room: usize) -> Option<Named<'c>> {
    let policy = compiled.policy();
    let services = || compiled.topology().services.values().flat_map(|service| &service.addresses);
    let single = |address: &IpAddr| AddressRange::single(*address);
    let mut internet = false;
    let mut ranges: Vec<AddressRange> = match alias {
        Alias::Literal(range) => vec![*range],
        Alias::Host(name) => policy.host(name).into_iter().collect(),
        Alias::IpSet(name) => policy.ip_set(name)?.iter().copied().take(room + 1).collect(),
        Alias::Service(name) => compiled.topology().services.get(name)?.addresses.iter().map(single).collect(),
        Alias::Auto(Autogroup::Internet) => {
            internet = true;
            Vec::new()
        }
        // As a source `*` is also the networks behind routers; as a destination it is whatever a device leads to.
        Alias::Anyone | Alias::Auto(Autogroup::DangerAll) => {
            internet = *alias != Alias::Anyone || (!is_source && compiled.has_exit_node());
            let services = services().filter(|_| !is_source).map(single);
            compiled.served_networks().chain(services).take(room + 1).collect()
        }
        _ => return None,
    };
    if internet {
        ranges.extend(internet::ranges());
    }
    Some(Named { alias, ranges, internet })
}

/// Where pieces begin within some disjoint, ascending ranges, besides where these begin.
fn cuts(policies: [&Compiled; 2], within: &[AddressRange]) -> Vec<IpAddr> {
    let services = policies[0].topology().services.values().flat_map(|service| &service.addresses);
    let common = internet::ranges().iter().chain(internet::tailnet()).copied();
    let common = common.chain(policies[0].served_networks()).chain(services.copied().map(AddressRange::single));
    let mut cuts = Vec::new();
    for range in common.chain(policies.into_iter().flat_map(Compiled::named_ranges)) {
        for start in [Some(range.first()), AddressRange::after(range.last())].into_iter().flatten() {
            let at = within.partition_point(|known| known.last() < start);
            cuts.extend(within.get(at).filter(|known| known.first() < start).map(|_| start));
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

fn cuts_of<'a>(range: &AddressRange, cuts: &'a [IpAddr]) -> &'a [IpAddr] {
    let first = cuts.partition_point(|cut| *cut <= range.first());
    let last = cuts.partition_point(|cut| *cut <= range.last());
    &cuts[first..last]
}

/// The first address of a range that no node has.
fn unused(range: &AddressRange, compiled: &Compiled) -> Option<IpAddr> {
    let mut address = range.first();
    while compiled.node_by_address(address).is_some() {
        address = AddressRange::after(address).filter(|next| range.contains(*next))?;
    }
    Some(address)
}
