//! A proxy on loopback, with an API server behind it that records every request.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apiproxy::{Allowed, CAPABILITY, Cluster, Config, Entrance, Identify, IdentifyError, Identity, Limits, Server};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use telemetry::{Health, Shutdown};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) const NAME: &str = "tailscale-operator.taila31de.ts.net";

/// Says of everybody that they are one identity, which a test can change.
pub(crate) struct Everybody {
    identity: Mutex<Option<Identity>>,
    changed: watch::Sender<u64>,
}

impl Everybody {
    pub(crate) fn new(identity: Option<Identity>) -> Arc<Self> {
        Arc::new(Self { identity: Mutex::new(identity), changed: watch::Sender::new(0) })
    }

    /// Changes who everybody is, without telling.
    pub(crate) fn become_silently(&self, identity: Option<Identity>) {
        *self.identity.lock().unwrap() = identity;
    }

    pub(crate) fn become_now(&self, identity: Option<Identity>) {
        self.become_silently(identity);
        self.changed.send_modify(|version| *version += 1);
    }
}

impl Identify for Everybody {
    fn whois(&self, source: SocketAddr) -> BoxFuture<'_, Result<Identity, IdentifyError>> {
        let identity = self.identity.lock().unwrap().clone();
        Box::pin(async move { identity.ok_or(IdentifyError::Unknown(source.ip())) })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

pub(crate) fn alice(groups: &[&str]) -> Identity {
    let rules = vec![json!({"impersonate": {"groups": groups}})];
    Identity {
        login: "alice@example.com".into(),
        node: "laptop.taila31de.ts.net.".into(),
        tags: Vec::new(),
        capabilities: BTreeMap::from([(CAPABILITY.to_owned(), rules)]),
    }
}

/// A request as it arrived at the API server.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Arrived {
    /// Whether it carries one identity, Alice's, and nothing else that names somebody.
    pub(crate) fn is_alice(&self) -> bool {
        let all = |name: &str| {
            self.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let ours = ["impersonate-user", "impersonate-group", "x-forwarded-for", "authorization"];
        let others = self.headers.keys().any(|name| {
            let name = name.as_str().replace('_', "-");
            let prefixes = ["impersonate", "x-remote-", "x-forwarded-"];
            let names = ["authorization", "forwarded", "proxy-authorization"];
            let speaks = prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name.as_str());
            speaks && !ours.contains(&name.as_str())
        });
        all("impersonate-user") == ["alice@example.com"]
            && all("impersonate-group") == ["a", "b"]
            && all("authorization") == ["Bearer ours"]
            && all("x-forwarded-for") == ["127.0.0.1"]
            && !others
            && self.trailers.is_none()
    }
}

type Lines = mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>;

/// The API server of these tests.
#[derive(Default)]
pub(crate) struct Recording {
    arrived: Mutex<Vec<Arrived>>,
    /// The body of the next answer to `/watch`.
    watch: Mutex<Option<Lines>>,
}

impl Recording {
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }

    pub(crate) fn forget(&self) {
        self.arrived.lock().unwrap().clear();
    }

    /// What is sent here is the answer to the next request for `/watch`, line by line.
    pub(crate) fn next_watch(&self) -> mpsc::UnboundedSender<Result<Frame<Bytes>, Infallible>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.watch.lock().unwrap() = Some(receiver);
        sender
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let upgrade = request.headers().get("upgrade").cloned();
        let on_upgrade = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let body = body.collect().await;
        let trailers = body.as_ref().ok().and_then(|body| body.trailers().cloned());
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let target = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        self.arrived.lock().unwrap().push(Arrived {
            target: target.clone(),
            headers: head.headers,
            body: body.clone(),
            trailers,
        });
        let full = |bytes: Bytes| Full::new(bytes).boxed_unsync();
        if let (Some(upgrade), Some(on_upgrade)) = (upgrade, on_upgrade) {
            let mut response = Response::new(full(Bytes::new()));
            if target.contains("refused") {
                *response.status_mut() = StatusCode::FORBIDDEN;
                *response.body_mut() = full("no".into());
                return response;
            }
            if target.contains("redirect") {
                *response.status_mut() = StatusCode::FOUND;
                response.headers_mut().insert("location", "https://127.0.0.1:1/elsewhere".parse().unwrap());
                return response;
            }
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            let upgrade = if target.contains("other") { "other".parse().unwrap() } else { upgrade };
            response.headers_mut().insert("upgrade", upgrade);
            tokio::spawn(async move {
                let Ok(stream) = on_upgrade.await else { return };
                let (mut from, mut to) = tokio::io::split(TokioIo::new(stream));
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
            return response;
        }
        if target == "/watch" {
            let lines = self.watch.lock().unwrap().take().unwrap();
            let stream = futures_util::stream::unfold(lines, |mut lines| async {
                let line = lines.recv().await?;
                Some((line, lines))
            });
            return Response::new(StreamBody::new(stream).boxed_unsync());
        }
        Response::new(full(if body.is_empty() { "answer".into() } else { body }))
    }
}

