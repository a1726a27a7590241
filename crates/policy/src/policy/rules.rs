use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use filter::{CapMap, PortRange, RawJson};

use super::names::{Domains, Names, note_domain};
use super::{expansion, posture};
use crate::fields::{Fields, list, map};
use crate::hujson::{Position, Value};
use crate::problem::Problems;
use crate::{Alias, Autogroup, Ports, Problem, Tag};

/// The capabilities in the service's own domain that a grant may give.
const OWN_CAPABILITIES: [&str; 6] = ["drive", "relay", "webui", "kubernetes", "tsidp", "secrets"];

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
        rules.extend(read_grant(value, origin, &default_postures, context, problems).unwrap_or_default());
        if expansion::are_too_many(&rules, value, problems) {
            return rules;
        }
    }
    for (index, value) in fields.list("acls", problems).iter().enumerate() {
        let origin = Origin { section: Section::Acls, index, destination: None, position: problems.position(value) };
        rules.extend(read_acl(value, origin, &default_postures, context, problems).unwrap_or_default());
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

const GRANT: [&str; 6] = ["src", "dst", "ip", "app", "via", "srcPosture"];

fn read_grant(
    value: &Value,
    origin: Origin,
    default_postures: &Arc<[Arc<str>]>,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<Rule>> {
    let fields = Fields::read(value, &GRANT, problems)?;
    let sources = read_sources(fields.strings("src", problems), context, problems);
    let destinations = read_destinations(fields.strings("dst", problems), context, problems);
    let ports = read_ip(&fields, problems);
    let capabilities = read_capabilities(&fields, problems);
    let via = read_via(&fields, context, problems);
    let postures = read_postures(&fields, default_postures, context, problems);
    if is_nothing(fields.get("ip")) && is_nothing(fields.get("app")) {
        return problems.at(value, "ip and app can not both be empty");
    }
    let to_self = destinations.iter().any(|(alias, _)| *alias == Alias::Auto(Autogroup::OwnDevices));
    if to_self {
        sources.iter().for_each(|(alias, value)| check_self_source(alias, false, value, problems));
    }
    if let Some(via) = fields.get("via").filter(|_| to_self && !via.is_empty()) {
        let message = "\"via\" is for what lies behind routers: it leaves nothing of autogroup:self";
        context.warn(via, message, problems);
    }
    if fields.get("app").is_some()
        && let Some((_, value)) = destinations.iter().find(|(alias, _)| *alias == Alias::Auto(Autogroup::Internet))
    {
        problems.at::<()>(value, "cannot use app grants with autogroup:internet");
    }
    warn_empty(&sources, &destinations, value, context, problems);
    let shared: Arc<[Alias]> = sources.into_iter().map(|(alias, _)| alias).collect();
    let rule = |destinations: Vec<Alias>, effect: Effect| Rule {
        origin,
        sources: shared.clone(),
        postures: postures.clone(),
        destinations,
        via: via.clone(),
        effect,
    };
    let (own, others): (Vec<_>, Vec<_>) = destinations
        .iter()
        .map(|(alias, _)| alias.clone())
        .partition(|alias| *alias == Alias::Auto(Autogroup::OwnDevices));
    let mut rules = Vec::new();
    for destinations in [others, own.into_iter().take(1).collect()] {
        if destinations.is_empty() {
            continue;
        }
        if !ports.is_empty() {
            rules.push(rule(destinations.clone(), Effect::Ports(ports.clone())));
        }
        if !capabilities.is_empty() {
            rules.push(rule(destinations, Effect::Capabilities(capabilities.clone().into())));
        }
    }
    Some(rules)
}

/// Whether a list or an object is missing or has nothing in it.
fn is_nothing(value: Option<&Value>) -> bool {
    value.is_none_or(|value| {
        value.elements().is_some_and(<[_]>::is_empty) || value.members().is_some_and(<[_]>::is_empty)
    })
}

const ACL: [&str; 7] = ["action", "proto", "src", "dst", "users", "ports", "srcPosture"];

fn read_acl(
    value: &Value,
    origin: Origin,
    default_postures: &Arc<[Arc<str>]>,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Option<Vec<Rule>> {
    let fields = Fields::read(value, &ACL, problems)?;
    let action = fields.string("action", problems).map_or("", |(text, _)| text.trim());
    if action != "accept" {
        let place = fields.get("action").unwrap_or(value);
        problems.at::<()>(place, format!("action={action:?} is not supported"));
    }
    let listed = fields.either("src", "users", problems).map(|value| crate::fields::strings(value, problems));
    let sources = read_sources(listed.unwrap_or_default(), context, problems);
    let protocol = fields.string("proto", problems).map(|(text, _)| text.trim()).filter(|text| !text.is_empty());
    let listed = fields.either("dst", "ports", problems).map(|value| crate::fields::strings(value, problems));
    let mut destinations = Vec::new();
    for (at, (text, value)) in listed.unwrap_or_default().into_iter().enumerate() {
        if let Some((alias, ports)) = read_acl_destination(text, protocol, value, context, problems) {
            destinations.push((at, alias, ports, value));
        }
    }
    let is_self = |alias: &Alias| *alias == Alias::Auto(Autogroup::OwnDevices);
    if destinations.iter().any(|(_, alias, ..)| is_self(alias)) {
        sources.iter().for_each(|(alias, value)| check_self_source(alias, true, value, problems));
    }
    // The hosted service puts a rule's own-device destinations last, unless all its destinations are autogroups.
    if destinations.iter().any(|(_, alias, ..)| !matches!(alias, Alias::Auto(_))) {
        destinations.sort_by_key(|(_, alias, ..)| is_self(alias));
    }
    let postures = read_postures(&fields, default_postures, context, problems);
    let aliases: Vec<(Alias, &Value)> =
        destinations.iter().map(|(_, alias, _, value)| (alias.clone(), *value)).collect();
    warn_empty(&sources, &aliases, value, context, problems);
    // Shared by the rules of all destinations: each having its own would be the product of the two lists.
    let sources: Arc<[Alias]> = sources.into_iter().map(|(alias, _)| alias).collect();
    let rules = destinations.into_iter().map(|(at, alias, ports, _)| Rule {
        origin: Origin { destination: Some(at), ..origin },
        sources: sources.clone(),
        postures: postures.clone(),
        destinations: vec![alias],
        via: Vec::new(),
        effect: Effect::Ports(vec![ports]),
    });
    Some(rules.collect())
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

fn read_acl_destination(
    text: &str,
    protocol: Option<&str>,
    value: &Value,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Option<(Alias, Ports)> {
    let Some((target, ports)) = text.trim().rsplit_once(':') else {
        return problems.at(value, format!("dst=\"{text}\": ports are missing; write \"{text}:*\" for all of them"));
    };
    let ports = match Ports::of(protocol, ports) {
        Ok(ports) => ports,
        Err(error) => return problems.at(value, format!("dst=\"{text}\": {error}")),
    };
    let bare = target.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(target);
    Some((read_destination(bare, value, context, problems)?, ports))
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

/// The ports of a grant's `ip`, gathered by protocol in the order of their first mention.
fn read_ip(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Vec<Ports> {
    let mut gathered: Vec<Ports> = Vec::new();
    for (text, value) in fields.strings("ip", problems) {
        match Ports::parse(text) {
            Ok(ports) => match gathered.iter_mut().find(|known| known.protocol == ports.protocol) {
                Some(known) => known.ranges.extend(ports.ranges),
                None => gathered.push(ports),
            },
            Err(error) => {
                problems.at::<()>(value, format!("ip=\"{text}\": {error}"));
            }
        }
    }
    gathered
}

fn read_capabilities(fields: &Fields<'_>, problems: &mut Problems<'_>) -> CapMap {
    let mut capabilities = BTreeMap::new();
    let Some(app) = fields.get("app") else {
        return CapMap::default();
    };
    for (name, place, values) in map(app, problems) {
        if let Err(error) = check_capability(name) {
            problems.at::<()>(place, format!("app=\"{name}\": {error}"));
            continue;
        }
        capabilities.insert(name.to_owned(), Some(raw_values(values, problems)));
    }
    CapMap(capabilities)
}

/// The values of a capability, each as its JSON without blanks and comments.
pub(super) fn raw_values(values: &Value, problems: &mut Problems<'_>) -> Vec<RawJson> {
    let document = problems.document();
    list(values, problems).iter().filter_map(|value| RawJson::parse(&document.minify(value)).ok()).collect()
}

fn check_capability(name: &str) -> Result<(), &'static str> {
    let bare = name.strip_prefix("https://").unwrap_or(name);
    let (domain, path) = bare.split_once('/').unwrap_or((bare, ""));
    if path.is_empty() || !domain.contains('.') {
        return Err("capability name must have the form {domain}/{path}");
    }
    if domain != "tailscale.com" && !domain.ends_with(".tailscale.com") {
        return Ok(());
    }
    let allowed = path.strip_prefix("cap/").is_some_and(|own| OWN_CAPABILITIES.contains(&own));
    if allowed && domain == bare.split('/').next().unwrap_or_default() && bare == name {
        return Ok(());
    }
    Err("capability name must not be in the tailscale.com domain")
}

fn read_via(fields: &Fields<'_>, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Vec<Tag> {
    let mut via = Vec::new();
    for (text, value) in fields.strings("via", problems) {
        match Alias::parse(text) {
            Ok(Alias::Tag(tag)) if context.names.tag_owners.contains_key(&tag) => via.push(tag),
            Ok(Alias::Tag(_)) => {
                problems.at::<()>(value, format!("via: tag \"{}\" not found", text.trim()));
            }
            _ => {
                problems.at::<()>(value, format!("via=\"{text}\": via can only be a tag"));
            }
        }
    }
    via
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
