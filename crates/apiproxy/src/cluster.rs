use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use dial::Resolve;
use http::HeaderValue;
use http::uri::Authority;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};

use crate::memory::SOCKET_BUFFER;

/// Where a pod finds its own ServiceAccount.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN: &str = "token";
const LONGEST_TOKEN: u64 = 64 << 10;
const LONGEST_BUNDLE: u64 = 1 << 20;

/// The cluster's API server, and what the proxy shows it.
#[derive(Debug, Clone)]
pub struct Cluster {
    authority: Authority,
    name: ServerName<'static>,
    roots: Arc<RootCertStore>,
    token: Arc<Token>,
    resolver: Arc<dyn Resolve>,
}

/// Why the API server can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The process runs in no pod.
    #[error(
        "{0} is not set: this runs in a pod of the cluster; elsewhere name the API server, its CA file and a token file"
    )]
    NotInPod(&'static str),
    /// The API server's address is none.
    #[error("{0:?} is no address of an API server; write https://host:port")]
    Server(String),
    /// A file can't be read.
    #[error("the {what} in {path:?} can't be read: {source}")]
    Read {
        /// What it should hold.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("the file {path:?} holds no {what}")]
    Content {
        /// What it should hold.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
}

impl Cluster {
    /// The cluster that this process's pod is in.
    pub fn of_pod(resolver: Arc<dyn Resolve>) -> Result<Self, ClusterError> {
        let variable = |name| std::env::var(name).map_err(|_| ClusterError::NotInPod(name));
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST")?, variable("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let folder = Path::new(SERVICE_ACCOUNT);
        Self::new(&format!("https://{host}:{port}"), &folder.join("ca.crt"), folder.join("token"), resolver)
    }

    /// The API server at a URL, which the CA of a file vouches for, with the token of a file.
    pub fn new(
        server: &str,
        ca_file: &Path,
        token_file: PathBuf,
        resolver: Arc<dyn Resolve>,
    ) -> Result<Self, ClusterError> {
        let wrong = || ClusterError::Server(server.to_owned());
        let uri: http::Uri = server.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let plain = uri.scheme_str() == Some("https") && matches!(uri.path(), "" | "/") && uri.query().is_none();
        let authority =
            uri.authority().filter(|authority| plain && !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| wrong())?;
        let pem = read("CA certificates", ca_file, LONGEST_BUNDLE)?;
        let mut roots = RootCertStore::empty();
        let content = || ClusterError::Content { what: "certificates in PEM form", path: ca_file.to_owned() };
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.map_err(|_| content())?).map_err(|_| content())?;
        }
        if roots.is_empty() {
            return Err(content());
        }
        let token = Token::open(token_file)?;
        Ok(Self { authority: authority.clone(), name, roots: Arc::new(roots), token: Arc::new(token), resolver })
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// Connects to the API server, at whichever of its addresses answers first in their order.
    pub(crate) async fn connect(&self) -> io::Result<TcpStream> {
        let (host, port) = (self.host(), self.authority.port_u16().unwrap_or(443));
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(host).await?,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in addresses {
            match connect(SocketAddr::new(address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    pub(crate) fn tls(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.expect("ring has the default versions of TLS");
        let mut config = builder.with_root_certificates(self.roots.clone()).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// The proxy's own `Authorization`, as the file has it now.
    pub(crate) fn authorization(&self) -> Result<HeaderValue, ClusterError> {
        self.token.current()
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.connect(address).await
}

/// The token of the proxy's ServiceAccount, which the kubelet replaces in its file; looked at for each request.
struct Token {
    path: PathBuf,
    read: Mutex<Held>,
}

struct Held {
    value: HeaderValue,
    version: Version,
}

/// What tells one content of a file from the next: the kubelet swaps a link, so that both change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    inode: u64,
    changed: Option<SystemTime>,
}

impl Version {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { inode: metadata.ino(), changed: metadata.modified().ok() })
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Token {
    fn open(path: PathBuf) -> Result<Self, ClusterError> {
        let read = Mutex::new(Held::read(&path)?);
        Ok(Self { path, read })
    }

    /// A token that can't be read any more is no token: the old one may be anybody's by now.
    fn current(&self) -> Result<HeaderValue, ClusterError> {
        let mut held = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let version = Version::of(&self.path).map_err(|source| self.unreadable(source))?;
        if version != held.version {
            *held = Held::read(&self.path)?;
        }
        Ok(held.value.clone())
    }

    fn unreadable(&self, source: io::Error) -> ClusterError {
        ClusterError::Read { what: TOKEN, path: self.path.clone(), source }
    }
}

impl Held {
    fn read(path: &Path) -> Result<Self, ClusterError> {
        let error = |source| ClusterError::Read { what: TOKEN, path: path.to_owned(), source };
        // Before the content: one that is replaced in between is read again.
        let version = Version::of(path).map_err(error)?;
        let bytes = read(TOKEN, path, LONGEST_TOKEN)?;
        let content = || ClusterError::Content { what: TOKEN, path: path.to_owned() };
        let text = std::str::from_utf8(&bytes).map_err(|_| content())?.trim();
        if text.is_empty() {
            return Err(content());
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| content())?;
        value.set_sensitive(true);
        Ok(Self { value, version })
    }
}

fn read(what: &'static str, path: &Path, most: u64) -> Result<Vec<u8>, ClusterError> {
    let error = |source| ClusterError::Read { what, path: path.to_owned(), source };
    let mut bytes = Vec::new();
    std::fs::File::open(path).map_err(error)?.take(most).read_to_end(&mut bytes).map_err(error)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Nobody;

    impl Resolve for Nobody {
        fn resolve<'a>(&'a self, _host: &'a str) -> futures_util::future::BoxFuture<'a, io::Result<Vec<IpAddr>>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    fn nobody() -> Arc<dyn Resolve> {
        Arc::new(Nobody)
    }

    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (ca, token) = (folder.path().join("ca.crt"), folder.path().join("token"));
        let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
        std::fs::write(&ca, made.cert.pem()).unwrap();
        std::fs::write(&token, "secret\n").unwrap();
        (folder, ca, token)
    }

    #[test]
    fn a_token_that_was_replaced_is_used_and_one_that_is_gone_is_not() {
        let (_folder, ca, token) = files();
        let cluster = Cluster::new("https://10.1.0.1:443", &ca, token.clone(), nobody()).unwrap();
        assert_eq!(cluster.authorization().unwrap(), "Bearer secret");
        let (next, changed) = (token.with_extension("next"), std::fs::metadata(&token).unwrap().modified().unwrap());
        std::fs::write(&next, "next").unwrap();
        std::fs::File::open(&next).unwrap().set_modified(changed).unwrap();
        std::fs::rename(&next, &token).unwrap();
        assert_eq!(cluster.authorization().unwrap(), "Bearer next");
        std::fs::remove_file(&token).unwrap();
        assert!(cluster.authorization().is_err());
    }

    #[test]
    fn what_is_no_cluster_is_refused_with_the_reason() {
        let (folder, ca, token) = files();
        for server in ["http://10.1.0.1", "10.1.0.1", "https://user@10.1.0.1", "https://10.1.0.1/api", "https://"] {
            assert!(
                matches!(Cluster::new(server, &ca, token.clone(), nobody()), Err(ClusterError::Server(_))),
                "{server}"
            );
        }
        std::fs::write(folder.path().join("empty"), "").unwrap();
        let empty = Cluster::new("https://10.1.0.1", &ca, folder.path().join("empty"), nobody()).unwrap_err();
        assert!(empty.to_string().ends_with("holds no token"), "{empty}");
        let no_ca = Cluster::new("https://10.1.0.1", &folder.path().join("empty"), token, nobody()).unwrap_err();
        assert!(no_ca.to_string().ends_with("holds no certificates in PEM form"), "{no_ca}");
    }

    #[test]
    fn the_token_is_not_in_the_debug_text() {
        let (_folder, ca, token) = files();
        let cluster = Cluster::new("https://[fd00::1]:6443", &ca, token, nobody()).unwrap();
        assert!(!format!("{cluster:?}").contains("secret"));
        assert_eq!(cluster.host(), "fd00::1");
    }
}
