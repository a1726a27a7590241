use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lab::World;
use serde_json::json;

use super::{Habits, Operator, chart};
use crate::Parts;

/// The stock operator's chart and definitions, in the sources of the version that is pinned.
const DEPLOY: &str = "cmd/k8s-operator/deploy";

/// Seen with 1.104.2: conditions of Services and Connectors turn True before a pod runs; the chart takes the definitions with
/// it, and nobody deletes the operator's device. Its chart has one replica.
pub(super) const HABITS: Habits = Habits {
    ready_is_ready: false,
    leaves_in_order: false,
    proxies_the_api_server: false,
    takes_tailnets: true,
    tells_flows: false,
    is_held_to_its_proxies: false,
    stands_by: false,
    forwards_in_user_space: false,
    lets_flows_end: false,
};

pub(super) fn operator(world: &World, parts: &Parts) -> Result<Operator> {
    let proxies = world.push_stock("tailscale")?;
    let version = world.push_stock("k8s-operator")?;
    ensure!(version == proxies, "the stock operator is {version} and its proxies are {proxies}");
    Ok(Operator {
        name: "stock",
        deployment: "operator",
        habits: HABITS,
        version: version.trim_start_matches('v').to_owned(),
        chart: published(&parts.stock_sources()?.join(DEPLOY))?,
        values: json!({}),
    })
}

/// The chart as it is published: the definitions are put into it when a release is made, each behind one condition.
fn published(deploy: &Path) -> Result<BTreeMap<String, String>> {
    let mut files = chart::read(&deploy.join("chart"))?;
    let folder = deploy.join("crds");
    let what = || format!("reading {}", folder.display());
    for entry in fs::read_dir(&folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        let content = fs::read_to_string(entry.path()).with_context(what)?;
        files.insert(
            format!("templates/{}", entry.file_name().to_string_lossy()),
            format!("{{{{ if .Values.installCRDs -}}}}\n{content}{{{{- end -}}}}"),
        );
    }
    Ok(files)
}
