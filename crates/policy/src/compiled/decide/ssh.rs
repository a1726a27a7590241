use super::{Known, Lack, NearMiss, Party, SshDecision, same_user};
use crate::Compiled;
use crate::compiled::has_posture;
use crate::compiled::nearest::keep_nearest;
use crate::compiled::ssh::{Admitted, account, accounts, admitted};
use crate::policy::{SshAction, SshRule};

impl Compiled {
    /// Tells whether a source may log in to a destination as an account: what the first of the destination's rules
    /// ([`Compiled::ssh`]) that fits says, or what it would say to a device that isn't there yet.
    pub fn decide_ssh(&self, source: &Party, destination: &Party, account: &str) -> SshDecision {
        let (source, destination) = (self.known(source), self.known(destination));
        let mut misses = Vec::new();
        for (at, rule) in self.ssh_rules_in_order() {
            let lacks = self.ssh_lacks(rule, &source, &destination, account);
            match (lacks.as_slice(), rule.action) {
                ([], SshAction::Accept) => return SshDecision::Accept { rule: at },
                ([], SshAction::Check(period)) => return SshDecision::Check { rule: at, period },
                _ => {
                    // A rule that fits ends the search, be it that nobody can fulfil what it asks for.
                    let is_last = lacks == [Lack::User];
                    misses.push(NearMiss { rule: at, lacks });
                    if is_last {
                        break;
                    }
                }
            }
        }
        keep_nearest(&mut misses);
        SshDecision::Refuse { near_misses: misses }
    }

    /// What [`Compiled::decide_ssh`] costs: about one for each small rule.
    pub(crate) fn cost_of_a_login(&self) -> usize {
        let cost = |rule: &SshRule| {
            let conditions = rule.postures.iter().filter_map(|name| self.policy.posture(name)).map(<[_]>::len);
            1 + (rule.sources.len() + rule.destinations.len()) / 16
                + rule.users.len() / 4
                + conditions.sum::<usize>() / 4
        };
        self.policy.ssh_rules().iter().map(cost).sum()
    }

    /// What of a rule doesn't fit, the nearest first.
    fn ssh_lacks(&self, rule: &SshRule, source: &Known, destination: &Known, asked: &str) -> Vec<Lack> {
        let mut lacks = Vec::new();
        if source.node.is_none() || destination.node.is_none() {
            return vec![Lack::Destination, Lack::Source];
        }
        let login = source.user.as_ref().map(|user| &*user.login);
        if !accounts(&rule.users, login).iter().any(|users| account(users, asked).is_some()) {
            lacks.push(Lack::Account);
        }
        if !self.has_ssh_posture(rule, source) {
            lacks.push(Lack::Posture);
        }
        if matches!(rule.action, SshAction::Check(_)) && source.user.is_none() {
            lacks.push(Lack::User);
        }
        if !self.is_admitted(rule, source, destination) {
            lacks.push(Lack::Destination);
        }
        if !self.is_ssh_source(rule, source) {
            lacks.push(Lack::Source);
        }
        lacks
    }

    /// Whether a rule is about a destination, as far as a source is concerned that it may or may not have.
    fn is_admitted(&self, rule: &SshRule, source: &Known, destination: &Known) -> bool {
        let is_source = || self.is_ssh_source(rule, destination) && self.has_ssh_posture(rule, destination);
        match admitted(rule, destination.user.is_some(), |alias| self.means(alias, destination), is_source) {
            Some(Admitted::All) => true,
            Some(Admitted::SameOwner) => same_user(source, destination) || is_same_device(source, destination),
            None => false,
        }
    }

    fn is_ssh_source(&self, rule: &SshRule, party: &Known) -> bool {
        rule.sources.iter().any(|alias| self.means(alias, party))
    }

    fn has_ssh_posture(&self, rule: &SshRule, party: &Known) -> bool {
        party.node.as_ref().is_some_and(|node| has_posture(&self.policy, &rule.postures, node))
    }
}

fn is_same_device(one: &Known, other: &Known) -> bool {
    let (Some(one), Some(other)) = (&one.node, &other.node) else { return false };
    one.addresses.iter().any(|address| other.addresses.contains(address))
}
