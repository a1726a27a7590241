use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use dial::{Resolve, Roots};
use kubeapi::{MissingTarget, NodeConfig, OfferedRoutes};
use node::{Node, Snapshot};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use telemetry::{Condition, Health, Shutdown};
use tokio::sync::watch;

use crate::account::Account;
use crate::backoff::Backoff;
use crate::config::Member;
use crate::secret::SecretStore;
use crate::settings;

mod session;

use session::{End, Session};

/// How long after a refusal the same is tried again, though nobody gave another key: the server may have been wrong.
const SAME_KEY_AGAIN: Duration = Duration::from_secs(300);
/// The shortest and the longest time between two keys that a member gets by itself, and between two attempts to get one.
const BETWEEN_KEYS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));
const BETWEEN_ATTEMPTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long what the node kept last may take to reach its Secret at the end.
const LAST_STATE: Duration = Duration::from_secs(3);

/// What a member of the tailnet is for. A membership takes it through all lives of its node: a node ends and another begins
/// when its keys are of no use any more, or its coordination server is another.
pub trait Duty: Send {
    /// Takes up its work on a node that has just started.
    ///
    /// # Errors
    /// Why it can't. The node is ended then, and started again after a while.
    fn begin(&mut self, node: &Node, settings: &NodeConfig) -> impl Future<Output = Result<(), String>> + Send;

    /// Takes another configuration, which is in force on the node already.
    fn configured(&mut self, settings: &NodeConfig) {
        let _ = settings;
    }

    /// Gets an auth key where the member has to get its keys itself; nothing where the operator gives them. The `former`
    /// device is what the member was, and can't be any more.
    ///
    /// # Errors
    /// Why there is none. It is asked again after a while.
    fn key(&mut self, former: Option<String>) -> impl Future<Output = Result<Option<String>, String>> + Send {
        let _ = former;
        std::future::ready(Ok(None))
    }

    /// Hears that its work can't be done, and why.
    fn hindered(&mut self, reason: &str);

    /// Takes how the node stands: whenever that changes, and every few seconds.
    fn stands(&mut self, snapshot: &Snapshot);

    /// Why what it leads to is not in the tailnet, as [`Duty::stands`] found last.
    fn missing_target(&self) -> Option<&MissingTarget> {
        None
    }

    /// What becomes of the routes that its node offers, as [`Duty::stands`] found last.
    fn offered_routes(&self) -> Option<&OfferedRoutes> {
        None
    }

    /// Ends its work. `drains` says that the node goes on meanwhile, and what is under way may end by itself.
    fn end(&mut self, drains: bool) -> impl Future<Output = ()> + Send;
}

/// A workload's place in the tailnet, by the contract between the operator and its pods ([`kubeapi::contract`]): keys in a
/// state Secret, a configuration that may change, another auth key asked for where the node can't get in.
pub struct Membership {
    member: Member,
    run_folder: PathBuf,
    store: SecretStore,
    account: Account,
    settings: watch::Receiver<Option<Arc<NodeConfig>>>,
    resolver: Arc<dyn Resolve>,
    roots: Roots,
    configuration: Condition,
    login: Condition,
    shutdown: Shutdown,
    /// The key that a session was last started with.
    tried: Option<String>,
    /// A key that the member got by itself and has not used yet.
    own_key: Option<String>,
    /// When it got the last one, and how long it waits until the next.
    got_key: Option<Instant>,
    between_keys: Backoff,
    backoff: Backoff,
}

/// What a membership needs besides what its pod says.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The folder of the node's socket for commands, and of what it may lose.
    pub run_folder: PathBuf,
    /// How names of the coordination server and relays are resolved.
    pub resolver: Arc<dyn Resolve>,
    /// Where it tells what it waits for.
    pub health: Health,
    /// When it ends.
    pub shutdown: Shutdown,
}

impl Membership {
    /// Reads the state of the member, and waits for its Secret for as long as that takes; `None` when it is told to end.
    ///
    /// # Errors
    /// A process that is in no cluster, or certificates that can't be read.
    pub async fn open(member: Member, surroundings: Surroundings) -> anyhow::Result<Option<Self>> {
        Self::open_in(cluster()?, member, surroundings).await
    }

    pub(crate) async fn open_in(
        (client, namespace): (kube::Client, String),
        member: Member,
        surroundings: Surroundings,
    ) -> anyhow::Result<Option<Self>> {
        raise_descriptor_limit();
        let Surroundings { run_folder, resolver, health, shutdown } = surroundings;
        let state = health.condition("state Secret");
        let configuration = health.condition("configuration");
        let login = health.condition("login");
        let roots = Roots::system()?;
        let roots = match &member.certificates {
            Some(file) => roots.and_file(file)?,
            None => roots,
        };
        let waits = |reason| state.unmet(reason);
        let store = tokio::select! {
            store = SecretStore::open(client, &namespace, &member.state_secret, waits) => store,
            () = shutdown.requested() => return Ok(None),
        };
        state.met();
        let account = Account::new(store.clone(), &member.pod_uid);
        account.begin()?;
        let settings = settings::follow(member.config_folder.clone(), node::CAPABILITY_VERSION, &shutdown);
        configuration.unmet(format!("there is none in {} yet", member.config_folder.display()));
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        Ok(Some(Self {
            member,
            run_folder,
            store,
            account,
            settings,
            resolver,
            roots,
            configuration,
            login,
            shutdown,
            tried: None,
            own_key: None,
            got_key: None,
            between_keys: Backoff::new(BETWEEN_KEYS.0, BETWEEN_KEYS.1),
            backoff,
        }))
    }