struct OneCertificate(Arc<CertifiedKey>);

impl std::fmt::Debug for OneCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OneCertificate")
    }
}

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// A certificate for a name, which is its own authority.
pub(crate) struct Certificate {
    pub(crate) pem: String,
    der: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

pub(crate) fn certificate(name: &str) -> Certificate {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    Certificate { pem: made.cert.pem(), der: made.cert.der().clone(), key }
}

pub(crate) fn resolver(certificate: &Certificate) -> Arc<dyn ResolvesServerCert> {
    let key = rustls::crypto::ring::sign::any_supported_type(&certificate.key).unwrap();
    Arc::new(OneCertificate(Arc::new(CertifiedKey::new(vec![certificate.der.clone()], key))))
}

/// The API server of these tests has an address and no name.
#[derive(Debug)]
struct Nobody;

impl dial::Resolve for Nobody {
    fn resolve<'a>(&'a self, _host: &'a str) -> BoxFuture<'a, std::io::Result<Vec<std::net::IpAddr>>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

pub(crate) fn nobody() -> Arc<dyn dial::Resolve> {
    Arc::new(Nobody)
}

pub(crate) struct World {
    pub(crate) everybody: Arc<Everybody>,
    pub(crate) server: Arc<Recording>,
    pub(crate) address: SocketAddr,
    pub(crate) certificate: Certificate,
    pub(crate) token: PathBuf,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
    upstream: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, token) = (folder.path().join("ca.crt"), folder.path().join("token"));
        let upstream_certificate = certificate("127.0.0.1");
        std::fs::write(&ca, &upstream_certificate.pem).unwrap();
        std::fs::write(&token, "ours").unwrap();
        let server = Arc::new(Recording::default());
        let (upstream_address, upstream) = serve_recording(server.clone(), upstream_certificate).await;
        let cluster = Cluster::new(&format!("https://{upstream_address}"), &ca, token.clone(), nobody()).unwrap();
        let (everybody, own) = (Everybody::new(Some(alice(&["a", "b"]))), certificate(NAME));
        let config =
            Config { cluster, allowed: Allowed::groups(["a", "b"].map(str::to_owned)), admin_listen: None, limits };
        let shutdown = Shutdown::new(Duration::from_millis(200));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = Entrance { identify: everybody.clone(), certificates: resolver(&own), listener };
        let proxy = Server::new(config, Health::new(), &shutdown).await.unwrap();
        let running = tokio::spawn(proxy.serve(entrance, shutdown.clone()));
        Self { everybody, server, address, certificate: own, token, shutdown, running, upstream, _folder: folder }
    }

    /// A TLS connection to the proxy that speaks one of these protocols.
    pub(crate) async fn connect(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(self.address).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).unwrap(), tcp).await.unwrap()
    }

    /// Sends bytes as they are on a connection of their own and gives all that comes back until the proxy closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect(&["http/1.1"]).await;
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
        // A proxy that closes without a TLS goodbye has closed all the same.
        assert!(read.is_ok(), "not closed after {}", String::from_utf8_lossy(&answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    pub(crate) fn stop_upstream(&self) {
        self.upstream.abort();
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.running.await.unwrap().unwrap();
    }
}

async fn serve_recording(
    server: Arc<Recording>,
    certificate: Certificate,
) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver(&certificate));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let running = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, server) = (acceptor.clone(), server.clone());
            connections.spawn(async move {
                // The proxy's probe connects and says nothing.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ended = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, running)
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}
