//! What the walkthrough's user has made in the cluster by its end.

use anyhow::{Context, Result, ensure};
use lab::{Listener, step};

use super::{PATIENCE, Stage};
use crate::eventually;
use crate::operator::NAMESPACE;
use crate::workloads::{BALANCED, WORKLOADS, workloads_run};

/// The article's, and Services that are exposed to the tailnet.
const MANIFESTS: [&str; 4] = [
    include_str!("../../../../examples/egress-service.yaml"),
    include_str!("../../../../examples/connector.yaml"),
    include_str!("../../../../examples/readers-cluster-role-binding.yaml"),
    include_str!("../../manifests/exposed.yaml"),
];
/// What says when it works, and by which condition.
const AWAITED: [(&str, &str); 4] = [
    ("service/tailscale-robbinsdale", "TailscaleProxyReady"),
    ("service/notes", "TailscaleProxyReady"),
    ("service/music", "TailscaleProxyReady"),
    ("connector/robbinsdale-connector", "ConnectorReady"),
];
/// The devices that these become.
const PROXIES: [&str; 4] = ["home-tailscale-robbinsdale", "home-notes", "music", "robbinsdale-connector"];

impl Stage {
    /// Installs the operator, makes what the article's manifests and the tests' ask for, and waits until it is ready. What
    /// is there already stays as it is.
    pub fn furnish(&self, listener: Listener<'_>) -> Result<()> {
        self.cluster.create_missing(WORKLOADS)?;
        step(listener, &format!("{} operator", self.operator.name), || {
            self.operator.install(&self.cluster, &self.tailnet.installation)?;
            let deployment = format!("deployment/{}", self.operator.deployment);
            self.cluster.wait(NAMESPACE, &deployment, "condition=Available", 4 * PATIENCE)
        })?;
        step(listener, "workloads", || {
            workloads_run(&self.cluster)?;
            self.cluster.assign_load_balancer("home", "web", BALANCED)
        })?;
        for manifests in MANIFESTS {
            self.cluster.create_missing(manifests)?;
        }
        for (object, condition) in AWAITED {
            let condition = format!("condition={condition}");
            step(listener, object, || self.cluster.wait("home", object, &condition, 6 * PATIENCE))?;
        }
        step(listener, "proxies", || self.proxies_run())
    }

    /// Waits for what a condition may have promised too early: that the proxies are devices, in pods that are ready.
    fn proxies_run(&self) -> Result<()> {
        for name in PROXIES {
            eventually(&format!("the device {name} online"), 4 * PATIENCE, || {
                let device = self.tailnet.installation.device(name)?.context("the server lists no such device")?;
                ensure!(device["connectedToControl"] == true, "it is away: {device}");
                Ok(())
            })?;
        }
        let ready = ["wait", "pods", "--all", "--for=condition=Ready", "--field-selector=status.phase!=Succeeded"];
        self.cluster.kubectl(["--namespace", NAMESPACE].into_iter().chain(ready).chain(["--timeout=120s"])).run()?;
        Ok(())
    }
}
