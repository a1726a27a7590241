use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use dial::{Resolve, Roots};
use kubeapi::NodeConfig;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use telemetry::{Health, Metrics, Shutdown};
use tokio::sync::watch;

use crate::account::Account;
use crate::arguments::health_socket;
use crate::backends::{self, Backends};
use crate::backoff::Backoff;
use crate::config::{Config, Destination, Purpose, Target};
use crate::relay::Relay;
use crate::rules::Rules;
use crate::secret::SecretStore;
use crate::session::{Common, End, Session};
use crate::traffic::Traffic;
use crate::{health, settings};

/// How long after a refusal the same is tried again, though nobody gave another key: the server may have been wrong.
const SAME_KEY_AGAIN: Duration = Duration::from_secs(300);

/// Runs a proxy until it is told to end.
///
/// That the API server, the state Secret, the configuration or the coordination server is not there yet is waited for
/// and told of by the probe; it ends nothing.
///
/// # Errors
/// A process that is in no cluster, certificates that can't be read, or a port for metrics that is taken.
pub async fn run(
    config: Config,
    run_folder: PathBuf,
    resolver: Arc<dyn Resolve>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let client = cluster()?;
    run_with(config, run_folder, resolver, client, shutdown).await
}

/// The API server that pods of this cluster have, and this pod's namespace.
fn cluster() -> anyhow::Result<(kube::Client, String)> {
    let advice = "this runs in a pod with a projected account token, as the operator makes it";
    let mut config = kube::Config::incluster().context(advice)?;
    // Every request is tried again here, with the reason told.
    config.default_retry = false;
    config.read_timeout = Some(Duration::from_secs(15));
    let namespace = config.default_namespace.clone();
    Ok((kube::Client::try_from(config).context(advice)?, namespace))
}

async fn run_with(
    config: Config,
    run_folder: PathBuf,
    resolver: Arc<dyn Resolve>,
    (client, namespace): (kube::Client, String),
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    raise_descriptor_limit();
    if !config.user_space && !matches!(config.purpose, Purpose::Connector) {
        Rules::follow_connections().map_err(|reason| anyhow!("preparing the kernel: {reason}"))?;
    }
    let (health, metrics) = (Health::new(), Metrics::new());
    let state = health.condition("state Secret");
    let configuration = health.condition("configuration");
    let login = health.condition("login");
    let ready = health.condition("traffic");
    let by_name = matches!(&config.purpose, Purpose::Egress { target: Target::Name(_), .. });
    let target = by_name.then(|| health.condition("target"));
    let relay = Relay::new(Traffic::register(&metrics));
    let socket = health_socket(&run_folder);
    let listener = health::bind(&socket).with_context(|| format!("opening {} for probes", socket.display()))?;
    tokio::spawn(health::serve(listener, health.clone(), shutdown.clone()));
    if let Some(address) = config.metrics {
        let listener = tokio::net::TcpListener::bind(address).await;
        let listener = listener.with_context(|| format!("listening at {address} for metrics"))?;
        tokio::spawn(telemetry::serve_admin(listener, metrics, health.clone(), shutdown.clone()));
    }
    let roots = Roots::system()?;
    let roots = match &config.certificates {
        Some(file) => roots.and_file(file)?,
        None => roots,
    };
    let (routes, offered) = watch::channel(Vec::new());
    let backends = backends(&config, &resolver, &health, &shutdown, offered);
    tracing::info!(pod = config.pod.name, app = config.app, user_space = config.user_space, "the proxy starts");

    let waits = |reason| state.unmet(reason);
    let store = tokio::select! {
        store = SecretStore::open(client, &namespace, &config.state_secret, waits) => store,
        () = shutdown.requested() => return Ok(()),
    };
    state.met();
    let account = Account::new(store.clone(), &config.pod.uid);
    account.begin()?;
    let settings = settings::follow(config.config_folder.clone(), node::CAPABILITY_VERSION, &shutdown);
    configuration.unmet(format!("there is none in {} yet", config.config_folder.display()));
    let common = Common {
        config,
        run_folder,
        store,
        account,
        settings,
        resolver,
        roots,
        relay,
        backends,
        routes,
        login,
        ready,
        target,
        shutdown,
    };
    Proxy { common, tried: None, backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)) }
        .live(&configuration)
        .await;
    Ok(())
}

