//! What a change of policy opens and closes of logins by SSH, by account.

use std::collections::BTreeSet;
use std::time::Duration;

use super::classes::Class;
use super::{Comparison, Found, Reach, listed};
use crate::policy::{SshAction, SshRule, SshUser};
use crate::{Alias, Autogroup, Compiled, Party, SshDecision};

/// How long a check holds where a rule doesn't say.
const DEFAULT_CHECK: Duration = Duration::from_secs(12 * 3600);

/// How many rules are looked at, once for each pair and account and once for each alias and class.
const MOST_WORK: usize = 5_000_000;

/// An account that is asked for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Account {
    Named(String),
    /// Any that no rule names.
    AnyOther,
    /// The one that is called as the user.
    OfUser,
}

impl Comparison<'_> {
    /// Compares by the rules of SSH that differ: who logs in as whom on what, and how.
    pub(super) fn compare_logins(&self, found: &mut Found) {
        let mut left = MOST_WORK;
        let other = unnamed_account([self.old, self.new]);
        let mut seen = BTreeSet::new();
        let [was, is] = &self.meanings;
        for (compiled, rules) in [(self.old, was.changed_ssh(is)), (self.new, is.changed_ssh(was))] {
            for rule in rules.into_iter().map(|at| &compiled.policy().ssh_rules()[at]) {
                if self.compare_rule(rule, compiled, &other, &mut left, &mut seen, found).is_none() {
                    self.tell_rule(rule, std::ptr::eq(compiled, self.new), found);
                }
            }
        }
    }

    /// `None` where that is more work than is left.
    fn compare_rule(
        &self,
        rule: &SshRule,
        compiled: &Compiled,
        other: &str,
        left: &mut usize,
        seen: &mut BTreeSet<(usize, usize, Account)>,
        found: &mut Found,
    ) -> Option<()> {
        let classes = &self.classes.all;
        let weight = |aliases: &[Alias]| aliases.iter().map(|alias| weight(alias, compiled)).sum::<usize>();
        let looks = classes.len().saturating_mul(weight(&rule.sources) + weight(&rule.destinations));
        *left = left.checked_sub(looks)?;
        let is_device = |class: &Class| !matches!(class.party, Party::Address(_));
        let named = |aliases: &[Alias]| -> Vec<usize> {
            let is_named = |class: &Class| aliases.iter().any(|alias| compiled.belongs_to(alias, &class.party));
            classes
                .iter()
                .enumerate()
                .filter(|(_, class)| is_device(class) && is_named(class))
                .map(|(at, _)| at)
                .collect()
        };
        let (sources, destinations) = (named(&rule.sources), named(&rule.destinations));
        // Accounts by the user's own name are given on the user's own devices too.
        let own = rule.destinations.contains(&Alias::Auto(Autogroup::OwnDevices))
            || rule.users.iter().any(|user| matches!(user, SshUser::LocalPart(_)));
        let accounts: Vec<Account> = rule.users.iter().map(Account::of).collect();
        let rules = 2 + self.old.policy().ssh_rules().len() + self.new.policy().ssh_rules().len();
        for from in sources {
            let login = &classes[from].old.source.login;
            let mine = (0..classes.len()).filter(|to| {
                own && is_device(&classes[*to]) && login.is_some() && classes[*to].old.source.login == *login
            });
            for to in destinations.iter().copied().chain(mine) {
                for account in &accounts {
                    if seen.insert((from, to, account.clone())) {
                        *left = left.checked_sub(rules)?;
                        self.compare_login(&classes[from], &classes[to], account, other, found);
                    }
                }
            }
        }
        Some(())
    }

    fn compare_login(&self, from: &Class, to: &Class, account: &Account, other: &str, found: &mut Found) {
        let of_user = || from.old.source.login.as_deref().and_then(|login| Some(login.rsplit_once('@')?.0.to_owned()));
        let (name, label) = match account {
            Account::Named(name) => (name.clone(), name.clone()),
            Account::AnyOther => (other.to_owned(), "any account but root".to_owned()),
            Account::OfUser => match of_user() {
                Some(name) => (name.clone(), name),
                None => return,
            },
        };
        let words = |compiled: &Compiled| {
            let (rule, action) = match compiled.decide_ssh(&from.party, &to.party, &name) {
                SshDecision::Accept { rule } => (rule, SshAction::Accept),
                SshDecision::Check { rule, period } => (rule, SshAction::Check(period)),
                SshDecision::Refuse { .. } => return None,
            };
            Some(format!("ssh {label}{}", conditions(&compiled.policy().ssh_rules()[rule], action)))
        };
        let (was, is) = (words(self.old), words(self.new));
        if was == is {
            return;
        }
        let reach = |what| Reach { source: from.label.clone(), destination: to.label.clone(), what };
        was.map(reach).into_iter().for_each(|reach| found.closes(reach));
        is.map(reach).into_iter().for_each(|reach| found.opens(reach));
    }

    /// Tells a rule as it stands.
    fn tell_rule(&self, rule: &SshRule, is_new: bool, found: &mut Found) {
        let users: Vec<String> = rule.users.iter().take(6).map(|user| Account::of(user).to_string()).collect();
        let more = if rule.users.len() > users.len() { " and more" } else { "" };
        let what = format!(
            "ssh {}{more}{}, line {}",
            users.join(", "),
            conditions(rule, rule.action),
            rule.origin.position.line
        );
        let reach = Reach { source: listed(&rule.sources), destination: listed(&rule.destinations), what };
        found.tells_whole(reach, is_new);
    }
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

impl std::fmt::Display for Account {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
        SshAction::Check(period) => {
            let (hours, minutes, seconds) =
                (period.as_secs() / 3600, period.as_secs() / 60 % 60, period.as_secs() % 60);
            let parts = [(hours, "h"), (minutes, "m"), (seconds, "s")];
            let parts = parts.into_iter().filter(|(count, _)| *count > 0);
            format!(" (check for {})", parts.map(|(count, unit)| format!("{count}{unit}")).collect::<String>())
        }
    };
    if !rule.recorders.is_empty() {
        let tags: Vec<String> = rule.recorders.iter().take(6).map(ToString::to_string).collect();
        let must = if rule.enforce_recorder { ", or not at all" } else { "" };
        text.push_str(&format!(", recorded by {}{must}", tags.join(", ")));
    }
    if !rule.accept_env.is_empty() {
        let names: Vec<&str> = rule.accept_env.iter().take(6).map(String::as_str).collect();
        text.push_str(&format!(", with {}", names.join(", ")));
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
fn unnamed_account(policies: [&Compiled; 2]) -> String {
    let users = policies.iter().flat_map(|compiled| compiled.policy().ssh_rules()).flat_map(|rule| &rule.users);
    let named: BTreeSet<&str> = users
        .filter_map(|user| match user {
            SshUser::Name(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    // No login name has a blank, so that it is nobody's local part either.
    let mut account = "any other".to_owned();
    while named.contains(account.as_str()) {
        account.push('\'');
    }
    account
}
