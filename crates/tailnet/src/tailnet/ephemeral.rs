use jiff::{SignedDuration, Timestamp};
use tailcfg::NodeId;

use super::Tailnet;
use crate::device::Device;

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
        let wait = SignedDuration::from_mins(i64::from(self.settings.ephemeral_minutes));
        Some(last.saturating_add(wait).unwrap_or(Timestamp::MAX))
    }
}
