//! Why something is allowed or not, for people: in words, with the lines of the policy.

mod approval;
mod cite;
mod lack;
mod login;
mod question;
mod who;

use std::fmt;
use std::time::Duration;

use filter::Protocol;
use ipnet::IpNet;

use crate::words::{listed, period};
use crate::{Alias, Compiled, NearMiss, Party, Query, SshDecision, Tag, internet};
use cite::Entry;
use who::Asked;

pub use question::{Question, QuestionError, Subject};

/// The most pairs of devices that one question is answered for.
const MOST_PAIRS: usize = 10_000;

/// The most rules, entries or aliases that one question has looked at, once for each device or pair that it is about.
const MOST_LOOKS: usize = 2_000_000;

/// How many rules are cited where more allow the same.
const MOST_CITED: usize = 50;

/// The port of SSH, which a login needs besides the rule that allows it.
const SSH_PORT: u16 = 22;

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// One for all devices that are answered the same; more where names stand for several devices that aren't.
    pub answers: Vec<Answer>,
}

/// What holds for some devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The sources, each with its destination where there is one.
    pub parties: Vec<(String, Option<String>)>,
    /// What holds.
    pub verdict: Verdict,
    /// The rules that allow it.
    pub allowed_by: Vec<Citation>,
    /// Where it is refused: the rules that come nearest and what each lacks, the nearest first.
    pub nearest: Vec<Citation>,
    /// What else matters: where the destination lies, what else is needed.
    pub notes: Vec<String>,
}

/// Whether something is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Yes,
    /// It is, once the user has confirmed who they are; that holds for so many seconds.
    Check(u64),
    /// It isn't.
    No,
}

/// A part of the policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Citation {
    /// Its line; 0 for what holds without any.
    pub line: u32,
    /// Where it is: `grants[0]`, `autoApprovers.exitNode`.
    pub place: String,
    /// Its text without comments and blanks, cut where it is long.
    pub text: String,
    /// What of it doesn't fit, in words; empty for a rule that allows.
    pub lacks: Vec<String>,
}

impl Compiled {
    /// Answers a question in words, by the same sets as filters and tests.
    ///
    /// # Errors
    /// A name means nobody, or too many at once.
    pub fn explain(&self, question: &Question) -> Result<Explanation, QuestionError> {
        let sources = || self.asked(&question.source);
        let answers = match &question.subject {
            Subject::Packets { destination, protocol, port } => {
                self.for_pairs(sources()?, self.asked_destination(destination)?, 0, |from, to, near| {
                    self.why_packets(from, to, (*protocol, *port), near)
                })?
            }
            Subject::Visibility { destination } => {
                let sources = self.asked_devices(&question.source)?;
                let devices = self.asked_devices(destination)?;
                self.for_pairs(sources, devices, 0, |from, to, near| self.why_visible(from, to, near))?
            }
            Subject::Capability { destination, name } => {
                self.for_pairs(sources()?, self.asked_destination(destination)?, 0, |from, to, near| {
                    self.why_capability(from, to, name, near)
                })?
            }
            Subject::Ssh { destination, account } => {
                let looks = self.cost_of_a_login();
                self.for_pairs(sources()?, self.asked(destination)?, looks, |from, to, _| {
                    self.why_ssh(from, to, account)
                })?
            }
            Subject::Route(route) => self.explain_route(&question.source, route)?,
            Subject::Service(service) => {
                let devices = self.asked_devices(&question.source)?;
                let size = self.policy().approvers().services.values().map(|listed| 1 + listed.len()).sum();
                self.for_each(devices, size, |party| self.why_service(party, service))?
            }
            Subject::Attribute(name) => {
                let devices = self.asked_devices(&question.source)?;
                let size = self.policy().node_attributes().iter().map(|entry| 1 + entry.targets.len()).sum();
                self.for_each(devices, size, |party| self.why_attribute(party, name))?
            }
            Subject::Tag(tag) => self.explain_tag(&question.source, tag)?,
        };
        Ok(Explanation { answers })
    }

    fn explain_route(&self, source: &str, route: &IpNet) -> Result<Vec<Answer>, QuestionError> {
        let devices = self.asked(source)?;
        let keys = self.route_keys();
        let size = self.policy().approvers().routes.values().map(|listed| 1 + listed.len()).sum();
        self.for_each(devices, size, |party| self.why_route(party, route, &keys))
    }

    fn explain_tag(&self, source: &str, tag: &str) -> Result<Vec<Answer>, QuestionError> {
        let tag = Tag::parse(tag).map_err(|error| QuestionError::Tag(format!("{tag:?}: {error}")))?;
        if self.policy().tag_owners(&tag).is_none() {
            let message = format!("the policy has no {tag}; nobody can give it until \"tagOwners\" lists it");
            return Err(QuestionError::Tag(message));
        }
        let givers = self.asked(source)?;
        let size = self.policy().tags().map(|tag| 1 + self.policy().tag_owners(tag).map_or(0, <[_]>::len)).sum();
        self.for_each(givers, size, |party| self.why_tag(party, &tag))
    }

