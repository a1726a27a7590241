mod timely;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use listen::{Places, site};
use rustls::ServerConfig;
use telemetry::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::origin::{Arrival, TrustedProxies};
use timely::Timely;

/// What strangers may take of the server before they have shown who they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once; nodes keep theirs open, so this bounds the nodes that one server can have.
    pub(crate) connections: usize,
    /// Connections at once of one source; a large site behind one address keeps one open for each of its nodes. A trusted
    /// proxy may have them all.
    pub(crate) connections_of_source: usize,
    /// How long a TLS handshake may take.
    pub(crate) handshake: Duration,
    /// How long a request's head may take, from the connection or the request before.
    pub(crate) head: Duration,
    /// How many headers a request may have.
    pub(crate) headers: usize,
    /// How large a request's head may be.
    pub(crate) head_bytes: usize,
    /// How long a request's body may take from its head on. The API answers those that take half of that.
    pub(crate) body: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            connections_of_source: 2_000,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(10),
            headers: 100,
            head_bytes: 16 << 10,
            body: Duration::from_secs(60),
        }
    }
}

/// Accepts connections and serves HTTP/1.1 on them, upgrades included.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) router: Router,
    pub(crate) proxies: Arc<TrustedProxies>,
    pub(crate) limits: Limits,
    pub(crate) shutdown: Shutdown,
    /// Connections that are still served; who stops the server waits for them.
    pub(crate) open: TaskTracker,
}

impl Listener {
    /// Serves until the shutdown is requested; with TLS when `tls` says so.
    pub(crate) async fn serve(self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> io::Result<()> {
        let places = Places::new(self.limits.connections_of_source, self.limits.connections);
        let acceptor = tls.map(TlsAcceptor::from);
        loop {
            let (stream, peer) = tokio::select! {
                () = self.shutdown.requested() => return Ok(()),
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        // The connection broke before it was accepted, or too many files are open: neither is ours to end.
                        tracing::warn!(%error, "could not accept a connection");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let source = peer.ip();
            let place = if self.proxies.trust(source) { places.take_unshared() } else { places.take(site(source)) };
            let place = match place {
                Ok(place) => place,
                // Nothing is said: an answer would cost more than the connection did.
                Err(full) => {
                    tracing::debug!(?full, "a connection was turned away");
                    continue;
                }
            };
            let (this, acceptor) = (self.clone(), acceptor.clone());
            self.open.spawn(async move {
                let _place = place;
                this.connection(stream, peer, acceptor).await;
            });
        }
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, acceptor: Option<TlsAcceptor>) {
        // A peer that goes away without a word must not hold its slot for ever.
        let keepalive =
            socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
        let prepared = socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive).and(stream.set_nodelay(true));
        if let Err(error) = prepared {
            tracing::debug!(%error, "the connection was gone before it was served");
            return;
        }
        let Some(acceptor) = acceptor else {
            return self.http(stream, Arrival { peer, tls: false }).await;
        };
        match tokio::time::timeout(self.limits.handshake, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.http(stream, Arrival { peer, tls: true }).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn http<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(self, stream: S, arrival: Arrival) {
        let (router, proxies, patience) = (self.router, self.proxies, self.limits.body);
        let service = service_fn(move |request: Request<Incoming>| {
            let router = router.clone();
            let mut request = request.map(|body| match body.is_end_stream() {
                true => Body::empty(),
                false => Body::new(Timely::new(body, patience)),
            });
            let client = proxies.client(arrival, request.headers());
            request.extensions_mut().insert(client);
            request.extensions_mut().insert(arrival);
            async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.head)
            .max_headers(self.limits.headers)
            .max_buf_size(self.limits.head_bytes)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.shutdown.requested() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended badly");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Asks for a path on a connection that stays open; answers the first line.
    async fn ask(stream: &mut TcpStream) -> io::Result<String> {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: c\r\n\r\n").await?;
        let mut answer = vec![0; 4096];
        let count = stream.read(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer[..count]).lines().next().unwrap_or_default().to_owned())
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        for (length, patience, status, says) in [
            (5, Duration::from_secs(60), "200 OK", "whole"),
            (6, Duration::from_millis(50), "400 Bad Request", "did not arrive in time"),
        ] {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let shutdown = Shutdown::new(Duration::from_secs(1));
            let listener = Listener {
                router: Router::new().route("/", axum::routing::post(|body: axum::body::Bytes| async move { body })),
                proxies: Arc::new(TrustedProxies(Vec::new())),
                limits: Limits { body: patience, ..Limits::default() },
                shutdown: shutdown.clone(),
                open: TaskTracker::new(),
            };
            let serving = tokio::spawn(listener.serve(socket, None));
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head =
                format!("POST / HTTP/1.1\r\nHost: c\r\nConnection: close\r\nContent-Length: {length}\r\n\r\nwhole");
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await;
            assert!(read.is_ok(), "the body is still waited for");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains(says), "{answer}");
            shutdown.request();
            serving.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn one_source_can_not_take_all_connections_and_a_trusted_proxy_can() {
        for (trusted, third) in [(Vec::new(), ""), (vec!["127.0.0.0/8".parse().unwrap()], "HTTP/1.1 404 Not Found")] {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = socket.local_addr().unwrap();
            let shutdown = Shutdown::new(Duration::from_secs(1));
            let listener = Listener {
                router: Router::new(),
                proxies: Arc::new(TrustedProxies(trusted)),
                limits: Limits { connections_of_source: 2, ..Limits::default() },
                shutdown: shutdown.clone(),
                open: TaskTracker::new(),
            };
            let serving = tokio::spawn(listener.serve(socket, None));
            let mut held = Vec::new();
            for _ in 0..2 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                assert_eq!(ask(&mut stream).await.unwrap(), "HTTP/1.1 404 Not Found");
                held.push(stream);
            }
            let mut more = TcpStream::connect(address).await.unwrap();
            assert_eq!(ask(&mut more).await.unwrap_or_default(), third);
            shutdown.request();
            serving.await.unwrap().unwrap();
        }
    }
}
