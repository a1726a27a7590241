//! Whom the sources of SSH rules mean, worked out once for all devices that are told of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use roaring::RoaringBitmap;

use crate::compiled::Compiled;
use crate::compiled::aliases::AliasId;
use crate::policy::SshRule;
use crate::{Alias, Autogroup, Node, Tag, UserId};

/// The rules of SSH by what they are about, and their lists of sources, each once.
#[derive(Clone, Default)]
pub(in crate::compiled) struct SshTable {
    lists: Vec<SourceList>,
    /// The number of each rule's list.
    list_of: Vec<usize>,
    by_source: HashMap<AliasId, Vec<usize>>,
    by_destination: HashMap<AliasId, Vec<usize>>,
    by_recorder: HashMap<Tag, Vec<usize>>,
    /// Rules that are about devices of their sources' users, whatever these are called.
    about_own: Vec<usize>,
}

/// What rules must share to have the same sources.
type ListKey = (Vec<AliasId>, Vec<Arc<str>>);

/// Sources that rules share.
#[derive(Clone)]
struct SourceList {
    aliases: Vec<AliasId>,
    postures: Vec<Arc<str>>,
    /// Whether a node counts once for each of its tags.
    by_tag: bool,
    /// Found when first asked for, and forgotten when a node comes or goes that it means.
    meant: OnceLock<Arc<SshSources>>,
}

/// The nodes that a list of sources means, with their addresses ascending.
pub(super) struct SshSources {
    pub(super) slots: RoaringBitmap,
    pub(super) addresses: Arc<[IpAddr]>,
    by_owner: OnceLock<ByOwner>,
}

/// The same addresses by whom the nodes belong to.
#[derive(Default)]
pub(super) struct ByOwner {
    pub(super) users: BTreeMap<UserId, Arc<[IpAddr]>>,
    pub(super) tagged: Arc<[IpAddr]>,
}

impl fmt::Debug for SshTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SshTable")
    }
}

impl SshTable {
    /// Adds the next rule.
    pub(in crate::compiled) fn add(
        &mut self,
        rule: &SshRule,
        sources: Vec<AliasId>,
        destinations: &[AliasId],
        known: &mut HashMap<ListKey, usize>,
    ) {
        let at = self.list_of.len();
        for source in sources.iter().copied().collect::<BTreeSet<_>>() {
            self.by_source.entry(source).or_default().push(at);
        }
        for destination in destinations.iter().copied().collect::<BTreeSet<_>>() {
            self.by_destination.entry(destination).or_default().push(at);
        }
        for tag in rule.recorders.iter().collect::<BTreeSet<_>>() {
            self.by_recorder.entry(tag.clone()).or_default().push(at);
        }
        if rule.is_about_own_devices() {
            self.about_own.push(at);
        }
        let by_tag = rule.sources.contains(&Alias::Auto(Autogroup::Tagged));
        let list = *known.entry((sources, rule.postures.clone())).or_insert_with_key(|(aliases, postures)| {
            let (aliases, postures) = (aliases.clone(), postures.clone());
            self.lists.push(SourceList { aliases, postures, by_tag, meant: OnceLock::new() });
            self.lists.len() - 1
        });
        self.list_of.push(list);
    }

    /// Forgets whom lists mean that have one of some aliases.
    pub(in crate::compiled) fn forget(&mut self, aliases: &[AliasId]) {
        for rule in aliases.iter().filter_map(|alias| self.by_source.get(alias)).flatten() {
            self.lists[self.list_of[*rule]].meant.take();
        }
    }

    /// The rules that may be about a node which some aliases mean, ascending.
    pub(super) fn rules_about(&self, aliases: &[AliasId]) -> BTreeSet<usize> {
        let named = aliases.iter().filter_map(|alias| self.by_destination.get(alias)).flatten();
        named.chain(&self.about_own).copied().collect()
    }
}

impl Compiled {
    /// The nodes that a rule is for, on whichever device.
    pub(super) fn ssh_sources(&self, rule: usize) -> &SshSources {
        let list = &self.ssh_table.lists[self.ssh_table.list_of[rule]];
        list.meant.get_or_init(|| {
            let mut slots = RoaringBitmap::new();
            for alias in &list.aliases {
                slots |= &self.aliases.entry(*alias).named;
            }
            if let Some(eligible) = self.eligible.get(&list.postures) {
                slots &= eligible;
            }
            let addresses = self.principals(rule, &slots);
            Arc::new(SshSources { slots, addresses, by_owner: OnceLock::new() })
        })
    }

    /// The addresses of a rule's sources by whom they belong to.
    pub(super) fn ssh_sources_by_owner(&self, rule: usize) -> &ByOwner {
        let sources = self.ssh_sources(rule);
        sources.by_owner.get_or_init(|| {
            let mut by_user: BTreeMap<UserId, RoaringBitmap> = BTreeMap::new();
            let mut tagged = RoaringBitmap::new();
            for slot in &sources.slots {
                match self.node_at(slot).and_then(Node::user) {
                    Some(user) => by_user.entry(user).or_default().insert(slot),
                    None => tagged.insert(slot),
                };
            }
            let users = by_user.into_iter().map(|(user, slots)| (user, self.principals(rule, &slots)));
            ByOwner { users: users.collect(), tagged: self.principals(rule, &tagged) }
        })
    }

    /// The addresses of nodes as a rule lists them, ascending.
    pub(super) fn principals(&self, rule: usize, slots: &RoaringBitmap) -> Arc<[IpAddr]> {
        let by_tag = self.ssh_table.lists[self.ssh_table.list_of[rule]].by_tag;
        let mut principals = Vec::new();
        for node in slots.iter().filter_map(|slot| self.node_at(slot)) {
            for _ in 0..if by_tag { node.tags().count().max(1) } else { 1 } {
                principals.extend(&node.addresses);
            }
        }
        principals.sort_unstable();
        principals.into()
    }

    /// The slots whose SSH rules a slot is part of, as a source, a destination or a recorder.
    pub(in crate::compiled) fn ssh_reach(&self, slot: u32) -> RoaringBitmap {
        let table = &self.ssh_table;
        let sought = &self.membership[slot as usize].named;
        let by_source = sought.iter().filter_map(|alias| table.by_source.get(alias)).flatten();
        let tags = self.node_at(slot).into_iter().flat_map(Node::tags);
        let recorded: BTreeSet<usize> = tags.filter_map(|tag| table.by_recorder.get(tag)).flatten().copied().collect();
        let mut reach = RoaringBitmap::from_iter([slot]);
        let mut aliases: BTreeSet<&Alias> = BTreeSet::new();
        for at in by_source.chain(&recorded).copied().collect::<BTreeSet<usize>>() {
            let rule = &self.policy.ssh_rules()[at];
            aliases.extend(&rule.destinations);
            if rule.is_about_own_devices() {
                reach |= self.own_slots(slot);
            }
            if recorded.contains(&at) {
                aliases.extend(&rule.sources);
            }
        }
        for id in aliases.into_iter().filter_map(|alias| self.aliases.id(alias)) {
            reach |= &self.aliases.entry(id).named;
        }
        reach
    }
}