fn backends(
    config: &Config,
    resolver: &Arc<dyn Resolve>,
    health: &Health,
    shutdown: &Shutdown,
    offered: watch::Receiver<Vec<ipnet::IpNet>>,
) -> Backends {
    match &config.purpose {
        Purpose::Ingress(Destination::Name(name)) => {
            let condition = health.condition("destination");
            let api_server = config.api_server.clone();
            Backends::Named(backends::follow(name.clone(), api_server, resolver.clone(), condition, shutdown.token()))
        }
        Purpose::Ingress(destination) => Backends::fixed(destination),
        // An egress takes nothing from the tailnet.
        Purpose::Egress { .. } | Purpose::Connector => Backends::Asked(offered),
    }
}

/// A proxy over all the lives of its node.
struct Proxy {
    common: Common,
    /// The key that a session was last started with.
    tried: Option<String>,
    backoff: Backoff,
}

impl Proxy {
    async fn live(mut self, configuration: &telemetry::Condition) {
        while let Some(settings) = self.configured().await {
            configuration.met();
            self.tried.clone_from(&settings.auth_key);
            let end = Session::run(&mut self.common, settings.clone()).await;
            let goes_on = match end {
                End::Stopped => false,
                End::Changed => true,
                End::Failed(reason) => self.failed(reason).await,
                End::Stuck { reason, forget } => self.stuck(&settings, reason, forget).await,
            };
            if !goes_on {
                break;
            }
        }
        // What the node kept last belongs into the Secret, but the pod's time is limited.
        if tokio::time::timeout(Duration::from_secs(3), self.common.store.settled()).await.is_err() {
            tracing::warn!("the last state did not reach its Secret");
        }
        tracing::info!("the proxy has ended");
    }

    /// The configuration, once there is one; nothing when the proxy is to end.
    async fn configured(&mut self) -> Option<Arc<NodeConfig>> {
        let shutdown = self.common.shutdown.clone();
        let settings = &mut self.common.settings;
        tokio::select! {
            () = shutdown.requested() => None,
            // An error means that nobody follows any more, as at the end.
            found = settings.wait_for(Option::is_some) => found.ok()?.clone(),
        }
    }

    /// Waits before the next attempt; false when the proxy is to end.
    async fn failed(&mut self, reason: String) -> bool {
        tracing::error!(%reason, "the node does not run; it is tried again");
        self.common.login.unmet(reason.clone());
        self.common.ready.unmet(reason);
        let wait = self.backoff.step();
        self.pause(wait, |_| true).await
    }

    /// Asks for another key and waits for it; false when the proxy is to end.
    async fn stuck(&mut self, settings: &NodeConfig, reason: String, forget: bool) -> bool {
        self.backoff.reset();
        if let Err(error) = self.common.account.wants_key(self.tried.as_deref(), forget) {
            tracing::error!(%error, "the operator can't be asked for a key");
        }
        tracing::warn!(%reason, "waiting for another auth key");
        let told = format!("waiting for another auth key: {reason}");
        self.common.login.unmet(told.clone());
        self.common.ready.unmet(told);
        let (server, tried) = (settings.server_url.clone(), self.tried.clone());
        let helps =
            move |now: &NodeConfig| now.server_url != server || (now.auth_key.is_some() && now.auth_key != tried);
        // Without keys of its own, and none to join with, there is nothing to try.
        let again = if forget || self.tried.is_none() { Duration::MAX } else { SAME_KEY_AGAIN };
        self.pause(again, helps).await
    }

    /// Waits for a time, or for a configuration that helps; false when the proxy is to end.
    async fn pause(&mut self, time: Duration, helps: impl Fn(&NodeConfig) -> bool) -> bool {
        let shutdown = self.common.shutdown.clone();
        let settings = &mut self.common.settings;
        let waits = async {
            // What changed while the session ended counts too.
            if settings.has_changed().unwrap_or(false) && settings.borrow_and_update().as_deref().is_some_and(&helps) {
                return;
            }
            while settings.changed().await.is_ok() {
                if settings.borrow_and_update().as_deref().is_some_and(&helps) {
                    return;
                }
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = shutdown.requested() => false,
            () = waits => true,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// A connection takes two descriptors, and containers often start with room for few.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests;
