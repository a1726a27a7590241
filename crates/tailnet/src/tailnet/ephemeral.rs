use jiff::{SignedDuration, Timestamp};
use tailcfg::NodeId;

use super::Tailnet;
use crate::device::Device;

/// How long an ephemeral device is gone before it is deleted: longer than a restart, or a short interruption.
const WAIT: SignedDuration = SignedDuration::from_mins(30);

impl Tailnet {
    /// Ephemeral devices that have been gone for long enough to be deleted.
    pub(crate) fn gone_ephemeral(&self, now: Timestamp) -> Vec<NodeId> {
        let due = |device: &&Device| self.deletion_time(device).is_some_and(|at| at <= now);
        self.devices.values().filter(due).map(|device| device.node.id).collect()
    }

    /// When an ephemeral device is to be deleted: some time after it was last here, or after the server started, since
    /// nobody could be here before.
    pub(super) fn deletion_time(&self, device: &Device) -> Option<Timestamp> {
        if !device.node.ephemeral || device.presence.stream.is_some() {
            return None;
        }
        let last = device
            .presence
            .left_at
            .or(device.presence.last_seen)
            .unwrap_or(device.node.created)
            .max(device.node.created)
            .max(self.started);
        Some(last.saturating_add(WAIT).unwrap_or(Timestamp::MAX))
    }
}
