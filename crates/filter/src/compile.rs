use std::net::IpAddr;

use crate::index::{AddressIndex, LineIndex};
use crate::sparse::{SparseSet, common};
use crate::{AddressRange, CapGrant, CapMap, DstPort, Local, PortRange, Protocol, RangeError, Rule, Source};

/// The most rules, sources and destinations together that a filter may have: what a hostile control server can make a
/// node hold.
const MAX_ENTRIES: usize = 4_000_000;

/// A node's packet filter, compiled.
#[derive(Clone, Debug)]
pub struct Filter {
    pub(crate) rules: Vec<CompiledRule>,
    pub(crate) atoms: Vec<Atom>,
    pub(crate) local: Local,
    sources: AddressIndex,
    destinations: AddressIndex,
    ports: LineIndex<u16>,
    /// Atoms of rules that name a capability as a source.
    by_capability: Vec<(String, SparseSet)>,
}

/// A rule in the order of the wire, with its texts parsed.
#[derive(Clone, Debug)]
pub(crate) struct CompiledRule {
    pub(crate) sources: Vec<Source>,
    pub(crate) protocols: ProtocolSet,
    pub(crate) grants: Vec<Grant>,
}

/// Capabilities on some destinations.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) destinations: Vec<AddressRange>,
    pub(crate) capabilities: CapMap,
}

/// One destination entry of one rule: the unit that a packet matches.
#[derive(Clone, Debug)]
pub(crate) struct Atom {
    pub(crate) rule: u32,
    /// `None` is `*`.
    pub(crate) destination: Option<AddressRange>,
    pub(crate) ports: PortRange,
}

/// Which of the 256 protocols.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProtocolSet([u64; 4]);

/// Why a list of rules is no filter. The whole list is void then, and a node that was sent it blocks everything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// A source, destination or grant can't be parsed.
    #[error("rule {rule} of the packet filter: {cause}")]
    Address {
        /// The rule's place in the list, from 0.
        rule: usize,
        /// What is wrong with its text.
        cause: RangeError,
    },
    /// A field that no rule may have any more, or a combination of fields that means nothing.
    #[error("rule {rule} of the packet filter: {what}")]
    Shape {
        /// The rule's place in the list, from 0.
        rule: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More rules than a node will hold.
    #[error("the packet filter has more than {MAX_ENTRIES} entries")]
    TooLarge,
}

impl ProtocolSet {
    pub(crate) fn insert(&mut self, protocol: Protocol) {
        self.0[usize::from(protocol.0 >> 6)] |= 1 << (protocol.0 & 63);
    }

    pub(crate) fn contains(&self, protocol: Protocol) -> bool {
        self.0[usize::from(protocol.0 >> 6)] & (1 << (protocol.0 & 63)) != 0
    }
}

impl Filter {
    /// Compiles the rules of a node that answers for `local`.
    ///
    /// # Errors
    /// One rule that can't be understood fails the whole list.
    pub fn compile(rules: &[Rule], local: Local) -> Result<Self, FilterError> {
        check_size(rules.iter().map(entries).sum())?;
        let mut compiled = Vec::with_capacity(rules.len());
        let mut atoms = Vec::new();
        let mut spans = Vec::with_capacity(rules.len());
        for (at, rule) in rules.iter().enumerate() {
            let start = atoms.len() as u32;
            compiled.push(compile_rule(rule).map_err(|error| error.at(at))?);
            for destination in &rule.destinations {
                atoms.push(compile_atom(at, destination).map_err(|error| error.at(at))?);
            }
            spans.push((start, atoms.len() as u32));
        }
        Ok(Self::index(compiled, atoms, &spans, local))
    }

