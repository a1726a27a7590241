//! What a change of policy opens and closes of logins by SSH, by account.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::classes::{Class, Kind};
use super::found::Found;
use super::{Comparison, Reach};
use crate::policy::{DEFAULT_CHECK, SshAction, SshRule, SshUser};
use crate::words::{listed, period};
use crate::{Alias, Compiled, Party, SshDecision};

/// How many rules are looked at, once for each pair of kinds and account and once for each alias and kind.
const MOST_WORK: usize = 5_000_000;

/// What a pair of kinds counts for each account beside the rules, as it is kept in mind.
const PAIR: usize = 10;

/// How many logins are told one by one.
const MOST_LOGINS: usize = 50_000;

/// An account that is asked for.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Account {
    Named(String),
    /// Any that no rule names.
    AnyOther,
    /// The one that is called as the user.
    OfUser,
}

/// How a login is let through by the old policy and by the new one.
type Words = Arc<[Option<String>; 2]>;

/// A login from a class to a class.
struct Login {
    from: usize,
    to: usize,
    words: Words,
}

/// The comparison of all rules of SSH.
struct Logins<'a, 'c> {
    comparison: &'a Comparison<'c>,
    /// What no rule names.
    unnamed: String,
    /// The accounts that some rule names, and the user's own where some rule gives that.
    all: BTreeSet<Account>,
    /// The domains of whose users some rule gives the account called as they are.
    domains: BTreeSet<Arc<str>>,
    /// The kinds of the devices of each user.
    by_login: HashMap<Arc<str>, BTreeSet<usize>>,
    seen: HashSet<(usize, usize, Account)>,
    left: usize,
    logins: usize,
}

impl Comparison<'_> {
    /// Compares by the rules of SSH that differ: who logs in as whom on what, and how.
    pub(super) fn compare_logins(&self, found: &mut Found) {
        let [was, is] = &self.meanings;
        let changed = [was.changed_ssh(is), is.changed_ssh(was)];
        if changed.iter().all(Vec::is_empty) {
            return;
        }
        let mut logins = Logins::new(self);
        for (at, rules) in changed.into_iter().enumerate() {
            for rule in rules.into_iter().map(|rule| &self.compiled[at].policy().ssh_rules()[rule]) {
                if self.classes.is_partial || logins.compare_rule(rule, at, found).is_none() {
                    tell_rule(rule, at == 1, found);
                }
            }
        }
    }
}

impl<'a, 'c> Logins<'a, 'c> {
    fn new(comparison: &'a Comparison<'c>) -> Self {
        let rules = comparison.compiled.iter().flat_map(|compiled| compiled.policy().ssh_rules());
        let users: BTreeSet<&SshUser> = rules.flat_map(|rule| &rule.users).collect();
        let all: BTreeSet<Account> = users.iter().map(|user| Account::of(user)).collect();
        let domains = users.iter().filter_map(|user| match user {
            SshUser::LocalPart(domain) => Some(domain.clone()),
            _ => None,
        });
        let domains = domains.collect();
        let mut by_login: HashMap<Arc<str>, BTreeSet<usize>> = HashMap::new();
        for (number, kind) in comparison.classes.kinds.iter().enumerate() {
            for login in kind.by_login.keys() {
                by_login.entry(login.clone()).or_default().insert(number);
            }
        }
        let unnamed = unnamed_account(&all);
        let seen = HashSet::new();
        Self { comparison, unnamed, all, domains, by_login, seen, left: MOST_WORK, logins: MOST_LOGINS }
    }

