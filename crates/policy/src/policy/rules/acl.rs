use std::sync::Arc;

use super::{
    Context, Effect, OWN_DEVICES, Origin, Rule, check_self_source, read_destination, read_postures, read_sources,
    warn_empty,
};
use crate::fields::Fields;
use crate::hujson::Value;
use crate::problem::Problems;
use crate::{Alias, Ports};

const ACL: [&str; 7] = ["action", "proto", "src", "dst", "users", "ports", "srcPosture"];

/// Reads one of `acls`: a rule for each of its destinations.
pub(super) fn read(
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
    let destinations = read_listed(&fields, protocol, context, problems);
    if destinations.iter().any(|(_, alias, ..)| *alias == OWN_DEVICES) {
        sources.iter().for_each(|(alias, value)| check_self_source(alias, true, value, problems));
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

/// The destinations with their numbers, ports and places, in the order of their rules.
fn read_listed<'v>(
    fields: &Fields<'v>,
    protocol: Option<&str>,
    context: &mut Context<'_>,
    problems: &mut Problems<'_>,
) -> Vec<(usize, Alias, Ports, &'v Value)> {
    let listed = fields.either("dst", "ports", problems).map(|value| crate::fields::strings(value, problems));
    let mut destinations = Vec::new();
    for (at, (text, value)) in listed.unwrap_or_default().into_iter().enumerate() {
        if let Some((alias, ports)) = read_one(text, protocol, value, context, problems) {
            destinations.push((at, alias, ports, value));
        }
    }
    // The hosted service puts a rule's own-device destinations last, unless all its destinations are autogroups.
    if destinations.iter().any(|(_, alias, ..)| !matches!(alias, Alias::Auto(_))) {
        destinations.sort_by_key(|(_, alias, ..)| *alias == OWN_DEVICES);
    }
    destinations
}

fn read_one(
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
