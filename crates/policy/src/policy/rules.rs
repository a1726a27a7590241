mod acl;
mod grant;

use std::fmt;
use std::sync::Arc;

use filter::{CapMap, PortRange, RawJson};

use super::names::{Domains, Names, note_domain};
use super::{expansion, posture};
use crate::fields::{Fields, list};
use crate::hujson::{Position, Value};
use crate::problem::Problems;
use crate::{Alias, Autogroup, Ports, Problem, Tag};

/// What a user's devices are called among themselves.
const OWN_DEVICES: Alias = Alias::Auto(Autogroup::OwnDevices);

/// Who reaches what: the unit that a policy is compiled and explained by.
///
/// A grant is one rule for its ports and one for its capabilities; an ACL is one rule for each of its destinations.
/// `autogroup:self` is always a rule of its own.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where it stands in the policy.
    pub origin: Origin,
    /// Who.
    pub sources: Arc<[Alias]>,
    /// The postures of which the source must have one; none means any device will do.
    pub postures: Arc<[Arc<str>]>,
    /// Where to; `autogroup:self` only as the single destination.
    pub destinations: Vec<Alias>,
    /// Only by routers with one of these tags.
    pub via: Vec<Tag>,
    /// What it gives.
    pub effect: Effect,
}

/// What a rule gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Packets to ports; each protocol once.
    Ports(Vec<Ports>),
    /// Capabilities.
    Capabilities(Arc<CapMap>),
}

/// A place in a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin {
    /// The list it is in.
    pub section: Section,
    /// Which entry of the list, from 0.
    pub index: usize,
    /// Which destination of an ACL.
    pub destination: Option<usize>,
    /// Where the entry begins in the text.
    pub position: Position,
}

/// A list of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// `grants`
    Grants,
    /// `acls`
    Acls,
    /// `ssh`
    Ssh,
    /// What holds when a policy has neither grants nor ACLs: everything is allowed.
    Implied,
}

impl Rule {
    /// Whether the rule is about the devices of one user among themselves. With `via` it isn't: no router leads there, so
    /// that it gives nothing.
    pub fn is_own_devices(&self) -> bool {
        self.via.is_empty() && self.destinations == [Alias::Auto(Autogroup::OwnDevices)]
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = match self.section {
            Section::Grants => "grants",
            Section::Acls => "acls",
            Section::Ssh => "ssh",
            Section::Implied => return formatter.write_str("no acls and no grants: everything is allowed"),
        };
        write!(formatter, "line {}: {section}[{}]", self.position.line, self.index)?;
        match self.destination {
            Some(destination) => write!(formatter, ".dst[{destination}]"),
            None => Ok(()),
        }
    }
}

/// What reading rules needs besides the text.
pub(super) struct Context<'a> {
    pub(super) names: &'a Names,
    pub(super) domains: &'a mut Domains,
    pub(super) warnings: &'a mut Vec<Problem>,
}

impl Context<'_> {
    pub(super) fn alias(&mut self, text: &str, value: &Value, problems: &Problems<'_>) -> Result<Alias, String> {
        let alias = self.names.alias(text)?;
        if let Alias::UsersOf(domain) = &alias {
            note_domain(domain, value, self.domains, problems);
        }
        Ok(alias)
    }

    pub(super) fn warn(&mut self, value: &Value, message: impl Into<String>, problems: &Problems<'_>) {
        self.warnings.push(Problem { message: message.into(), position: Some(problems.position(value)) });
    }
}

/// Reads `grants` and `acls`.
pub(super) fn read(fields: &Fields<'_>, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Vec<Rule> {
    let listed = fields.strings("defaultSrcPosture", problems);
    let default_postures = posture::read_names(listed, &context.names.postures, problems).into();
    let mut rules = Vec::new();
    for (index, value) in fields.list("grants", problems).iter().enumerate() {
        let origin = Origin { section: Section::Grants, index, destination: None, position: problems.position(value) };
        rules.extend(grant::read(value, origin, &default_postures, context, problems).unwrap_or_default());
        if expansion::are_too_many(&rules, value, problems) {
            return rules;
        }
    }
    for (index, value) in fields.list("acls", problems).iter().enumerate() {
        let origin = Origin { section: Section::Acls, index, destination: None, position: problems.position(value) };
        rules.extend(acl::read(value, origin, &default_postures, context, problems).unwrap_or_default());
        if expansion::are_too_many(&rules, value, problems) {
            return rules;
        }
    }
    // Leaving both out allows everything, as in the hosted service; a list that is null allows nothing.
    if !fields.mentions("grants") && !fields.mentions("acls") {
        context.warn(fields.object(), "no \"acls\" and no \"grants\": every device reaches every other", problems);
        rules.push(everything(problems.position(fields.object()), default_postures));
    }
    rules
}

