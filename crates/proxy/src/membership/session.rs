use std::sync::Arc;
use std::time::Duration;

use kubeapi::{MissingTarget, NodeConfig, OfferedRoutes};
use node::{AuthKey, ControlUrl, Node, Snapshot, Wishes};
use serde_json::{Value, json};

use super::{Duty, Membership};
use crate::account::Device;
use crate::standing::Standing;

/// How often the duty looks at its work, though nothing seems to have changed.
const LOOK: Duration = Duration::from_secs(2);
/// How long the node may take to end.
const STOP: Duration = Duration::from_secs(4);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum End {
    /// The member was told to end.
    Stopped,
    /// Something else is configured that a running node can't take.
    Changed,
    /// It did not work, and may later.
    Failed(String),
    /// Only another key helps.
    Stuck {
        /// Why.
        reason: String,
        /// Whether the node's own keys are of no use any more.
        forget: bool,
    },
}

/// One life of the node: from its start with one set of keys to its end.
pub(super) struct Session<'a, D> {
    membership: &'a mut Membership,
    duty: &'a mut D,
    node: Node,
    settings: Arc<NodeConfig>,
    standing: Option<Standing>,
    device: Option<Device>,
    /// What the operator was told last of the target.
    missing: Option<Option<MissingTarget>>,
    /// What the operator was told last of the routes.
    offered: Option<Option<OfferedRoutes>>,
}

impl<'a, D: Duty> Session<'a, D> {
    /// Runs the node until it has to end, and ends it.
    pub(super) async fn run(membership: &'a mut Membership, duty: &'a mut D, settings: Arc<NodeConfig>) -> End {
        duty.hindered("the node starts");
        let config = match node_config(membership, &settings) {
            Ok(config) => config,
            Err(reason) => return End::Failed(reason),
        };
        let node = match Node::start(config).await {
            Ok(node) => node,
            Err(error) => return End::Failed(error.to_string()),
        };
        let mut session =
            Self { membership, duty, node, settings, standing: None, device: None, missing: None, offered: None };
        let end = match session.begin().await {
            Ok(()) => session.attend().await,
            Err(reason) => End::Failed(reason),
        };
        session.duty.end(matches!(end, End::Stopped)).await;
        if tokio::time::timeout(STOP, session.node.stop()).await.is_err() {
            tracing::warn!("the node did not end in time");
        }
        end
    }

    async fn begin(&mut self) -> Result<(), String> {
        let preferences = preferences(&self.settings);
        self.node.edit_preferences(preferences).await.map_err(|error| error.to_string())?;
        self.duty.begin(&self.node, &self.settings).await
    }

    /// Follows the node and its configuration until one of them ends this.
    async fn attend(&mut self) -> End {
        let mut snapshots = self.node.watch();
        let mut looks = tokio::time::interval(LOOK);
        let node = self.node.clone();
        let shutdown = self.membership.shutdown.clone();
        let mut settings = self.membership.settings.clone();
        loop {
            let snapshot = snapshots.borrow_and_update().clone();
            if let Some(end) = self.take(&snapshot) {
                return end;
            }
            tokio::select! {
                () = shutdown.requested() => return End::Stopped,
                () = node.ended() => return End::Failed("the node ended by itself".to_owned()),
                changed = snapshots.changed() => if changed.is_err() {
                    return End::Failed("the node ended by itself".to_owned());
                },
                Ok(()) = settings.changed() => {
                    let now = settings.borrow_and_update().clone();
                    if let Some(now) = now
                        && let Some(end) = self.follow(now).await
                    {
                        return end;
                    }
                }
                _ = looks.tick() => {}
            }
        }
    }

    /// Takes how the node stands now.
    fn take(&mut self, snapshot: &Snapshot) -> Option<End> {
        // As soon as it is known, and before anything else may fail: the operator has to be able to remove it.
        if let Some(device) = Device::of(snapshot) {
            self.tell(device);
        }
        let standing = Standing::of(snapshot);
        let changed = self.standing.as_ref() != Some(&standing);
        self.standing = Some(standing.clone());
        match standing {
            Standing::Stuck { reason, forget } => return Some(End::Stuck { reason, forget }),
            Standing::Trying(reason) => {
                if changed {
                    tracing::info!(%reason, "not logged in");
                }
                self.membership.login.unmet(reason);
            }
            Standing::In => {
                if changed {
                    tracing::info!("logged in");
                }
                // It lets nobody in a second time.
                self.membership.own_key = None;
                self.membership.login.met();
            }
        }
        self.duty.stands(snapshot);
        self.tell_of_target();
        self.tell_of_routes();
        None
    }