    /// Is a member until it is told to end.
    pub async fn keep(mut self, mut duty: impl Duty) {
        while let Some(settings) = self.configured().await {
            self.configuration.met();
            self.tried = self.own_key.clone().or_else(|| settings.auth_key.clone());
            let end = Session::run(&mut self, &mut duty, settings.clone()).await;
            let goes_on = match end {
                End::Stopped => false,
                End::Changed => true,
                End::Failed(reason) => self.failed(&mut duty, reason).await,
                End::Stuck { reason, forget } => self.stuck(&mut duty, &settings, reason, forget).await,
            };
            if !goes_on {
                break;
            }
        }
        // What the node kept last belongs into the Secret, but the pod's time is limited.
        if tokio::time::timeout(LAST_STATE, self.store.settled()).await.is_err() {
            tracing::warn!("the last state did not reach its Secret");
        }
    }

    /// The configuration, once there is one; nothing when the member is to end.
    async fn configured(&mut self) -> Option<Arc<NodeConfig>> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = shutdown.requested() => None,
            // An error means that nobody follows any more, as at the end.
            found = self.settings.wait_for(Option::is_some) => found.ok()?.clone(),
        }
    }

    /// Waits before the next attempt; false when the member is to end.
    async fn failed(&mut self, duty: &mut impl Duty, reason: String) -> bool {
        tracing::error!(%reason, "the node does not run; it is tried again");
        duty.hindered(&reason);
        self.login.unmet(reason);
        let wait = self.backoff.step();
        self.pause(wait, |_| true).await
    }

    /// Asks for another key and waits for it; false when the member is to end.
    async fn stuck(&mut self, duty: &mut impl Duty, settings: &NodeConfig, reason: String, forget: bool) -> bool {
        self.backoff.reset();
        if let Some(goes_on) = self.own(duty, &reason, forget).await {
            return goes_on;
        }
        if let Err(error) = self.account.wants_key(self.tried.as_deref(), forget) {
            tracing::error!(%error, "the operator can't be asked for a key");
        }
        tracing::warn!(%reason, "waiting for another auth key");
        let told = format!("waiting for another auth key: {reason}");
        duty.hindered(&told);
        self.login.unmet(told);
        let (server, tried) = (settings.server_url.clone(), self.tried.clone());
        let helps =
            move |now: &NodeConfig| now.server_url != server || (now.auth_key.is_some() && now.auth_key != tried);
        // Without keys of its own, and none to join with, there is nothing to try.
        let again = if forget || self.tried.is_none() { Duration::MAX } else { SAME_KEY_AGAIN };
        self.pause(again, helps).await
    }

    /// Has the duty get a key, for as long as that takes; nothing where it gets none, and else whether the member goes on.
    async fn own(&mut self, duty: &mut impl Duty, reason: &str, forget: bool) -> Option<bool> {
        self.own_key = None;
        match self.got_key.map(|at| at.elapsed()) {
            // A server that refuses every key is not asked for hundreds.
            Some(age) if age < BETWEEN_KEYS.1 => {
                let wait = self.between_keys.step();
                tracing::warn!(reason, wait_s = wait.as_secs(), "another auth key is asked for after a while");
                duty.hindered(reason);
                self.login.unmet(reason);
                if !self.pause(wait, |_| true).await {
                    return Some(false);
                }
            }
            _ => self.between_keys.reset(),
        }
        let former = self.account.device().filter(|_| forget);
        let mut attempts = Backoff::new(BETWEEN_ATTEMPTS.0, BETWEEN_ATTEMPTS.1);
        loop {
            let shutdown = self.shutdown.clone();
            let asked = tokio::select! {
                () = shutdown.requested() => return Some(false),
                asked = duty.key(former.clone()) => asked,
            };
            match asked {
                Ok(None) => return None,
                Ok(Some(key)) => {
                    if forget && let Err(error) = self.account.forgets() {
                        tracing::error!(%error, "the keys of the former device stay");
                    }
                    (self.own_key, self.got_key) = (Some(key), Some(Instant::now()));
                    return Some(true);
                }
                Err(error) => {
                    let wait = attempts.step();
                    tracing::warn!(reason, %error, wait_s = wait.as_secs(), "there is no auth key; it is asked for again");
                    duty.hindered(&error);
                    self.login.unmet(error);
                    if !self.pause(wait, |_| true).await {
                        return Some(false);
                    }
                }
            }
        }
    }

    /// Waits for a time, or for a configuration that helps; false when the member is to end.
    async fn pause(&mut self, time: Duration, helps: impl Fn(&NodeConfig) -> bool) -> bool {
        let shutdown = self.shutdown.clone();
        let settings = &mut self.settings;
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

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("member", &self.member).finish_non_exhaustive()
    }
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

/// A connection takes two descriptors, and containers often start with room for few.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
