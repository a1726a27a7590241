//! The one client of the cluster's API server.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body_util::{BodyExt as _, Empty, combinators::UnsyncBoxBody};
use hyper::body::{Body, Bytes, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::headers::{self, Upgrade};
use crate::memory::{ANSWER_WINDOW, ANSWERS_WINDOW, SEND_BUFFER};
use crate::{Cluster, Impersonated, Limits, Refusal};

/// A request's body on its way to the API server.
pub(crate) type RequestBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// A request to the API server. It can't be had without an [`Impersonated`].
#[derive(Debug)]
pub(crate) struct UpstreamRequest {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
}

impl UpstreamRequest {
    /// What a client asked, in the name of the one who was decided on.
    pub(crate) fn new(
        client: &http::request::Parts,
        impersonated: &Impersonated,
        cluster: &Cluster,
        source: IpAddr,
    ) -> Result<Self, Refusal> {
        let token = cluster.authorization().map_err(|error| Refusal::Unreachable(error.to_string()))?;
        let headers = headers::for_upstream(&client.headers, impersonated, &token, source)?;
        let target = client.uri.path_and_query().ok_or(Refusal::Path("there is none"))?.clone();
        Ok(Self { method: client.method.clone(), target, headers })
    }
}

/// The client: a pool of connections over HTTP/2, and single ones over HTTP/1.1 for upgrades.
#[derive(Clone)]
pub(crate) struct Upstream {
    limits: Limits,
    pooled: Connector,
    single: Connector,
    pool: Client<Connector, RequestBody>,
}

impl Upstream {
    pub(crate) fn new(cluster: Cluster, limits: Limits) -> Self {
        let places = Arc::new(Semaphore::new(limits.upstream_connections));
        let connector = |protocols: &[&[u8]]| Connector {
            tls: cluster.tls(protocols),
            cluster: cluster.clone(),
            connect_time: limits.connect_time,
            places: places.clone(),
        };
        let (pooled, single) = (connector(&[b"h2", b"http/1.1"]), connector(&[b"http/1.1"]));
        Self { pool: pool(pooled.clone(), limits), limits, pooled, single }
    }

    /// The same client with no connection in common.
    pub(crate) fn with_own_pool(&self) -> Self {
        Self { pool: pool(self.pooled.clone(), self.limits), ..self.clone() }
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.single.cluster
    }

    /// Sends a request and gives the head of the answer; the bodies stream.
    pub(crate) async fn send(
        &self,
        mut request: UpstreamRequest,
        body: RequestBody,
    ) -> Result<Response<Incoming>, Refusal> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTPS)
            .authority(self.cluster().authority().clone())
            .path_and_query(request.target)
            .build()
            .map_err(|_| Refusal::Path("it makes no URL"))?;
        if body.size_hint().exact().is_none() {
            // Without this word hyper takes GET and HEAD for requests without a body. HTTP/2 goes without it.
            request.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut sent = Request::new(body);
        (*sent.method_mut(), *sent.uri_mut(), *sent.headers_mut()) = (request.method, uri, request.headers);
        self.pool.request(sent).await.map_err(|error| Refusal::Unreachable(dial::causes(&error)))
    }

    /// Sends a request for an upgrade over a connection of its own. Whatever the answer, the connection serves nothing else.
    pub(crate) async fn upgrade(
        &self,
        request: UpstreamRequest,
        upgrade: Upgrade,
    ) -> Result<Response<Incoming>, Refusal> {
        let stream = self.single.connect().await.map_err(|error| Refusal::Unreachable(error.to_string()))?;
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(self.limits.header_bytes as usize);
        let (mut sender, connection) =
            builder.handshake(stream).await.map_err(|error| Refusal::Unreachable(dial::causes(&error)))?;
        // It ends with the answer's body or the upgraded stream; its errors arrive there.
        tokio::spawn(connection.with_upgrades());
        let mut sent = Request::new(Empty::<Bytes>::new());
        *sent.version_mut() = Version::HTTP_11;
        *sent.uri_mut() = request.target.into();
        *sent.method_mut() = request.method;
        *sent.headers_mut() = request.headers;
        let host = HeaderValue::from_str(self.cluster().authority().as_str());
        sent.headers_mut().insert(header::HOST, host.map_err(|_| Refusal::Malformed("no host"))?);
        upgrade.set(sent.headers_mut());
        sender.send_request(sent).await.map_err(|error| Refusal::Unreachable(dial::causes(&error)))
    }

    /// Whether the API server can be connected to and is who it should be; sends no request.
    pub(crate) async fn probe(&self) -> io::Result<()> {
        // That all places are taken does not mean that the API server is away.
        let own = Arc::new(Semaphore::new(1));
        Connector { places: own, ..self.single.clone() }.connect().await.map(drop)
    }
}

fn pool(connector: Connector, limits: Limits) -> Client<Connector, RequestBody> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(90))
        .pool_max_idle_per_host(1)
        .http1_max_buf_size(limits.header_bytes as usize)
        .http2_keep_alive_interval(Duration::from_secs(15))
        .http2_keep_alive_timeout(Duration::from_secs(10))
        .http2_initial_stream_window_size(ANSWER_WINDOW)
        .http2_initial_connection_window_size(ANSWERS_WINDOW)
        .http2_max_send_buf_size(SEND_BUFFER)
        .build(connector)
}

/// Drops trailers: they are headers that nobody has looked at.
pub(crate) fn without_trailers(body: Incoming) -> RequestBody {
    DataOnly(body).boxed_unsync()
}

struct DataOnly(Incoming);

impl Body for DataOnly {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, hyper::Error>>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.0).poll_frame(context)) {
                Some(Ok(frame)) if !frame.is_data() => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.0.size_hint()
    }
}

/// Connects to the API server and nowhere else, whatever URL it is asked for.
#[derive(Clone)]
struct Connector {
    cluster: Cluster,
    tls: Arc<ClientConfig>,
    connect_time: Duration,
    /// For all connections to the API server there may be.
    places: Arc<Semaphore>,
}

impl Connector {
    async fn connect(&self) -> io::Result<Stream> {
        let late = |why: &'static str| move |_| io::Error::new(io::ErrorKind::TimedOut, why);
        let place = tokio::time::timeout(self.connect_time, self.places.clone().acquire_owned());
        let place = place.await.map_err(late("the proxy has too many connections to it open"))?;
        let place = place.map_err(io::Error::other)?;
        let connecting = async {
            let tcp = self.cluster.connect().await?;
            tcp.set_nodelay(true)?;
            TlsConnector::from(self.tls.clone()).connect(self.cluster.server_name(), tcp).await
        };
        let stream = tokio::time::timeout(self.connect_time, connecting).await;
        let stream = stream.map_err(late("it did not answer in time"))??;
        Ok(Stream { stream: TokioIo::new(stream), _place: place })
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await })
    }
}

/// A connection to the API server.
pub(crate) struct Stream {
    stream: TokioIo<TlsStream<TcpStream>>,
    _place: OwnedSemaphorePermit,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.stream.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
