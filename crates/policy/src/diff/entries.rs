//! What differs of a policy that is no rule of packets or logins: who may give tags, who need not ask, attributes, postures
//! and settings. Entry by entry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::{Found, Reach};
use crate::{Alias, GroupMember, Policy};

/// How many bytes the entries of one policy are written out to; where one has more, they are not compared.
const MOST_TEXT: usize = 16 << 20;

/// What an entry takes besides its texts.
const ENTRY: usize = 32;

/// Somebody, what about, and what they may.
type Entry = (String, String, String);

/// Compares all that is said of each entry.
pub(super) fn compare(old: &Policy, new: &Policy, found: &mut Found) {
    let changed = Changed::between(old, new);
    let (was, is) = (Entries::of(old, &changed), Entries::of(new, &changed));
    let reach = |(source, destination, what): &Entry| Reach {
        source: source.clone(),
        destination: destination.clone(),
        what: what.clone(),
    };
    if was.cut_short || is.cut_short {
        // What one list has room for and the other hasn't would look like a difference.
        found.cut_short = true;
        found.changes("tags, approvals and attributes: too many to compare".to_owned());
    } else {
        is.all.difference(&was.all).for_each(|entry| found.tells(reach(entry), true));
        was.all.difference(&is.all).for_each(|entry| found.tells(reach(entry), false));
    }
    let (was, is) = (settings(old), settings(new));
    for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
        let text =
            |settings: &BTreeMap<String, String>| settings.get(name).cloned().unwrap_or_else(|| "nothing".to_owned());
        let (was, is) = (text(&was), text(&is));
        if was != is {
            found.changes(format!("{name}: {is} instead of {was}"));
        }
    }
}

/// Names that mean somebody else than they did.
struct Changed {
    groups: BTreeSet<Arc<str>>,
    hosts: BTreeSet<Arc<str>>,
    sets: BTreeSet<Arc<str>>,
}

impl Changed {
    fn between(old: &Policy, new: &Policy) -> Self {
        let members = |policy: &Policy, name: &str| -> Option<BTreeSet<GroupMember>> {
            policy.group(name).map(|members| members.iter().cloned().collect())
        };
        let groups = old.groups().keys().chain(new.groups().keys());
        let hosts = old.hosts().keys().chain(new.hosts().keys());
        let sets = [old, new].into_iter().flat_map(Policy::node_attributes).flat_map(|entry| &entry.targets);
        let sets = sets.filter_map(|alias| match alias {
            Alias::IpSet(name) => Some(name),
            _ => None,
        });
        let sets: BTreeSet<&Arc<str>> = sets.collect();
        Self {
            groups: groups.filter(|name| members(old, name) != members(new, name)).cloned().collect(),
            hosts: hosts.filter(|name| old.host(name) != new.host(name)).cloned().collect(),
            sets: sets.into_iter().filter(|name| old.ip_set(name) != new.ip_set(name)).cloned().collect(),
        }
    }
}

struct Entries {
    all: BTreeSet<Entry>,
    /// How many bytes may still be told.
    left: usize,
    cut_short: bool,
}

impl Entries {
    fn of(policy: &Policy, changed: &Changed) -> Self {
        let mut entries = Self { all: BTreeSet::new(), left: MOST_TEXT, cut_short: false };
        let mut add = |aliases: &[Alias], destination: &str, what: &str| {
            aliases.iter().for_each(|alias| entries.add(alias, destination, what, policy, changed));
        };
        for tag in policy.tags() {
            let owners = policy.tag_owners(tag).unwrap_or_default();
            let admins = [Alias::Auto(crate::Autogroup::Role(crate::Role::Admin))];
            add(if owners.is_empty() { &admins } else { owners }, tag.as_str(), "may give the tag");
        }
        let approvers = policy.approvers();
        for (route, aliases) in &approvers.routes {
            add(aliases, &route.to_string(), "route approved at once");
        }
        add(&approvers.exit_node, "exit node", "approved at once");
        for (service, aliases) in &approvers.services {
            add(aliases, service, "service approved at once");
        }
        for attributes in policy.node_attributes() {
            for (name, values) in &attributes.attributes.0 {
                let values: Vec<&str> = values.iter().flatten().map(|value| value.as_str()).collect();
                let what = [name.as_str()].into_iter().chain(values).collect::<Vec<_>>().join(" ");
                add(&attributes.targets, "nodeAttrs", &what);
            }
            for pool in &attributes.pools {
                add(&attributes.targets, "ipPool", &pool.to_string());
            }
        }
        entries
    }

    /// Enters an alias, or whom it means where that is somebody else by the other policy.
    fn add(&mut self, alias: &Alias, destination: &str, what: &str, policy: &Policy, changed: &Changed) {
        let mut enter = |source: &dyn fmt::Display| self.enter(source.to_string(), destination, what);
        let is_entered = match alias {
            Alias::Group(name) if changed.groups.contains(name) => {
                policy.group(name).unwrap_or_default().iter().try_for_each(|member| enter(member))
            }
            Alias::Host(name) if changed.hosts.contains(name) => {
                policy.host(name).iter().try_for_each(|range| enter(range))
            }
            Alias::IpSet(name) if changed.sets.contains(name) => {
                policy.ip_set(name).unwrap_or_default().iter().try_for_each(|range| enter(range))
            }
            _ => enter(alias),
        };
        self.cut_short |= is_entered.is_none();
    }

    /// `None` where there is no room.
    fn enter(&mut self, source: String, destination: &str, what: &str) -> Option<()> {
        self.left = self.left.checked_sub(ENTRY + source.len() + destination.len() + what.len())?;
        self.all.insert((source, destination.to_owned(), what.to_owned()));
        Some(())
    }
}

/// What is neither opened nor closed, by its name.
fn settings(policy: &Policy) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    for (name, conditions) in policy.postures() {
        let conditions: Vec<String> = conditions.iter().map(ToString::to_string).collect();
        settings.insert(name.to_string(), conditions.join(" and "));
    }
    let own = policy.settings();
    let word = |on: bool| if on { "on" } else { "off" }.to_owned();
    settings.insert("randomizeClientPort".to_owned(), word(own.randomize_client_port));
    settings.insert("disableIPv4".to_owned(), word(own.disable_ipv4));
    if let Some(always) = own.one_cgnat_route {
        let text = if always { "mac-always" } else { "mac-never" };
        settings.insert("OneCGNATRoute".to_owned(), text.to_owned());
    }
    if let Some(map) = &own.derp_map {
        settings.insert("derpMap".to_owned(), map.as_str().to_owned());
    }
    settings
}