    fn for_pairs(
        &self,
        sources: Vec<Asked>,
        destinations: Vec<Asked>,
        looks: usize,
        answer: impl Fn(&Asked, &Asked, bool) -> Answer,
    ) -> Result<Vec<Answer>, QuestionError> {
        let pairs = sources.len().saturating_mul(destinations.len());
        let most = MOST_PAIRS.min(MOST_LOOKS / looks.max(1)).max(1);
        if pairs > most {
            return Err(QuestionError::TooMany(pairs, most));
        }
        // What comes near is sought among all rules, for as many pairs as there is time.
        let mut near = (MOST_LOOKS / (1 + self.looks_for_nearest())).max(1);
        let mut answers = Vec::new();
        for source in &sources {
            for destination in destinations.iter().filter(|to| pairs == 1 || to.label != source.label) {
                let parties = (source.label.clone(), Some(destination.label.clone()));
                let mut found = answer(source, destination, near > 0);
                if found.verdict == Verdict::No {
                    if near == 0 && looks == 0 {
                        found
                            .notes
                            .push("which rules come nearest is not looked for in so many; ask about one".to_owned());
                    }
                    near = near.saturating_sub(1);
                }
                join(&mut answers, Answer { parties: vec![parties], ..found });
            }
        }
        Ok(answers)
    }

    /// One answer for each device, where each looks at so many entries.
    fn for_each(
        &self,
        parties: Vec<Asked>,
        looks: usize,
        answer: impl Fn(&Asked) -> Answer,
    ) -> Result<Vec<Answer>, QuestionError> {
        let most = (MOST_LOOKS / looks.max(1)).max(1);
        if parties.len() > most {
            return Err(QuestionError::TooMany(parties.len(), most));
        }
        let mut answers = Vec::new();
        for party in &parties {
            join(&mut answers, Answer { parties: vec![(party.label.clone(), None)], ..answer(party) });
        }
        Ok(answers)
    }

    fn why_packets(&self, from: &Asked, to: &Asked, (protocol, port): (Protocol, u16), near: bool) -> Answer {
        let query = Query { source: from.party.clone(), destination: to.party.clone(), protocol, port };
        let (source, destination) = (self.source_side(&from.party), self.destination_side(&to.party));
        let allowed_by = self.allowing(&source, &destination, &query);
        let misses = if near && allowed_by.is_empty() { self.nearest_ports(&query) } else { Vec::new() };
        let mut answer = self.answer_by_rules(&allowed_by, &misses, (from, to));
        answer.notes.extend(self.where_lies(from, to));
        answer
    }

    fn why_visible(&self, from: &Asked, to: &Asked, near: bool) -> Answer {
        let rules = self.rules_of_visibility(&from.party, &to.party);
        let mut answer = self.answer_by_rules(&rules, &[], (from, to));
        if near && rules.is_empty() {
            let cite = |(miss, is_turned): (NearMiss, bool)| {
                let (from, to) = if is_turned { (to, from) } else { (from, to) };
                self.cite_rule(miss.rule, self.lacks_in_words(&miss, from, to))
            };
            answer.nearest = self.nearest_reach(&from.party, &to.party).into_iter().map(cite).collect();
        }
        answer
    }

    fn why_capability(&self, from: &Asked, to: &Asked, name: &str, near: bool) -> Answer {
        let decision = self.decide_capabilities(&from.party, &to.party);
        if !decision.capabilities.has(name) {
            let misses = if near { self.nearest_capability(&from.party, &to.party, name) } else { Vec::new() };
            return self.answer_by_rules(&[], &misses, (from, to));
        }
        let gives = |at: &usize| match &self.policy().rules()[*at].effect {
            crate::Effect::Capabilities(all) => all.has(name),
            crate::Effect::Ports(_) => false,
        };
        let rules: Vec<usize> = decision.given_by.into_iter().filter(gives).collect();
        let mut answer = self.answer_by_rules(&rules, &[], (from, to));
        let values = decision.capabilities.values(name).unwrap_or_default();
        answer.notes.extend(values.iter().map(|value| format!("with {}", cite::cut(value.as_str()))));
        answer
    }

    fn why_ssh(&self, from: &Asked, to: &Asked, account: &str) -> Answer {
        let cite = |rule: usize, lacks| self.cite_ssh(rule, lacks);
        let lets_in = |rule: usize, verdict: Verdict| {
            let notes = self.login_notes(&self.policy().ssh_rules()[rule]);
            Answer { verdict, notes, ..Answer::yes(vec![cite(rule, Vec::new())]) }
        };
        let mut answer = match self.decide_ssh(&from.party, &to.party, account) {
            SshDecision::Accept { rule } => lets_in(rule, Verdict::Yes),
            SshDecision::Check { rule, period } => lets_in(rule, Verdict::Check(period.as_secs())),
            SshDecision::Refuse { near_misses } => {
                let words = |miss: &NearMiss| self.ssh_lacks_in_words(miss, from, account);
                Answer::no(near_misses.iter().map(|miss| cite(miss.rule, words(miss))).collect())
            }
        };
        let query = Query {
            source: from.party.clone(),
            destination: to.party.clone(),
            protocol: Protocol::TCP,
            port: SSH_PORT,
        };
        let open = || self.allowing(&self.source_side(&from.party), &self.destination_side(&to.party), &query);
        if answer.verdict != Verdict::No && open().is_empty() {
            answer.notes.push("but tcp:22 is not let through, which a login needs as well".to_owned());
        }
        answer
    }