fn everything(position: Position, postures: Arc<[Arc<str>]>) -> Rule {
    Rule {
        origin: Origin { section: Section::Implied, index: 0, destination: None, position },
        sources: [Alias::Anyone].into(),
        postures,
        destinations: vec![Alias::Anyone],
        via: Vec::new(),
        effect: Effect::Ports(vec![Ports { protocol: None, ranges: vec![PortRange::ALL] }]),
    }
}

fn read_sources<'v>(
    listed: Vec<(&'v str, &'v Value)>,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Vec<(Alias, &'v Value)> {
    let mut sources = Vec::new();
    for (text, value) in listed {
        match context.alias(text, value, problems) {
            Err(error) => {
                problems.at::<()>(value, format!("src={error}"));
            }
            Ok(
                alias @ (Alias::Auto(Autogroup::OwnDevices | Autogroup::Internet | Autogroup::NonRoot)
                | Alias::Service(_)),
            ) => {
                problems.at::<()>(value, format!("\"{alias}\" not valid on the src side of a rule"));
            }
            Ok(alias) => sources.push((alias, value)),
        }
    }
    sources
}

fn read_destinations<'v>(
    listed: Vec<(&'v str, &'v Value)>,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Vec<(Alias, &'v Value)> {
    let found = listed.into_iter();
    found.filter_map(|(text, value)| Some((read_destination(text, value, context, problems)?, value))).collect()
}

fn read_destination(
    text: &str,
    value: &Value,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Option<Alias> {
    let text = text.trim();
    let alias = match context.alias(text, value, problems) {
        Ok(alias) => alias,
        Err(error) => return problems.at(value, format!("dst=\"{text}\": {error}")),
    };
    match alias {
        Alias::Auto(Autogroup::DangerAll) => problems.at(value, "cannot use autogroup:danger-all as a dst"),
        Alias::Auto(Autogroup::NonRoot | Autogroup::Shared) => {
            problems.at(value, format!("\"{alias}\" not valid on the dst side of a rule"))
        }
        _ => {
            if context.names.has_whole_family(&alias) {
                let advice = "to allow all IP addresses, use \"*\" or \"autogroup:internet\"";
                return problems.at(value, format!("dst \"{text}\": {advice}"));
            }
            Some(alias)
        }
    }
}

fn check_self_source(alias: &Alias, acl: bool, value: &Value, problems: &mut Problems<'_>) {
    let fits = match alias {
        Alias::User(_) | Alias::UsersOf(_) | Alias::Group(_) | Alias::Auto(Autogroup::Member | Autogroup::Role(_)) => {
            true
        }
        Alias::Anyone => acl,
        _ => false,
    };
    if !fits {
        problems.at::<()>(value, "autogroup:self can only be used with users, groups, or supported autogroups");
    }
}

/// The values of a capability, each as its JSON without blanks and comments.
pub(super) fn raw_values(values: &Value, problems: &mut Problems<'_>) -> Vec<RawJson> {
    let document = problems.document();
    list(values, problems).iter().filter_map(|value| RawJson::parse(&document.minify(value)).ok()).collect()
}

fn read_postures(
    fields: &Fields<'_>,
    default_postures: &Arc<[Arc<str>]>,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Arc<[Arc<str>]> {
    match fields.get("srcPosture") {
        Some(_) => {
            posture::read_names(fields.strings("srcPosture", problems), &context.names.postures, problems).into()
        }
        None => default_postures.clone(),
    }
}

fn warn_empty(
    sources: &[(Alias, &Value)],
    destinations: &[(Alias, &Value)],
    value: &Value,
    context: &mut Context<'_>,
    problems: &Problems<'_>,
) {
    if sources.is_empty() || destinations.is_empty() {
        let side = if sources.is_empty() { "src" } else { "dst" };
        context.warn(value, format!("{side} is empty: this rule allows nothing"), problems);
    }
}
