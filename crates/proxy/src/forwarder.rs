use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dial::{Resolve, Roots};
use ipnet::IpNet;
use kubeapi::NodeConfig;
use node::{AuthKey, ControlUrl, Destination as Listening, DeviceConfig, Node, Snapshot, Wishes};
use serde_json::{Value, json};
use telemetry::{Condition, Shutdown};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::account::{Account, Device};
use crate::backends::Backends;
use crate::config::{Config, Purpose};
use crate::egress::{Egress, Way};
use crate::relay::Relay;
use crate::rules::{self, Rules, Translation};
use crate::secret::SecretStore;
use crate::standing::Standing;
use crate::target;

/// How often the kernel's rules are looked at, though nothing seems to have changed.
const LOOK: Duration = Duration::from_secs(2);
/// How long flows that are open may go on after the proxy was told to end.
const DRAIN: Duration = Duration::from_secs(20);
/// How long the node may take to end.
const STOP: Duration = Duration::from_secs(4);

/// What all sessions of a proxy share.
pub(crate) struct Common {
    pub(crate) config: Config,
    pub(crate) run_folder: PathBuf,
    pub(crate) store: SecretStore,
    pub(crate) account: Account,
    pub(crate) settings: watch::Receiver<Option<Arc<NodeConfig>>>,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) roots: Roots,
    pub(crate) relay: Relay,
    pub(crate) backends: Backends,
    /// The routes that a connector offers now.
    pub(crate) routes: watch::Sender<Vec<IpNet>>,
    pub(crate) login: Condition,
    /// Whether rules or listeners are in place.
    pub(crate) ready: Condition,
    /// Whether the target of an egress by name is there.
    pub(crate) target: Option<Condition>,
    pub(crate) shutdown: Shutdown,
}

/// Why a session ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The proxy was told to end.
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
pub(crate) struct Session<'a> {
    common: &'a mut Common,
    node: Node,
    settings: Arc<NodeConfig>,
    way: watch::Sender<Way>,
    rules: Option<Rules>,
    standing: Option<Standing>,
    device: Option<Device>,
    complaint: String,
}

impl<'a> Session<'a> {
    /// Runs the node until it has to end, and ends it.
    pub(crate) async fn run(common: &'a mut Common, settings: Arc<NodeConfig>) -> End {
        common.ready.unmet("the node starts");
        let config = match node_config(common, &settings) {
            Ok(config) => config,
            Err(reason) => return End::Failed(reason),
        };
        let node = match Node::start(config).await {
            Ok(node) => node,
            Err(error) => return End::Failed(error.to_string()),
        };
        let (way, rules, standing, device) = (watch::Sender::default(), None, None, None);
        let mut session = Self { common, node, settings, way, rules, standing, device, complaint: String::new() };
        let ends = CancellationToken::new();
        let end = match session.begin(&ends).await {
            Ok(()) => session.attend().await,
            Err(reason) => End::Failed(reason),
        };
        session.finish(&end, &ends).await;
        end
    }

    /// Opens what the purpose needs.
    async fn begin(&mut self, ends: &CancellationToken) -> Result<(), String> {
        let purpose = self.common.config.purpose.clone();
        let preferences = preferences(&self.settings);
        self.node.edit_preferences(preferences).await.map_err(|error| error.to_string())?;
        self.common.routes.send_replace(self.settings.advertise_routes.clone().unwrap_or_default());
        let (relay, backends) = (self.common.relay.clone(), self.common.backends.clone());
        match (self.node.user_space(), &purpose) {
            (Some(user_space), Purpose::Ingress(_)) => {
                crate::ingress::start(user_space, Listening::Own, backends, relay, ends.clone())
                    .map_err(|error| format!("nothing can be taken from the tailnet: {error}"))?;
            }
            (Some(user_space), Purpose::Connector) => {
                crate::ingress::start(user_space, Listening::Any, backends, relay, ends.clone())
                    .map_err(|error| format!("nothing can be taken from the tailnet: {error}"))?;
            }
            (Some(user_space), Purpose::Egress { ports, .. }) => {
                let egress = Egress::new(user_space.clone(), self.way.subscribe(), relay, ends.clone());
                let pod = &self.common.config.pod.addresses;
                egress.listen(pod, ports).await.map_err(|error| error.to_string())?;
            }
            // The node does all that a connector needs of the kernel.
            (None, Purpose::Connector) => {}
            (None, _) => self.rules = Some(Rules::new()?),
        }
        Ok(())
    }

