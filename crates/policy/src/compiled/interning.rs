//! The aliases, lists and entries of a policy, each entered once under a number.

use std::collections::HashMap;
use std::sync::Arc;

use super::aliases::AliasId;
use super::sets::{DestinationSet, SourceSet};
use super::{Compiled, CompiledRule, filters};
use crate::policy::{Effect, Rule};
use crate::{Alias, Tag};

impl Compiled {
    pub(super) fn intern_rules(&mut self) {
        let policy = self.policy.clone();
        let mut source_ids = HashMap::new();
        let mut destination_ids = HashMap::new();
        let mut last: Option<(&Rule, u32)> = None;
        for (rule, at) in policy.rules().iter().zip(0_u32..) {
            // The rules of one ACL share their sources, which may be as many as they are.
            let shared = |(other, _): &(&Rule, u32)| {
                Arc::ptr_eq(&other.sources, &rule.sources) && Arc::ptr_eq(&other.postures, &rule.postures)
            };
            let source = match last.filter(shared) {
                Some((_, source)) => source,
                None => self.intern_source(&rule.sources, &rule.postures, &mut source_ids),
            };
            last = Some((rule, source));
            self.sources[source as usize].rules.push(at);
            let exits = matches!(rule.effect, Effect::Ports(_));
            let own = rule.is_own_devices();
            let destination =
                (!own).then(|| self.intern_destination(&rule.destinations, &rule.via, exits, &mut destination_ids));
            if let Some(destination) = destination {
                self.destinations[destination as usize].rules.push(at);
            } else {
                self.own_rules.insert(at);
            }
            let has_reverse =
                matches!(&rule.effect, Effect::Capabilities(all) if filters::counterparts(all).next().is_some());
            let reverse = (has_reverse && !own && rule.via.is_empty())
                .then(|| self.intern_source(&rule.destinations, &[], &mut source_ids));
            if let Some(reverse) = reverse {
                self.sources[reverse as usize].reversed_by.push(at);
            }
            self.rules.push(CompiledRule { source, destination, reverse });
        }
    }

    /// Enters aliases that no rule of ports or capabilities uses, but others do.
    pub(super) fn intern_others(&mut self) {
        let policy = self.policy.clone();
        let mut lists = HashMap::new();
        for rule in policy.ssh_rules() {
            let (sources, destinations) = (self.intern_all(&rule.sources), self.intern_all(&rule.destinations));
            self.ssh_table.add(rule, sources, &destinations, &mut lists);
            self.eligible.add(&rule.postures);
        }
        for entry in policy.node_attributes() {
            let targets = self.intern_all(&entry.targets);
            self.attribute_table.add(entry, &targets);
        }
    }

    fn intern_all(&mut self, aliases: &[Alias]) -> Vec<AliasId> {
        aliases.iter().map(|alias| self.aliases.intern(alias, &self.policy, &self.topology)).collect()
    }

    fn intern_source(
        &mut self,
        aliases: &[Alias],
        postures: &[Arc<str>],
        ids: &mut HashMap<(Vec<u32>, Vec<Arc<str>>), u32>,
    ) -> u32 {
        let key = self.intern_all(aliases);
        if let Some(id) = ids.get(&(key.clone(), postures.to_vec())) {
            return *id;
        }
        let id = self.sources.len() as u32;
        for alias in &key {
            push_once(&mut self.aliases.entries[*alias as usize].source_sets, id);
        }
        self.eligible.add(postures);
        self.sources.push(SourceSet::new(key.clone(), postures.to_vec()));
        ids.insert((key, postures.to_vec()), id);
        id
    }

    fn intern_destination(
        &mut self,
        aliases: &[Alias],
        via: &[Tag],
        exits: bool,
        ids: &mut HashMap<(Vec<u32>, Vec<Tag>, bool), u32>,
    ) -> u32 {
        let key = self.intern_all(aliases);
        if let Some(id) = ids.get(&(key.clone(), via.to_vec(), exits)) {
            return *id;
        }
        let id = self.destinations.len() as u32;
        for alias in &key {
            push_once(&mut self.aliases.entries[*alias as usize].destination_sets, id);
        }
        self.destinations.push(DestinationSet::new(key.clone(), via.to_vec(), exits));
        ids.insert((key, via.to_vec(), exits), id);
        id
    }
}

fn push_once(list: &mut Vec<u32>, id: u32) {
    if list.last() != Some(&id) {
        list.push(id);
    }
}
