//! Row 3: the operator is installed by Helm, and is a device of the tailnet.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::operator::{NAMESPACE, NODE};
use crate::workloads::{WORKLOADS, workloads_run};
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
    if stage.operator.habits.is_held_to_its_proxies {
        checks.check("row 3: with the operator's own token nobody makes a pod with a folder of the machine", || {
            taken_over(stage)
        });
    }
    checks.check("the workloads run", || {
        stage.cluster.apply(WORKLOADS)?;
        workloads_run(&stage.cluster)
    });
}

/// Asks for a pod as somebody would who has the operator's token, on the machine that the API server's proxy may run on.
fn taken_over(stage: &Stage) -> Result<()> {
    let name = "ts-takeover-bcdfg";
    let account = &stage.operator.deployment;
    let container = json!({
        "name": "tailscale", "image": "towline", "volumeMounts": [{"name": "machine", "mountPath": "/machine"}],
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    let pod = json!({
        "serviceAccountName": name,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [{"name": "machine", "hostPath": {"path": "/var/lib/kubelet/pods"}}],
    });
    let labels = json!({"app": name});
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1, "serviceName": name, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    });
    let [node, _] = stage.cluster.nodes();
    // By the token alone: an administrator's certificate beside it would be who asks.
    let ask = format!(
        "token=$(kubectl --namespace {NAMESPACE} create token {account}) && \
         server=$(kubectl config view --minify --output 'jsonpath={{.clusters[0].cluster.server}}') && \
         kubectl --kubeconfig /dev/null --server \"$server\" --insecure-skip-tls-verify --token \"$token\" create -f -"
    );
    let said = node.command(["sh", "-c", &ask]).input(set.to_string()).within(PATIENCE).finish()?;
    ensure!(!said.ended.is_success(), "it was taken: {}", said.stdout);
    let refused = said.stderr.contains("ValidatingAdmissionPolicy") && said.stderr.contains("has no hostPath");
    ensure!(refused, "{}", said.stderr);
    Ok(())
}