    fn kind(&self, number: usize) -> &'a Kind {
        &self.comparison.classes.kinds[number]
    }

    fn class(&self, number: usize) -> &'a Class {
        &self.comparison.classes.all[number]
    }

    /// The account that is called as the user of a class, where some rule gives it.
    fn local_part(&self, class: usize) -> Option<&'a str> {
        let (local, domain) = self.class(class).login.as_deref()?.rsplit_once('@')?;
        self.domains.contains(domain).then_some(local)
    }

    fn spend(&mut self, work: usize) -> Option<()> {
        self.left = self.left.checked_sub(work)?;
        Some(())
    }

    /// Tells what differs of all that a rule is about; `None`, with nothing told, where that is more than is left.
    fn compare_rule(&mut self, rule: &SshRule, at: usize, found: &mut Found) -> Option<()> {
        let sources = self.kinds_of(&rule.sources, at)?;
        let destinations = self.kinds_of(&rule.destinations, at)?;
        let has_own = rule.is_about_own_devices();
        let accounts = self.accounts_of(rule);
        let (mut fresh, mut logins) = (HashSet::new(), Vec::new());
        for from in sources {
            let mut to: BTreeSet<usize> = destinations.iter().copied().collect();
            if has_own {
                to.insert(from);
                let own = self.kind(from).by_login.keys().flat_map(|login| &self.by_login[login]);
                to.extend(own);
            }
            self.spend(to.len().saturating_mul(accounts.len()).saturating_mul(PAIR))?;
            for key in to.into_iter().flat_map(|to| accounts.iter().map(move |account| (from, to, account.clone()))) {
                if !self.seen.contains(&key) {
                    self.compare_kinds(&key, &mut logins)?;
                    fresh.insert(key);
                }
                if logins.len() > self.logins {
                    return None;
                }
            }
        }
        self.logins -= logins.len();
        self.seen.extend(fresh);
        logins.iter().for_each(|login| self.tell(login, found));
        Some(())
    }

    /// The kinds of devices that some aliases mean.
    fn kinds_of(&mut self, aliases: &[Alias], at: usize) -> Option<Vec<usize>> {
        let compiled = self.comparison.compiled[at];
        let kinds = &self.comparison.classes.kinds;
        let looks: usize = aliases.iter().map(|alias| weight(alias, compiled)).sum();
        self.spend(kinds.len().saturating_mul(looks))?;
        let is_meant = |kind: &Kind| {
            let party = &self.class(kind.classes[0]).party;
            !matches!(party, Party::Address(_)) && aliases.iter().any(|alias| compiled.belongs_to(alias, party))
        };
        Some(kinds.iter().enumerate().filter(|(_, kind)| is_meant(kind)).map(|(number, _)| number).collect())
    }

    /// The accounts that a rule is about. One that gives any account decides also of those that others name.
    fn accounts_of(&self, rule: &SshRule) -> BTreeSet<Account> {
        let own: BTreeSet<Account> = rule.users.iter().map(Account::of).collect();
        if own.contains(&Account::AnyOther) { self.all.union(&own).cloned().collect() } else { own }
    }

    /// What differs of the logins from one kind to another as an account.
    fn compare_kinds(&mut self, (from, to, account): &(usize, usize, Account), logins: &mut Vec<Login>) -> Option<()> {
        let (from, to) = (self.kind(*from), self.kind(*to));
        // Whose own name it is may be let in as another is not.
        let is_special = |class: usize| match (account, self.local_part(class)) {
            (Account::Named(name), Some(local)) => name == local,
            (Account::OfUser, _) => true,
            _ => false,
        };
        let (special, common): (Vec<usize>, Vec<usize>) = from.classes.iter().partition(|class| is_special(**class));
        let (name, label) = match account {
            Account::Named(name) => (name.clone(), name.clone()),
            _ => (self.unnamed.clone(), Account::AnyOther.to_string()),
        };
        if !common.is_empty() {
            self.compare_classes(&common, to, (&name, &label), logins)?;
        }
        for class in special {
            if let Some(local) = self.local_part(class) {
                self.compare_classes(&[class], to, (local, local), logins)?;
            }
        }
        Some(())
    }

    /// The same of some classes of a kind, of which it depends only on whose the destination is.
    fn compare_classes(
        &mut self,
        from: &[usize],
        to: &Kind,
        account: (&str, &str),
        logins: &mut Vec<Login>,
    ) -> Option<()> {
        let mut known: [Option<Words>; 3] = Default::default();
        for from in from.iter().copied() {
            for to in self.to_compare(from, to, &known) {
                self.spend(1)?;
                for (relation, party) in self.relations(from, to) {
                    if known[relation].is_none() {
                        let rules = self.comparison.compiled.iter().map(|compiled| compiled.policy().ssh_rules().len());
                        self.spend(rules.sum())?;
                        known[relation] = Some(self.words(from, party, account));
                    }
                    let words = known[relation].iter().filter(|words| words[0] != words[1]).cloned();
                    logins.extend(words.map(|words| Login { from, to, words }));
                }
                if logins.len() > self.logins {
                    return None;
                }
            }
        }
        Some(())
    }

    /// Where logins of a class to a kind may differ: where nothing differs for others, only on the user's own devices.
    fn to_compare(&self, from: usize, to: &'a Kind, known: &[Option<Words>; 3]) -> Vec<usize> {
        match &known[0] {
            Some(words) if words[0] == words[1] => {
                let own = self.class(from).login.as_ref().and_then(|login| to.by_login.get(login));
                let itself = || to.classes.binary_search(&from).ok().map(|_| from);
                own.cloned().unwrap_or_else(|| itself().into_iter().collect())
            }
            _ => to.classes.clone(),
        }
    }

    /// How a device of one class may stand to one of another, with a device that stands so: another's (0), the same user's
    /// (1), or, of no user, itself (2).
    fn relations(&self, from: usize, to: usize) -> Vec<(usize, &'a Party)> {
        let class = self.class(to);
        if self.comparison.classes.are_one_users(from, to) {
            return vec![(1, &class.party)];
        }
        if from != to {
            return vec![(0, &class.party)];
        }
        let itself = matches!(class.party, Party::Node(_)).then_some((2, &class.party));
        let twin = class.twin.as_ref().map(|twin| (0, twin));
        itself.into_iter().chain(twin).collect()
    }

    /// How a login is let through by either policy.
    fn words(&self, from: usize, party: &Party, (name, label): (&str, &str)) -> Words {
        let words = self.comparison.compiled.map(|compiled| {
            let (rule, action) = match compiled.decide_ssh(&self.class(from).party, party, name) {
                SshDecision::Accept { rule } => (rule, SshAction::Accept),
                SshDecision::Check { rule, period } => (rule, SshAction::Check(period)),
                SshDecision::Refuse { .. } => return None,
            };
            Some(format!("ssh {label}{}", conditions(&compiled.policy().ssh_rules()[rule], action)))
        });
        Arc::new(words)
    }

    fn tell(&self, login: &Login, found: &mut Found) {
        let (from, to) = (self.class(login.from), self.class(login.to));
        let reach = |what: &String| Reach {
            source: from.label.to_string(),
            destination: to.label.to_string(),
            what: what.clone(),
        };
        login.words[0].iter().for_each(|what| found.tells(reach(what), false));
        login.words[1].iter().for_each(|what| found.tells(reach(what), true));
    }
}

