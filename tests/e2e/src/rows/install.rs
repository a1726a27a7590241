//! Row 3: the operator is installed by Helm, and is a device of the tailnet.

use anyhow::{Context, Result, ensure};

use crate::operator::{NAMESPACE, NODE};
use crate::{Checks, PATIENCE, Stage};

/// Installs the operator and puts the workloads of the other rows into the cluster.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed("row 3: helm installs the operator, and it is a device with its tag", |marks| {
        stage.operator.install(&stage.cluster, &stage.tailnet.installation)?;
        marks.reached("installed after");
        let deployment = format!("deployment/{}", stage.operator.deployment);
        stage.cluster.wait(NAMESPACE, &deployment, "condition=Available", 4 * PATIENCE)?;
        let peer = stage.tailnet.laptop.sees(NODE, 2 * PATIENCE)?;
        marks.reached("seen from the laptop after");
        ensure!(peer["Tags"] == serde_json::json!(["tag:k8s-operator"]), "{peer}");
        let address = peer["TailscaleIPs"][0].as_str().context("it has no address")?;
        let line = stage.tailnet.laptop.line(NODE)?;
        let shown = line.starts_with(address) && line.contains("tagged-devices") && line.contains("linux");
        ensure!(shown, "the laptop's status shows {line:?}");
        let device = stage.tailnet.installation.device(NODE)?.context("the server lists no such device")?;
        ensure!(device["connectedToControl"] == true && device["keyExpiryDisabled"] == true, "{device}");
        Ok(())
    });
    checks.check("the workloads run", || workloads(stage));
}

fn workloads(stage: &Stage) -> Result<()> {
    stage.cluster.apply(include_str!("../../manifests/workloads.yaml"))?;
    for pod in ["pod/web", "pod/shell"] {
        stage.cluster.wait("home", pod, "condition=Ready", 2 * PATIENCE)?;
    }
    Ok(())
}
