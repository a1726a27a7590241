use std::sync::Arc;

use mesh::{ExitNode, Preferences};
use serde_json::Value;

use super::{Command, Daemon};
use crate::NodeError;
use crate::config::AuthKey;
use crate::control::ControlUrl;

impl Daemon {
    /// Does what is wished. What comes back answers whoever asked, and is to be called when the world has followed: who
    /// hears that the node is stopped should find it stopped.
    pub(super) async fn handle_command(&mut self, command: Command) -> Box<dyn FnOnce() + Send> {
        // Who asked may be gone by then; nobody wants the answer in that case.
        match command {
            Command::EditPreferences(masked, reply) => {
                let edited = self.edit(&masked).await;
                Box::new(move || drop(reply.send(edited)))
            }
            Command::Start { preferences, key, reply } => {
                let started = self.start(preferences, key).await;
                Box::new(move || drop(reply.send(started)))
            }
            Command::LogIn(reply) => {
                let begun = self.log_in();
                Box::new(move || drop(reply.send(begun)))
            }
            Command::LogOut(reply) => {
                let left = self.leave().await;
                Box::new(move || drop(reply.send(left)))
            }
            Command::Sign(request, reply) => {
                self.sign(request, reply);
                Box::new(|| ())
            }
        }
    }

    async fn edit(&mut self, masked: &Value) -> Result<Preferences, NodeError> {
        let next = self.identity.preferences.patched(masked)?;
        self.take_preferences(next).await?;
        Ok(self.identity.preferences.clone())
    }

    /// Takes whole preferences, and an auth key to join with.
    async fn start(&mut self, preferences: Option<Value>, key: Option<AuthKey>) -> Result<(), NodeError> {
        if let Some(preferences) = preferences {
            let next = Preferences::read(preferences)?;
            self.take_preferences(next).await?;
        }
        self.announces = true;
        self.offered = None;
        match key.filter(|key| !key.is_empty()) {
            Some(key) => self.take_key(&key),
            None => {
                if self.login_error.take().is_some() {
                    self.end_session();
                }
            }
        }
        Ok(())
    }

    /// Takes preferences that were checked, keeps them, and starts anew what depends on them.
    async fn take_preferences(&mut self, mut next: Preferences) -> Result<(), NodeError> {
        if !next.control_url.is_empty() {
            let url = self.parse_control_url(&next.control_url)?;
            next.control_url = url.to_string();
        }
        self.name_exit_node(&mut next)?;
        let told = self.hostinfo();
        let before = std::mem::replace(&mut self.identity.preferences, next);
        if let Err(error) = self.identity.save(self.config.store.as_ref()).await {
            self.identity.preferences = before;
            return Err(error.into());
        }
        let moved = !before.control_url.is_empty() && before.control_url != self.identity.preferences.control_url;
        if moved && self.identity.node_key.is_some() {
            tracing::info!("another coordination server: the login with the one before is forgotten");
            self.renewal = None;
            self.end_session();
            self.identity.node_key = None;
            Arc::make_mut(&mut self.mesh).forget_network();
            self.cache.forget();
            self.identity.save(self.config.store.as_ref()).await?;
        }
        if self.hostinfo() != told {
            self.ask_anew();
        }
        if self.identity.preferences.want_running && !before.want_running {
            self.login_error = None;
        }
        Arc::make_mut(&mut self.mesh).set_preferences(self.identity.preferences.clone());
        self.notify_preferences();
        Ok(())
    }

    /// Puts the stable id of the exit node in place of its address, once the map knows who that is.
    fn name_exit_node(&self, preferences: &mut Preferences) -> Result<(), NodeError> {
        let Some(address) = preferences.exit_node_ip else { return Ok(()) };
        let Some(netmap) = self.mesh.netmap() else { return Ok(()) };
        let found =
            ExitNode::find(netmap, &address.to_string()).map_err(|error| NodeError::Control(error.to_string()))?;
        preferences.exit_node_id = found.stable_id.clone();
        preferences.exit_node_ip = None;
        Ok(())
    }

    pub(super) fn parse_control_url(&self, text: &str) -> Result<ControlUrl, NodeError> {
        if text.is_empty() {
            let missing = "no coordination server is set: name one with --login-server https://control.example.com";
            return Err(NodeError::Control(missing.to_owned()));
        }
        text.parse::<ControlUrl>().map_err(|error| NodeError::Control(error.to_string()))
    }
}