    fn answer_by_rules(&self, rules: &[usize], misses: &[NearMiss], parties: (&Asked, &Asked)) -> Answer {
        if !rules.is_empty() {
            let cited = rules.iter().take(MOST_CITED).map(|rule| self.cite_rule(*rule, Vec::new()));
            let mut answer = Answer::yes(cited.collect());
            if rules.len() > MOST_CITED {
                answer.notes.push(format!("{} more rules allow it", rules.len() - MOST_CITED));
            }
            return answer;
        }
        let words = |miss: &NearMiss| self.lacks_in_words(miss, parties.0, parties.1);
        Answer::no(misses.iter().map(|miss| self.cite_rule(miss.rule, words(miss))).collect())
    }

    /// What a destination that is no device's own address depends on besides the rules.
    fn where_lies(&self, from: &Asked, to: &Asked) -> Vec<String> {
        let Party::Address(address) = &to.party else { return Vec::new() };
        let topology = self.topology();
        if self.node_by_address(*address).is_some() {
            return Vec::new();
        }
        if let Some((name, _)) = topology.services.iter().find(|(_, service)| service.addresses.contains(address)) {
            return vec![format!("{address} is {name}")];
        }
        let mut routes: Vec<&IpNet> = topology.routers.keys().filter(|route| route.contains(address)).collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.prefix_len()));
        if let Some(route) = routes.first() {
            let names = self.names_of(&topology.routers[*route]);
            return vec![format!("{address} lies behind {names}, by the route {route}")];
        }
        let exits: Vec<_> = topology.nodes.iter().filter(|(_, node)| node.is_exit()).map(|(id, _)| *id).collect();
        let public = internet::contains(&filter::AddressRange::single(*address));
        if public && !exits.is_empty() {
            return vec![format!(
                "{address} is on the internet: {} gets there by an exit node ({})",
                from.label,
                self.names_of(&exits)
            )];
        }
        vec![format!("no device serves a route to {address}: nothing arrives there, whatever the policy says")]
    }
}

impl Answer {
    fn yes(allowed_by: Vec<Citation>) -> Self {
        Self { parties: Vec::new(), verdict: Verdict::Yes, allowed_by, nearest: Vec::new(), notes: Vec::new() }
    }

    fn no(nearest: Vec<Citation>) -> Self {
        Self { parties: Vec::new(), verdict: Verdict::No, allowed_by: Vec::new(), nearest, notes: Vec::new() }
    }

    /// By entries that fit or don't: one that fits allows it.
    fn by_entries(entries: Vec<Entry>, compiled: &Compiled) -> Self {
        let (fit, others): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.lacks.is_empty());
        let cite = |entries: Vec<Entry>| entries.into_iter().map(|entry| compiled.cite(entry)).collect::<Vec<_>>();
        if fit.is_empty() {
            let mut nearest = others;
            nearest.sort_by_key(|entry| entry.lacks.len());
            nearest.truncate(crate::compiled::NEAREST);
            return Self::no(cite(nearest));
        }
        Self::yes(cite(fit.into_iter().take(MOST_CITED).collect()))
    }

    fn says_the_same(&self, other: &Self) -> bool {
        self.verdict == other.verdict
            && self.allowed_by == other.allowed_by
            && self.nearest == other.nearest
            && self.notes == other.notes
    }
}

/// Enters an answer, with others that say the same.
fn join(answers: &mut Vec<Answer>, new: Answer) {
    match answers.iter_mut().find(|known| known.says_the_same(&new)) {
        Some(known) => known.parties.extend(new.parties),
        None => answers.push(new),
    }
}

/// `yes, by line 3`
impl fmt::Display for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> =
            self.allowed_by.iter().filter(|citation| citation.line > 0).map(|rule| rule.line.to_string()).collect();
        let by = match lines.as_slice() {
            [] => String::new(),
            [line] => format!(", by line {line}"),
            _ => format!(", by lines {}", lines.join(", ")),
        };
        match self.verdict {
            Verdict::No => formatter.write_str("no"),
            Verdict::Yes => write!(formatter, "yes{by}"),
            Verdict::Check(0) => write!(formatter, "yes{by}, after a check each time"),
            Verdict::Check(seconds) => {
                let period = period(Duration::from_secs(seconds));
                write!(formatter, "yes{by}, after a check that holds for {period}")
            }
        }
    }
}

impl fmt::Display for Citation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => formatter.write_str(&self.place),
            line => write!(formatter, "line {line}: {} {}", self.place, self.text),
        }
    }
}

fn aliases(aliases: &[Alias]) -> String {
    listed(aliases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_check_holds_is_told_to_the_second() {
        let answer = Answer { verdict: Verdict::Check(90), ..Answer::yes(Vec::new()) };
        assert_eq!(answer.to_string(), "yes, after a check that holds for 1m30s");
    }
}
