use std::collections::{BTreeSet, HashMap};

use ipnet::IpNet;

use super::cite::{Entry, Part, fields};
use super::who::Asked;
use super::{Answer, aliases, listed};
use crate::{Alias, Compiled, Party, Role, Tag, is_exit_route};

/// The field of node attributes that says where addresses are from, asked for as if it were one of them.
const POOLS: &str = "ipPool";

impl Compiled {
    pub(super) fn why_route(&self, asked: &Asked, route: &IpNet, keys: &HashMap<IpNet, String>) -> Answer {
        let approvers = self.policy().approvers();
        let mut entries = Vec::new();
        if is_exit_route(route) {
            if self.mentions(&fields(&["autoApprovers", "exitNode"])) {
                entries.push(self.approver(asked, &["autoApprovers", "exitNode"], &approvers.exit_node, None));
            }
        } else {
            for (prefix, listed) in &approvers.routes {
                let outside = (!prefix.contains(route)).then(|| format!("{route} does not lie in {prefix}"));
                let text = keys.get(prefix).cloned().unwrap_or_else(|| prefix.to_string());
                entries.push(self.approver(asked, &["autoApprovers", "routes", &text], listed, outside));
            }
        }
        let node = self.node_of(&asked.party);
        let is_revoked = node.is_some_and(|node| node.revoked.contains(route));
        for entry in entries.iter_mut().filter(|entry| is_revoked && entry.lacks.is_empty()) {
            let label = &asked.label;
            entry.lacks.push(format!("{route} was taken back by hand, which holds until {label} has withdrawn it"));
        }
        let mut answer = Answer::by_entries(entries, self);
        if let Some(node) = node {
            let (offers, approved) = (node.advertised.contains(route), node.approved.contains(route));
            answer.notes.push(match (offers, approved) {
                (true, true) => format!("{} serves it now", asked.label),
                (true, false) if is_revoked => format!("{} offers it, and it waits for approval by hand", asked.label),
                (true, false) => format!("{} offers it, and it waits for approval", asked.label),
                (false, true) => format!("{} may serve it, and does not offer it", asked.label),
                (false, false) => format!("{} does not offer it", asked.label),
            });
        }
        answer
    }

    /// The prefixes of routes as the policy writes them, which may be in more than one way.
    pub(super) fn route_keys(&self) -> HashMap<IpNet, String> {
        let document = self.policy().document();
        let field = |value: &crate::hujson::Value, name: &str| {
            let members = value.members().unwrap_or_default();
            members.iter().position(|member| member.name().eq_ignore_ascii_case(name))
        };
        let mut value = document.root();
        for name in ["autoApprovers", "routes"] {
            let Some(at) = field(value, name) else { return HashMap::new() };
            value = value.members().unwrap_or_default()[at].value();
        }
        let mut keys = HashMap::new();
        for member in value.members().unwrap_or_default() {
            if let Ok(prefix) = member.name().trim().parse::<IpNet>() {
                keys.entry(prefix.trunc()).or_insert_with(|| member.name().to_owned());
            }
        }
        keys
    }

    pub(super) fn why_service(&self, asked: &Asked, service: &str) -> Answer {
        let tags = self.topology().services.get(service).map(|service| &service.tags);
        let fits = |key: &str| key == service || tags.is_some_and(|tags| tags.iter().any(|tag| tag.as_str() == key));
        let approvers = &self.policy().approvers().services;
        let entries = approvers.iter().map(|(key, listed)| {
            let other = (!fits(key)).then(|| format!("it is not for {service}"));
            self.approver(asked, &["autoApprovers", "services", key], listed, other)
        });
        Answer::by_entries(entries.collect(), self)
    }

    pub(super) fn why_attribute(&self, asked: &Asked, name: &str) -> Answer {
        let node = match &asked.party {
            Party::Node(id) => *id,
            _ => return Answer::no(Vec::new()),
        };
        let mut entries = Vec::new();
        for (at, entry) in self.policy().node_attributes().iter().enumerate() {
            let mut lacks = Vec::new();
            if !self.is_target(entry, node) {
                lacks.push(format!("{} is not among its targets: {}", asked.label, aliases(&entry.targets)));
            }
            if !(entry.attributes.has(name) || (name == POOLS && !entry.pools.is_empty())) {
                lacks.push("it gives other attributes".to_owned());
            }
            entries.push(Entry { path: vec![Part::Field("nodeAttrs".to_owned()), Part::Index(at)], lacks });
        }
        let mut answer = Answer::by_entries(entries, self);
        if name == POOLS && !answer.allowed_by.is_empty() {
            let pools = listed(self.address_pools(node).iter().map(ToString::to_string));
            answer.notes.push(format!("an IPv4 address that it is given is from {pools}"));
        }
        if answer.allowed_by.is_empty() && self.attributes(node).has(name) {
            let note = "it follows from a setting, or from another attribute".to_owned();
            return Answer { notes: vec![note], ..Answer::yes(Vec::new()) };
        }
        answer
    }

    /// Whether somebody may give a tag: what owns it, and what owns that.
    pub(super) fn why_tag(&self, asked: &Asked, tag: &Tag) -> Answer {
        let mut entries = Vec::new();
        let mut waiting = vec![tag.clone()];
        let mut seen = BTreeSet::from([tag.clone()]);
        while let Some(next) = waiting.pop() {
            let owners = self.policy().tag_owners(&next).unwrap_or_default();
            let admins = [Alias::Auto(crate::Autogroup::Role(Role::Admin))];
            // A list without owners leaves a tag to admins; what owns another tag does so only by being listed.
            let owners = if owners.is_empty() && next == *tag { &admins[..] } else { owners };
            entries.push(self.approver(asked, &["tagOwners", next.as_str()], owners, None));
            for owner in owners {
                if let Alias::Tag(owner) = owner
                    && seen.insert(owner.clone())
                {
                    waiting.push(owner.clone());
                }
            }
        }
        Answer::by_entries(entries, self)
    }

    fn approver(&self, asked: &Asked, path: &[&str], approvers: &[Alias], other: Option<String>) -> Entry {
        let mut lacks = Vec::from_iter(other);
        if !approvers.iter().any(|alias| self.belongs_to(alias, &asked.party)) {
            let whom = if approvers.is_empty() { "nobody".to_owned() } else { aliases(approvers) };
            lacks.push(format!("{} is not among those it names: {whom}", asked.label));
        }
        Entry { path: fields(path), lacks }
    }
}
