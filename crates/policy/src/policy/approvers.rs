use std::collections::BTreeMap;
use std::sync::Arc;

use filter::AddressRange;
use ipnet::IpNet;

use super::names::{Names, owner};
use crate::Alias;
use crate::fields::{Fields, map, strings};
use crate::hujson::Value;
use crate::problem::Problems;

const APPROVERS: [&str; 4] = ["routes", "exitNode", "services", "appConnectors"];

/// The most networks, services and connectors that `autoApprovers` names.
const MOST_NAMES: usize = 10_000;

/// The most approvers in one list: a device that offers something is held against all of them.
const MOST_OF_A_LIST: usize = 1_000;

/// The most approvers in all lists.
const MOST_APPROVERS: usize = 100_000;

/// Whose devices need not ask: what they advertise is approved at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvers {
    /// Subnet routes by the prefix that they must lie in.
    pub routes: BTreeMap<IpNet, Vec<Alias>>,
    /// Exit nodes.
    pub exit_node: Vec<Alias>,
    /// Hosts of services, by service (`svc:…`) or by a tag that the service has.
    pub services: BTreeMap<Arc<str>, Vec<Alias>>,
    /// Routes that app connectors learn, by connector.
    pub app_connectors: BTreeMap<Arc<str>, Vec<Alias>>,
}

/// Reads `autoApprovers`.
pub(super) fn read(fields: &Fields<'_>, names: &Names, problems: &mut Problems<'_>) -> Approvers {
    let section = fields.get("autoApprovers").and_then(|value| Fields::read(value, &APPROVERS, problems));
    let Some(section) = section else {
        return Approvers::default();
    };
    if is_too_large(&section, problems) {
        return Approvers::default();
    }
    let mut approvers = Approvers::default();
    for (text, place, value) in section.map("routes", problems) {
        let prefix = text.trim().parse::<AddressRange>().ok().and_then(|range| range.as_prefix());
        match prefix {
            Some(prefix) => {
                let aliases = read_approvers(value, &format!("routes[\"{text}\"]"), names, problems);
                approvers.routes.entry(prefix).or_default().extend(aliases);
            }
            None => {
                let error = text.trim().parse::<AddressRange>().err().map(|error| format!(": {error}"));
                let message = format!("autoApprovers.routes[\"{text}\"]: invalid prefix{}", error.unwrap_or_default());
                problems.at::<()>(place, message);
            }
        }
    }
    if let Some(value) = section.get("exitNode") {
        approvers.exit_node = read_approvers(value, "exitNode", names, problems);
    }
    approvers.services = read_named(&section, "services", &["svc:", "tag:"], names, problems);
    approvers.app_connectors = read_named(&section, "appConnectors", &[""], names, problems);
    approvers
}

/// Whether there are more names or approvers than may be; the first that is too many is told.
fn is_too_large(section: &Fields<'_>, problems: &mut Problems<'_>) -> bool {
    let named = ["routes", "services", "appConnectors"].into_iter();
    let named = named.filter_map(|field| section.get(field)).flat_map(|value| value.members().unwrap_or_default());
    let lists = named.map(|member| (1, member.name_value(), member.value()));
    let exit = section.get("exitNode").map(|value| (0, value, value));
    let (mut names, mut approvers) = (0, 0);
    for (name, place, value) in lists.chain(exit) {
        let listed = value.elements().map_or(0, <[_]>::len);
        names += name;
        approvers += listed;
        let message = if names > MOST_NAMES {
            format!("more than {MOST_NAMES} networks, services and connectors")
        } else if listed > MOST_OF_A_LIST {
            format!("more than {MOST_OF_A_LIST} approvers in one list; name a group")
        } else if approvers > MOST_APPROVERS {
            format!("from here on, more than {MOST_APPROVERS} approvers in all")
        } else {
            continue;
        };
        problems.at::<()>(place, format!("autoApprovers: {message}"));
        return true;
    }
    false
}

fn read_named(
    section: &Fields<'_>,
    field: &'static str,
    prefixes: &[&str],
    names: &Names,
    problems: &mut Problems<'_>,
) -> BTreeMap<Arc<str>, Vec<Alias>> {
    let mut read = BTreeMap::new();
    for (name, place, value) in section.get(field).map(|value| map(value, problems)).unwrap_or_default() {
        if !prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            let expected = prefixes.join("' or '");
            problems.at::<()>(place, format!("autoApprovers.{field}[{name:?}]: names must start with '{expected}'"));
            continue;
        }
        read.insert(name.into(), read_approvers(value, &format!("{field}[\"{name}\"]"), names, problems));
    }
    read
}

fn read_approvers(value: &Value, place: &str, names: &Names, problems: &mut Problems<'_>) -> Vec<Alias> {
    let mut approvers = Vec::new();
    for (text, value) in strings(value, problems) {
        match names.alias(text).and_then(owner) {
            Ok(alias) => approvers.push(alias),
            Err(error) => {
                problems.at::<()>(value, format!("autoApprovers.{place}: {error}"));
            }
        }
    }
    approvers
}
