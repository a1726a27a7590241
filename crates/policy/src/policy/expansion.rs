//! How large a policy may become where it is written out: a short text can stand for a product of its lists.

use std::collections::HashSet;
use std::sync::Arc;

use super::names::Names;
use super::{Effect, NodeAttributes, Rule, SshRule};
use crate::hujson::{Position, Value};
use crate::problem::Problems;
use crate::{Alias, Autogroup, internet};

/// The most rules, each destination of an ACL counted as one.
pub(super) const MOST_RULES: usize = 100_000;

/// The most entries that one rule may have in a device's filter: its destinations times its ranges of ports.
const MOST_OF_A_RULE: usize = 100_000;

/// The most that all rules together may have there. A device takes 4,000,000 with their sources, and blocks everything
/// rather than take more.
const MOST_IN_ALL: usize = 1_000_000;

/// The most addresses and networks in the sources of all rules, each list of sources counted once.
const MOST_SOURCES: usize = 1_000_000;

/// The most lists of postures that differ: each is looked up for every device.
const MOST_POSTURE_LISTS: usize = 100;

/// The most rules of SSH: a device is told all that are about it.
const MOST_SSH_RULES: usize = 1_000;

/// The most sources, destinations, accounts, variables and recorders of all rules of SSH.
const MOST_OF_SSH: usize = 100_000;

/// The most entries of `nodeAttrs`: each is looked at for every device that it is for.
const MOST_ATTRIBUTE_ENTRIES: usize = 10_000;

/// The most targets of all entries of `nodeAttrs`.
const MOST_TARGETS: usize = 100_000;

/// The most attributes, values of `app` and pools of all entries of `nodeAttrs`: a device may have them all.
const MOST_ATTRIBUTES: usize = 20_000;

/// Whether there are more rules than a policy may have; the entry that has too many is told.
pub(super) fn are_too_many(rules: &[Rule], entry: &Value, problems: &mut Problems<'_>) -> bool {
    if rules.len() > MOST_RULES {
        let message = format!("more than {MOST_RULES} rules; each destination of an ACL counts as one");
        problems.at::<()>(entry, message);
    }
    rules.len() > MOST_RULES
}

/// Tells of rules that would become too large.
pub(super) fn check(rules: &[Rule], ssh: &[SshRule], names: &Names, problems: &mut Problems<'_>) {
    check_destinations(rules, names, problems);
    check_sources(rules, names, problems);
    let of_rules = rules.iter().map(|rule| (&*rule.postures, rule.origin.position));
    let of_ssh = ssh.iter().map(|rule| (&*rule.postures, rule.origin.position));
    check_postures(of_rules.chain(of_ssh), problems);
    check_ssh(ssh, problems);
}

fn check_ssh(rules: &[SshRule], problems: &mut Problems<'_>) {
    if let Some(rule) = rules.get(MOST_SSH_RULES) {
        problems.at_position(rule.origin.position, format!("more than {MOST_SSH_RULES} rules of ssh"));
    }
    let sizes = rules.iter().map(|rule| {
        let size = rule.sources.len() + rule.destinations.len() + rule.users.len();
        (size + rule.accept_env.len() + rule.recorders.len(), rule.origin.position)
    });
    let what = "sources, destinations, accounts, variables and recorders in all rules of ssh";
    check_sum(sizes, MOST_OF_SSH, what, problems);
}

/// Tells of node attributes that would become too many.
pub(super) fn check_attributes(entries: &[NodeAttributes], problems: &mut Problems<'_>) {
    if let Some(entry) = entries.get(MOST_ATTRIBUTE_ENTRIES) {
        problems.at_position(entry.position, format!("more than {MOST_ATTRIBUTE_ENTRIES} entries of nodeAttrs"));
    }
    let targets = entries.iter().map(|entry| (entry.targets.len(), entry.position));
    check_sum(targets, MOST_TARGETS, "targets in all entries of nodeAttrs", problems);
    let given = entries.iter().map(|entry| {
        let values = entry.attributes.0.values().map(|values| 1 + values.as_ref().map_or(0, Vec::len));
        (values.sum::<usize>() + entry.pools.len(), entry.position)
    });
    check_sum(given, MOST_ATTRIBUTES, "attributes, values and pools in all entries of nodeAttrs", problems);
}

