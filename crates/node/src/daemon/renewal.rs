use std::sync::Arc;

use mesh::BackendState;
use serde_json::json;
use zeroize::Zeroizing;

use super::{Daemon, Notice};
use crate::NodeError;
use crate::config::AuthKey;
use crate::control::{ControlEvent, ControlUrl, Login, Session, SessionNumber};

/// A login in place of the one in force, which goes on until the server has let the node in anew: nothing is lost while a
/// person thinks about it, nor when they refuse.
pub(super) struct Renewal {
    login: Login,
    session: Option<Session>,
    /// Why it does not get on.
    pub(super) trouble: Option<String>,
}

/// The key of the last start.
pub(super) struct OfferedKey {
    key: Zeroizing<String>,
    /// Whether the node was logged in when it came, so that it is used only if somebody asks for a new login.
    was_in: bool,
}

impl Renewal {
    /// Whether this is the number of its session.
    pub(super) fn is_session(&self, number: SessionNumber) -> bool {
        self.session.as_ref().is_some_and(|session| session.number() == number)
    }
}

impl Daemon {
    /// Takes note of the key of a start; a node that is not in joins by it.
    pub(super) fn take_key(&mut self, key: &AuthKey) {
        let state = self.snapshot.borrow().state;
        let was_in =
            self.identity.node_key.is_some() && !matches!(state, BackendState::NoState | BackendState::NeedsLogin);
        self.offered = Some(OfferedKey { key: key.expose(), was_in });
        if was_in && self.connected {
            // A key is for a node that is not in yet; one that is stays who it is.
            return;
        }
        let fresh = self.login_error.is_some() || self.mesh.is_expired();
        self.begin_login(Login { auth_key: Some(key.expose()), fresh, ephemeral: self.config.ephemeral });
    }

    /// Logs in by a person, or by the key that came with the last start.
    pub(super) fn log_in(&mut self) -> Result<(), NodeError> {
        self.parse_control_url(&self.identity.preferences.control_url)?;
        self.identity.preferences.logged_out = false;
        self.identity.preferences.want_running = true;
        Arc::make_mut(&mut self.mesh).set_preferences(self.identity.preferences.clone());
        let auth_key = match self.offered.take() {
            // It joins by the key, or has joined already.
            Some(offered) if !offered.was_in => return Ok(()),
            Some(offered) => Some(offered.key),
            None if self.login_wanted && self.login.auth_key.is_some() => return Ok(()),
            None => None,
        };
        if auth_key.is_none() {
            if let Some(url) = self.auth_url.clone() {
                // The login that is pending goes on; who asks now wants to know where.
                self.show_login(url);
                return Ok(());
            }
            if self.is_asking() {
                return Ok(());
            }
        }
        let login = Login { auth_key, fresh: self.identity.node_key.is_some(), ephemeral: self.config.ephemeral };
        if self.is_in() {
            self.auth_url = None;
            self.renewal = Some(Renewal { login, session: None, trouble: None });
        } else {
            self.begin_login(login);
        }
        Ok(())
    }

    /// Whether there is a login in force that can go on.
    fn is_in(&self) -> bool {
        let asks =
            self.login_wanted || self.login_error.is_some() || (self.auth_url.is_some() && self.renewal.is_none());
        let known = self.identity.node_key.is_some() && self.mesh.netmap().is_some() && !self.mesh.is_expired();
        known && !asks && self.session.is_some()
    }

    /// Whether a login is under way, and well.
    fn is_asking(&self) -> bool {
        match &self.renewal {
            Some(renewal) => renewal.trouble.is_none(),
            None => self.login_wanted && self.session.is_some() && self.control_error.is_none(),
        }
    }

    /// Drops a login that a person has yet to confirm, so that it is asked for anew: what they would confirm is not what
    /// is wanted any more.
    pub(super) fn ask_anew(&mut self) {
        match &mut self.renewal {
            Some(renewal) if renewal.login.auth_key.is_none() => {
                renewal.session = None;
                self.auth_url = None;
            }
            Some(_) => {}
            None if self.auth_url.is_some() || (self.login_wanted && self.login.auth_key.is_none()) => {
                self.end_session();
            }
            None => {}
        }
    }

    pub(super) fn start_renewal(&mut self, mut renewal: Renewal, url: &ControlUrl) -> Renewal {
        if renewal.session.is_none() {
            renewal.session = Some(self.start_session(url, renewal.login.clone()));
        }
        renewal
    }

    pub(super) async fn handle_renewal(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::LoginUrl(url) => {
                self.renewal.iter_mut().for_each(|renewal| renewal.trouble = None);
                self.show_login(url);
            }
            ControlEvent::LoggedIn { node_key, response, kept } => {
                self.session = self.renewal.take().and_then(|renewal| renewal.session);
                self.connected = false;
                // Who waits for the new login looks when it is told the state.
                self.announces = true;
                if self.take_login(node_key, &response).await {
                    // A session that has ended meanwhile needs no answer.
                    let _ = kept.send(());
                }
            }
            ControlEvent::LoginFailed(reason) => {
                tracing::warn!(%reason, "the new login failed, the one before goes on");
                self.renewal = None;
                self.auth_url = None;
                self.notify(Notice::open(json!({"ErrMessage": reason})));
            }
            ControlEvent::Connected(error) => {
                self.renewal.iter_mut().for_each(|renewal| renewal.trouble.clone_from(&error))
            }
            // It follows the map as the node's session, once it has logged in.
            ControlEvent::Map { .. } => {}
        }
    }
}
