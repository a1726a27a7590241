use std::collections::BTreeMap;
use std::net::IpAddr;

use roaring::RoaringBitmap;

use super::Compiled;
use crate::policy::{Origin, SshAction, SshRule, SshUser};
use crate::{Alias, Autogroup, NodeId, UserId};

/// A rule of a node's SSH server: who may log in, as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshGrant {
    /// The rule of the policy that it comes from.
    pub origin: Origin,
    /// The addresses that may. `autogroup:tagged` lists a node once for each of its tags, as the hosted service does.
    pub principals: Vec<IpAddr>,
    /// Which account a name asked for becomes: itself, `=` for any other than those listed, or none when it is empty.
    pub users: BTreeMap<String, String>,
    /// Whether the login has to be confirmed.
    pub action: SshAction,
    /// Patterns of environment variables that the client may set.
    pub accept_env: Vec<String>,
    /// The addresses of the nodes that record the session.
    pub recorders: Vec<IpAddr>,
    /// Whether a session that no recorder takes is refused.
    pub enforce_recorder: bool,
}

impl Compiled {
    /// The SSH rules of a node; those with a check come first.
    pub fn ssh(&self, node: NodeId) -> Vec<SshGrant> {
        let Some(slot) = self.slot_of.get(&node).copied() else {
            return Vec::new();
        };
        let mut grants = Vec::new();
        for rule in self.policy.ssh_rules() {
            if let Some(sources) = self.ssh_sources(rule, slot) {
                self.add_grants(rule, &sources, &mut grants);
            }
        }
        grants.sort_by_key(|grant| grant.action == SshAction::Accept);
        grants
    }

    /// The sources that a rule lets in to a node; `None` if the rule isn't about the node.
    fn ssh_sources(&self, rule: &SshRule, slot: u32) -> Option<RoaringBitmap> {
        let sources = self.ssh_source_slots(rule);
        if self.is_ssh_destination(rule, slot) {
            return Some(sources);
        }
        let mine = self.same_owner(slot);
        let to_self = rule.destinations.contains(&Alias::Auto(Autogroup::OwnDevices));
        let by_local_part = rule.users.iter().any(|user| matches!(user, SshUser::LocalPart(_)));
        // The hosted service gives rules by local part on the sources' own devices too, whatever their destination.
        let echoed = by_local_part && !rule.destinations.is_empty() && sources.contains(slot);
        let is_user = self.node_at(slot).is_some_and(|node| node.user().is_some());
        ((to_self && is_user) || echoed).then(|| sources & mine)
    }

    fn is_ssh_destination(&self, rule: &SshRule, slot: u32) -> bool {
        rule.destinations
            .iter()
            .filter(|alias| **alias != Alias::Auto(Autogroup::OwnDevices))
            .any(|alias| self.names(alias, slot))
    }

    fn ssh_source_slots(&self, rule: &SshRule) -> RoaringBitmap {
        let mut sources = RoaringBitmap::new();
        for alias in &rule.sources {
            if let Some(id) = self.aliases.id(alias) {
                sources |= &self.aliases.entry(id).named;
            }
        }
        if let Some(eligible) = self.eligible.get(&rule.postures) {
            sources &= eligible;
        }
        sources
    }

    /// The devices of the same user; a tagged node alone.
    fn same_owner(&self, slot: u32) -> RoaringBitmap {
        let user = self.node_at(slot).and_then(|node| node.user());
        match user.and_then(|user| self.by_user.get(&user)) {
            Some(mine) => mine.clone(),
            None => RoaringBitmap::from_iter([slot]),
        }
    }

    fn add_grants(&self, rule: &SshRule, sources: &RoaringBitmap, grants: &mut Vec<SshGrant>) {
        let domains: Vec<&str> = rule.users.iter().filter_map(local_part_domain).collect();
        let common = common_users(&rule.users);
        if domains.is_empty() {
            self.add_grant(rule, self.principals(rule, sources), common, grants);
            return;
        }
        let mut by_user: BTreeMap<UserId, RoaringBitmap> = BTreeMap::new();
        let mut tagged = RoaringBitmap::new();
        for slot in sources {
            match self.node_at(slot).and_then(|node| node.user()) {
                Some(user) => by_user.entry(user).or_default().insert(slot),
                None => tagged.insert(slot),
            };
        }
        for (user, slots) in by_user {
            self.add_grant(rule, self.principals(rule, &slots), common.clone(), grants);
            let login = self.topology.users.get(&user).map(|user| user.login.clone()).unwrap_or_default();
            if let Some((local, _)) = login.rsplit_once('@').filter(|(_, domain)| domains.contains(domain)) {
                let users = BTreeMap::from([(local.to_owned(), local.to_owned())]);
                self.add_grant(rule, self.principals(rule, &slots), users, grants);
            }
        }
        self.add_grant(rule, self.principals(rule, &tagged), common, grants);
    }

    fn add_grant(
        &self,
        rule: &SshRule,
        principals: Vec<IpAddr>,
        users: BTreeMap<String, String>,
        grants: &mut Vec<SshGrant>,
    ) {
        if principals.is_empty() {
            return;
        }
        // By number, not by slot: the order must not depend on who came first.
        let recorders =
            rule.recorders.iter().filter_map(|tag| self.by_tag.get(tag)).flat_map(|nodes| self.node_ids(nodes));
        let recorders = recorders.filter_map(|id| self.topology.nodes.get(&id));
        grants.push(SshGrant {
            origin: rule.origin,
            principals,
            users,
            action: rule.action,
            accept_env: rule.accept_env.clone(),
            recorders: recorders.flat_map(|node| node.addresses.iter().copied()).collect(),
            enforce_recorder: rule.enforce_recorder,
        });
    }

    fn principals(&self, rule: &SshRule, sources: &RoaringBitmap) -> Vec<IpAddr> {
        let by_tag = rule.sources.contains(&Alias::Auto(Autogroup::Tagged));
        let mut principals = Vec::new();
        for slot in sources {
            let tags = self.node_at(slot).map_or(0, |node| node.tags().count());
            for _ in 0..if by_tag { tags.max(1) } else { 1 } {
                principals.extend(self.addresses(slot));
            }
        }
        principals.sort();
        principals
    }
}

/// The accounts that every source of a rule may have. Root is denied by name unless it is allowed by name.
fn common_users(users: &[SshUser]) -> BTreeMap<String, String> {
    let mut common = BTreeMap::from([("root".to_owned(), String::new())]);
    for user in users {
        match user {
            SshUser::Name(name) => common.insert(name.clone(), name.clone()),
            SshUser::NonRoot => common.insert("*".to_owned(), "=".to_owned()),
            SshUser::LocalPart(_) => None,
        };
    }
    common
}

fn local_part_domain(user: &SshUser) -> Option<&str> {
    match user {
        SshUser::LocalPart(domain) => Some(domain),
        _ => None,
    }
}