/// Tells a rule as it stands.
fn tell_rule(rule: &SshRule, is_new: bool, found: &mut Found) {
    let users = listed(rule.users.iter().map(Account::of));
    let what = format!("ssh {users}{}, line {}", conditions(rule, rule.action), rule.origin.position.line);
    let reach = Reach { source: listed(&rule.sources), destination: listed(&rule.destinations), what };
    found.tells_whole(reach, is_new);
}

impl Account {
    fn of(user: &SshUser) -> Self {
        match user {
            SshUser::Name(name) => Self::Named(name.clone()),
            SshUser::NonRoot => Self::AnyOther,
            SshUser::LocalPart(_) => Self::OfUser,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Named(name) => name,
            Self::AnyOther => "any account but root",
            Self::OfUser => "the account called as the user",
        })
    }
}

/// How a login is let through, besides as whom.
fn conditions(rule: &SshRule, action: SshAction) -> String {
    let mut text = match action {
        SshAction::Accept => String::new(),
        SshAction::Check(DEFAULT_CHECK) => " (check)".to_owned(),
        SshAction::Check(Duration::ZERO) => " (check each time)".to_owned(),
        SshAction::Check(length) => format!(" (check for {})", period(length)),
    };
    if !rule.recorders.is_empty() {
        let must = if rule.enforce_recorder { ", or not at all" } else { "" };
        text.push_str(&format!(", recorded by {}{must}", listed(&rule.recorders)));
    }
    if !rule.accept_env.is_empty() {
        text.push_str(&format!(", with {}", listed(&rule.accept_env)));
    }
    text
}

/// How much there is to look at to know whether an alias means somebody.
fn weight(alias: &Alias, compiled: &Compiled) -> usize {
    match alias {
        Alias::Group(name) => 1 + compiled.policy().group(name).map_or(0, <[_]>::len),
        _ => 1,
    }
}

/// An account that no rule names, for what rules give to any.
fn unnamed_account(named: &BTreeSet<Account>) -> String {
    // No login name has a blank, so that it is nobody's local part either.
    let mut account = "any other".to_owned();
    while named.contains(&Account::Named(account.clone())) {
        account.push('\'');
    }
    account
}
