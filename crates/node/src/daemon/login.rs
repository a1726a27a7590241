use std::sync::Arc;

use crypto::NodePrivate;
use serde_json::json;
use tailcfg::{CapabilityVersion, RegisterRequest, RegisterResponse, Time, UserProfile};

use super::{Daemon, Notice};
use crate::control::{Client, ControlUrl, Login, Session, SessionConfig};

/// How long the server may take to hear of a logout.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(5);

impl Daemon {
    /// Starts a session when one is wanted and ends it when not.
    pub(super) fn settle_session(&mut self) {
        let preferences = &self.identity.preferences;
        let able = self.identity.node_key.is_some() || self.login_wanted;
        let wanted = preferences.want_running && !preferences.logged_out && able && self.login_error.is_none();
        let url = preferences.control_url.parse::<ControlUrl>().ok().filter(|_| wanted);
        let Some(url) = url else {
            self.renewal = None;
            self.end_session();
            if !wanted {
                self.control_error = None;
            }
            return;
        };
        if self.client.as_ref().is_some_and(|(known, _)| *known != url) {
            self.renewal = None;
            self.end_session();
            self.client = None;
        }
        if self.session.is_none() {
            self.connected = false;
            self.session = Some(self.start_session(&url, self.login.clone()));
        }
        if let Some(renewal) = self.renewal.take() {
            self.renewal = Some(self.start_renewal(renewal, &url));
        }
    }

    pub(super) fn start_session(&mut self, url: &ControlUrl, login: Login) -> Session {
        let machine = &self.identity.machine;
        let dialer = &self.dialer;
        let (_, client) = self
            .client
            .get_or_insert_with(|| (url.clone(), Arc::new(Client::new(dialer.clone(), url.clone(), machine.clone()))));
        let client = client.clone();
        self.settle_report();
        self.sessions = self.sessions.next();
        let config = SessionConfig {
            number: self.sessions,
            client,
            node_key: self.identity.node_key.clone(),
            login,
            report: self.report.subscribe(),
        };
        Session::start(config, self.control.0.clone())
    }

    /// Ends the session, and the login that it asks a person for.
    pub(super) fn end_session(&mut self) {
        self.session = None;
        self.connected = false;
        if self.renewal.is_none() {
            self.auth_url = None;
        }
    }

    /// Shows where a person logs in.
    pub(super) fn show_login(&mut self, url: String) {
        if !url.starts_with("https://") && !url.starts_with("http://") {
            tracing::warn!("the coordination server sent a login URL that is no page of the web; it is not shown");
            return;
        }
        tracing::info!("a person has to log in; `towline up` shows where");
        self.notify(Notice::closed(json!({"BrowseToURL": url})));
        self.auth_url = Some(url);
    }

    /// The server has let the node in under a key: keeps that. Tells whether it could be kept.
    pub(super) async fn take_login(&mut self, node_key: NodePrivate, response: &RegisterResponse) -> bool {
        let (login, user) = (&response.login, &response.user);
        self.identity.node_key = Some(node_key);
        self.identity.old_node_key = None;
        self.identity.user = UserProfile {
            id: if user.id == tailcfg::UserId::default() { login.id } else { user.id },
            login_name: login.login_name.clone(),
            display_name: if user.display_name.is_empty() {
                login.display_name.clone()
            } else {
                user.display_name.clone()
            },
            profile_pic_url: login.profile_pic_url.clone(),
            ..UserProfile::default()
        };
        self.identity.preferences.logged_out = false;
        Arc::make_mut(&mut self.mesh).set_preferences(self.identity.preferences.clone());
        self.login = Login { ephemeral: self.config.ephemeral, ..Login::default() };
        self.login_wanted = false;
        self.auth_url = None;
        self.login_error = None;
        if let Err(error) = self.identity.save(self.config.store.as_ref()).await {
            tracing::error!(%error, "the login can't be kept");
            self.login_error = Some(error.to_string());
            self.end_session();
            return false;
        }
        tracing::info!("logged in");
        self.notify(Notice::open(json!({"LoginFinished": {}})));
        true
    }

    /// Begins to log in anew: with a key, or by a person.
    pub(super) fn begin_login(&mut self, login: Login) {
        self.login = login;
        self.login_wanted = true;
        self.login_error = None;
        self.renewal = None;
        self.end_session();
    }

    /// Leaves the network: tells the server, and forgets the key whether it heard or not.
    pub(super) async fn leave(&mut self) -> Result<(), crate::NodeError> {
        self.renewal = None;
        self.offered = None;
        self.end_session();
        if let (Some(key), Some((_, client))) = (self.node_public(), &self.client) {
            let request = RegisterRequest {
                version: CapabilityVersion::OURS,
                node_key: key,
                expiry: Time::from(jiff::Timestamp::constant(123, 0)),
                hostinfo: Some(self.report.borrow().hostinfo.clone()),
                ..RegisterRequest::default()
            };
            match tokio::time::timeout(FAREWELL, client.register(&request)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the coordination server did not hear of the logout"),
                Err(_) => tracing::warn!("the coordination server did not hear of the logout in time"),
            }
            client.forget().await;
        }
        self.drop_data_plane().await;
        self.machine.restore();
        self.identity.node_key = None;
        self.identity.old_node_key = None;
        self.identity.user = UserProfile::default();
        self.identity.node_id = tailcfg::StableNodeId::default();
        self.identity.preferences.want_running = false;
        self.identity.preferences.logged_out = true;
        self.login_error = None;
        self.login_wanted = false;
        let mesh = Arc::make_mut(&mut self.mesh);
        mesh.set_preferences(self.identity.preferences.clone());
        mesh.forget_network();
        self.cache.forget();
        self.notify_preferences();
        Ok(self.identity.save(self.config.store.as_ref()).await?)
    }

    /// Keeps the node's id for programs, which the map told.
    pub(super) fn note_node_id(&mut self) {
        let Some(netmap) = self.mesh.netmap() else { return };
        let node = netmap.node();
        let user = netmap.users().get(&node.user);
        if let Some(user) = user.filter(|user| **user != self.identity.user) {
            self.identity.user = user.clone();
        }
        self.identity.node_id = node.stable_id.clone();
    }
}
