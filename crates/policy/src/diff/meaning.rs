use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::policy::{Rule, SshRule};
use crate::{Alias, Compiled, Tag};

/// What the aliases, postures, lists and rules of two policies mean, each by a number: equal numbers mean the same, whatever
/// it is called. Every name is written out once, however many rules have it.
#[derive(Default)]
pub(super) struct Meanings {
    numbers: HashMap<String, u32>,
    lists: HashMap<(Vec<u32>, Vec<u32>), u32>,
}

/// A rule by its sources with their postures, its destinations with their routers, and what it gives.
type Numbers = (u32, u32, u32);

/// The rules of one policy by what they mean.
pub(super) struct RuleMeanings {
    /// By rule: its sources with their postures, and its destinations with their routers.
    pub(super) sides: Vec<(u32, u32)>,
    effects: Vec<u32>,
    ssh: Vec<Numbers>,
}

/// The names of one policy that are numbered already.
struct Names<'c, 'm> {
    compiled: &'c Compiled,
    meanings: &'m mut Meanings,
    aliases: HashMap<&'c Alias, u32>,
    postures: HashMap<&'c str, u32>,
    tags: HashMap<&'c Tag, u32>,
}

impl RuleMeanings {
    pub(super) fn of(compiled: &Compiled, meanings: &mut Meanings) -> Self {
        let mut names = Names::new(compiled, meanings);
        let rules = compiled.policy().rules();
        let mut last: Option<(&Rule, u32)> = None;
        let (mut sides, mut effects) = (Vec::with_capacity(rules.len()), Vec::with_capacity(rules.len()));
        for rule in rules {
            // The rules of one ACL share their sources, which may be as many as they are.
            let shared = |(other, _): &(&Rule, u32)| {
                Arc::ptr_eq(&other.sources, &rule.sources) && Arc::ptr_eq(&other.postures, &rule.postures)
            };
            let sources = match last.filter(shared) {
                Some((_, sources)) => sources,
                None => names.sources(&rule.sources, &rule.postures),
            };
            last = Some((rule, sources));
            sides.push((sources, names.destinations(&rule.destinations, &rule.via)));
            effects.push(names.meanings.number(format!("{:?}", rule.effect)));
        }
        let ssh = compiled.policy().ssh_rules().iter().map(|rule| {
            let SshRule { users, action, accept_env, recorders, enforce_recorder, .. } = rule;
            let how = format!("{users:?} {action:?} {accept_env:?} {recorders:?} {enforce_recorder}");
            let sources = names.sources(&rule.sources, &rule.postures);
            (sources, names.destinations(&rule.destinations, &[]), names.meanings.number(how))
        });
        let ssh = ssh.collect();
        Self { sides, effects, ssh }
    }

    /// The rules that another policy has no counterpart of.
    pub(super) fn changed(&self, other: &Self) -> RoaringBitmap {
        let known: HashSet<Numbers> = other.numbers().collect();
        self.numbers().zip(0_u32..).filter(|(rule, _)| !known.contains(rule)).map(|(_, at)| at).collect()
    }

    fn numbers(&self) -> impl Iterator<Item = Numbers> {
        self.sides.iter().zip(&self.effects).map(|((sources, destinations), effect)| (*sources, *destinations, *effect))
    }

    /// The same of SSH rules. Where their order differs, all of them count: the first that fits decides.
    pub(super) fn changed_ssh(&self, other: &Self) -> Vec<usize> {
        let [known, own]: [HashSet<Numbers>; 2] = [other, self].map(|rules| rules.ssh.iter().copied().collect());
        let common = |rules: &[Numbers]| -> Vec<Numbers> {
            rules.iter().filter(|rule| known.contains(rule) && own.contains(rule)).copied().collect()
        };
        let reordered = common(&self.ssh) != common(&other.ssh);
        let rules = self.ssh.iter().enumerate();
        rules.filter(|(_, rule)| reordered || !known.contains(rule)).map(|(at, _)| at).collect()
    }
}

impl Meanings {
    fn number(&mut self, text: String) -> u32 {
        let next = self.numbers.len() as u32;
        *self.numbers.entry(text).or_insert(next)
    }

    fn list(&mut self, members: Vec<u32>, conditions: Vec<u32>) -> u32 {
        let next = self.lists.len() as u32;
        *self.lists.entry((members, conditions)).or_insert(next)
    }
}

impl<'c, 'm> Names<'c, 'm> {
    fn new(compiled: &'c Compiled, meanings: &'m mut Meanings) -> Self {
        Self { compiled, meanings, aliases: HashMap::new(), postures: HashMap::new(), tags: HashMap::new() }
    }

    fn sources(&mut self, sources: &'c [Alias], postures: &'c [Arc<str>]) -> u32 {
        let members = self.aliases(sources);
        let (meanings, policy) = (&mut *self.meanings, self.compiled.policy());
        let number = |name: &'c Arc<str>| {
            let entry = self.postures.entry(name);
            *entry.or_insert_with(|| meanings.number(format!("posture {:?}", policy.posture(name))))
        };
        let conditions = postures.iter().map(number).collect();
        self.meanings.list(members, conditions)
    }

    fn destinations(&mut self, destinations: &'c [Alias], via: &'c [Tag]) -> u32 {
        let members = self.aliases(destinations);
        let meanings = &mut *self.meanings;
        let number = |tag: &'c Tag| *self.tags.entry(tag).or_insert_with(|| meanings.number(format!("via {tag}")));
        let conditions = via.iter().map(number).collect();
        self.meanings.list(members, conditions)
    }

    fn aliases(&mut self, aliases: &'c [Alias]) -> Vec<u32> {
        let (meanings, compiled) = (&mut *self.meanings, self.compiled);
        let number =
            |alias: &'c Alias| *self.aliases.entry(alias).or_insert_with(|| meanings.number(meaning(alias, compiled)));
        aliases.iter().map(number).collect()
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