    /// Tells the operator whether what the duty leads to is there.
    fn tell_of_target(&mut self) {
        let missing = self.duty.missing_target().cloned();
        if self.missing.as_ref() == Some(&missing) {
            return;
        }
        match self.membership.account.misses(missing.as_ref()) {
            Ok(()) => self.missing = Some(missing),
            Err(error) => tracing::error!(%error, "the operator can't be told of the target"),
        }
    }

    /// Tells the operator what becomes of the routes that the node offers.
    fn tell_of_routes(&mut self) {
        let offered = self.duty.offered_routes();
        if self.offered.as_ref().map(Option::as_ref) == Some(offered) {
            return;
        }
        match self.membership.account.offers(offered) {
            Ok(()) => self.offered = Some(offered.cloned()),
            Err(error) => tracing::error!(%error, "the operator can't be told of the routes"),
        }
    }

    /// Tells the operator who the node is.
    fn tell(&mut self, device: Device) {
        if self.device.as_ref() == Some(&device) {
            return;
        }
        match self.membership.account.logged_in(&device) {
            Ok(()) => {
                tracing::info!(id = device.id, "the tailnet knows this node");
                tracing::debug!(name = device.name, addresses = ?device.addresses, "its name and addresses");
                self.device = Some(device);
            }
            Err(error) => tracing::error!(%error, "the operator can't be told of the device"),
        }
    }

    /// Takes another configuration into the running node, where that can be done.
    async fn follow(&mut self, now: Arc<NodeConfig>) -> Option<End> {
        if now.server_url != self.settings.server_url {
            return Some(End::Changed);
        }
        let wanted = preferences(&now);
        match self.node.edit_preferences(wanted).await {
            Ok(_) => {
                self.duty.configured(&now);
                tracing::info!("the configuration is in force");
            }
            Err(error) => tracing::warn!(%error, "the configuration is not in force, the one before stays"),
        }
        self.settings = now;
        None
    }
}

fn node_config(membership: &Membership, settings: &NodeConfig) -> Result<node::Config, String> {
    let missing = "the configuration names no coordination server (ServerURL)";
    let url = settings.server_url.as_deref().ok_or(missing)?;
    let control_url: ControlUrl = url.parse().map_err(|error: node::ControlUrlError| error.to_string())?;
    let (member, folder) = (&membership.member, &membership.run_folder);
    Ok(node::Config {
        store: Arc::new(membership.store.clone()),
        netmap_cache: Some(folder.join("netmap")),
        port: member.port,
        device: member.device.clone(),
        wishes: Wishes {
            control_url: Some(control_url),
            hostname: settings.hostname.clone(),
            routes: Some(settings.advertise_routes.clone().unwrap_or_default()),
            accept_routes: Some(settings.accept_routes.unwrap_or(false)),
            accept_dns: Some(settings.accept_dns.unwrap_or(false)),
            running: Some(true),
            manage_firewall: Some(member.manage_firewall),
            ..Wishes::default()
        },
        auth_key: membership.tried.clone().map(AuthKey::new).filter(|key| !key.is_empty()),
        ephemeral: false,
        mark_sockets: false,
        local_api: Some(folder.join("towlined.sock")),
        roots: membership.roots.clone(),
        resolver: membership.resolver.clone(),
        app: member.app.clone(),
    })
}

/// What a configuration says, as a change of preferences (`MaskedPrefs` of the LocalAPI).
fn preferences(settings: &NodeConfig) -> Value {
    json!({
        "HostnameSet": settings.hostname.is_some(),
        "Hostname": settings.hostname,
        "AdvertiseRoutesSet": true,
        "AdvertiseRoutes": settings.advertise_routes.clone().unwrap_or_default(),
        "RouteAllSet": true,
        "RouteAll": settings.accept_routes.unwrap_or(false),
        "CorpDNSSet": true,
        "CorpDNS": settings.accept_dns.unwrap_or(false),
        "NoStatefulFilteringSet": settings.no_stateful_filtering.is_some(),
        "NoStatefulFiltering": settings.no_stateful_filtering,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_becomes_preferences_that_a_node_takes() {
        let mut settings = NodeConfig::of_proxy("https://control.example.com", "home-web");
        settings.advertise_routes = Some(vec!["10.0.0.0/16".parse().unwrap()]);
        let before = node::Preferences::default();
        let after = before.patched(&preferences(&settings)).unwrap();
        assert_eq!(after.hostname, "home-web");
        assert_eq!(after.advertise_routes, settings.advertise_routes.unwrap());
        assert_eq!((after.route_all, after.corp_dns), (false, false));
        assert_eq!(after.netfilter_mode, before.netfilter_mode, "the node's start says that");
        assert_eq!(after.no_stateful_filtering, Some(true));
    }
}
