//! One more Service, by which rows see whether somebody still works.

use anyhow::Result;

use super::expose;
use crate::{PATIENCE, Stage};

/// A Service that is exposed for a while.
pub(super) struct Newcomer<'a> {
    stage: &'a Stage,
    name: &'static str,
}

impl<'a> Newcomer<'a> {
    /// Asks for it to be exposed.
    pub(super) fn asks(stage: &'a Stage, name: &'static str) -> Result<Self> {
        let service = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "home", "annotations": {"tailscale.com/expose": "true"}},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        });
        stage.cluster.apply(&service.to_string())?;
        Ok(Self { stage, name })
    }

    /// Waits until it answers the laptop under its device's name.
    pub(super) fn answers(&self) -> Result<()> {
        let device = format!("home-{}", self.name);
        self.stage.tailnet.laptop.sees(&device, 3 * PATIENCE)?;
        expose::answers(self.stage, &device, 2 * PATIENCE)
    }

    /// Removes it, and waits until its device is gone.
    pub(super) fn goes(self) -> Result<()> {
        let delete = ["--namespace", "home", "delete", "service", self.name];
        self.stage.cluster.kubectl(delete).run()?;
        self.stage.tailnet.laptop.misses(&format!("home-{}", self.name), 2 * PATIENCE)
    }
}