    /// A filter that lets nothing in but answers: for shields up, and for a node whose rules are void.
    pub fn blocking(local: Local) -> Self {
        Self::index(Vec::new(), Vec::new(), &[], local)
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The capabilities that `source` has on `destination`, one of this node's own addresses: those of all rules that
    /// give it some, merged. `has_capability` says which node capabilities the source's node has.
    pub fn capabilities(&self, source: IpAddr, destination: IpAddr, has_capability: &dyn Fn(&str) -> bool) -> CapMap {
        let mut all = CapMap::default();
        for rule in self.rules.iter().filter(|rule| !rule.grants.is_empty()) {
            if !rule.matches_source(source, has_capability) {
                continue;
            }
            for grant in &rule.grants {
                if grant.destinations.iter().any(|range| range.contains(destination)) {
                    all.merge(&grant.capabilities);
                }
            }
        }
        all
    }

    /// The atoms that match addresses and, where given, the port; ascending.
    pub(crate) fn matching(
        &self,
        source: IpAddr,
        destination: IpAddr,
        port: Option<u16>,
        has_capability: &dyn Fn(&str) -> bool,
        mut accept: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let to = self.destinations.at(destination)?;
        let by_port = match port {
            Some(port) => self.ports.at(port)?,
            None => to,
        };
        let by_address =
            self.sources.at(source).and_then(|from| common([from, to, by_port]).find(|atom| accept(*atom)));
        by_address.or_else(|| {
            let named = self.by_capability.iter().filter(|(name, _)| has_capability(name));
            named.flat_map(|(_, from)| common([from, to, by_port])).find(|atom| accept(*atom))
        })
    }

    fn index(rules: Vec<CompiledRule>, atoms: Vec<Atom>, spans: &[(u32, u32)], local: Local) -> Self {
        let mut sources = Vec::new();
        let mut by_capability: Vec<(String, Vec<u64>)> = Vec::new();
        for (rule, at) in rules.iter().zip(0_u32..) {
            for source in &rule.sources {
                match source {
                    Source::Anyone => sources.extend(AddressRange::everything().map(|range| (range, at))),
                    Source::Addresses(range) => sources.push((*range, at)),
                    Source::Capability(name) => {
                        mark_capability(&mut by_capability, name, spans[at as usize], atoms.len())
                    }
                }
            }
        }
        let singles: Vec<(u32, u32)> = (0..atoms.len() as u32).map(|at| (at, at + 1)).collect();
        let destinations: Vec<(AddressRange, u32)> =
            atoms.iter().zip(0..).flat_map(|(atom, at)| atom.ranges(at)).collect();
        let ports: Vec<(u16, u16, u32)> =
            atoms.iter().zip(0..).map(|(atom, at)| (atom.ports.first, atom.ports.last, at)).collect();
        Self {
            sources: AddressIndex::new(&sources, spans),
            destinations: AddressIndex::new(&destinations, &singles),
            ports: LineIndex::new(&ports, &singles),
            by_capability: by_capability
                .into_iter()
                .map(|(name, words)| (name, SparseSet::from_words(&words)))
                .collect(),
            rules,
            atoms,
            local,
        }
    }
}

impl CompiledRule {
    pub(crate) fn matches_source(&self, address: IpAddr, has_capability: &dyn Fn(&str) -> bool) -> bool {
        self.sources.iter().any(|source| match source {
            Source::Anyone => true,
            Source::Addresses(range) => range.contains(address),
            Source::Capability(name) => has_capability(name),
        })
    }
}

impl Atom {
    pub(crate) fn matches_destination(&self, address: IpAddr) -> bool {
        self.destination.is_none_or(|range| range.contains(address))
    }

