use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crypto::{Entropy, NodePublic, SystemEntropy};
use listen::ServerCertificate;
use packet::derp::Frame;
use telemetry::{Condition, Health, Metrics, Shutdown};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::accept::{self, Gate};
use super::admission::{Admission, AdmissionConfig, AdmissionSet, Follower, Questioner, follow};
use super::bootstrap_dns::BootstrapDns;
use super::config::{Config, MeshConfig};
use super::hub::Hub;
use super::metrics::RelayMetrics;
use super::outbox::Ending;
use super::shared::Shared;
use super::{certificate, http, key_file, mesh, stun};
use crate::client::Dialer;
use crate::link::Outgoing;

/// How long clients should go on trying this relay after it restarted, before they look for another.
const TRY_FOR: Duration = Duration::from_secs(5);

/// Serves a relay until shutdown, then lets its clients move.
///
/// # Errors
///
/// When it can't start: an address is taken, the certificate or the key can't be read. Once it serves, it goes on.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    Server::bind(config)?.run(shutdown).await
}

/// A relay that has its addresses and is ready to serve.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    certificate: Arc<ServerCertificate>,
    tls: Vec<TcpListener>,
    plain: Vec<TcpListener>,
    stun: Vec<UdpSocket>,
    admin: Option<TcpListener>,
    dialer: Dialer,
    follower: Option<Follower>,
    mesh: Option<MeshConfig>,
    metrics: Metrics,
    health: Health,
    serving: Condition,
}

impl Server {
    /// Opens the sockets and reads the files; needs a tokio runtime.
    pub fn bind(config: Config) -> anyhow::Result<Self> {
        let key = key_file::load_or_create(&config.key_file)?;
        let public = key.public();
        let certificate = certificate::load(config.certificate, &public)?;
        let (metrics, health) = (Metrics::new(), Health::new());
        let relay_metrics = RelayMetrics::register(&metrics);
        let dialer = Dialer::new(config.resolver, &config.roots);
        let hub = Arc::new(Hub::new());
        let (admission, follower) = admission(config.admission, &dialer, &hub, &relay_metrics, &health);
        let shared = Arc::new(Shared {
            public,
            key,
            hub,
            admission,
            mesh_key: config.mesh.as_ref().map(|mesh| mesh.key.clone()),
            limits: config.limits,
            metrics: relay_metrics,
            bootstrap_dns: BootstrapDns::new(config.bootstrap_dns),
        });
        Ok(Self {
            shared,
            certificate,
            tls: config.listen.into_iter().map(listen::tcp).collect::<Result<_, _>>()?,
            plain: config.http_listen.into_iter().map(listen::tcp).collect::<Result<_, _>>()?,
            stun: config.stun_listen.into_iter().map(listen::udp).collect::<Result<_, _>>()?,
            admin: config.admin_listen.map(listen::tcp).transpose()?,
            dialer,
            follower,
            mesh: config.mesh,
            serving: health.condition("serving"),
            metrics,
            health,
        })
    }

    /// The relay's key.
    pub fn public_key(&self) -> NodePublic {
        self.shared.public
    }