/// Tells of the first place by which there is too much of something.
fn check_sum(sizes: impl Iterator<Item = (usize, Position)>, most: usize, what: &str, problems: &mut Problems<'_>) {
    let mut in_all: usize = 0;
    for (size, position) in sizes {
        in_all = in_all.saturating_add(size);
        if in_all > most {
            return problems.at_position(position, format!("from here on, more than {most} {what}"));
        }
    }
}

fn check_destinations(rules: &[Rule], names: &Names, problems: &mut Problems<'_>) {
    let mut in_all: usize = 0;
    let mut of_entry: usize = 0;
    let mut entry = None;
    for rule in rules {
        let Effect::Ports(ports) = &rule.effect else { continue };
        let here = Some((rule.origin.section, rule.origin.index));
        if entry != here {
            (entry, of_entry) = (here, 0);
        }
        let ranges: usize = ports.iter().map(|ports| ports.ranges.len()).sum();
        let destinations: usize = rule.destinations.iter().map(|alias| size(alias, names)).sum();
        let before = of_entry;
        of_entry = of_entry.saturating_add(destinations.saturating_mul(ranges));
        if before <= MOST_OF_A_RULE && of_entry > MOST_OF_A_RULE {
            let message = format!(
                "destinations times ranges of ports are more than {MOST_OF_A_RULE}, the most of one rule; join ports to \
                 ranges, or name networks"
            );
            problems.at_position(rule.origin.position, message);
        }
        let before = in_all;
        in_all = in_all.saturating_add(destinations.saturating_mul(ranges));
        if before <= MOST_IN_ALL && in_all > MOST_IN_ALL {
            let message =
                format!("from here on, destinations times ranges of ports are more than {MOST_IN_ALL} in all");
            problems.at_position(rule.origin.position, message);
        }
    }
}

fn check_sources(rules: &[Rule], names: &Names, problems: &mut Problems<'_>) {
    let mut seen: HashSet<&[Alias]> = HashSet::new();
    let mut last: Option<&Arc<[Alias]>> = None;
    let mut in_all: usize = 0;
    for rule in rules {
        if last.is_some_and(|last| Arc::ptr_eq(last, &rule.sources)) || !seen.insert(&rule.sources) {
            continue;
        }
        last = Some(&rule.sources);
        let ranged = rule.sources.iter().filter_map(|alias| names.ranges(alias)).map(<[_]>::len);
        in_all = in_all.saturating_add(ranged.sum());
        if in_all > MOST_SOURCES {
            let message = format!("from here on, sources have more than {MOST_SOURCES} addresses and networks in all");
            return problems.at_position(rule.origin.position, message);
        }
    }
}

fn check_postures<'r>(lists: impl Iterator<Item = (&'r [Arc<str>], Position)>, problems: &mut Problems<'_>) {
    let mut seen: HashSet<&[Arc<str>]> = HashSet::new();
    for (list, position) in lists {
        if seen.insert(list) && seen.len() > MOST_POSTURE_LISTS {
            let message = format!("more than {MOST_POSTURE_LISTS} different lists of postures");
            return problems.at_position(position, message);
        }
    }
}

/// How many destinations of a filter an alias can become.
fn size(alias: &Alias, names: &Names) -> usize {
    match alias {
        Alias::Anyone => 1,
        Alias::Auto(Autogroup::Internet) => internet::ranges().len(),
        // The addresses of the very device that gets the filter.
        _ => names.ranges(alias).map_or(2, <[_]>::len),
    }
}
