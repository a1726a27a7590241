use std::net::IpAddr;
use std::sync::Arc;

use mesh::{Preferences, Status, Whois};
use serde_json::{Value, json};
use tailcfg::request::CertificateAnswer;
use telemetry::Shutdown;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::certificate::{CertificateError, Certifier, NodeCertificate};
use crate::config::{AuthKey, Config};
use crate::daemon::{Command, Daemon, Notice};
use crate::local_api;
use crate::other_daemon::{self, OtherDaemon};
use crate::snapshot::Snapshot;
use crate::store::StoreError;
use crate::user_space::UserSpace;

/// How many wishes may wait for the daemon.
const WISHES: usize = 64;

/// A running node: a handle that can be cloned. The node stops when [`Node::stop`] is called or the last handle is gone.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    commands: mpsc::Sender<Command>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    bus: broadcast::Sender<Arc<Notice>>,
    user_space: Option<UserSpace>,
    certifier: Certifier,
    ends: CancellationToken,
    ended: watch::Receiver<bool>,
}

/// Why a node does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Another daemon is in the way.
    #[error(transparent)]
    OtherDaemon(#[from] OtherDaemon),
    /// The state can't be read or kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is wished can't be had.
    #[error(transparent)]
    Preferences(#[from] mesh::PreferenceError),
    /// The socket for commands can't be opened.
    #[error("the socket {path} can't be opened: {source}")]
    Socket {
        /// Where.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The coordination server is not one, or refuses.
    #[error("{0}")]
    Control(String),
    /// The data plane or the machine's network can't be set up.
    #[error("{0}")]
    Machine(String),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

impl Node {
    /// Starts a node, which then runs in tasks of the current runtime.
    ///
    /// # Errors
    /// A state that can't be read, wishes that can't be had, another daemon in the way, or a socket that can't be opened.
    /// That the coordination server isn't there is no error.
    pub async fn start(config: Config) -> Result<Self, NodeError> {
        other_daemon::look(config.local_api.as_deref(), config.device.interface())?;
        let socket = config.local_api.as_deref().map(local_api::bind).transpose()?;
        let certifier = Certifier::new(&config.store);
        let (commands, wishes) = mpsc::channel(WISHES);
        let (daemon, started) = Daemon::new(config).await?;
        let (ended, is_ended) = watch::channel(false);
        let inner = Inner {
            commands,
            snapshot: started.snapshot,
            bus: started.bus,
            user_space: started.user_space,
            certifier,
            ends: started.ends.clone(),
            ended: is_ended,
        };
        tokio::spawn(async move {
            daemon.run(wishes).await;
            // Nobody waits any more when all handles are gone.
            let _ = ended.send(true);
        });
        let node = Self { inner: Arc::new(inner) };
        if let Some(socket) = socket {
            local_api::serve(socket, node.weak(), started.ends);
        }
        Ok(node)
    }

    /// How the node stands now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.borrow().clone()
    }

    /// How the node stands, as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.snapshot.clone()
    }

    /// What changes, as the LocalAPI's notifications.
    pub(crate) fn bus(&self) -> broadcast::Receiver<Arc<Notice>> {
        self.inner.bus.subscribe()
    }

    /// Who stands behind an address of the mesh, and what they may do here.
    pub fn whois(&self, address: IpAddr) -> Option<Whois> {
        self.snapshot().mesh.whois(address)
    }

    /// Everything about the node and its peers.
    pub async fn status(&self) -> Status {
        self.snapshot().status(true).await
    }

    /// What the user wants of the node.
    pub fn preferences(&self) -> Preferences {
        self.snapshot().mesh.preferences().clone()
    }

    /// The IP stack of a node in user space; `None` for one with an interface.
    pub fn user_space(&self) -> Option<&UserSpace> {
        self.inner.user_space.as_ref()
    }

    /// The certificate of the node's own name, from its tailnet's authority: asked for from now on, and kept current while
    /// the value lives. Needs a tokio runtime.
    pub fn certificate(&self) -> NodeCertificate {
        NodeCertificate::of(self)
    }

    pub(crate) fn certifier(&self) -> &Certifier {
        &self.inner.certifier
    }

    /// Has the tailnet's authority sign a request for the node's own name.
    pub(crate) async fn sign(&self, request: Vec<u8>) -> Result<CertificateAnswer, CertificateError> {
        self.ask(|reply| Command::Sign(request, reply)).await.map_err(|_| CertificateError::Stopped)?
    }

    /// Changes what the user wants: the changes of a LocalAPI `MaskedPrefs`.
    ///
    /// # Errors
    /// Preferences that can't be had, and a state that can't be kept; nothing is changed then.
    pub async fn edit_preferences(&self, masked: Value) -> Result<Preferences, NodeError> {
        self.ask(|reply| Command::EditPreferences(masked, reply)).await?
    }

    /// Connects, with an auth key where one is needed: takes whole preferences in place of those that are there.
    pub(crate) async fn begin(&self, preferences: Option<Value>, key: Option<AuthKey>) -> Result<(), NodeError> {
        self.ask(|reply| Command::Start { preferences, key, reply }).await?
    }

    /// Begins a login by a person: the URL to visit appears in [`Snapshot::auth_url`].
    ///
    /// # Errors
    /// When the node has stopped, or has no coordination server.
    pub async fn log_in(&self) -> Result<(), NodeError> {
        self.ask(Command::LogIn).await?
    }

    /// Leaves the network: the server forgets the key, and so does the node.
    ///
    /// # Errors
    /// When the new state can't be kept.
    pub async fn log_out(&self) -> Result<(), NodeError> {
        self.ask(Command::LogOut).await?
    }

    /// Connects or disconnects, and keeps the login.
    ///
    /// # Errors
    /// As [`Self::edit_preferences`].
    pub async fn set_running(&self, running: bool) -> Result<(), NodeError> {
        self.edit_preferences(json!({"WantRunning": running, "WantRunningSet": true})).await.map(drop)
    }

    /// Stops the node, and waits until the machine is as it was before.
    pub async fn stop(&self) {
        self.inner.ends.cancel();
        let mut ended = self.inner.ended.clone();
        // An error means that the daemon is gone, which is what is waited for.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// Ends when the node has ended, by itself or because it was told to.
    pub async fn ended(&self) {
        let mut ended = self.inner.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }

    /// A handle that does not keep the node running.
    pub(crate) fn weak(&self) -> WeakNode {
        WeakNode(Arc::downgrade(&self.inner))
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        self.inner.commands.send(command(reply)).await.map_err(|_| NodeError::Stopped)?;
        answer.await.map_err(|_| NodeError::Stopped)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ends.cancel();
    }
}

/// A handle of a node that may be gone.
#[derive(Debug, Clone)]
pub(crate) struct WeakNode(std::sync::Weak<Inner>);

impl WeakNode {
    pub(crate) fn get(&self) -> Option<Node> {
        self.0.upgrade().map(|inner| Node { inner })
    }
}

/// Runs a node as a daemon until it is asked to stop.
///
/// # Errors
/// What [`Node::start`] says.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let node = Node::start(config).await?;
    tracing::info!(version = crate::VERSION, "the node is up");
    tokio::select! {
        () = shutdown.requested() => {}
        () = node.ended() => anyhow::bail!("the node ended by itself"),
    }
    shutdown.drain(node.stop()).await?;
    Ok(())
}
