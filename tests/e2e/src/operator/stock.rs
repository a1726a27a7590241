use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lab::World;
use serde_json::json;

use super::{Habits, Operator};

/// The stock operator's chart and definitions, in the sources of the version that is pinned.
const DEPLOY: &str = "cmd/k8s-operator/deploy";

pub(super) fn operator(world: &World) -> Result<Operator> {
    let proxies = world.push_stock("tailscale")?;
    let version = world.push_stock("k8s-operator")?;
    ensure!(version == proxies, "the stock operator is {version} and its proxies are {proxies}");
    Ok(Operator {
        name: "stock",
        deployment: "operator",
        // Seen with 1.104.2: conditions of Services and Connectors turn True before a pod runs; the chart takes the
        // definitions with it, and nobody deletes the operator's device.
        habits: Habits { ready_is_ready: false, leaves_in_order: false },
        version: version.trim_start_matches('v').to_owned(),
        chart: chart(&sources()?.join(DEPLOY))?,
        values: json!({}),
    })
}

fn sources() -> Result<PathBuf> {
    let path = std::env::var_os("STOCK_SOURCES").map(PathBuf::from);
    path.context("STOCK_SOURCES must name the stock sources: run this as a stage of `cargo xtask test`")
}

/// The chart as it is published: the definitions are put into it when a release is made, each behind one condition.
fn chart(deploy: &Path) -> Result<BTreeMap<String, String>> {
    let mut chart = BTreeMap::new();
    for folder in ["", "templates"] {
        for (name, content) in files(&deploy.join("chart").join(folder))? {
            chart.insert(Path::new(folder).join(name).display().to_string(), content);
        }
    }
    for (name, content) in files(&deploy.join("crds"))? {
        chart.insert(
            format!("templates/{name}"),
            format!("{{{{ if .Values.installCRDs -}}}}\n{content}{{{{- end -}}}}"),
        );
    }
    ensure!(chart.contains_key("Chart.yaml"), "{} holds no chart", deploy.display());
    Ok(chart)
}

fn files(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    let what = || format!("reading {}", folder.display());
    for entry in fs::read_dir(folder).with_context(what)? {
        let entry = entry.with_context(what)?;
        if entry.file_type().with_context(what)?.is_file() {
            let content = fs::read_to_string(entry.path()).with_context(what)?;
            files.push((entry.file_name().to_string_lossy().into_owned(), content));
        }
    }
    Ok(files)
}
