//! The relays of a tailnet: those of the server, and what the policy's `derpMap` makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::hujson::{Document, Value};
use policy::{Policy, Problem};
use serde::Deserialize;
use tailcfg::{DerpMap, DerpNode, DerpRegion, RegionId};

/// How many regions, and how many relays in each, a policy may name.
const REGION_LIMIT: usize = 100;
const RELAY_LIMIT: usize = 16;

/// `derpMap` as policies have it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default, deny_unknown_fields)]
struct PolicyRelays {
    /// Whether the server's own regions are left out.
    #[serde(alias = "omitDefaultRegions")]
    omit_default_regions: bool,
    /// Regions to add, or to put in place of the server's; `null` leaves one out.
    #[serde(alias = "regions")]
    regions: BTreeMap<RegionId, Option<serde_json::Value>>,
}

/// `derpMap` where it stands in a policy's text.
struct Written<'p> {
    document: &'p Document,
    map: Option<&'p Value>,
}

/// Why a region is refused, and for which of its relays.
struct Fault {
    relay: Option<usize>,
    reason: String,
}

/// The relays that devices are told of: the server's, as the policy would have them.
///
/// # Errors
/// The policy's `derpMap` is none, or leaves no relay.
pub(crate) fn told(own: &Arc<DerpMap>, policy: &Policy) -> Result<Arc<DerpMap>, Problem> {
    let Some(text) = &policy.settings().derp_map else { return Ok(Arc::clone(own)) };
    let written = Written::of(policy);
    let read = serde_json::from_str(text.as_str()).and_then(serde_json::from_value);
    let wanted: PolicyRelays = read.map_err(|error| written.problem(written.map, error.to_string()))?;
    if wanted.regions.len() > REGION_LIMIT {
        let reason = format!("{} regions are more than the {REGION_LIMIT} that are taken", wanted.regions.len());
        return Err(written.problem(written.regions(), reason));
    }
    let mut regions =
        if wanted.omit_default_regions { BTreeMap::new() } else { own.regions.clone().unwrap_or_default() };
    for (id, region) in wanted.regions {
        match region {
            None => drop(regions.remove(&id)),
            Some(region) => {
                drop(regions.insert(id, read_region(id, region).map_err(|fault| written.fault(id, fault))?))
            }
        }
    }
    if regions.values().all(|region| region.nodes.is_empty()) {
        let reason = "it leaves no relay, and devices need at least one to find each other";
        return Err(written.problem(written.map, reason.to_owned()));
    }
    Ok(Arc::new(DerpMap { regions: Some(regions), omit_default_regions: true, ..(**own).clone() }))
}

impl<'p> Written<'p> {
    fn of(policy: &'p Policy) -> Self {
        let document = policy.document();
        Self { document, map: field(document.root(), "derpMap") }
    }

    fn regions(&self) -> Option<&'p Value> {
        field(self.map?, "Regions")
    }

    fn fault(&self, id: RegionId, Fault { relay, reason }: Fault) -> Problem {
        let mut regions = self.regions().and_then(Value::members).unwrap_or_default().iter();
        let region = regions.find(|member| member.name().parse() == Ok(id.0)).map(|member| member.value());
        let relays = region.and_then(|region| field(region, "Nodes")).and_then(Value::elements).unwrap_or_default();
        self.problem(relay.and_then(|at| relays.get(at)).or(region), reason)
    }

    /// A problem with a value, or with the whole of `derpMap`.
    fn problem(&self, value: Option<&Value>, reason: String) -> Problem {
        let position = value.or(self.map).map(|value| self.document.position(value));
        Problem { message: format!("derpMap: {reason}"), position }
    }
}

fn field<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let found = value.members()?.iter().find(|member| member.name().eq_ignore_ascii_case(name));
    found.map(|member| member.value())
}

fn read_region(id: RegionId, region: serde_json::Value) -> Result<DerpRegion, Fault> {
    let of_region = |reason: String| Fault { relay: None, reason };
    let region: DerpRegion =
        serde_json::from_value(region).map_err(|error| of_region(format!("region {id}: {error}")))?;
    if id.0 == 0 || region.region_id != id {
        let reason =
            format!("region {id} says that its RegionID is {}; write the same number, above 0", region.region_id);
        return Err(of_region(reason));
    }
    if region.region_code.is_empty() {
        return Err(of_region(format!("region {id} has no RegionCode")));
    }
    if region.nodes.len() > RELAY_LIMIT {
        let count = region.nodes.len();
        return Err(of_region(format!("region {id} has {count} relays, more than the {RELAY_LIMIT} that are taken")));
    }
    for (at, node) in region.nodes.iter().enumerate() {
        check_relay(id, node).map_err(|reason| Fault { relay: Some(at), reason })?;
    }
    Ok(region)
}

