//! Row 16: everything goes, and nothing of it stays.

use anyhow::{Result, ensure};

use super::{connector, egress, exit_node, expose};
use crate::operator::{NAMESPACE, NODE};
use crate::{Checks, PATIENCE, Stage, eventually};

/// Deletes what the rows before have applied, and uninstalls the operator.
pub fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed("row 16: Services and Connectors go, with their proxies, Secrets and devices", |marks| {
        let services = EXPOSED_AND_EGRESS.map(str::to_owned);
        stage.cluster.kubectl(["-n", "home", "delete"].map(str::to_owned).into_iter().chain(services)).run()?;
        stage.cluster.kubectl(["delete", connector::OBJECT, exit_node::OBJECT]).run()?;
        marks.reached("objects after");
        let exposed = expose::EXPOSED.map(|(_, device)| device);
        for device in [egress::DEVICE, connector::DEVICE, exit_node::DEVICE].into_iter().chain(exposed) {
            stage.laptop.misses(device, 2 * PATIENCE)?;
            let device = stage.installation.device(device)?;
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
    eventually("the operator's device offline or gone", 2 * PATIENCE, || {
        let device = stage.installation.device(NODE)?;
        ensure!(device.as_ref().is_none_or(|device| device["connectedToControl"] == false), "{device:?}");
        Ok(())
    })
}
