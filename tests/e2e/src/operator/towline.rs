use std::path::Path;

use anyhow::Result;
use lab::World;
use serde_json::json;

use super::{Habits, Operator, chart};
use crate::Parts;

/// Our chart, in this checkout.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/chart");

pub(super) const HABITS: Habits = Habits {
    ready_is_ready: true,
    leaves_in_order: true,
    proxies_the_api_server: true,
    takes_tailnets: false,
    tells_flows: true,
    is_held_to_its_proxies: true,
    stands_by: true,
    forwards_in_user_space: true,
    lets_flows_end: true,
};

pub(super) fn operator(world: &World, parts: &Parts) -> Result<Operator> {
    let (pushed, digest) = world.push_packed(&parts.image)?;
    Ok(Operator {
        name: "towline",
        deployment: "operator",
        habits: HABITS,
        version: pushed.tag,
        chart: chart::read(Path::new(CHART))?,
        values: json!({
            "caBundle": world.public_authority()?.certificate(),
            "apiServerProxy": {"enabled": true, "groups": ["system:masters", "tailnet-readers"]},
            // By digest: another build under the same tag is another image.
            "operatorConfig": {"image": {"repository": pushed.repository, "digest": digest.to_string()}},
        }),
    })
}
