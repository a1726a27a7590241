//! The relays of a tailnet: those of the server, and what the policy's `derpMap` makes of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{Policy, Problem};
use serde::Deserialize;
use tailcfg::{DerpMap, DerpRegion, RegionId};

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
    regions: BTreeMap<RegionId, Option<DerpRegion>>,
}

/// The relays that devices are told of: the server's, as the policy would have them.
///
/// # Errors
/// The policy's `derpMap` is none, or leaves no relay.
pub(crate) fn told(own: &Arc<DerpMap>, policy: &Policy) -> Result<Arc<DerpMap>, Problem> {
    let Some(text) = &policy.settings().derp_map else { return Ok(Arc::clone(own)) };
    let bad = |reason: String| Problem::new(format!("derpMap: {reason}"));
    let wanted: PolicyRelays = serde_json::from_str(text.as_str()).map_err(|error| bad(error.to_string()))?;
    if wanted.regions.len() > REGION_LIMIT {
        return Err(bad(format!("{} regions are more than the {REGION_LIMIT} that are taken", wanted.regions.len())));
    }
    let mut regions =
        if wanted.omit_default_regions { BTreeMap::new() } else { own.regions.clone().unwrap_or_default() };
    for (id, region) in wanted.regions {
        match region {
            None => drop(regions.remove(&id)),
            Some(region) => {
                check(id, &region).map_err(bad)?;
                regions.insert(id, region);
            }
        }
    }
    if regions.values().all(|region| region.nodes.is_empty()) {
        return Err(bad("it leaves no relay, and devices need at least one to find each other".to_owned()));
    }
    Ok(Arc::new(DerpMap { regions: Some(regions), omit_default_regions: true, ..(**own).clone() }))
}

fn check(id: RegionId, region: &DerpRegion) -> Result<(), String> {
    if id.0 == 0 || region.region_id != id {
        return Err(format!(
            "region {id} says that its RegionID is {}; write the same number, above 0",
            region.region_id
        ));
    }
    if region.region_code.is_empty() {
        return Err(format!("region {id} has no RegionCode"));
    }
    if region.nodes.len() > RELAY_LIMIT {
        return Err(format!(
            "region {id} has {} relays, more than the {RELAY_LIMIT} that are taken",
            region.nodes.len()
        ));
    }
    for node in &region.nodes {
        if node.region_id != id {
            return Err(format!(
                "relay {:?} says that its RegionID is {}, and stands in region {id}",
                node.name, node.region_id
            ));
        }
        if node.name.is_empty() || node.host_name.is_empty() {
            return Err(format!("a relay of region {id} lacks Name or HostName"));
        }
        if node.insecure_for_tests {
            return Err(format!("relay {:?}: InsecureForTests would have devices trust any certificate", node.name));
        }
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
    fn what_can_not_be_meant_is_refused() {
        for (map, says) in [
            (r#"{"OmitDefaultRegions": true}"#.to_owned(), "leaves no relay"),
            (r#"{"Regions": {"900": null, "901": null}}"#.to_owned(), "leaves no relay"),
            (format!("{{\"Regions\": {{\"951\": {REGION}}}}}"), "region 951 says that its RegionID is 950"),
            (r#"{"Region": {}}"#.to_owned(), "unknown field `Region`"),
            (r#"{"Regions": {"x": null}}"#.to_owned(), "derpMap: "),
            (
                format!("{{\"Regions\": {{\"950\": {}}}}}", REGION.replace("relay.example.com", "")),
                "lacks Name or HostName",
            ),
            (
                format!(
                    "{{\"Regions\": {{\"950\": {}}}}}",
                    REGION.replace("\"HostName\"", "\"InsecureForTests\": true, \"HostName\"")
                ),
                "trust any certificate",
            ),
        ] {
            let said = tried(&map).unwrap_err();
            assert!(said.contains(says), "{map}: {said}");
        }
    }
}
