use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use filter::AddressRange;
use roaring::RoaringBitmap;

use super::aliases::{AliasEntry, AliasId, AliasTable, Meaning};
use crate::{Tag, internet};

/// A list of sources that rules share.
#[derive(Clone, Debug)]
pub(super) struct SourceSet {
    pub(super) aliases: Vec<AliasId>,
    /// One of these must hold of a source; empty: any device.
    pub(super) postures: Vec<Arc<str>>,
    /// Nodes whose addresses are listed one by one.
    pub(super) listed: RoaringBitmap,
    /// Nodes one of whose addresses, or a subnet behind which, is among the sources.
    pub(super) covers: RoaringBitmap,
    /// What is not listed by node, ascending and without doubles.
    pub(super) literals: Vec<(AddressRange, Arc<str>)>,
    /// Whether everything there is, is a source.
    pub(super) everything: bool,
    /// Equal for sets whose texts are equal.
    pub(super) fingerprint: u128,
    /// The texts as filters have them; made when first asked for.
    pub(super) texts: OnceLock<Arc<[String]>>,
    /// Rules with this source.
    pub(super) rules: Vec<u32>,
    /// The receivers of those rules.
    pub(super) reach: RoaringBitmap,
    /// Rules that have it as the destination, and as a source in the other direction.
    pub(super) reversed_by: Vec<u32>,
}

/// Ranges with their texts, as they are gathered.
type Literals = BTreeSet<(AddressRange, Arc<str>)>;

/// A list of destinations that rules share.
#[derive(Clone, Debug)]
pub(super) struct DestinationSet {
    pub(super) aliases: Vec<AliasId>,
    pub(super) via: Vec<Tag>,
    /// Whether exit nodes take part: for ports, not for capabilities.
    pub(super) exits: bool,
    /// Nodes to whose filters the rules belong.
    pub(super) receivers: RoaringBitmap,
    pub(super) rules: Vec<u32>,
}

impl SourceSet {
    pub(super) fn new(aliases: Vec<AliasId>, postures: Vec<Arc<str>>) -> Self {
        Self {
            aliases,
            postures,
            listed: RoaringBitmap::new(),
            covers: RoaringBitmap::new(),
            literals: Vec::new(),
            everything: false,
            fingerprint: 0,
            texts: OnceLock::new(),
            rules: Vec::new(),
            reach: RoaringBitmap::new(),
            reversed_by: Vec::new(),
        }
    }

    /// Takes members from the aliases anew. `eligible` are the nodes that have the posture, where one is asked for;
    /// `routes` are the subnet routes that are part of `*`.
    pub(super) fn resolve(
        &mut self,
        aliases: &AliasTable,
        eligible: Option<&RoaringBitmap>,
        routes: &[(AddressRange, Arc<str>)],
        addresses: impl Fn(u32) -> Vec<IpAddr>,
    ) {
        self.listed.clear();
        self.covers.clear();
        self.everything = false;
        let mut literals = Literals::new();
        for id in self.aliases.clone() {
            let entry = aliases.entry(id);
            match eligible {
                Some(eligible) => self.add_devices(entry, eligible, &mut literals, &addresses),
                None => self.add_meaning(entry, routes, &mut literals),
            }
        }
        self.literals = literals.into_iter().collect();
        self.literals.dedup_by(|a, b| a.0 == b.0);
        self.texts = OnceLock::new();
        self.fingerprint = self.literals.iter().map(|(_, text)| hash(text)).fold(0, u128::wrapping_add);
        if self.everything {
            self.fingerprint = self.fingerprint.wrapping_add(hash("*"));
        }
        for slot in &self.listed {
            self.fingerprint = self.fingerprint.wrapping_add(self.node_hash(&hash_addresses(&addresses(slot))));
        }
    }

    /// Adds an alias where devices are asked for, so that only addresses of devices count: of one that is named, all; of a
    /// range, those in it.
    fn add_devices(
        &mut self,
        entry: &AliasEntry,
        eligible: &RoaringBitmap,
        literals: &mut Literals,
        addresses: impl Fn(u32) -> Vec<IpAddr>,
    ) {
        let named = &entry.named & eligible;
        self.covers |= &named;
        match &entry.meaning {
            Meaning::Ranges { ranges, .. } => {
                let own = named.into_iter().flat_map(addresses);
                let within = |address: &IpAddr| ranges.iter().any(|(range, _)| range.contains(*address));
                literals.extend(own.filter(within).map(|address| (address.into(), address.to_string().into())));
            }
            _ => self.listed |= named,
        }
    }

