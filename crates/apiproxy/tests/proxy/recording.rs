//! An API server that records every request.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::world::{Certificate, listen, server_tls};

/// How much an answer below `/flood` has, and what is written at once.
pub(crate) const FLOOD: usize = 16 << 20;
pub(crate) const BLOCK: usize = 64 << 10;

type AnswerBody = UnsyncBoxBody<Bytes, Infallible>;
type Lines = mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// Which of the API server's connections it came by, and what that speaks.
    pub(crate) connection: usize,
    pub(crate) version: Version,
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Arrived {
    /// Whether it carries one identity, this one, and nothing else that names somebody.
    pub(crate) fn is(&self, user: &str, groups: &[String]) -> bool {
        let ours = ["impersonate-user", "impersonate-group", "x-forwarded-for", "authorization"];
        let others = self.headers.keys().any(|name| {
            let name = name.as_str().replace('_', "-");
            let prefixes = ["impersonate", "x-remote-", "x-forwarded-", "x-real-ip", "tailscale-"];
            let names = ["authorization", "forwarded", "proxy-authorization"];
            let speaks = prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name.as_str());
            speaks && !ours.contains(&name.as_str())
        });
        self.all("impersonate-user") == [user]
            && self.all("impersonate-group") == groups
            && self.all("authorization") == ["Bearer ours"]
            && self.all("x-forwarded-for") == ["127.0.0.1"]
            && !others
            && self.trailers.is_none()
    }

    pub(crate) fn is_alice(&self) -> bool {
        self.is("alice@example.com", &["a".to_owned(), "b".to_owned()])
    }

    pub(crate) fn token(&self) -> String {
        self.all("authorization").join(" and ")
    }

    fn all(&self, name: &str) -> Vec<String> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }
}

/// The API server of these tests. What it does follows from the path that it is asked for:
///
/// | path | does |
/// |---|---|
/// | `/watch` | answers with what [`Recording::next_watch`] is sent |
/// | `/silent…` | does not answer |
/// | `/flood…` | answers with [`FLOOD`] bytes, in the answer or the session |
/// | `/deaf…` | reads nothing until [`Recording::listen`] |
/// | `/refused…`, `/redirect…`, `/other…` | does not agree to an upgrade, or to another |
/// | any other | answers with what it was sent, in the answer or the session |
pub(crate) struct Recording {
    arrived: watch::Sender<Vec<Arrived>>,
    watch: Mutex<Option<Lines>>,
    flooded: watch::Sender<usize>,
    listens: watch::Sender<bool>,
    heard: watch::Sender<usize>,
}

