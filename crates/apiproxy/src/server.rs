use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustls::server::ResolvesServerCert;
use telemetry::{Condition, Health, Metrics, Shutdown};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::callers::Callers;
use crate::connection::Reception;
use crate::gate::{Gate, Pass};
use crate::metrics::ProxyMetrics;
use crate::proxy::Proxy;
use crate::upstream::Upstream;
use crate::{AdmittedStream as _, Allowed, Config, Identify, Listener};

/// How often it is looked whether the API server is there.
const PROBE: Duration = Duration::from_secs(10);

/// Where callers come in, and what is known of them there: one life of the node that the proxy is.
pub struct Entrance<L> {
    /// Who stands behind an address.
    pub identify: Arc<dyn Identify>,
    /// The certificate of the proxy's name on the tailnet; asked at each handshake, so that a renewed one is used at once.
    pub certificates: Arc<dyn ResolvesServerCert>,
    /// Where connections come from.
    pub listener: L,
}

/// A proxy that is ready to serve; clones are the same proxy.
#[derive(Clone)]
pub struct Server {
    config: Arc<Config>,
    allowed: Arc<Allowed>,
    callers: Arc<Callers>,
    gate: Gate,
    metrics: ProxyMetrics,
    admin: Option<SocketAddr>,
}

impl Server {
    /// Opens the admin listener and begins to look after the API server, until shutdown; needs a tokio runtime.
    ///
    /// Readiness is told of `health`, which others may have conditions in too.
    ///
    /// # Errors
    /// When the admin listener's address is taken.
    pub async fn new(config: Config, health: Health, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let counters = ProxyMetrics::register(&metrics);
        let upstream = Upstream::new(config.cluster.clone(), config.limits);
        let reachable = health.condition("api-server");
        let admin = match config.admin_listen {
            Some(address) => {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("listening on {address} for health checks"))?;
                let bound = listener.local_addr().ok();
                tokio::spawn(telemetry::serve_admin(listener, metrics, health, shutdown.clone()));
                bound
            }
            None => None,
        };
        let groups: Vec<&str> = config.allowed.iter().collect();
        tracing::info!(api_server = %upstream.cluster().authority(), ?groups, "API server proxy");
        tokio::spawn(keep_probing(upstream.clone(), reachable, shutdown.clone()));
        Ok(Self {
            allowed: Arc::new(config.allowed.clone()),
            callers: Arc::new(Callers::new(upstream, config.limits)),
            gate: Gate::new(config.limits, counters.connections.clone()),
            config: Arc::new(config),
            metrics: counters,
            admin,
        })
    }

    /// Where health and metrics are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Serves what comes in by an entrance until shutdown, then lets what is under way end. One entrance may follow another.
    ///
    /// Once it serves, it goes on: also while the API server is away.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub async fn serve<L: Listener>(self, entrance: Entrance<L>, shutdown: Shutdown) -> anyhow::Result<()> {
        let Entrance { identify, certificates, mut listener } = entrance;
        let proxy = Arc::new(Proxy {
            identify,
            allowed: self.allowed,
            callers: self.callers,
            metrics: self.metrics,
            sessions: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let reception = Reception::new(proxy.clone(), certificates, self.config.limits, shutdown.clone())?;
        let connections = TaskTracker::new();
        while let Some((stream, pass)) = next(&mut listener, &self.gate, &*proxy.identify, &shutdown).await {
            connections.spawn(reception.clone().serve(stream, pass));
        }
        drain(&proxy, &connections, &shutdown).await;
        Ok(())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).field("admin", &self.admin).finish_non_exhaustive()
    }
}

/// The next connection that there is a place for; none once shutdown is requested.
async fn next<L: Listener>(
    listener: &mut L,
    gate: &Gate,
    identify: &dyn Identify,
    shutdown: &Shutdown,
) -> Option<(L::Stream, Pass)> {
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, source)) => match gate.admit(source, identify.device(source.ip())) {
                Some(pass) => return Some((stream, pass)),
                None => {
                    tracing::debug!(%source, "turned away: too many connections");
                    stream.abort();
                }
            },
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Waits for what is under way, and cuts it when the time for that is over.
async fn drain(proxy: &Proxy, connections: &TaskTracker, shutdown: &Shutdown) {
    connections.close();
    proxy.sessions.close();
    let ended = async {
        connections.wait().await;
        proxy.sessions.wait().await;
    };
    if shutdown.drain(ended).await.is_err() {
        proxy.stop.cancel();
        tracing::warn!(connections = connections.len(), sessions = proxy.sessions.len(), "cut what was under way");
    }
}

async fn keep_probing(upstream: Upstream, reachable: Condition, shutdown: Shutdown) {
    loop {
        match upstream.probe().await {
            Ok(()) => reachable.met(),
            Err(error) => {
                let server = upstream.cluster().authority();
                reachable.unmet(format!("the API server {server} can't be reached: {}", dial::causes(&error)));
            }
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(PROBE) => {}
        }
    }
}
