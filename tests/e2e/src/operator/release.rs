//! A release as Helm keeps it: whether there is one, and what of.

use std::hash::{DefaultHasher, Hash, Hasher};

use anyhow::{Context, Result, ensure};
use lab::LabBox;
use serde_json::Value;

use super::{NAMESPACE, RELEASE};
use crate::PATIENCE;

/// What Helm says of the operator's release.
#[derive(Debug)]
pub(super) struct Release {
    status: String,
    description: String,
}

/// A release's description, by which it is found to be made of just this.
pub(super) fn description_of(parts: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    format!("made of {:016x}", hasher.finish())
}

impl Release {
    /// The release, were there one.
    pub(super) fn find(node: &LabBox) -> Result<Option<Self>> {
        let status = ["helm", "status", RELEASE, "--namespace", NAMESPACE, "--output", "json"];
        let output = node.command(status).within(PATIENCE).finish()?;
        if output.stderr.contains("release: not found") {
            return Ok(None);
        }
        ensure!(output.ended.is_success(), "helm status: {}", output.stderr);
        let said: Value = serde_json::from_str(&output.stdout).context("reading what helm says of the release")?;
        let text = |field: &str| said["info"][field].as_str().unwrap_or_default().to_owned();
        Ok(Some(Self { status: text("status"), description: text("description") }))
    }

    /// Whether it is installed, and described so.
    pub(super) fn is(&self, description: &str) -> bool {
        self.status == "deployed" && self.description == description
    }

    /// Whether a command of Helm's was cut off in the middle: it takes no other then.
    pub(super) fn is_cut_off(&self) -> bool {
        self.status.starts_with("pending-") || self.status == "uninstalling"
    }

    /// Clears what the cut off command has left; what Helm made in the cluster besides, a new release takes over.
    pub(super) fn clear(&self, node: &LabBox) -> Result<()> {
        let labels = format!("owner=helm,name={RELEASE},status={}", self.status);
        node.command(["kubectl", "--namespace", NAMESPACE, "delete", "secrets", "--selector", &labels]).run()?;
        Ok(())
    }
}
