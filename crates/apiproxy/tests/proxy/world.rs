//! A proxy on loopback, with an API server behind it that records every request.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use apiproxy::{Allowed, Cluster, Config, Entrance, Limits, Server};
use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use telemetry::{Health, Shutdown};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::people::{Everybody, alice};
use crate::recording::{self, Recording};

pub(crate) const NAME: &str = "tailscale-operator.taila31de.ts.net";

/// How long anything may take that is to happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the kernel is asked to hold of each connection of these tests, so that it hides no buffer of the proxy.
const SOCKET_BUFFER: u32 = 32 << 10;

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

pub(crate) fn server_tls(certificate: &Certificate, protocols: &[&str]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_cert_resolver(resolver(certificate));
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A place on loopback whose connections hold little in the kernel.
pub(crate) fn listen() -> (TcpListener, SocketAddr) {
    let socket = narrow_socket();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let listener = socket.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn narrow_socket() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    socket
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
    /// The file of the proxy's own token.
    pub(crate) token: PathBuf,
    certificate: Certificate,
    admin: SocketAddr,
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
        Self::build(limits, &["h2", "http/1.1"]).await
    }

    /// A world whose API server speaks these protocols.
    pub(crate) async fn build(limits: Limits, upstream_protocols: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (ca, token) = (folder.path().join("ca.crt"), folder.path().join("token"));
        let (own, upstream_certificate) = (certificate(NAME), certificate("127.0.0.1"));
        std::fs::write(&ca, &upstream_certificate.pem).unwrap();
        std::fs::write(&token, "ours").unwrap();
        let server = Recording::new();
        let (upstream_address, upstream) = recording::serve(server.clone(), &upstream_certificate, upstream_protocols);
        let config = Config {
            cluster: Cluster::new(&format!("https://{upstream_address}"), &ca, token.clone(), nobody()).unwrap(),
            allowed: Allowed::groups(["a", "b", "tag:ci"].map(str::to_owned)),
            admin_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            limits,
        };
        let shutdown = Shutdown::new(Duration::from_millis(200));
        let (listener, address) = listen();
        let everybody = Everybody::new(Some(alice(&["a", "b"])));
        let entrance = Entrance { identify: everybody.clone(), certificates: resolver(&own), listener };
        let proxy = Server::new(config, Health::new(), &shutdown).await.unwrap();
        let admin = proxy.admin_address().unwrap();
        let running = tokio::spawn(proxy.serve(entrance, shutdown.clone()));
        Self {
            everybody,
            server,
            address,
            token,
            certificate: own,
            admin,
            shutdown,
            running,
            upstream,
            _folder: folder,
        }
    }

    /// A TLS connection to the proxy that speaks one of these protocols.
    pub(crate) async fn connect(&self, protocols: &[&str]) -> TlsStream<TcpStream> {
        self.try_connect(protocols).await.unwrap()
    }

    /// The same, where the proxy may have no place for it.
    pub(crate) async fn try_connect(&self, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
        self.try_connect_from([127, 0, 0, 1].into(), protocols).await
    }

    /// The same, from another address of loopback.
    pub(crate) async fn try_connect_from(
        &self,
        source: IpAddr,
        protocols: &[&str],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let socket = narrow_socket();
        socket.bind(SocketAddr::new(source, 0))?;
        let tcp = socket.connect(self.address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(NAME).unwrap(), tcp).await
    }

    /// Sends bytes as they are on a connection of their own and gives all that comes back until the proxy closes.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = self.connect(&["http/1.1"]).await;
        stream.write_all(request).await.unwrap();
        rest(&mut stream).await
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.raw(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await
    }

    /// Asks for a path, and leaves the connection open.
    pub(crate) async fn ask(&self, path: &str) -> TlsStream<TcpStream> {
        let mut stream = self.connect(&["http/1.1"]).await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        stream
    }

    /// Asks for a session, and gives the head of the answer.
    pub(crate) async fn ask_session(&self, path: &str, protocol: &str) -> (TlsStream<TcpStream>, String) {
        let mut stream = self.connect(&["http/1.1"]).await;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             X-Stream-Protocol-Version: v4.channel.k8s.io\r\nSec-WebSocket-Key: x\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = head_of(&mut stream).await;
        (stream, answer)
    }

    /// What the proxy counts under a name, labels included; nothing is zero.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let text = rest(&mut stream).await;
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("towline_{name} ")));
        line.map(|value| value.trim().parse().unwrap()).unwrap_or_default()
    }

    /// Waits until the proxy counts so many.
    pub(crate) async fn counts(&self, name: &str, wanted: u64) {
        let counted = async {
            while self.metric(name).await != wanted {
                tokio::task::yield_now().await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, counted).await.is_ok(), "{name} is {}", self.metric(name).await);
    }

    pub(crate) fn stop_upstream(&self) {
        self.upstream.abort();
    }

    pub(crate) async fn stop(self) {
        self.shutdown.request();
        self.running.await.unwrap().unwrap();
    }
}

/// The head of an answer, or what there was of it when the proxy closed.
pub(crate) async fn head_of(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        match tokio::time::timeout(PATIENCE, stream.read_u8()).await.unwrap() {
            Ok(byte) => answer.push(byte),
            // A proxy that closes without a TLS goodbye has closed all the same.
            Err(_closed) => break,
        }
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// All that still comes until the proxy closes.
pub(crate) async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "not closed after {}", String::from_utf8_lossy(&answer));
    String::from_utf8_lossy(&answer).into_owned()
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}
