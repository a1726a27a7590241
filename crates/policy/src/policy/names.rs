use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use filter::AddressRange;

use super::{Condition, Group, GroupMember, ipset, posture};
use crate::alias::is_host_name;
use crate::fields::{Fields, string, strings};
use crate::hujson::{Position, Value};
use crate::problem::Problems;
use crate::{Alias, Autogroup, Tag};

/// What a policy gives names to.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub(super) groups: BTreeMap<Arc<str>, Group>,
    pub(super) hosts: BTreeMap<Arc<str>, AddressRange>,
    pub(super) tag_owners: BTreeMap<Tag, Vec<Alias>>,
    pub(super) ip_sets: BTreeMap<Arc<str>, Vec<AddressRange>>,
    pub(super) postures: BTreeMap<Arc<str>, Vec<Condition>>,
}

/// Login domains found so far, each with the place of its first use.
#[derive(Debug, Default)]
pub(super) struct Domains {
    pub(super) found: Vec<(Arc<str>, Position)>,
    known: HashSet<Arc<str>>,
}

impl Names {
    pub(super) fn read(fields: &Fields<'_>, domains: &mut Domains, problems: &mut Problems<'_>) -> Self {
        let mut names = Self::default();
        names.read_groups(fields, domains, problems);
        names.read_hosts(fields, problems);
        names.read_tags(fields, problems);
        names.ip_sets = ipset::read(fields, &names.hosts, problems);
        names.postures = posture::read(fields, problems);
        names
    }

    /// Reads an alias that must name something that exists. The error is in the hosted service's words.
    pub(super) fn alias(&self, text: &str) -> Result<Alias, String> {
        let alias = Alias::parse(text).map_err(|error| error.to_string())?;
        match &alias {
            Alias::Group(name) if !self.groups.contains_key(name) => Err(format!("group not found: \"{name}\"")),
            Alias::Tag(tag) if !self.tag_owners.contains_key(tag) => Err(format!("tag not found: \"{tag}\"")),
            Alias::IpSet(name) if !self.ip_sets.contains_key(name) => Err(format!("ipset not found: \"{name}\"")),
            Alias::Host(name) if !self.hosts.contains_key(name) => {
                Err(format!("\"{name}\": invalid address; it is neither an address nor a name in \"hosts\""))
            }
            _ => Ok(alias),
        }
    }

    /// The ranges that an alias stands for, if it stands for addresses.
    pub(super) fn ranges<'a>(&'a self, alias: &'a Alias) -> Option<&'a [AddressRange]> {
        match alias {
            Alias::Literal(range) => Some(std::slice::from_ref(range)),
            Alias::Host(name) => self.hosts.get(name).map(std::slice::from_ref),
            Alias::IpSet(name) => self.ip_sets.get(name).map(Vec::as_slice),
            _ => None,
        }
    }

    /// Whether an alias has every address of a family. The ranges of a set are ascending, so that two of them tell.
    pub(super) fn has_whole_family(&self, alias: &Alias) -> bool {
        let ranges = self.ranges(alias).unwrap_or_default();
        let v6 = ranges.partition_point(|range| range.first().is_ipv4());
        let whole = |range: &AddressRange| AddressRange::everything().contains(range);
        ranges.first().is_some_and(whole) || ranges.get(v6).is_some_and(whole)
    }

    fn read_groups(&mut self, fields: &Fields<'_>, domains: &mut Domains, problems: &mut Problems<'_>) {
        for (name, place, members) in fields.map("groups", problems) {
            if name.strip_prefix("group:").is_none_or(str::is_empty) {
                problems.at::<()>(place, format!("groups[{name:?}]: group names must start with 'group:'"));
                continue;
            }
            let mut read = Vec::new();
            for (member, value) in strings(members, problems) {
                read.extend(group_member(name, member, value, domains, problems));
            }
            self.groups.insert(name.into(), Group::new(read));
        }
    }

    fn read_hosts(&mut self, fields: &Fields<'_>, problems: &mut Problems<'_>) {
        for (name, place, value) in fields.map("hosts", problems) {
            if !is_host_name(name) {
                let message =
                    format!("hosts[{name:?}]: a host's name has letters, digits, '-', '_' and '.', and is no address");
                problems.at::<()>(place, message);
                continue;
            }
            let Some(text) = string(value, problems) else { continue };
            match text.trim().parse::<AddressRange>() {
                Ok(range) => {
                    self.hosts.insert(name.into(), range);
                }
                Err(error) => {
                    problems.at::<()>(value, format!("hosts[{name:?}]: {text:?}: invalid address: {error}"));
                }
            }
        }
    }

    fn read_tags(&mut self, fields: &Fields<'_>, problems: &mut Problems<'_>) {
        let mut sections = Vec::new();
        for (name, place, owners) in fields.map("tagOwners", problems) {
            match Tag::parse(name) {
                Ok(tag) => {
                    self.tag_owners.insert(tag.clone(), Vec::new());
                    sections.push((tag, owners));
                }
                Err(error) => {
                    problems.at::<()>(place, format!("tagOwners[\"{name}\"]: {error}"));
                }
            }
        }
        for (tag, owners) in sections {
            let mut read = Vec::new();
            for (text, value) in strings(owners, problems) {
                match self.alias(text).and_then(owner) {
                    Ok(alias) => read.push(alias),
                    Err(error) => {
                        problems.at::<()>(value, format!("tagOwners[\"{tag}\"]: {error}"));
                    }
                }
            }
            self.tag_owners.insert(tag, read);
        }
    }
}

/// Holds an alias to those that can own a tag, or approve something: users, not addresses.
pub(super) fn owner(alias: Alias) -> Result<Alias, String> {
    match &alias {
        Alias::User(_) | Alias::Group(_) | Alias::Tag(_) => Ok(alias),
        Alias::Auto(Autogroup::Member | Autogroup::Role(_)) => Ok(alias),
        _ => {
            Err(format!("{:?} can't own anything; name users, groups, tags or autogroups of users", alias.to_string()))
        }
    }
}

fn group_member(
    group: &str,
    member: &str,
    value: &Value,
    domains: &mut Domains,
    problems: &mut Problems<'_>,
) -> Option<GroupMember> {
    let member = member.trim();
    if member.starts_with("group:") {
        return problems.at(value, format!("groups[\"{group}\"]: \"{member}\": group members cannot be recursive"));
    }
    match Alias::parse(member) {
        Ok(Alias::User(name)) => Some(GroupMember::User(name)),
        Ok(Alias::UsersOf(domain)) => {
            note_domain(&domain, value, domains, problems);
            Some(GroupMember::UsersOf(domain))
        }
        _ => {
            problems.at(value, format!("groups[\"{group}\"]: \"{member}\": group members must be users (name@domain)"))
        }
    }
}

pub(super) fn note_domain(domain: &Arc<str>, value: &Value, domains: &mut Domains, problems: &Problems<'_>) {
    if domains.known.insert(domain.clone()) {
        domains.found.push((domain.clone(), problems.position(value)));
    }
}