    /// Where TLS is served, in the order of the configuration.
    pub fn tls_addresses(&self) -> Vec<SocketAddr> {
        self.tls.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Where plain HTTP is served.
    pub fn http_addresses(&self) -> Vec<SocketAddr> {
        self.plain.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Where STUN is answered.
    pub fn stun_addresses(&self) -> Vec<SocketAddr> {
        self.stun.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Where health and metrics are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Serves until shutdown, then lets clients move.
    pub async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        self.tell();
        let (shared, serving, clients) = (self.shared.clone(), self.serving.clone(), TaskTracker::new());
        let mut tasks = self.begin(&clients, &shutdown);
        serving.met();
        shutdown.requested().await;
        while tasks.join_next().await.is_some() {}
        let_clients_move(&shared, clients, &shutdown).await;
        Ok(())
    }

    fn tell(&self) {
        tracing::info!(
            key = %self.shared.public,
            tls = ?self.tls_addresses(),
            stun = ?self.stun_addresses(),
            "relay"
        );
        if self.shared.admission.is_open() {
            tracing::warn!("this relay is open: anybody may use it");
        }
    }

    /// Begins everything that a relay does; each ends by itself at shutdown.
    fn begin(self, clients: &TaskTracker, shutdown: &Shutdown) -> JoinSet<()> {
        let Self { shared, certificate, tls, plain, stun, admin, dialer, follower, mesh, metrics, health, .. } = self;
        let mut tasks = JoinSet::new();
        let gate = Arc::new(Gate::new(&shared.limits));
        let acceptor = TlsAcceptor::from(certificate::server_config(&certificate));
        for listener in tls {
            let (shared, gate, acceptor) = (shared.clone(), gate.clone(), acceptor.clone());
            tasks.spawn(serve_tls(listener, shared, gate, acceptor, clients.clone(), shutdown.clone()));
        }
        for listener in plain {
            let (shared, gate) = (shared.clone(), gate.clone());
            tasks.spawn(accept::accept(listener, shared, gate, shutdown.clone(), |tcp, source, place| {
                tokio::spawn(http::serve_plain(tcp, source, place));
            }));
        }
        for socket in stun {
            tasks.spawn(stun::serve(socket, shared.limits.stun, shared.metrics.clone(), shutdown.clone()));
        }
        tasks.spawn(keep_certificate(certificate, shared.metrics.clone(), shutdown.clone()));
        if let Some(follower) = follower {
            tasks.spawn(follow(follower, shutdown.clone()));
        }
        let meshed = mesh
            .into_iter()
            .flat_map(|MeshConfig { key, relays }| relays.into_iter().map(move |relay| (relay, key.clone())));
        for (relay, key) in meshed {
            tasks.spawn(mesh::keep_meshed(shared.clone(), dialer.clone(), relay, key, shutdown.clone()));
        }
        if let Some(listener) = admin {
            tasks.spawn(administer(listener, metrics, health, shutdown.clone()));
        }
        tasks
    }
}

async fn administer(listener: TcpListener, metrics: Metrics, health: Health, shutdown: Shutdown) {
    if let Err(error) = telemetry::serve_admin(listener, metrics, health, shutdown).await {
        tracing::error!(%error, "health and metrics are not served any more");
    }
}

async fn serve_tls(
    listener: TcpListener,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    acceptor: TlsAcceptor,
    clients: TaskTracker,
    shutdown: Shutdown,
) {
    let serve = {
        let (shared, shutdown) = (shared.clone(), shutdown.clone());
        move |tcp, source, place| {
            let serving = accept::serve_tls(shared.clone(), acceptor.clone(), tcp, source, place, clients.clone());
            let shutdown = shutdown.clone();
            // What is still at its handshake when the relay stops is dropped; clients are let go in good order.
            tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.requested() => {}
                    () = serving => {}
                }
            });
        }
    };
    accept::accept(listener, shared, gate, shutdown, serve).await;
}

async fn keep_certificate(certificate: Arc<ServerCertificate>, metrics: RelayMetrics, shutdown: Shutdown) {
    let count = move |_: &_| {
        metrics.certificate_failures.inc();
    };
    tokio::select! {
        () = shutdown.requested() => {}
        () = certificate.keep_current(count) => {}
    }
}

fn admission(
    config: AdmissionConfig,
    dialer: &Dialer,
    hub: &Arc<Hub>,
    metrics: &RelayMetrics,
    health: &Health,
) -> (Arc<Admission>, Option<Follower>) {
    match config {
        AdmissionConfig::Open => (Arc::new(Admission::Open), None),
        AdmissionConfig::Ask { url, fail_open } => {
            (Arc::new(Admission::Ask(Questioner::new(dialer.clone(), url, fail_open))), None)
        }
        AdmissionConfig::Follow { url, token_file, state_file } => {
            let admission = Arc::new(Admission::Set(AdmissionSet::load(state_file)));
            let follower = Follower {
                dialer: dialer.clone(),
                url,
                token_file,
                admission: admission.clone(),
                hub: hub.clone(),
                metrics: metrics.clone(),
                ready: health.condition("admission"),
            };
            (admission, Some(follower))
        }
    }
}

/// Tells every client that the relay stops, serves them a little longer, and lets go of those that stayed.
async fn let_clients_move(shared: &Shared, clients: TaskTracker, shutdown: &Shutdown) {
    let spread = shared.limits.restart_time;
    shared.hub.for_each(|connection| {
        let reconnect_in = Duration::from_millis(SystemEntropy.below(spread.as_millis() as u64));
        let restarting = Frame::Restarting { reconnect_in, try_for: TRY_FOR };
        connection.outbox.push_note(Outgoing::frame(&restarting));
    });
    clients.close();
    let moved = async {
        if tokio::time::timeout(spread, clients.wait()).await.is_err() {
            shared.hub.for_each(|connection| connection.outbox.end(Ending::Restart));
            clients.wait().await;
        }
    };
    if shutdown.drain(moved).await.is_err() {
        tracing::warn!(clients = clients.len(), "some clients were still connected when the relay stopped");
    }
}