    fn ranges(&self, at: u32) -> impl Iterator<Item = (AddressRange, u32)> + use<> {
        let everything = AddressRange::everything();
        let ranges = match self.destination {
            Some(range) => [Some(range), None],
            None => everything.map(Some),
        };
        ranges.into_iter().flatten().map(move |range| (range, at))
    }
}

/// What is wrong with a rule, before it is known which one it is.
enum RuleError {
    Address(RangeError),
    Shape(&'static str),
}

impl RuleError {
    fn at(self, rule: usize) -> FilterError {
        match self {
            Self::Address(cause) => FilterError::Address { rule, cause },
            Self::Shape(what) => FilterError::Shape { rule, what },
        }
    }
}

impl From<RangeError> for RuleError {
    fn from(cause: RangeError) -> Self {
        Self::Address(cause)
    }
}

/// What a rule counts for towards [`MAX_ENTRIES`].
fn entries(rule: &Rule) -> usize {
    1 + rule.sources.len() + rule.destinations.len() + rule.grants.len()
}

fn check_size(entries: usize) -> Result<(), FilterError> {
    if entries > MAX_ENTRIES { Err(FilterError::TooLarge) } else { Ok(()) }
}

fn compile_rule(rule: &Rule) -> Result<CompiledRule, RuleError> {
    if !rule.source_bits.is_empty() {
        return Err(RuleError::Shape("SrcBits is not supported"));
    }
    if !rule.destinations.is_empty() && !rule.grants.is_empty() {
        return Err(RuleError::Shape("DstPorts and CapGrant exclude each other"));
    }
    let sources = rule.sources.iter().map(|text| text.parse()).collect::<Result<_, RangeError>>()?;
    let mut protocols = ProtocolSet::default();
    for number in &rule.protocols {
        let number = u8::try_from(*number).map_err(|_| RuleError::Shape("IPProto is not between 0 and 255"))?;
        protocols.insert(Protocol(number));
    }
    if rule.protocols.is_empty() {
        Protocol::DEFAULT.into_iter().for_each(|protocol| protocols.insert(protocol));
    }
    let grants = rule.grants.iter().map(compile_grant).collect::<Result<_, RuleError>>()?;
    Ok(CompiledRule { sources, protocols, grants })
}

fn compile_grant(grant: &CapGrant) -> Result<Grant, RuleError> {
    for prefix in &grant.destinations {
        if prefix.trunc() != *prefix {
            return Err(RangeError::HostBits { given: *prefix, masked: prefix.trunc() }.into());
        }
    }
    let mut capabilities = grant.capabilities.clone();
    grant.names.iter().for_each(|name| capabilities.grant(name.clone()));
    Ok(Grant {
        destinations: grant.destinations.iter().map(|prefix| AddressRange::prefix(*prefix)).collect(),
        capabilities,
    })
}

fn compile_atom(rule: usize, destination: &DstPort) -> Result<Atom, RuleError> {
    if destination.bits.is_some() {
        return Err(RuleError::Shape("DstPorts.Bits is not supported"));
    }
    if destination.ports.first > destination.ports.last {
        return Err(RuleError::Shape("the first port of a range is greater than the last"));
    }
    let range = if destination.ip == "*" { None } else { Some(destination.ip.parse()?) };
    Ok(Atom { rule: rule as u32, destination: range, ports: destination.ports })
}

fn mark_capability(all: &mut Vec<(String, Vec<u64>)>, name: &str, span: (u32, u32), atoms: usize) {
    let at = all.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        all.push((name.to_owned(), vec![0; atoms.div_ceil(64)]));
        all.len() - 1
    });
    for atom in span.0..span.1 {
        all[at].1[atom as usize / 64] |= 1 << (atom % 64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_rule_counts_towards_the_bound() {
        let destination = DstPort { ip: "*".to_owned(), bits: None, ports: PortRange::ALL };
        let rule = Rule {
            sources: vec!["*".to_owned(); 3].into(),
            destinations: vec![destination; 4],
            grants: vec![CapGrant::default(); 5],
            ..Rule::default()
        };
        assert_eq!(entries(&rule), 13);
        assert_eq!(entries(&Rule::default()), 1);
    }

    #[test]
    fn a_filter_is_as_large_as_the_bound_and_no_larger() {
        assert_eq!(check_size(MAX_ENTRIES), Ok(()));
        assert_eq!(check_size(MAX_ENTRIES + 1), Err(FilterError::TooLarge));
        let many = Rule { sources: vec!["*".to_owned(); 1000].into(), ..Rule::default() };
        let refused = Filter::compile(&vec![many; 4000], Local::default()).unwrap_err();
        assert_eq!(refused.to_string(), "the packet filter has more than 4000000 entries");
    }
}
