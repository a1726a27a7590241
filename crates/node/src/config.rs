use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use dial::{Resolve, Roots};
use ipnet::IpNet;
use mesh::Preferences;
use zeroize::Zeroizing;

use crate::control::ControlUrl;
use crate::store::StateStore;

/// What a node is started from.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where keys and settings are kept.
    pub store: Arc<dyn StateStore>,
    /// A file that keeps the last map, so that the node starts while its coordination server is away; `None` for none.
    pub netmap_cache: Option<PathBuf>,
    /// How packets enter and leave the machine.
    pub device: DeviceConfig,
    /// What the caller wants of the node, over what the store has.
    pub wishes: Wishes,
    /// What proves that the node may join, when it is not known yet.
    pub auth_key: Option<AuthKey>,
    /// Whether the node goes away by itself when it is gone.
    pub ephemeral: bool,
    /// The UDP port of the mesh; 0 lets the system choose.
    pub port: u16,
    /// Whether the node's own packets carry the mark that keeps them out of its routes; needs `CAP_NET_ADMIN`. On by
    /// itself with [`DeviceConfig::Tun`].
    pub mark_sockets: bool,
    /// The socket of the LocalAPI; `None` serves none.
    pub local_api: Option<PathBuf>,
    /// The authorities that the coordination server and relays are believed by.
    pub roots: Roots,
    /// How names of the coordination server and relays are resolved: not through the mesh.
    pub resolver: Arc<dyn Resolve>,
    /// What the node is called on the relays' statistics and in the map, besides the daemon itself (`Hostinfo.App`).
    pub app: String,
}

/// How packets enter and leave the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceConfig {
    /// Through an interface of the machine, with routes, firewall and name settings.
    Tun {
        /// The interface's name.
        name: String,
    },
    /// Through an IP stack of the program's own: [`crate::UserSpace`]. The machine is left alone.
    UserSpace,
}

impl DeviceConfig {
    /// The name of the interface, where it is one.
    pub(crate) fn interface(&self) -> Option<&str> {
        match self {
            Self::Tun { name } => Some(name),
            Self::UserSpace => None,
        }
    }
}

/// What the caller wants of a node; what is `None` stays as the store has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// The coordination server.
    pub control_url: Option<ControlUrl>,
    /// The name to ask for.
    pub hostname: Option<String>,
    /// The tags to ask for.
    pub tags: Option<Vec<String>>,
    /// The subnets to offer, default routes for an exit node.
    pub routes: Option<Vec<IpNet>>,
    /// Whether subnets that peers serve are used.
    pub accept_routes: Option<bool>,
    /// Whether the tailnet's name settings are used.
    pub accept_dns: Option<bool>,
    /// Whether only answers are let in.
    pub shields_up: Option<bool>,
    /// Whether packets to offered subnets keep their source address.
    pub keep_sources: Option<bool>,
    /// Whether the node manages the firewall; not where a proxy's own rules stand in its table.
    pub manage_firewall: Option<bool>,
    /// Whether to connect.
    pub running: Option<bool>,
}

/// A key that lets a node join; never shown.
#[derive(Clone)]
pub struct AuthKey(Zeroizing<String>);

impl AuthKey {
    /// Takes a key as it was given out.
    pub fn new(text: impl Into<String>) -> Self {
        let text = Zeroizing::new(text.into());
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    pub(crate) fn expose(&self) -> Zeroizing<String> {
        self.0.clone()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthKey(…)")
    }
}

impl Wishes {
    /// Preferences with these wishes in place of what they were.
    pub(crate) fn apply(&self, preferences: &mut Preferences) {
        fn put<T: Clone>(wish: &Option<T>, place: &mut T) {
            if let Some(wish) = wish {
                place.clone_from(wish);
            }
        }
        if let Some(url) = &self.control_url {
            preferences.control_url = url.to_string();
        }
        put(&self.hostname, &mut preferences.hostname);
        put(&self.tags, &mut preferences.advertise_tags);
        put(&self.routes, &mut preferences.advertise_routes);
        put(&self.accept_routes, &mut preferences.route_all);
        put(&self.accept_dns, &mut preferences.corp_dns);
        put(&self.shields_up, &mut preferences.shields_up);
        put(&self.keep_sources, &mut preferences.no_snat);
        if let Some(manage) = self.manage_firewall {
            preferences.netfilter_mode = if manage { 2 } else { 0 };
        }
        put(&self.running, &mut preferences.want_running);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auth_key_is_never_shown() {
        let key = AuthKey::new(" tskey-auth-secret\n");
        assert_eq!(format!("{key:?}"), "AuthKey(…)");
        assert_eq!(&*key.expose(), "tskey-auth-secret");
    }

    #[test]
    fn only_what_is_wished_changes() {
        let mut preferences = Preferences { shields_up: true, ..Preferences::default() };
        Wishes { hostname: Some("a".to_owned()), ..Wishes::default() }.apply(&mut preferences);
        assert_eq!(preferences, Preferences { shields_up: true, hostname: "a".to_owned(), ..Preferences::default() });
    }
}
