use std::collections::BTreeMap;
use std::net::IpAddr;

use roaring::RoaringBitmap;

use super::Compiled;
use crate::policy::{SshAction, SshRule, SshUser};
use crate::{Alias, Autogroup, NodeId, UserId};

/// A rule of a node's SSH server: who may log in, as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshGrant {
    /// The rule of the policy that it comes from, numbered as in [`crate::Policy::ssh_rules`].
    pub rule: usize,
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

/// Whom of its sources a rule lets in to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// All of them.
    All,
    /// Those that belong to the same user; of a device without a user, the device itself.
    SameOwner,
}

/// Whom of its sources a rule lets in to a device; `None` if the rule isn't about the device. `is_users` tells whether the
/// device belongs to a user, `means` whether an alias of devices means it, `is_source` whether it is a source of the rule
/// itself.
pub(super) fn admitted(
    rule: &SshRule,
    is_users: bool,
    means: impl Fn(&Alias) -> bool,
    is_source: impl Fn() -> bool,
) -> Option<Admitted> {
    // However a rule names devices of users: each is for the user it belongs to.
    let of_users = |alias: &&Alias| {
        use Autogroup::{Member, OwnDevices, Role};
        matches!(alias, Alias::User(_) | Alias::Auto(OwnDevices | Member | Role(_)))
    };
    let own = |alias: &Alias| *alias == Alias::Auto(Autogroup::OwnDevices);
    if rule.destinations.iter().any(|alias| !of_users(&alias) && means(alias)) {
        return Some(Admitted::All);
    }
    let to_own = is_users && rule.destinations.iter().filter(of_users).any(|alias| own(alias) || means(alias));
    // The hosted service gives rules by local part on the sources' own devices too, whatever their destination.
    let echoed = rule.has_local_part() && !rule.destinations.is_empty() && is_source();
    (to_own || echoed).then_some(Admitted::SameOwner)
}

impl SshGrant {
    /// The account that one asked for becomes; `None` if it isn't let in as that.
    pub fn account<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        account(&self.users, asked)
    }
}

impl Compiled {
    /// The SSH rules of a node, of which the first that fits counts; those with a check come first.
    pub fn ssh(&self, node: NodeId) -> Vec<SshGrant> {
        let Some(slot) = self.slot_of.get(&node).copied() else {
            return Vec::new();
        };
        let mut grants = Vec::new();
        for (at, rule) in self.ssh_rules_in_order() {
            if let Some(sources) = self.ssh_sources(rule, slot) {
                self.add_grants((at, rule), &sources, &mut grants);
            }
        }
        grants
    }

    /// Rules with their numbers, those with a check first.
    pub(super) fn ssh_rules_in_order(&self) -> Vec<(usize, &SshRule)> {
        let mut rules: Vec<(usize, &SshRule)> = self.policy.ssh_rules().iter().enumerate().collect();
        rules.sort_by_key(|(_, rule)| rule.action == SshAction::Accept);
        rules
    }

    /// The sources that a rule lets in to a node; `None` if the rule isn't about the node.
    fn ssh_sources(&self, rule: &SshRule, slot: u32) -> Option<RoaringBitmap> {
        let sources = self.ssh_source_slots(rule);
        let is_users = self.node_at(slot).is_some_and(|node| node.user().is_some());
        match admitted(rule, is_users, |alias| self.names(alias, slot), || sources.contains(slot))? {
            Admitted::All => Some(sources),
            Admitted::SameOwner => Some(sources & self.same_owner(slot)),
        }
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

    fn add_grants(&self, rule: (usize, &SshRule), sources: &RoaringBitmap, grants: &mut Vec<SshGrant>) {
        let mut add = |slots: &RoaringBitmap, login: Option<&str>| {
            for users in accounts(&rule.1.users, login) {
                self.add_grant(rule, self.principals(rule.1, slots), users, grants);
            }
        };
        if !rule.1.has_local_part() {
            return add(sources, None);
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
            add(&slots, self.topology.users.get(&user).map(|user| &*user.login));
        }
        add(&tagged, None);
    }

    fn add_grant(
        &self,
        (at, rule): (usize, &SshRule),
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
            rule: at,
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

/// The accounts that a source with a login name, if it has one, may have by a rule: those of every source, and then the one
/// that is called like the login's part before the `@`. Each maps what may be asked for to what it becomes.
pub(super) fn accounts(users: &[SshUser], login: Option<&str>) -> Vec<BTreeMap<String, String>> {
    // Root is denied by name unless it is allowed by name.
    let mut common = BTreeMap::from([("root".to_owned(), String::new())]);
    let mut own = None;
    for user in users {
        match user {
            SshUser::Name(name) => drop(common.insert(name.clone(), name.clone())),
            SshUser::NonRoot => drop(common.insert("*".to_owned(), "=".to_owned())),
            SshUser::LocalPart(domain) => {
                let local = login.and_then(|login| login.rsplit_once('@')).filter(|(_, of)| **of == **domain);
                own = own.or(local.map(|(local, _)| BTreeMap::from([(local.to_owned(), local.to_owned())])));
            }
        }
    }
    [common].into_iter().chain(own).collect()
}

/// The account that one asked for becomes by a map of them; `None` if it isn't let in.
pub(super) fn account<'a>(users: &'a BTreeMap<String, String>, asked: &'a str) -> Option<&'a str> {
    let becomes = users.get(asked).or_else(|| users.get("*"))?;
    match becomes.as_str() {
        "" => None,
        "=" => Some(asked),
        other => Some(other),
    }
}
