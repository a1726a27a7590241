//! Letting connections in: no more than the relay can take, and no source more than its share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dial::Metered;
use listen::{Full, Place, Places, site};
use socket2::{SockRef, TcpKeepalive};
use telemetry::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::http;
use super::metrics::RefusedReason;
use super::second_counts::SecondCounts;
use super::serve::Newcomer;
use super::shared::Shared;
use crate::bucket::TokenBucket;
use crate::wire::Socket;

/// How long sent bytes may stay unacknowledged before the kernel gives a connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(15);

/// When the kernel starts to probe a connection on which nothing happens.
const KEEP_ALIVE: Duration = Duration::from_secs(600);

/// How long to wait when the process has no file descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// What all listeners of a relay let in together.
#[derive(Debug)]
pub(crate) struct Gate {
    places: Arc<Places>,
    rate: Mutex<TokenBucket>,
    per_source: Mutex<SecondCounts>,
    accepts_per_source: u32,
}

impl Gate {
    pub(crate) fn new(limits: &super::config::Limits) -> Self {
        let now = Instant::now();
        let rate = f64::from(limits.accepts_per_second);
        Self {
            places: Places::new(limits.connections_per_source, limits.connections),
            rate: Mutex::new(TokenBucket::new(rate, rate, now)),
            per_source: Mutex::new(SecondCounts::new(now)),
            accepts_per_source: limits.accepts_per_source,
        }
    }

    /// A place for a connection, unless its source or the relay has too many.
    fn admit(&self, source: SocketAddr) -> Result<Place, Full> {
        let source = site(source.ip());
        let mut per_source = self.per_source.lock().unwrap_or_else(PoisonError::into_inner);
        if !per_source.take(&source, self.accepts_per_source, Instant::now()) {
            return Err(Full::Source);
        }
        drop(per_source);
        self.places.take(source)
    }

    /// How long to wait before the next handshake may begin.
    fn turn(&self) -> Duration {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).take(1.0, Instant::now())
    }
}

/// Accepts connections until shutdown and hands each to `serve`.
pub(crate) async fn accept<F>(listener: TcpListener, shared: Arc<Shared>, gate: Arc<Gate>, shutdown: Shutdown, serve: F)
where
    F: Fn(TcpStream, SocketAddr, Place),
{
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, source) = match accepted {
            Ok(accepted) => accepted,
            // Either the connection broke before it was accepted, or there are no file descriptors: it passes.
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        match gate.admit(source) {
            Ok(place) => {
                tune(&tcp);
                serve(tcp, source, place);
            }
            Err(full) => {
                let reason = match full {
                    Full::Source => RefusedReason::SourceLimit,
                    Full::Server => RefusedReason::RelayLimit,
                };
                shared.metrics.refuse(reason);
                continue;
            }
        }
        let wait = gate.turn();
        if !wait.is_zero() {
            // The kernel's queue holds the others meanwhile.
            tokio::time::sleep(wait).await;
        }
    }
}

/// Takes a TLS connection through its handshake and on.
pub(crate) async fn serve_tls(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    source: SocketAddr,
    place: Place,
    tracker: TaskTracker,
) {
    let _counted = Counted::new(&shared);
    let deadline = http::deadline(&shared);
    let handshake = acceptor.accept(Socket::new(Metered::unwritten(tcp)));
    let stream = match tokio::time::timeout_at(deadline, handshake).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => {
            shared.metrics.refuse(RefusedReason::Tls);
            return;
        }
    };
    let newcomer = Newcomer { source, deadline, is_ideal: true, place, token: tracker.token() };
    if let Err(error) = http::serve(shared.clone(), stream.into(), newcomer).await {
        tracing::trace!(%source, %error, "an HTTP connection ended early");
    }
}

/// Counts a connection while it is in the hands of HTTP.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: &Arc<Shared>) -> Self {
        shared.metrics.connections.inc();
        Self(shared.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

/// Small frames go out at once, and a peer that is gone is noticed. A socket that refuses an option serves without it.
fn tune(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    let tuned = socket
        .set_tcp_nodelay(true)
        .and_then(|()| socket.set_tcp_user_timeout(Some(USER_TIMEOUT)))
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE)));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a connection could not be tuned");
    }
}
