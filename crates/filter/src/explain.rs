use std::fmt;

use crate::compile::Atom;
use crate::judge::is_icmp_of_family;
use crate::{Filter, Flow, FlowTable, PortRange, Standing, Verdict};

/// How many near misses an explanation names.
const NEAREST: usize = 5;

/// Why a flow is let in or dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What [`Filter::judge`] says of it, with no flow remembered.
    pub verdict: Verdict,
    /// Where no rule allows it: the rules that come nearest, the nearest first.
    pub near_misses: Vec<NearMiss>,
}

/// A rule that would allow a flow but for what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule's place in the list that the filter was compiled from.
    pub rule: usize,
    /// What doesn't match; never empty.
    pub lacks: Vec<Lack>,
}

/// A part of a rule that doesn't match a flow. Their order is how near they leave it: a rule that lacks a port is nearer
/// than one that lacks the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// The rule opens other ports.
    Port,
    /// The rule opens other protocols.
    Protocol,
    /// The rule is for other destinations.
    Destination,
    /// The rule is for other sources.
    Source,
}

impl fmt::Display for Lack {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Port => "port",
            Self::Protocol => "protocol",
            Self::Destination => "destination",
            Self::Source => "source",
        })
    }
}

impl Filter {
    /// Says which rule allows a flow, or why none does.
    pub fn explain(&self, flow: &Flow, standing: &Standing<'_>) -> Explanation {
        let verdict = self.judge(flow, &mut FlowTable::new(1, 0), standing);
        let near_misses = if verdict.is_accept() { Vec::new() } else { self.near_misses(flow, standing) };
        Explanation { verdict, near_misses }
    }

    fn near_misses(&self, flow: &Flow, standing: &Standing<'_>) -> Vec<NearMiss> {
        let mut best: Vec<Option<Vec<Lack>>> = vec![None; self.rules.len()];
        for atom in &self.atoms {
            let lacks = self.lacks(atom, flow, standing);
            let known = &mut best[atom.rule as usize];
            if !lacks.is_empty() && known.as_ref().is_none_or(|known| nearness(&lacks) < nearness(known)) {
                *known = Some(lacks);
            }
        }
        let found = best.into_iter().enumerate().filter_map(|(rule, lacks)| Some(NearMiss { rule, lacks: lacks? }));
        let mut found: Vec<NearMiss> = found.collect();
        found.sort_by_key(|miss| nearness(&miss.lacks));
        found.truncate(NEAREST);
        found
    }

    fn lacks(&self, atom: &Atom, flow: &Flow, standing: &Standing<'_>) -> Vec<Lack> {
        let rule = &self.rules[atom.rule as usize];
        let any_port = is_icmp_of_family(flow);
        let port = any_port
            || if flow.protocol.has_ports() {
                atom.ports.contains(flow.destination.port())
            } else {
                atom.ports == PortRange::ALL
            };
        let matches = [
            (Lack::Port, port),
            (Lack::Protocol, any_port || rule.protocols.contains(flow.protocol)),
            (Lack::Destination, atom.matches_destination(flow.destination.ip())),
            (Lack::Source, rule.matches_source(flow.source.ip(), standing.has_capability)),
        ];
        matches.into_iter().filter(|(_, fits)| !fits).map(|(lack, _)| lack).collect()
    }
}

/// Fewer lacks are nearer, and then cheaper ones.
fn nearness(lacks: &[Lack]) -> (usize, Option<Lack>) {
    (lacks.len(), lacks.iter().max().copied())
}