    /// Follows the node and its configuration until one of them ends this.
    async fn attend(&mut self) -> End {
        let mut snapshots = self.node.watch();
        let mut looks = tokio::time::interval(LOOK);
        let node = self.node.clone();
        let shutdown = self.common.shutdown.clone();
        let mut settings = self.common.settings.clone();
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
                self.common.login.unmet(reason);
            }
            Standing::In => {
                if changed {
                    tracing::info!("logged in");
                }
                self.common.login.met();
            }
        }
        self.settle(snapshot);
        None
    }

    /// Tells the operator who the node is.
    fn tell(&mut self, device: Device) {
        if self.device.as_ref() == Some(&device) {
            return;
        }
        match self.common.account.logged_in(&device) {
            Ok(()) => {
                tracing::info!(id = device.id, "the tailnet knows this node");
                tracing::debug!(name = device.name, addresses = ?device.addresses, "its name and addresses");
                self.device = Some(device);
            }
            Err(error) => tracing::error!(%error, "the operator can't be told of the device"),
        }
    }

    /// Makes rules and ways what they should be now.
    fn settle(&mut self, snapshot: &Snapshot) {
        let own = snapshot.addresses();
        if own.is_empty() {
            self.common.ready.unmet("the node has no address yet");
            return;
        }
        let done = match self.common.config.purpose.clone() {
            Purpose::Egress { target, .. } => target::locate(&target, snapshot)
                .map(|targets| {
                    if let Some(condition) = &self.common.target {
                        condition.met();
                    }
                    Way { targets, own: own.clone() }
                })
                .inspect_err(|reason| {
                    if let Some(condition) = &self.common.target {
                        condition.unmet(reason.clone());
                    }
                })
                .and_then(|way| self.lead(way)),
            Purpose::Ingress(_) => self.translate_ingress(&own),
            Purpose::Connector => Ok(()),
        };
        match done {
            Ok(()) => {
                self.complaint.clear();
                self.common.ready.met();
            }
            Err(reason) => {
                if reason != self.complaint {
                    tracing::warn!(%reason, "traffic can't flow");
                    self.complaint.clone_from(&reason);
                }
                self.common.ready.unmet(reason);
            }
        }
    }

    /// Leads an egress to where its target is now.
    fn lead(&mut self, way: Way) -> Result<(), String> {
        if way.pairs().is_empty() {
            return Err("the target has no address of a family that this node has".to_owned());
        }
        if let Some(rules) = &mut self.rules {
            rules.apply(&Translation::egress(&way, &self.common.config.pod.addresses))?;
        }
        self.way.send_if_modified(|current| {
            let changed = *current != way;
            if changed {
                tracing::info!(addresses = way.targets.len(), "the target was found");
                *current = way;
            }
            changed
        });
        Ok(())
    }

    fn translate_ingress(&mut self, own: &[IpAddr]) -> Result<(), String> {
        let Some(rules) = &mut self.rules else { return Ok(()) };
        let destination = |own: IpAddr| {
            let candidates = self.common.backends.candidates(own);
            candidates.into_iter().find(|found| found.is_ipv4() == own.is_ipv4())
        };
        rules.apply(&Translation::ingress(own, destination, &self.common.config.pod.addresses))
    }

    /// Takes another configuration into the running node, where that can be done.
    async fn follow(&mut self, now: Arc<NodeConfig>) -> Option<End> {
        if now.server_url != self.settings.server_url {
            return Some(End::Changed);
        }
        let wanted = preferences(&now);
        match self.node.edit_preferences(wanted).await {
            Ok(_) => {
                self.common.routes.send_replace(now.advertise_routes.clone().unwrap_or_default());
                tracing::info!("the configuration is in force");
            }
            Err(error) => tracing::warn!(%error, "the configuration is not in force, the one before stays"),
        }
        self.settings = now;
        None
    }

    async fn finish(mut self, end: &End, ends: &CancellationToken) {
        if matches!(end, End::Stopped) {
            match &mut self.rules {
                Some(rules) => {
                    rules.drain();
                    drain_interface().await;
                }
                None => self.common.relay.drain(DRAIN).await,
            }
        }
        ends.cancel();
        if let Some(rules) = &mut self.rules {
            rules.remove();
        }
        if tokio::time::timeout(STOP, self.node.stop()).await.is_err() {
            tracing::warn!("the node did not end in time");
        }
    }
}

fn node_config(common: &Common, settings: &NodeConfig) -> Result<node::Config, String> {
    let missing = "the configuration names no coordination server (ServerURL)";
    let url = settings.server_url.as_deref().ok_or(missing)?;
    let control_url: ControlUrl = url.parse().map_err(|error: node::ControlUrlError| error.to_string())?;
    let device = if common.config.user_space {
        DeviceConfig::UserSpace
    } else {
        DeviceConfig::Tun { name: rules::INTERFACE.to_owned() }
    };
    Ok(node::Config {
        store: Arc::new(common.store.clone()),
        netmap_cache: Some(common.run_folder.join("netmap")),
        port: if common.config.user_space { 0 } else { rules::UDP_PORT },
        device,
        wishes: Wishes {
            control_url: Some(control_url),
            hostname: settings.hostname.clone(),
            routes: Some(settings.advertise_routes.clone().unwrap_or_default()),
            accept_routes: Some(settings.accept_routes.unwrap_or(false)),
            accept_dns: Some(settings.accept_dns.unwrap_or(false)),
            running: Some(true),
            manage_firewall: Some(manages_firewall(&common.config)),
            ..Wishes::default()
        },
        auth_key: settings.auth_key.clone().map(AuthKey::new).filter(|key| !key.is_empty()),
        ephemeral: false,
        mark_sockets: false,
        local_api: Some(common.run_folder.join("towlined.sock")),
        roots: common.roots.clone(),
        resolver: common.resolver.clone(),
        app: common.config.app.clone(),
    })
}

/// Whether the node manages the firewall: not where the proxy's own rules have to stand in its one table.
fn manages_firewall(config: &Config) -> bool {
    config.user_space || matches!(config.purpose, Purpose::Connector)
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

/// Waits until nothing passes the interface for a while: the kernel knows the flows, and does not tell of them.
async fn drain_interface() {
    const QUIET: Duration = Duration::from_secs(2);
    let packets = || {
        let of = |direction: &str| {
            let path = format!("/sys/class/net/{}/statistics/{direction}_packets", rules::INTERFACE);
            std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        Some(of("rx")? + of("tx")?)
    };
    let deadline = tokio::time::Instant::now() + DRAIN;
    let mut before = packets();
    while before.is_some() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(QUIET).await;
        let now = packets();
        if now == before {
            return;
        }
        before = now;
    }
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
