use std::path::PathBuf;

use crypto::NodePublic;
use jiff::Timestamp;
use mesh::Mesh;
use tailcfg::MapResponse;
use tailcfg::json::{self, Limits};
use tokio::time::Instant;

use super::KEEP_AFTER;

/// The last map on the disk, so that a node starts and talks while its coordination server is away.
pub(super) struct Cache {
    path: Option<PathBuf>,
    due: Option<Instant>,
}

impl Cache {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, due: None }
    }

    /// Takes the map that was kept, if it is this node's. One that can't be read is no reason not to start.
    pub(super) fn load_into(&self, mesh: &mut Mesh, key: &NodePublic) {
        let Some(path) = &self.path else { return };
        let Ok(text) = std::fs::read(path) else { return };
        let map: MapResponse = match json::read(&text, Limits::MAP) {
            Ok(map) => map,
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "the map that was kept can't be used");
                return;
            }
        };
        if map.node.as_ref().is_none_or(|node| node.key != *key) {
            return;
        }
        if let Err(error) = mesh.handle_first_map(map, Timestamp::now()) {
            tracing::warn!(%error, path = %path.display(), "the map that was kept can't be used");
        }
    }

    /// Has the map kept some seconds from now.
    pub(super) fn changed(&mut self) {
        if self.path.is_some() && self.due.is_none() {
            self.due = Some(Instant::now() + KEEP_AFTER);
        }
    }

    /// Ends when the map is to be kept.
    pub(super) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Keeps the map, if it changed since.
    pub(super) async fn keep(&mut self, mesh: &Mesh) {
        let Some((path, netmap)) = self.path.clone().zip(mesh.netmap()).filter(|_| self.due.take().is_some()) else {
            return;
        };
        let map = netmap.to_message();
        let written = tokio::task::spawn_blocking(move || {
            let text = serde_json::to_vec(&map).map_err(std::io::Error::other)?;
            crate::store::replace(&path, &text)
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the map can't be kept"),
            Err(error) => tracing::warn!(%error, "keeping the map failed"),
        }
    }

    /// Throws away what was kept.
    pub(super) fn forget(&mut self) {
        self.due = None;
        if let Some(path) = &self.path
            && let Err(error) = std::fs::remove_file(path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "the map that was kept can't be removed");
        }
    }
}
