//! Row 16: everything goes, and nothing of it stays.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::{connector, egress, exit_node, expose};
use crate::operator::{NAMESPACE, NODE};
use crate::{Checks, PATIENCE, Stage, eventually};

/// Deletes what the rows before have applied, and uninstalls the operator.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed("row 16: Services and Connectors go, with their proxies, Secrets and devices", |marks| {
        let services = EXPOSED_AND_EGRESS.map(str::to_owned);
        stage.cluster.kubectl(["-n", "home", "delete"].map(str::to_owned).into_iter().chain(services)).run()?;
        stage.cluster.kubectl(["delete", connector::OBJECT, exit_node::OBJECT]).run()?;
        marks.reached("objects after");
        let exposed = expose::EXPOSED.map(|(_, device)| device);
        for device in [egress::DEVICE, connector::DEVICE, exit_node::DEVICE].into_iter().chain(exposed) {
            stage.tailnet.laptop.misses(device, 2 * PATIENCE)?;
            let device = stage.tailnet.installation.device(device)?;
            ensure!(device.is_none(), "the server still has {device:?}");
        }
        marks.reached("devices after");
        eventually("their objects gone", 2 * PATIENCE, || {
            for kind in ["statefulsets", "services", "secrets", "pods"] {
                let left = stage.cluster.list(NAMESPACE, kind, "tailscale.com/managed=true")?;
                ensure!(left.is_empty(), "{} {kind} are left, the first: {}", left.len(), left[0]["metadata"]["name"]);
            }
            Ok(())
        })
    });
    checks.check("row 16: the operator is uninstalled", || uninstalled(stage));
}

const EXPOSED_AND_EGRESS: [&str; 3] = [expose::EXPOSED[0].0, expose::EXPOSED[1].0, egress::SERVICE];

fn uninstalled(stage: &Stage) -> Result<()> {
    stage.operator.uninstall(&stage.cluster)?;
    let in_order = stage.operator.habits.leaves_in_order;
    eventually("the operator's device gone, or offline", 2 * PATIENCE, || {
        let device = stage.tailnet.installation.device(NODE)?;
        let offline = |device: &Value| !in_order && device["connectedToControl"] == false;
        ensure!(device.as_ref().is_none_or(offline), "{device:?}");
        Ok(())
    })?;
    if in_order {
        eventually("the API server's proxy gone, with its namespace", 2 * PATIENCE, || {
            let left = stage.cluster.list("", "namespaces", "app.kubernetes.io/part-of=towline")?;
            ensure!(left.is_empty(), "{} is left", left[0]["metadata"]["name"]);
            Ok(())
        })?;
        for kind in ["serviceaccounts", "roles", "rolebindings", "clusterrolebindings", "jobs"] {
            let left = stage.cluster.list(NAMESPACE, kind, "app.kubernetes.io/part-of=towline")?;
            ensure!(left.is_empty(), "{} {kind} are left, the first: {}", left.len(), left[0]["metadata"]["name"]);
        }
    }
    let definition = stage.cluster.kubectl(["get", "crd", "connectors.tailscale.com"]).finish()?;
    ensure!(definition.ended.is_success() == in_order, "{}{}", definition.stdout, definition.stderr);
    Ok(())
}
