//! A relay on loopback with a certificate authority of its own, and clients of it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crypto::{NodePrivate, NodePublic, SystemEntropy};
use derp::client::{ConnectError, Connection, Dialer, Event, Options, Relay};
use derp::server::{AdmissionConfig, CertificateFiles, Config, Limits, Server};
use dial::{Resolve, Roots};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use telemetry::Shutdown;
use tokio::task::JoinHandle;

/// The name that relays under test have.
pub(crate) const HOST: &str = "derp.test";

/// Bounds every wait of a test: what takes longer never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Knows every name, as this machine.
#[derive(Debug)]
pub(crate) struct Loopback;

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _name: &'a str) -> futures_util::future::BoxFuture<'a, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Ok(vec![Ipv4Addr::LOCALHOST.into()]) })
    }
}

/// Files of a certificate authority, and of a certificate for [`HOST`].
pub(crate) struct Certificates {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) authority: PathBuf,
    pub(crate) files: CertificateFiles,
    /// SHA-256 of the relay's certificate.
    pub(crate) sha256: [u8; 32],
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        // Authorities with one name would be taken for each other.
        let name = format!("authority of {}", directory.path().display());
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![HOST.to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap();
        let file = |name: &str, content: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        Self {
            authority: file("ca.pem", issuer.pem()),
            files: CertificateFiles {
                certificate: file(&format!("{HOST}.crt"), leaf.pem()),
                key: file(&format!("{HOST}.key"), key.serialize_pem()),
            },
            sha256: crypto::sha256(leaf.der()),
            directory,
        }
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::from_file(&self.authority).unwrap()
    }

    pub(crate) fn dialer(&self) -> Dialer {
        Dialer::new(Arc::new(Loopback), &self.roots())
    }
}

/// A relay that serves.
pub(crate) struct TestRelay {
    pub(crate) certificates: Certificates,
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) stun: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) key: NodePublic,
    pub(crate) shutdown: Shutdown,
    pub(crate) running: JoinHandle<anyhow::Result<()>>,
}

/// Limits that don't stand in the way of a test that is not about them.
pub(crate) fn generous() -> Limits {
    Limits {
        connections_per_source: 10_000,
        accepts_per_second: 100_000,
        accepts_per_source: 100_000,
        restart_time: Duration::from_millis(300),
        ..Limits::default()
    }
}

impl TestRelay {
    /// An open relay with generous limits.
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// A relay whose configuration the test changes.
    pub(crate) fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let certificates = Certificates::new();
        let any: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let mut config = Config {
            listen: vec![any],
            http_listen: vec![any],
            stun_listen: vec![any],
            admin_listen: Some(any),
            certificate: certificates.files.clone(),
            key_file: certificates.directory.path().join("derp.key"),
            admission: AdmissionConfig::Open,
            mesh: None,
            bootstrap_dns: [("control.test".to_owned(), vec![Ipv4Addr::new(203, 0, 113, 10).into()])].into(),
            limits: generous(),
            resolver: Arc::new(Loopback),
            roots: certificates.roots(),
        };
        change(&mut config);
        let server = Server::bind(config).unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(10));
        Self {
            address: server.tls_addresses()[0],
            http: server.http_addresses()[0],
            stun: server.stun_addresses()[0],
            admin: server.admin_address().unwrap(),
            key: server.public_key(),
            running: tokio::spawn(server.run(shutdown.clone())),
            shutdown,
            certificates,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        self.certificates.directory.path()
    }

    /// The relay as clients know it.
    pub(crate) fn relay(&self) -> Relay {
        Relay::named(HOST, self.address.port())
    }

    pub(crate) async fn try_connect(&self, key: &NodePrivate) -> Result<Connection, ConnectError> {
        Connection::open(&self.certificates.dialer(), &self.relay(), key, &Options::default()).await
    }

    pub(crate) async fn connect(&self, key: &NodePrivate) -> Connection {
        self.try_connect(key).await.unwrap()
    }

    /// A client with a key of its own.
    pub(crate) async fn newcomer(&self) -> Connection {
        self.connect(&new_key()).await
    }

    /// The value of a metric, with its labels if it has any; 0 when it was never counted.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = http_get(self.admin, "/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Waits until a metric has a value.
    pub(crate) async fn await_metric(&self, name: &str, reached: impl Fn(f64) -> bool) {
        let waiting = async {
            while !reached(self.metric(name).await) {
                // tidy: sleep, a metric tells nobody that it changed
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("{name} stays at {}", self.metric(name).await);
        }
    }
}

pub(crate) fn new_key() -> NodePrivate {
    NodePrivate::generate(&mut SystemEntropy)
}

/// What a plain HTTP server answers, head and body.
pub(crate) async fn http_get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Waits for the first event that `wanted` picks.
pub(crate) async fn await_event<T>(connection: &mut Connection, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = wanted(connection.next().await.expect("the connection lasts")) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the event comes")
}

/// Waits for a packet: whence it came, and what it holds.
pub(crate) async fn await_packet(connection: &mut Connection) -> (NodePublic, Bytes) {
    await_event(connection, |event| match event {
        Event::Packet { source, packet } => Some((source, packet)),
        _ => None,
    })
    .await
}

/// Waits until a connection ends, and says how.
pub(crate) async fn await_end(connection: &mut Connection) -> derp::client::ConnectionError {
    let waiting = async {
        loop {
            if let Err(error) = connection.next().await {
                return error;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("the connection ends")
}

/// Sends a packet and waits until the kernel has it.
pub(crate) async fn send(connection: &mut Connection, peer: &NodePublic, packet: impl Into<Bytes>) {
    connection.send(peer, packet.into()).unwrap();
    connection.flush().await.unwrap();
}

/// A packet that looks like disco: sealed for nobody.
pub(crate) fn disco_packet() -> Vec<u8> {
    let mut packet = b"TS\xf0\x9f\x92\xac".to_vec();
    packet.resize(124, 7);
    packet
}
