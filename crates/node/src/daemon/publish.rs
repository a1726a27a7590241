use std::sync::Arc;

use mesh::BackendState;
use serde_json::json;

use super::{Daemon, Notice};
use crate::snapshot::Snapshot;

impl Daemon {
    /// Shows everybody how the node stands now, where that changed.
    pub(super) fn publish(&mut self) {
        let before = self.snapshot.borrow().clone();
        let state = self.state(before.state);
        let snapshot = Snapshot {
            state,
            auth_url: self.auth_url.clone(),
            login_error: self.login_error.clone(),
            control_error: self.control_error.clone(),
            mesh: self.mesh.clone(),
            names: self.names.clone(),
            health: self.health(true),
            open_health: self.health(false),
            node_key: self.node_public(),
            home: self.home,
            endpoints: self.endpoints.clone(),
            tun: self.user_space.is_none(),
            hostname: self.host.name(&self.identity.preferences),
            engine: self.data_plane.as_ref().map(|plane| plane.engine.clone()),
            ledgers: self.ledgers.clone(),
            profile: Arc::new(self.identity.login_profile()),
        };
        let warnings = snapshot.health != before.health;
        let own = snapshot.mesh.netmap().map(|netmap| netmap.node().clone());
        let own = own.filter(|own| before.mesh.netmap().is_none_or(|netmap| netmap.node() != own));
        let network = !Arc::ptr_eq(&snapshot.mesh, &before.mesh);
        self.snapshot.send_replace(Arc::new(snapshot));
        if state != before.state {
            tracing::info!(state = state.name(), "the node's state changed");
        }
        if std::mem::take(&mut self.announces) || state != before.state {
            self.notify(Notice::open(json!({"State": state.number()})));
        }
        if warnings {
            self.notify(Notice::of_health(&self.snapshot.borrow()));
        }
        if let Some(own) = own {
            // The stock command takes a new key for the end of a new login.
            self.notify(Notice::open(json!({"SelfChange": own.as_ref()})));
        }
        if network && self.bus.receiver_count() > 0 {
            let snapshot = self.snapshot.borrow().clone();
            if let Some(map) = super::notice::network_map(&snapshot) {
                self.notify(Notice::closed(json!({"NetMap": map})));
            }
        }
    }

    /// Where the node stands.
    fn state(&self, before: BackendState) -> BackendState {
        let preferences = &self.identity.preferences;
        let has_key = self.identity.node_key.is_some();
        if !preferences.want_running && !preferences.logged_out && has_key {
            return BackendState::Stopped;
        }
        let stuck = self.login_error.is_some() || preferences.logged_out || self.auth_url.is_some();
        if self.mesh.netmap().is_none() {
            let trying = preferences.want_running && (has_key || self.login_wanted) && !stuck;
            return if trying { BackendState::Starting } else { BackendState::NeedsLogin };
        }
        if !preferences.want_running {
            return BackendState::Stopped;
        }
        // Who has to log in, to a server that does not know the key any more, is in nobody's network.
        let is_out = stuck && self.renewal.is_none();
        if self.mesh.is_expired() || is_out {
            return BackendState::NeedsLogin;
        }
        if self.mesh.awaits_approval() {
            return BackendState::NeedsMachineAuth;
        }
        let running = self.data_plane.is_some() && (self.live || before == BackendState::Running);
        if running { BackendState::Running } else { BackendState::Starting }
    }

    /// What the user should know, besides what the map says; `whole` with the page of a login that waits.
    fn health(&self, whole: bool) -> Vec<String> {
        let preferences = &self.identity.preferences;
        let mut health = Vec::new();
        if preferences.want_running {
            health.extend(self.login_error.clone());
            health.extend(self.control_error.clone());
            health.extend(self.renewal_notice(whole));
            health.extend(self.data_plane_error.clone());
            health.extend(self.problems.iter().cloned());
            health.extend(self.machine.problems());
        }
        health
    }

    /// How a login stands that is to take the place of the one in force.
    fn renewal_notice(&self, whole: bool) -> Option<String> {
        let renewal = self.renewal.as_ref()?;
        let trouble = |trouble: &String| format!("the new login does not get on: {trouble}");
        let waits = |url: &String| match whole {
            true => {
                format!("a new login waits for somebody to confirm it at {url}; until then this device stays who it is")
            }
            false => "a new login waits for somebody to confirm it; until then this device stays who it is".to_owned(),
        };
        renewal.trouble.as_ref().map(trouble).or_else(|| self.auth_url.as_ref().map(waits))
    }

    pub(super) fn notify_preferences(&self) {
        match serde_json::to_value(&self.identity.preferences) {
            Ok(preferences) => self.notify(Notice::closed(json!({"Prefs": preferences}))),
            Err(error) => tracing::error!(%error, "preferences that can't be written"),
        }
    }

    /// Tells whoever watches the LocalAPI's bus.
    pub(super) fn notify(&self, notice: Notice) {
        // Without anybody watching there is nobody to tell.
        let _ = self.bus.send(Arc::new(notice));
    }
}
