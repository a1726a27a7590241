mod sources;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use roaring::RoaringBitmap;

use super::Compiled;
use crate::policy::{SshAction, SshRule, SshUser};
use crate::{Alias, Autogroup, Node, NodeId, UserId};

pub(super) use sources::SshTable;

/// A rule of a node's SSH server: who may log in, as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshGrant {
    /// The rule of the policy that it comes from, numbered as in [`crate::Policy::ssh_rules`].
    pub rule: usize,
    /// The addresses that may, ascending; devices that are told the same share them. `autogroup:tagged` lists a node once
    /// for each of its tags, as the hosted service does.
    pub principals: Arc<[IpAddr]>,
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

/// Whom a rule lets in to a device, so that devices with the same share of it are told the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Share {
    /// All of its sources.
    All,
    /// Those of a user.
    User(UserId),
    /// The device of this slot itself.
    Device(u32),
}

/// A rule with the shares of it that a device has by two compilations.
pub(super) type ComparedShare = (usize, Share, Share);

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
        let slot = self.slot_of.get(&node).copied();
        let shares = slot.map(|slot| self.ssh_shares(slot)).unwrap_or_default();
        shares.into_iter().flat_map(|(rule, share)| self.ssh_grants(rule, share)).collect()
    }

    /// Whether a slot's rules are others by another compilation that has the same slots. `known` are shares of rules that
    /// were compared before: many devices have the same, and they are long.
    pub(super) fn ssh_differs(&self, next: &Self, slot: u32, known: &mut HashMap<ComparedShare, bool>) -> bool {
        let (before, after) = (self.ssh_shares(slot), next.ssh_shares(slot));
        let mut differs = |(rule, one): (usize, Share), (other_rule, other): (usize, Share)| {
            let compare = || self.ssh_grants(rule, one) != next.ssh_grants(rule, other);
            rule != other_rule || *known.entry((rule, one, other)).or_insert_with(compare)
        };
        before.len() != after.len() || before.into_iter().zip(after).any(|(one, other)| differs(one, other))
    }

    /// The rules that let somebody in to a slot's node, in order, with whom they let in.
    fn ssh_shares(&self, slot: u32) -> Vec<(usize, Share)> {
        let user = self.node_at(slot).and_then(Node::user);
        let mut shares = Vec::new();
        for (at, rule) in self.in_order(self.ssh_table.rules_about(&self.membership[slot as usize].named)) {
            let is_source = || self.ssh_sources(at).slots.contains(slot);
            let admitted = admitted(rule, user.is_some(), |alias| self.names(alias, slot), is_source);
            let share = match (admitted, user) {
                (None, _) => continue,
                (Some(Admitted::All), _) => Share::All,
                (Some(Admitted::SameOwner), Some(user)) => Share::User(user),
                (Some(Admitted::SameOwner), None) => Share::Device(slot),
            };
            let is_empty = match share {
                Share::All => self.ssh_sources(at).slots.is_empty(),
                Share::User(user) => !self.ssh_sources_by_owner(at).users.contains_key(&user),
                Share::Device(slot) => !self.ssh_sources(at).slots.contains(slot),
            };
            if !is_empty {
                shares.push((at, share));
            }
        }
        shares
    }

    /// Rules with their numbers, those with a check first.
    pub(super) fn ssh_rules_in_order(&self) -> Vec<(usize, &SshRule)> {
        self.in_order(0..self.policy.ssh_rules().len())
    }

    fn in_order(&self, rules: impl IntoIterator<Item = usize>) -> Vec<(usize, &SshRule)> {
        let all = self.policy.ssh_rules();
        let mut rules: Vec<(usize, &SshRule)> = rules.into_iter().map(|at| (at, &all[at])).collect();
        rules.sort_by_key(|(_, rule)| rule.action == SshAction::Accept);
        rules
    }

    /// How much a device that a rule is about may be told of it: addresses of sources, accounts, variables and addresses of
    /// recorders, each as often as it is told.
    pub(crate) fn ssh_size(&self, at: usize) -> usize {
        let rule = &self.policy.ssh_rules()[at];
        let (mut grants, mut copies) = (1, 1);
        if rule.has_local_part() {
            // What everybody may and what each user may for their login's sake.
            (grants, copies) = (1 + 2 * self.ssh_sources_by_owner(at).users.len(), 2);
        }
        let of_a_grant = 1 + rule.users.len() + rule.accept_env.len() + self.recorders(rule).len();
        self.ssh_sources(at).addresses.len() * copies + grants * of_a_grant
    }

    /// What a node is told of a rule.
    fn ssh_grants(&self, at: usize, share: Share) -> Vec<SshGrant> {
        let rule = &self.policy.ssh_rules()[at];
        let mut grants = Vec::new();
        let mut add = |principals: &Arc<[IpAddr]>, login: Option<&str>| {
            for users in accounts(&rule.users, login) {
                self.add_grant((at, rule), principals.clone(), users, &mut grants);
            }
        };
        let by_owner = || self.ssh_sources_by_owner(at);
        let login = |user| self.topology.users.get(user).map(|user| &*user.login);
        match share {
            Share::All if !rule.has_local_part() => add(&self.ssh_sources(at).addresses, None),
            Share::All => {
                by_owner().users.iter().for_each(|(user, principals)| add(principals, login(user)));
                add(&by_owner().tagged, None);
            }
            Share::User(user) => {
                let own = by_owner().users.get(&user);
                own.into_iter().for_each(|principals| add(principals, login(&user)));
            }
            Share::Device(slot) => add(&self.principals(at, &RoaringBitmap::from_iter([slot])), None),
        }
        grants
    }

    fn add_grant(
        &self,
        (at, rule): (usize, &SshRule),
        principals: Arc<[IpAddr]>,
        users: BTreeMap<String, String>,
        grants: &mut Vec<SshGrant>,
    ) {
        if principals.is_empty() {
            return;
        }
        grants.push(SshGrant {
            rule: at,
            principals,
            users,
            action: rule.action,
            accept_env: rule.accept_env.clone(),
            recorders: self.recorders(rule),
            enforce_recorder: rule.enforce_recorder,
        });
    }

    /// The addresses of a rule's recorders, by number, not by slot: the order must not depend on who came first.
    fn recorders(&self, rule: &SshRule) -> Vec<IpAddr> {
        let recorders =
            rule.recorders.iter().filter_map(|tag| self.by_tag.get(tag)).flat_map(|nodes| self.node_ids(nodes));
        let recorders = recorders.filter_map(|id| self.topology.nodes.get(&id));
        recorders.flat_map(|node| node.addresses.iter().copied()).collect()
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
