use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::policy::{Rule, SshRule};
use crate::{Alias, Compiled};

/// What the aliases, lists and rules of two policies mean, each by a number: equal numbers mean the same, whatever it is
/// called. Every name is written out once, however many rules have it.
#[derive(Default)]
pub(super) struct Meanings {
    numbers: HashMap<String, u32>,
    lists: HashMap<(Vec<u32>, String), u32>,
}

/// The rules of one policy by what they mean.
pub(super) struct RuleMeanings {
    /// By rule: its sources with their postures, and its destinations with their routers.
    pub(super) sides: Vec<(u32, u32)>,
    effects: Vec<String>,
    /// By SSH rule: everything.
    ssh: Vec<(u32, u32, String)>,
}

impl RuleMeanings {
    pub(super) fn of(compiled: &Compiled, meanings: &mut Meanings) -> Self {
        let policy = compiled.policy();
        let mut aliases = HashMap::new();
        let mut last: Option<(&Rule, u32)> = None;
        let mut sides = Vec::with_capacity(policy.rules().len());
        for rule in policy.rules() {
            // The rules of one ACL share their sources, which may be as many as they are.
            let shared = |(other, _): &(&Rule, u32)| {
                Arc::ptr_eq(&other.sources, &rule.sources) && Arc::ptr_eq(&other.postures, &rule.postures)
            };
            let sources = match last.filter(shared) {
                Some((_, sources)) => sources,
                None => meanings.list(&rule.sources, &postures(&rule.postures, compiled), compiled, &mut aliases),
            };
            last = Some((rule, sources));
            let destinations =
                meanings.list(&rule.destinations, &format!("via {:?}", rule.via), compiled, &mut aliases);
            sides.push((sources, destinations));
        }
        let effects = policy.rules().iter().map(|rule| format!("{:?}", rule.effect)).collect();
        let ssh = policy.ssh_rules().iter().map(|rule| {
            let SshRule { users, action, accept_env, recorders, enforce_recorder, .. } = rule;
            (
                meanings.list(&rule.sources, &postures(&rule.postures, compiled), compiled, &mut aliases),
                meanings.list(&rule.destinations, "", compiled, &mut aliases),
                format!("{users:?} {action:?} {accept_env:?} {recorders:?} {enforce_recorder}"),
            )
        });
        let ssh = ssh.collect();
        Self { sides, effects, ssh }
    }

    /// The rules that another policy has no counterpart of.
    pub(super) fn changed(&self, other: &Self) -> RoaringBitmap {
        let known: HashSet<(&(u32, u32), &String)> = other.sides.iter().zip(&other.effects).collect();
        let rules = self.sides.iter().zip(&self.effects).zip(0_u32..);
        rules.filter(|(rule, _)| !known.contains(rule)).map(|(_, at)| at).collect()
    }

    /// The same of SSH rules. Where their order differs, all of them count: the first that fits decides.
    pub(super) fn changed_ssh(&self, other: &Self) -> Vec<usize> {
        let known: HashSet<&(u32, u32, String)> = other.ssh.iter().collect();
        let own: HashSet<&(u32, u32, String)> = self.ssh.iter().collect();
        let common = |rules: &[(u32, u32, String)]| -> Vec<(u32, u32, String)> {
            rules.iter().filter(|rule| known.contains(rule) && own.contains(rule)).cloned().collect()
        };
        let reordered = common(&self.ssh) != common(&other.ssh);
        let rules = self.ssh.iter().enumerate();
        rules.filter(|(_, rule)| reordered || !known.contains(rule)).map(|(at, _)| at).collect()
    }
}

impl Meanings {
    fn list<'c>(
        &mut self,
        list: &'c [Alias],
        rest: &str,
        compiled: &'c Compiled,
        aliases: &mut HashMap<&'c Alias, u32>,
    ) -> u32 {
        let mut numbers = Vec::with_capacity(list.len());
        for alias in list {
            numbers.push(*aliases.entry(alias).or_insert_with(|| self.number(meaning(alias, compiled))));
        }
        let next = self.lists.len() as u32;
        *self.lists.entry((numbers, rest.to_owned())).or_insert(next)
    }

    fn number(&mut self, text: String) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(text).or_insert(next)
    }
}

/// An alias with its name resolved, as far as the policy defines it.
fn meaning(alias: &Alias, compiled: &Compiled) -> String {
    let policy = compiled.policy();
    match alias {
        Alias::Group(name) => format!("{alias} {:?}", policy.group(name)),
        Alias::Host(name) => format!("{:?}", policy.host(name)),
        Alias::IpSet(name) => format!("{:?}", policy.ip_set(name)),
        _ => alias.to_string(),
    }
}

fn postures(names: &[Arc<str>], compiled: &Compiled) -> String {
    let postures: Vec<_> = names.iter().map(|name| compiled.policy().posture(name)).collect();
    format!("{postures:?}")
}
