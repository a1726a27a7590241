use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::server::ResolvesServerCert;
use telemetry::{Condition, Health, Metrics, Shutdown};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::callers::Callers;
use crate::leash::Leash;
use crate::metrics::ProxyMetrics;
use crate::proxy::Proxy;
use crate::upstream::Upstream;
use crate::{AdmittedStream, Allowed, Config, Identify, Limits, Listener};

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
        let upstream = Upstream::new(config.cluster.clone(), config.limits.connect_time);
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
        let (tls, limits) = (acceptor(certificates)?, self.config.limits);
        let proxy = Arc::new(Proxy {
            identify,
            allowed: self.allowed,
            callers: self.callers,
            metrics: self.metrics,
            sessions: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let (connections, gate) = (TaskTracker::new(), Gate::new(limits));
        loop {
            let accepted = tokio::select! {
                () = shutdown.requested() => break,
                accepted = listener.accept() => accepted,
            };
            let (stream, source) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(pass) = gate.admit(source.ip()) else {
                tracing::debug!(%source, "turned away: too many connections");
                continue;
            };
            let serving = serve(proxy.clone(), tls.clone(), limits, stream, source, shutdown.clone());
            connections.spawn(async move {
                serving.await;
                drop(pass);
            });
        }
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
        Ok(())
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).field("admin", &self.admin).finish_non_exhaustive()
    }
}

fn acceptor(certificates: Arc<dyn ResolvesServerCert>) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing the versions of TLS")?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// Serves one connection.
async fn serve(
    proxy: Arc<Proxy>,
    tls: TlsAcceptor,
    limits: Limits,
    stream: impl AdmittedStream,
    source: SocketAddr,
    shutdown: Shutdown,
) {
    let stream = match tokio::time::timeout(limits.head_time, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%source, %error, "no TLS"),
        Err(_late) => return tracing::debug!(%source, "no TLS in time"),
    };
    proxy.metrics.connections.inc();
    let leash = Leash::new(proxy.identify.clone(), proxy.allowed.clone(), source, limits.recheck);
    let asked = Arc::new(Notify::new());
    let service = {
        let (proxy, asked) = (proxy.clone(), asked.clone());
        service_fn(move |request| {
            asked.notify_one();
            let answer = proxy.clone().answer(request, source, leash.clone());
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let builder = builder(limits);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // The first bytes choose the version of HTTP, and whatever waits for them has no limit of its own.
    let silence = async {
        if tokio::time::timeout(limits.head_time, asked.notified()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = silence => {
            tracing::debug!(%source, "no request in time");
            Ok(())
        }
        () = shutdown.requested() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = proxy.stop.cancelled() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%source, %error, "a connection broke");
    }
    proxy.metrics.connections.dec();
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time)
        .max_headers(limits.headers)
        .max_buf_size(limits.header_bytes as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(250)
        .max_pending_accept_reset_streams(64)
        .max_local_error_reset_streams(256)
        .initial_stream_window_size(256 << 10)
        .initial_connection_window_size(1 << 20)
        .max_send_buf_size(256 << 10)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

async fn keep_probing(upstream: Upstream, reachable: Condition, shutdown: Shutdown) {
    loop {
        match upstream.probe().await {
            Ok(()) => reachable.met(),
            Err(error) => reachable.unmet(error.to_string()),
        }
        tokio::select! {
            () = shutdown.requested() => return,
            () = tokio::time::sleep(PROBE) => {}
        }
    }
}

/// How many connections there are, and of whom.
#[derive(Clone)]
struct Gate {
    all: Arc<Semaphore>,
    sources: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    most_per_source: usize,
}

struct Pass {
    _place: tokio::sync::OwnedSemaphorePermit,
    gate: Gate,
    source: IpAddr,
}

impl Gate {
    fn new(limits: Limits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.connections)),
            sources: Arc::default(),
            most_per_source: limits.connections_per_source,
        }
    }

    fn admit(&self, source: IpAddr) -> Option<Pass> {
        let place = self.all.clone().try_acquire_owned().ok()?;
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = sources.entry(source).or_default();
        if *count >= self.most_per_source {
            return None;
        }
        *count += 1;
        Some(Pass { _place: place, gate: self.clone(), source })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut sources = self.gate.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = sources.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&self.source);
            }
        }
    }
}