impl Recording {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            arrived: watch::Sender::new(Vec::new()),
            watch: Mutex::new(None),
            flooded: watch::Sender::new(0),
            listens: watch::Sender::new(false),
            heard: watch::Sender::new(0),
        })
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.borrow().clone()
    }

    /// Waits until so many requests have arrived.
    pub(crate) async fn arrives(&self, count: usize) {
        let mut arrived = self.arrived.subscribe();
        let arrival = arrived.wait_for(|arrived| arrived.len() >= count);
        tokio::time::timeout(Duration::from_secs(10), arrival).await.unwrap().unwrap();
    }

    pub(crate) fn forget(&self) {
        self.arrived.send_modify(Vec::clear);
    }

    /// What is sent here is the answer to the next request for `/watch`, line by line.
    pub(crate) fn next_watch(&self) -> mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.watch.lock().unwrap() = Some(receiver);
        sender
    }

    /// How many bytes of `/flood` have been written.
    pub(crate) fn flooded(&self) -> watch::Receiver<usize> {
        self.flooded.subscribe()
    }

    /// How many bytes `/deaf` has read.
    pub(crate) fn heard(&self) -> watch::Receiver<usize> {
        self.heard.subscribe()
    }

    /// Lets `/deaf` read.
    pub(crate) fn listen(&self) {
        self.listens.send_replace(true);
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>, connection: usize) -> Response<AnswerBody> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (head, body) = request.into_parts();
        let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let wants_upgrade = head.headers.get(header::UPGRADE).cloned();
        let index = self.record(Arrived {
            connection,
            version: head.version,
            target: target.clone(),
            headers: head.headers,
            body: Bytes::new(),
            trailers: None,
        });
        if target.starts_with("/silent") {
            return std::future::pending().await;
        }
        if let Some(protocol) = wants_upgrade {
            return self.switch(&target, protocol, upgrade);
        }
        let body = self.read(&target, body, index).await;
        if target == "/watch" {
            return self.watched();
        }
        if target.starts_with("/flood") {
            return self.flood();
        }
        // hyper would send what follows a HEAD over HTTP/2 as it is.
        Response::new(full(match (head.method, body.is_empty()) {
            (Method::HEAD, _) => Bytes::new(),
            (_, true) => "answer".into(),
            (_, false) => body,
        }))
    }

    fn record(&self, arrived: Arrived) -> usize {
        let mut index = 0;
        self.arrived.send_modify(|all| {
            index = all.len();
            all.push(arrived);
        });
        index
    }

    async fn read(&self, target: &str, mut body: Incoming, index: usize) -> Bytes {
        let deaf = target.starts_with("/deaf");
        if deaf {
            self.listens.subscribe().wait_for(|listens| *listens).await.unwrap();
        }
        let mut whole = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            match frame.into_data() {
                Ok(data) if deaf => self.heard.send_modify(|heard| *heard += data.len()),
                Ok(data) => whole.extend_from_slice(&data),
                Err(frame) => self.amend(index, |arrived| arrived.trailers = frame.into_trailers().ok()),
            }
        }
        let whole = Bytes::from(whole);
        self.amend(index, |arrived| arrived.body = whole.clone());
        whole
    }

    fn amend(&self, index: usize, change: impl FnOnce(&mut Arrived)) {
        self.arrived.send_modify(|all| {
            if let Some(arrived) = all.get_mut(index) {
                change(arrived);
            }
        });
    }

    fn watched(&self) -> Response<AnswerBody> {
        let lines = self.watch.lock().unwrap().take().unwrap();
        let stream = futures_util::stream::unfold(lines, |mut lines| async {
            let line = lines.recv().await?;
            Some((line, lines))
        });
        Response::new(StreamBody::new(stream).boxed_unsync())
    }

    fn flood(&self) -> Response<AnswerBody> {
        let flooded = self.flooded.clone();
        let blocks = std::iter::repeat_n(Bytes::from(vec![b'.'; BLOCK]), FLOOD / BLOCK).map(move |block| {
            flooded.send_modify(|flooded| *flooded += block.len());
            Ok(Frame::data(block))
        });
        Response::new(StreamBody::new(futures_util::stream::iter(blocks)).boxed_unsync())
    }

    fn switch(self: Arc<Self>, target: &str, protocol: http::HeaderValue, upgrade: OnUpgrade) -> Response<AnswerBody> {
        let mut response = Response::new(full(Bytes::new()));
        if target.starts_with("/refused") {
            *response.status_mut() = StatusCode::FORBIDDEN;
            *response.body_mut() = full("no".into());
            return response;
        }
        if target.starts_with("/redirect") {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert("location", "https://127.0.0.1:1/elsewhere".parse().unwrap());
            return response;
        }
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        let protocol = if target.starts_with("/other") { "other".parse().unwrap() } else { protocol };
        response.headers_mut().insert("upgrade", protocol);
        let (flood, deaf) = (target.starts_with("/flood"), target.starts_with("/deaf"));
        tokio::spawn(async move {
            let Ok(stream) = upgrade.await else { return };
            let (from, to) = tokio::io::split(TokioIo::new(stream));
            match (flood, deaf) {
                (true, _) => self.flood_session(from, to).await,
                (_, true) => self.hear_session(from).await,
                _ => echo(from, to).await,
            }
        });
        response
    }

    async fn flood_session(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let block = vec![b'.'; BLOCK];
        for _ in 0..FLOOD / BLOCK {
            if to.write_all(&block).await.is_err() {
                return;
            }
            self.flooded.send_modify(|flooded| *flooded += BLOCK);
        }
        // The client hangs up when it has all.
        let _hung_up = (to.flush().await, from.read(&mut [0]).await);
    }

    async fn hear_session(&self, mut from: impl AsyncRead + Unpin) {
        self.listens.subscribe().wait_for(|listens| *listens).await.unwrap();
        let mut buffer = vec![0; BLOCK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            self.heard.send_modify(|heard| *heard += length);
        }
    }
}

async fn echo(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ended = tokio::io::copy(&mut from, &mut to).await;
}

fn full(bytes: Bytes) -> AnswerBody {
    Full::new(bytes).boxed_unsync()
}

/// Serves it on loopback over these protocols.
pub(crate) fn serve(
    recording: Arc<Recording>,
    certificate: &Certificate,
    protocols: &[&str],
) -> (SocketAddr, JoinHandle<()>) {
    let acceptor = TlsAcceptor::from(server_tls(certificate, protocols));
    let (listener, address) = listen();
    let running = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, recording) = (acceptor.clone(), recording.clone());
            connections.spawn(async move {
                // The proxy's probe connects and says nothing.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let answer = recording.clone().answer(request, connection);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let window = BLOCK as u32;
                builder.http2().initial_stream_window_size(window).max_send_buf_size(BLOCK);
                let _ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, running)
}
