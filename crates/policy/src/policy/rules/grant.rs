use std::collections::BTreeMap;
use std::sync::Arc;

use filter::CapMap;

use super::{
    Context, Effect, OWN_DEVICES, Origin, Rule, check_self_source, raw_values, read_destinations, read_postures,
    read_sources, warn_empty,
};
use crate::fields::{Fields, map};
use crate::hujson::Value;
use crate::problem::Problems;
use crate::{Alias, Autogroup, Ports, Tag};

/// The capabilities in the service's own domain that a grant may give.
const OWN_CAPABILITIES: [&str; 6] = ["drive", "relay", "webui", "kubernetes", "tsidp", "secrets"];

const GRANT: [&str; 6] = ["src", "dst", "ip", "app", "via", "srcPosture"];

/// Reads one of `grants`: a rule for its ports, and one for its capabilities.
pub(super) fn read(
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
    check_destinations(&fields, &sources, &destinations, context, problems);
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
    let (own, others): (Vec<_>, Vec<_>) =
        destinations.into_iter().map(|(alias, _)| alias).partition(|alias| *alias == OWN_DEVICES);
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

/// Holds destinations that are no addresses to what may stand beside them.
fn check_destinations(
    fields: &Fields<'_>,
    sources: &[(Alias, &Value)],
    destinations: &[(Alias, &Value)],
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) {
    let to_self = destinations.iter().any(|(alias, _)| *alias == OWN_DEVICES);
    if to_self {
        sources.iter().for_each(|(alias, value)| check_self_source(alias, false, value, problems));
    }
    if let Some(via) = fields.get("via").filter(|via| to_self && !is_nothing(Some(via))) {
        let message = "\"via\" is for what lies behind routers: it leaves nothing of autogroup:self";
        context.warn(via, message, problems);
    }
    if fields.get("app").is_some()
        && let Some((_, value)) = destinations.iter().find(|(alias, _)| *alias == Alias::Auto(Autogroup::Internet))
    {
        problems.at::<()>(value, "cannot use app grants with autogroup:internet");
    }
}

/// Whether a list or an object is missing or has nothing in it.
fn is_nothing(value: Option<&Value>) -> bool {
    value.is_none_or(|value| {
        value.elements().is_some_and(<[_]>::is_empty) || value.members().is_some_and(<[_]>::is_empty)
    })
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
