use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::Peer;
use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use crypto::MachinePrivate;
use http::{HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use listen::site;
use serde::Deserialize;
use tailcfg::ServerKeys;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::upgrade::{self, Initiation, UpgradeError};
use super::websocket::{self, WebSocketStream};
use super::{Connection, ConnectionLimits, Coordinator};
use crate::origin::Arrival;
use crate::rate::RateLimit;

/// Where nodes come in: what they ask before there is a Noise channel, and the upgrade to one.
pub(crate) struct Entrance<C> {
    key: MachinePrivate,
    coordinator: Arc<C>,
    limits: ConnectionLimits,
    /// By site.
    handshakes: RateLimit<IpAddr>,
    open: TaskTracker,
    stop: CancellationToken,
}

/// Handshakes of one site: at once, and the time until one more. Each costs about a fifth of a millisecond of a core; a
/// whole company comes back at once after a restart.
const HANDSHAKES: u32 = 500;
const HANDSHAKE_REFILL: Duration = Duration::from_millis(20);

/// How many sites are remembered for that.
const SOURCES: usize = 4096;

/// What a client may ask about the server's keys.
#[derive(Debug, Deserialize)]
struct KeyQuery {
    v: Option<String>,
}

impl<C: Coordinator> Entrance<C> {
    /// Lets nodes in that shake hands with `key`, for as long as `stop` is not asked for.
    pub(crate) fn new(key: MachinePrivate, coordinator: Arc<C>, open: TaskTracker, stop: CancellationToken) -> Self {
        let handshakes = RateLimit::new(HANDSHAKES, HANDSHAKE_REFILL, SOURCES);
        Self { key, coordinator, limits: ConnectionLimits::default(), handshakes, open, stop }
    }

    /// The routes that nodes know by heart.
    pub(crate) fn routes(self) -> Router {
        Router::new().route("/key", get(Self::keys)).route("/ts2021", any(Self::upgrade)).with_state(Arc::new(self))
    }

    async fn keys(State(this): State<Arc<Self>>, Query(query): Query<KeyQuery>) -> Response {
        if query.v.is_none() {
            let text = "this server speaks ts2021 only: ask with the capability version, as /key?v=100\n";
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
        // The legacy key stays zero: nobody speaks that protocol any more.
        let keys = ServerKeys { public_key: this.key.public(), ..ServerKeys::default() };
        axum::Json(keys).into_response()
    }

    async fn upgrade(
        State(this): State<Arc<Self>>,
        Extension(arrival): Extension<Arrival>,
        Extension(peer): Extension<Peer>,
        request: Request<Body>,
    ) -> Response {
        let carrier = Carrier::asked_for(&request);
        let initiation = match carrier.initiation(&request) {
            Ok(initiation) => initiation,
            Err(error) => return refuse(&error),
        };
        if let Err(wait) = this.handshakes.take(&site(peer.source), Instant::now()) {
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            let text = "too many connections from this address; try again later\n";
            return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, seconds)], text).into_response();
        }
        let source = SocketAddr::new(peer.source, arrival.peer.port());
        let connection = match Connection::accept(&this.key, &initiation, source) {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(%error, "a handshake failed");
                return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
            }
        };
        let Some(response) = carrier.accept(&request) else {
            return (StatusCode::BAD_REQUEST, "the WebSocket upgrade is incomplete\n").into_response();
        };
        let serving = this.clone();
        this.open.spawn(async move { serving.serve(connection, carrier, hyper::upgrade::on(request)).await });
        response
    }

    /// Serves a node once its HTTP connection has become the carrier of its channel.
    async fn serve(&self, connection: Connection, carrier: Carrier, upgrade: hyper::upgrade::OnUpgrade) {
        let upgraded = match tokio::time::timeout(self.limits.handshake, upgrade).await {
            Ok(Ok(upgraded)) => TokioIo::new(upgraded),
            Ok(Err(error)) => return tracing::debug!(%error, "a connection ended before its upgrade"),
            Err(_) => return tracing::debug!("an upgrade took too long"),
        };
        let (coordinator, stop) = (self.coordinator.clone(), self.stop.clone());
        let served = match carrier {
            Carrier::WebSocket => {
                let stream = WebSocketStream::server(upgraded).await;
                connection.serve(stream, coordinator, self.limits, stop).await
            }
            Carrier::Bytes => connection.serve(upgraded, coordinator, self.limits, stop).await,
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a node's connection ended badly");
        }
    }
}

/// What carries a node's channel after the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    /// The connection itself.
    Bytes,
    /// Messages, for clients that run in a browser.
    WebSocket,
}

impl Carrier {
    fn asked_for(request: &Request<Body>) -> Self {
        if websocket::is_asked_for(request.headers()) { Self::WebSocket } else { Self::Bytes }
    }

    /// The node's first message, which stands where its carrier can have it.
    fn initiation(self, request: &Request<Body>) -> Result<Initiation, UpgradeError> {
        match self {
            Self::WebSocket => Initiation::from_query(request.uri().query().unwrap_or_default()),
            Self::Bytes => Initiation::from_request(request.method(), request.headers()),
        }
    }

    /// The answer that begins the upgrade; none where the request lacks something.
    fn accept(self, request: &Request<Body>) -> Option<Response> {
        if self == Self::WebSocket {
            return websocket::accept(request.headers());
        }
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade::UPGRADE_PROTOCOL));
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        Some(response)
    }
}

fn refuse(error: &UpgradeError) -> Response {
    let status = match error {
        UpgradeError::Method => StatusCode::METHOD_NOT_ALLOWED,
        UpgradeError::Protocol => StatusCode::UPGRADE_REQUIRED,
        UpgradeError::Handshake => StatusCode::BAD_REQUEST,
    };
    (status, format!("{error}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use crypto::SystemEntropy;
    use crypto::control::INITIATION_SIZE;
    use tower::ServiceExt;

    use super::*;
    use crate::machine::Nobody;

    /// A request to upgrade from an address, whose handshake is none.
    fn asks(address: &str) -> Request<Body> {
        let peer: IpAddr = address.parse().unwrap();
        let request = Request::post("/ts2021")
            .header(header::UPGRADE, upgrade::UPGRADE_PROTOCOL)
            .header("x-tailscale-handshake", STANDARD.encode([0; INITIATION_SIZE]))
            .extension(Arrival { peer: SocketAddr::new(peer, 1), tls: false })
            .extension(Peer { source: peer, encrypted: false });
        request.body(Body::empty()).unwrap()
    }

    #[tokio::test]
    async fn handshakes_are_counted_by_site() {
        let key = MachinePrivate::generate(&mut SystemEntropy);
        let entrance = Entrance::new(key, Arc::new(Nobody::default()), TaskTracker::new(), CancellationToken::new());
        let neighbour = "2001:db8::1".parse().unwrap();
        // None comes back while the test runs.
        let later = Instant::now() + Duration::from_secs(3600);
        while entrance.handshakes.take(&site(neighbour), later).is_ok() {}
        let router = entrance.routes();
        let refused = router.clone().oneshot(asks("2001:db8::2")).await.unwrap();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        let other = router.oneshot(asks("2001:db8:0:1::2")).await.unwrap();
        assert_eq!(other.status(), StatusCode::BAD_REQUEST, "another site is heard, and its handshake is none");
    }
}
