//! Row 16: everything goes, and nothing of it stays.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::newcomer::Newcomer;
use super::{connector, egress, exit_node, expose};
use crate::operator::{NAMESPACE, NODE};
use crate::{Checks, Marks, PATIENCE, Stage, eventually};

/// Deletes what the rows before have applied, and uninstalls the operator: where that takes back what it has made, with a
/// Service and a Connector that are still there.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    checks.timed("row 16: Services and Connectors go, with their proxies, Secrets and devices", |marks| {
        let services = EXPOSED_AND_EGRESS.map(str::to_owned);
        stage.cluster.kubectl(["-n", "home", "delete"].map(str::to_owned).into_iter().chain(services)).run()?;
        stage.cluster.kubectl(["delete", connector::OBJECT, exit_node::OBJECT]).run()?;
        marks.reached("objects after");
        let exposed = expose::EXPOSED.map(|(_, device)| device);
        for device in [egress::DEVICE, connector::DEVICE, exit_node::DEVICE].into_iter().chain(exposed) {
            stage.tailnet.laptop.misses(device, 2 * PATIENCE)?;
            no_device(stage, device)?;
        }
        marks.reached("devices after");
        nothing_managed(stage)
    });
    if !stage.operator.habits.leaves_in_order {
        checks.check("row 16: the operator is uninstalled", || uninstalled(stage));
        return;
    }
    checks.timed(
        "row 16: helm uninstall takes back what was made for a Service and a Connector that are still there",
        |marks| {
            let kept = Kept::make(stage, marks)?;
            uninstalled(stage)?;
            marks.reached("uninstalled after");
            kept.is_free()
        },
    );
}

const EXPOSED_AND_EGRESS: [&str; 3] = [expose::EXPOSED[0].0, expose::EXPOSED[1].0, egress::SERVICE];

/// A Service and a Connector that outlive the operator.
struct Kept<'a> {
    stage: &'a Stage,
}

impl<'a> Kept<'a> {
    /// Their namespaces, their names, and the devices that they are.
    const OBJECTS: [(&'static str, &'static str, &'static str); 2] =
        [("home", "service/keepsake", "home-keepsake"), ("", exit_node::OBJECT, exit_node::DEVICE)];

    /// Makes them, and waits until there is something to be taken back: devices that work, and a finalizer on each object.
    fn make(stage: &'a Stage, marks: &Marks) -> Result<Self> {
        let service = Newcomer::asks(stage, "keepsake")?;
        stage.cluster.apply(exit_node::MANIFEST)?;
        service.answers()?;
        stage.cluster.wait("", exit_node::OBJECT, "condition=ConnectorReady", 4 * PATIENCE)?;
        marks.reached("both ready after");
        let kept = Self { stage };
        for (namespace, object, device) in Self::OBJECTS {
            ensure!(!kept.finalizers(namespace, object)?.is_empty(), "{object} has no finalizer to be taken off");
            stage.tailnet.installation.device(device)?.with_context(|| format!("the server lists no {device}"))?;
        }
        Ok(kept)
    }

    /// They are there as their user made them, nothing is left of what was made for them, and nothing keeps them from going.
    fn is_free(&self) -> Result<()> {
        for (namespace, object, device) in Self::OBJECTS {
            no_device(self.stage, device)?;
            let left = self.finalizers(namespace, object)?;
            ensure!(left.is_empty(), "{object} still has the finalizers {left:?}");
        }
        nothing_managed(self.stage)?;
        let status = &self.stage.cluster.get("", exit_node::OBJECT)?["status"];
        ensure!(status["conditions"].to_string().contains("the operator was uninstalled"), "{status}");
        for (namespace, object, _) in Self::OBJECTS {
            let delete = ["--namespace", namespace, "delete", object, "--timeout=30s"];
            self.stage.cluster.kubectl(delete).run()?;
        }
        Ok(())
    }

    fn finalizers(&self, namespace: &str, object: &str) -> Result<Vec<Value>> {
        let found = self.stage.cluster.get(namespace, object)?;
        Ok(found["metadata"]["finalizers"].as_array().cloned().unwrap_or_default())
    }
}

/// The server has no device of this name any more.
fn no_device(stage: &Stage, name: &str) -> Result<()> {
    let device = stage.tailnet.installation.device(name)?;
    ensure!(device.is_none(), "the server still has {device:?}");
    Ok(())
}

/// Nothing is left of what the operator has made in the cluster.
fn nothing_managed(stage: &Stage) -> Result<()> {
    eventually("no object that the operator has made", 2 * PATIENCE, || {
        for kind in ["statefulsets", "services", "secrets", "pods"] {
            let left = stage.cluster.list(NAMESPACE, kind, "tailscale.com/managed=true")?;
            ensure!(left.is_empty(), "{} {kind} are left, the first: {}", left.len(), left[0]["metadata"]["name"]);
        }
        Ok(())
    })
}

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