fn check_relay(id: RegionId, node: &DerpNode) -> Result<(), String> {
    if node.region_id != id {
        let (name, says) = (&node.name, node.region_id);
        return Err(format!("relay {name:?} says that its RegionID is {says}, and stands in region {id}"));
    }
    if node.name.is_empty() || node.host_name.is_empty() {
        return Err(format!("a relay of region {id} lacks Name or HostName"));
    }
    if node.insecure_for_tests {
        return Err(format!("relay {:?}: InsecureForTests would have devices trust any certificate", node.name));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Arc<DerpMap> {
        let region = |id: u16| {
            let node =
                tailcfg::DerpNode { name: format!("{id}a"), region_id: RegionId(id), ..tailcfg::DerpNode::default() };
            DerpRegion { region_id: RegionId(id), nodes: vec![node], ..DerpRegion::default() }
        };
        Arc::new(DerpMap {
            regions: Some([(RegionId(900), region(900)), (RegionId(901), region(901))].into()),
            ..DerpMap::default()
        })
    }

    fn tried(derp_map: &str) -> Result<Vec<u16>, String> {
        let policy = Policy::parse(&format!("{{\"grants\": [], \"derpMap\": {derp_map}}}")).unwrap();
        let told = told(&own(), &policy).map_err(|problem| problem.to_string())?;
        Ok(told.regions.iter().flatten().map(|(id, _)| id.0).collect())
    }

    const REGION: &str = r#"{"RegionID": 950, "RegionCode": "own", "RegionName": "Own",
        "Nodes": [{"Name": "a", "RegionID": 950, "HostName": "relay.example.com"}]}"#;

    #[test]
    fn regions_are_added_replaced_and_left_out() {
        assert_eq!(tried("{}").unwrap(), [900, 901]);
        assert_eq!(tried(&format!("{{\"Regions\": {{\"950\": {REGION}, \"901\": null}}}}")).unwrap(), [900, 950]);
        let alone = format!("{{\"OmitDefaultRegions\": true, \"Regions\": {{\"950\": {REGION}}}}}");
        assert_eq!(tried(&alone).unwrap(), [950]);
    }

    #[test]
    fn the_map_that_the_policys_reference_shows_adds_a_relay() {
        let page = include_str!("../../../docs/policy.md");
        let example = page.split("```hujson\n").find(|block| block.contains("\"derpMap\":")).unwrap();
        let policy = Policy::parse(example.split("```").next().unwrap()).unwrap();
        let told = told(&own(), &policy).unwrap();
        let added = &told.regions.as_ref().unwrap()[&RegionId(950)];
        assert_eq!(
            (told.regions.iter().flatten().count(), added.nodes[0].host_name.as_str()),
            (3, "relay.example.com")
        );
    }

    #[test]
    fn what_can_not_be_meant_is_refused_at_its_place() {
        let with = |old: &str, new: &str| format!("{{\"Regions\": {{\"950\":\n{}}}}}", REGION.replace(old, new));
        let relay_at = "line 3, column 19: derpMap: ";
        for (map, says) in [
            (
                r#"{"OmitDefaultRegions": true}"#.to_owned(),
                "line 1, column 27: derpMap: it leaves no relay, and devices need at least one to find each other"
                    .to_owned(),
            ),
            (
                "\n{\"Regions\": {\"900\": null, \"901\": null}}".to_owned(),
                "line 2, column 1: derpMap: it leaves no relay, and devices need at least one to find each other"
                    .to_owned(),
            ),
            (
                format!("{{\"Regions\":\n{{\"951\": {REGION}}}}}"),
                "line 2, column 9: derpMap: region 951 says that its RegionID is 950; write the same number, above 0"
                    .to_owned(),
            ),
            (
                r#"{"Region": {}}"#.to_owned(),
                "line 1, column 27: derpMap: unknown field `Region`, expected one of `OmitDefaultRegions`, \
                 `omitDefaultRegions`, `Regions`, `regions`"
                    .to_owned(),
            ),
            (with("\"own\"", "\"\""), "line 2, column 1: derpMap: region 950 has no RegionCode".to_owned()),
            (
                with("\"own\"", "7"),
                "line 2, column 1: derpMap: region 950: invalid type: integer `7`, expected a string".to_owned(),
            ),
            (with("relay.example.com", ""), format!("{relay_at}a relay of region 950 lacks Name or HostName")),
            (
                with("\"RegionID\": 950, \"HostName\"", "\"RegionID\": 951, \"HostName\""),
                format!("{relay_at}relay \"a\" says that its RegionID is 951, and stands in region 950"),
            ),
            (
                with("\"HostName\"", "\"InsecureForTests\": true, \"HostName\""),
                format!("{relay_at}relay \"a\": InsecureForTests would have devices trust any certificate"),
            ),
        ] {
            assert_eq!(tried(&map).unwrap_err(), says, "{map}");
        }
        let said = tried(r#"{"Regions": {"x": null}}"#).unwrap_err();
        assert!(said.starts_with("line 1, column 27: derpMap: "), "{said}");
        let many = (1..=REGION_LIMIT + 1).map(|id| format!("\"{id}\": null")).collect::<Vec<_>>().join(", ");
        let said = tried(&format!("{{\"Regions\":\n {{{many}}}}}")).unwrap_err();
        assert_eq!(said, "line 2, column 2: derpMap: 101 regions are more than the 100 that are taken");
    }
}
