use filter::CapMap;
use ipnet::Ipv4Net;

use super::rules::{Context, raw_values};
use crate::fields::{Fields, map};
use crate::hujson::{Position, Value};
use crate::problem::Problems;
use crate::{Alias, Autogroup};

const NODE_ATTRIBUTE: [&str; 4] = ["target", "attr", "app", "ipPool"];

/// Where addresses are given from.
const TAILNET: &str = "100.64.0.0/10";

/// Networks within the tailnet's range that addresses are never given from.
const RESERVED: [&str; 3] = ["100.100.0.0/24", "100.100.100.0/24", "100.115.92.0/23"];

/// Attributes that some devices have.
#[derive(Clone, Debug)]
pub struct NodeAttributes {
    /// Where the entry begins.
    pub position: Position,
    /// Which devices.
    pub targets: Vec<Alias>,
    /// Attributes with what `app` gives them.
    pub attributes: CapMap,
    /// Networks that the devices' IPv4 addresses are taken from.
    pub pools: Vec<Ipv4Net>,
}

/// Reads `nodeAttrs`.
pub(super) fn read(fields: &Fields<'_>, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Vec<NodeAttributes> {
    let entries = fields.list("nodeAttrs", problems);
    entries.iter().filter_map(|value| read_entry(value, context, problems)).collect()
}

fn read_entry(value: &Value, context: &mut Context<'_>, problems: &mut Problems<'_>) -> Option<NodeAttributes> {
    let fields = Fields::read(value, &NODE_ATTRIBUTE, problems)?;
    let mut targets = Vec::new();
    for (text, value) in fields.strings("target", problems) {
        match context.alias(text, value, problems) {
            Err(error) => {
                problems.at::<()>(value, error);
            }
            Ok(
                alias @ (Alias::Auto(
                    Autogroup::OwnDevices | Autogroup::Internet | Autogroup::DangerAll | Autogroup::NonRoot,
                )
                | Alias::Service(_)),
            ) => {
                problems.at::<()>(value, format!("\"{alias}\" not valid as a target of nodeAttrs"));
            }
            Ok(alias) => targets.push(alias),
        }
    }
    let mut attributes = CapMap::default();
    for (name, value) in fields.strings("attr", problems) {
        match name.trim() {
            "" => problems.at::<()>(value, "an attribute's name cannot be empty").unwrap_or_default(),
            name => attributes.grant(name),
        }
    }
    for (name, _, values) in fields.get("app").map(|app| map(app, problems)).unwrap_or_default() {
        let values = raw_values(values, problems);
        attributes.0.insert(name.to_owned(), Some(values));
    }
    let pools = read_pools(&fields, problems);
    Some(NodeAttributes { position: problems.position(value), targets, attributes, pools })
}

fn read_pools(fields: &Fields<'_>, problems: &mut Problems<'_>) -> Vec<Ipv4Net> {
    let mut pools = Vec::new();
    for (text, value) in fields.strings("ipPool", problems) {
        match read_pool(text.trim()) {
            Ok(pool) => pools.push(pool),
            Err(error) => {
                problems.at::<()>(value, format!("IPPool({text}): {error}"));
            }
        }
    }
    pools
}

fn read_pool(text: &str) -> Result<Ipv4Net, &'static str> {
    let pool: Ipv4Net = text.parse().map_err(|_| "an IPv4 network such as 100.81.0.0/16 is needed")?;
    if pool.trunc() != pool {
        return Err("network has host bits set");
    }
    let lies_in = |text: &str| text.parse::<Ipv4Net>().is_ok_and(|network| network.contains(&pool));
    if !lies_in(TAILNET) {
        return Err("network must lie within 100.64.0.0/10");
    }
    if RESERVED.into_iter().any(lies_in) {
        return Err("network within reserved range");
    }
    Ok(pool)
}