    fn add_meaning(&mut self, entry: &AliasEntry, routes: &[(AddressRange, Arc<str>)], literals: &mut Literals) {
        self.covers |= &entry.named;
        self.covers |= &entry.routed;
        match &entry.meaning {
            Meaning::Everything => self.everything = true,
            Meaning::Everyone => {
                let own = internet::tailnet().iter().zip(internet::TAILNET_TEXTS);
                literals.extend(own.map(|(range, text)| (*range, Arc::from(text))));
                literals.extend(routes.iter().cloned());
            }
            Meaning::Nodes => self.listed |= &entry.named,
            Meaning::Ranges { ranges, .. } => literals.extend(ranges.iter().cloned()),
            Meaning::Service(ranges) => {
                literals.extend(ranges.iter().map(|range| (*range, range.to_string().into())));
            }
            Meaning::Internet => {
                let ranges = internet::ranges().iter().zip(internet::TEXTS);
                literals.extend(ranges.map(|(range, text)| (*range, text.into())));
            }
        }
    }

    /// What a listed node adds to the fingerprint: its addresses that aren't there as literals.
    pub(super) fn node_hash(&self, addresses: &[(IpAddr, u128)]) -> u128 {
        let known = |address: &IpAddr| {
            let single = AddressRange::single(*address);
            self.literals.binary_search_by(|(range, _)| range.cmp(&single)).is_ok()
        };
        addresses.iter().filter(|(address, _)| !known(address)).map(|(_, hash)| *hash).fold(0, u128::wrapping_add)
    }

    /// Whether its literals depend on the nodes there are.
    pub(super) fn has_node_literals(&self, aliases: &AliasTable) -> bool {
        let ranged = |id: &AliasId| matches!(aliases.entry(*id).meaning, Meaning::Ranges { .. });
        !self.postures.is_empty() && self.aliases.iter().any(ranged)
    }

    /// Whether it has no source at all: then no packet matches.
    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty() && self.literals.is_empty() && !self.everything
    }

    /// The sources' texts, ascending.
    pub(super) fn texts(&self, addresses: impl Fn(u32) -> Vec<IpAddr>) -> Arc<[String]> {
        self.texts
            .get_or_init(|| {
                let own = self.listed.iter().flat_map(addresses);
                let mut all: Vec<(AddressRange, Arc<str>)> =
                    own.map(|address| (AddressRange::single(address), address.to_string().into())).collect();
                all.extend(self.literals.iter().cloned());
                all.sort();
                all.dedup_by(|a, b| a.0 == b.0);
                let star = self.everything.then(|| "*".to_owned());
                star.into_iter().chain(all.into_iter().map(|(_, text)| text.to_string())).collect()
            })
            .clone()
    }
}

impl DestinationSet {
    pub(super) fn new(aliases: Vec<AliasId>, via: Vec<Tag>, exits: bool) -> Self {
        Self { aliases, via, exits, receivers: RoaringBitmap::new(), rules: Vec::new() }
    }

    /// Takes the receivers from the aliases anew. `exit_nodes` are all exit nodes, `tagged` the nodes with a tag of `via`.
    pub(super) fn resolve(&mut self, aliases: &AliasTable, exit_nodes: &RoaringBitmap, tagged: Option<&RoaringBitmap>) {
        self.receivers.clear();
        for id in &self.aliases {
            let entry = aliases.entry(*id);
            match tagged {
                None => {
                    self.receivers |= &entry.named;
                    self.receivers |= &entry.routed;
                    if self.exits && entry.meaning.is_public() {
                        self.receivers |= exit_nodes;
                    }
                }
                Some(_) if entry.meaning == Meaning::Internet => self.receivers |= exit_nodes,
                Some(_) => self.receivers |= &entry.routed,
            }
        }
        if let Some(tagged) = tagged {
            self.receivers &= tagged;
        }
    }
}

/// Addresses with the hashes of their texts.
pub(super) fn hash_addresses(addresses: &[IpAddr]) -> Vec<(IpAddr, u128)> {
    addresses.iter().map(|address| (*address, hash(&address.to_string()))).collect()
}

/// A hash whose sums stand for sets of texts.
pub(super) fn hash(text: &str) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, text).hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}
