//! Row 17, as far as an operator has to do with it: what dies comes back as what it was.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{egress, expose};
use crate::operator::{NAMESPACE, NODE};
use crate::{Checks, PATIENCE, Stage, eventually};

/// Kills a proxy, the operator and the coordination server, one at a time.
pub(super) fn play(stage: &Stage, checks: &mut Checks) {
    let (service, device) = expose::EXPOSED[0];
    checks.timed("row 17: a proxy's pod is killed, and is back as the same device", |marks| {
        let before = devices(stage)?;
        let name = service.trim_start_matches("service/");
        replace_pods(stage, &format!("tailscale.com/parent-resource={name},tailscale.com/parent-resource-ns=home"))?;
        marks.reached("running after");
        expose::answers(stage, device, 2 * PATIENCE)?;
        marks.reached("first byte after");
        settled(stage, &before)
    });
    checks.timed("row 17: the operator's pod is killed, and makes nothing twice", |marks| {
        let before = devices(stage)?;
        let sets = names(stage, "statefulsets")?;
        replace_pods(stage, "!tailscale.com/parent-resource")?;
        marks.reached("running after");
        newcomer(stage, "journal")?;
        settled(stage, &before)?;
        let now = names(stage, "statefulsets")?;
        ensure!(now == sets, "there were {sets:?} and are {now:?}");
        Ok(())
    });
    checks.timed("row 17: the coordination server is killed: traffic goes on, and all devices come back", |marks| {
        let before = devices(stage)?;
        stage.installation.start_control()?.kill()?;
        let without = expose::answers(stage, device, PATIENCE).and_then(|()| egress::answers(stage, PATIENCE));
        marks.reached("answers without it after");
        stage.installation.start_control()?;
        without?;
        // The server shows devices as it knew them until they had time to come back: only news prove that they are back.
        newcomer(stage, "ledger")?;
        marks.reached("a new Service after");
        settled(stage, &before)
    });
}

/// Kills the pods with these labels, and waits until as many others are ready in their place.
fn replace_pods(stage: &Stage, labels: &str) -> Result<()> {
    let pods = || stage.cluster.list(NAMESPACE, "pods", labels);
    let uid = |pod: &Value| pod["metadata"]["uid"].to_string();
    let killed: Vec<String> = pods()?.iter().map(uid).collect();
    ensure!(!killed.is_empty(), "there is no pod with {labels}");
    let kill = ["delete", "pod", "--selector", labels, "--grace-period=0", "--force"];
    stage.cluster.kubectl(["--namespace", NAMESPACE].into_iter().chain(kill)).run()?;
    eventually("other pods in their place", 2 * PATIENCE, || {
        let pods = pods()?;
        let ready = |pod: &Value| pod["status"]["containerStatuses"][0]["ready"] == true;
        let others = pods.iter().all(|pod| ready(pod) && !killed.contains(&uid(pod)));
        ensure!(others && pods.len() == killed.len(), "there are {} pods, not all of them new and ready", pods.len());
        Ok(())
    })
}

/// Exposes one more Service, sees it answer the laptop, and removes it.
fn newcomer(stage: &Stage, name: &str) -> Result<()> {
    let service = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "home", "annotations": {"tailscale.com/expose": "true"}},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    });
    stage.cluster.apply(&service.to_string())?;
    let device = format!("home-{name}");
    stage.laptop.sees(&device, 3 * PATIENCE)?;
    expose::answers(stage, &device, 2 * PATIENCE)?;
    stage.cluster.kubectl(["--namespace", "home", "delete", "service", name]).run()?;
    stage.laptop.misses(&device, 2 * PATIENCE)
}

/// Ids of the devices that are online, by name.
fn devices(stage: &Stage) -> Result<BTreeMap<String, String>> {
    let devices = stage.installation.ask(["devices", "list"])?;
    let online = devices.as_array().into_iter().flatten().filter(|device| device["connectedToControl"] == true);
    let text = |device: &Value, field: &str| -> Result<String> {
        device[field].as_str().map(str::to_owned).with_context(|| format!("no {field} in {device}"))
    };
    let devices: BTreeMap<_, _> =
        online.map(|device| Ok((text(device, "name")?, text(device, "nodeId")?))).collect::<Result<_>>()?;
    let is_there = devices.keys().any(|name| name.starts_with(NODE));
    ensure!(is_there, "the operator is not online: {devices:?}");
    Ok(devices)
}

/// Waits until the devices are those that were `before`, and no others.
fn settled(stage: &Stage, before: &BTreeMap<String, String>) -> Result<()> {
    eventually("the same devices online", 2 * PATIENCE, || {
        let now = devices(stage)?;
        ensure!(now == *before, "there were {before:?} and are {now:?}");
        Ok(())
    })
}

fn names(stage: &Stage, kind: &str) -> Result<Vec<String>> {
    let found = stage.cluster.list(NAMESPACE, kind, "tailscale.com/managed=true")?;
    Ok(found.iter().map(|object| object["metadata"]["name"].to_string()).collect())
}
