//! Which pods a namespace takes that lets in nothing but what is `restricted`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::Stage;
use crate::operator::{NAMESPACE, PROXY_NAMESPACE};

/// The words by which such a namespace refuses a pod.
const REFUSED: &str = "violates PodSecurity \"restricted:latest\"";

/// The one pod of a proxy that was made for an object of this name.
pub(super) fn pod_of(stage: &Stage, parent: &str) -> Result<Value> {
    let mut pods = stage.cluster.list(NAMESPACE, "pods", &format!("tailscale.com/parent-resource={parent}"))?;
    ensure!(pods.len() == 1, "{parent} has {} pods", pods.len());
    Ok(pods.remove(0))
}

/// The namespace would take a pod that runs elsewhere, as it runs there.
pub(super) fn takes(stage: &Stage, pod: &Value) -> Result<()> {
    let said = asked(stage, pod)?;
    ensure!(said.is_empty(), "{said}");
    Ok(())
}

/// The namespace would not take it, for its rights.
pub(super) fn refuses(stage: &Stage, pod: &Value) -> Result<()> {
    let said = asked(stage, pod)?;
    ensure!(said.contains(REFUSED), "{said:?}");
    Ok(())
}

/// What the API server says against the pod in the namespace of the API server's proxy, which is restricted.
fn asked(stage: &Stage, pod: &Value) -> Result<String> {
    let mut spec = pod["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        // Its account is not there, and no right of the pod's.
        spec.remove("serviceAccount");
        spec.insert("serviceAccountName".to_owned(), "default".into());
    }
    let metadata = json!({"name": pod["metadata"]["name"], "namespace": PROXY_NAMESPACE});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
    let create = ["create", "--dry-run=server", "--filename", "-"];
    let output = stage.cluster.kubectl(create).input(pod.to_string()).finish()?;
    Ok(if output.ended.is_success() { String::new() } else { output.stderr })
}
