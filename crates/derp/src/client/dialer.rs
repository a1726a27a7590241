use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use dial::{CertificateFault, Ledger, Metered, Resolve, Roots};
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::opening::ConnectError;
use super::upgrade;
use super::verifier::{Pinned, Renamed};
use crate::wire::Socket;

/// How long one address may take to answer, and how long the other family waits for the preferred one.
const ATTEMPT_TIME: Duration = Duration::from_millis(1500);
const SECOND_FAMILY_DELAY: Duration = Duration::from_millis(200);

/// What is done to a socket before it connects: a mark, a binding to an interface.
pub type SocketSetup = Arc<dyn Fn(&socket2::Socket, SocketAddr) -> io::Result<()> + Send + Sync>;

/// How a relay's address of one family is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Address<A> {
    /// By the relay's host name.
    #[default]
    Resolved,
    /// It is this.
    Is(A),
    /// The relay has none.
    Off,
}

/// How a relay proves that it is the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayIdentity {
    /// By a certificate for this name (or IP address) that a trusted authority signed.
    Name(String),
    /// By the certificate whose DER form has this SHA-256.
    Sha256([u8; 32]),
}

impl RelayIdentity {
    /// Reads a DERP map's host name and certificate name, of which the second may be empty or `sha256-raw:` and 64 hex
    /// digits; `None` when those are no hex digits.
    pub fn from_map(host_name: &str, cert_name: &str) -> Option<Self> {
        if let Some(digits) = cert_name.strip_prefix("sha256-raw:") {
            let mut sha256 = [0; 32];
            hex::decode_to_slice(digits, &mut sha256).ok()?;
            return Some(Self::Sha256(sha256));
        }
        Some(Self::Name(if cert_name.is_empty() { host_name } else { cert_name }.to_owned()))
    }
}

/// Where a relay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relay {
    /// Its host name, which TLS and HTTP tell it.
    pub host: String,
    /// Its port, usually 443.
    pub port: u16,
    /// How it proves itself.
    pub identity: RelayIdentity,
    /// Its IPv4 address.
    pub ipv4: Address<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Address<Ipv6Addr>,
}

impl Relay {
    /// A relay whose addresses are resolved and whose certificate carries its host name.
    pub fn named(host: impl Into<String>, port: u16) -> Self {
        let host = host.into();
        Self {
            identity: RelayIdentity::Name(host.clone()),
            host,
            port,
            ipv4: Address::Resolved,
            ipv6: Address::Resolved,
        }
    }

    /// Host and port as HTTP writes them.
    pub(crate) fn authority(&self) -> String {
        match self.host.parse::<Ipv6Addr>() {
            Ok(v6) => format!("[{v6}]:{}", self.port),
            Err(_) => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A proxy that connects to others by HTTP CONNECT.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password, when it wants them.
    pub credentials: Option<(String, String)>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

/// How this machine reaches relays.
#[derive(Clone)]
pub struct Dialer {
    resolver: Arc<dyn Resolve>,
    provider: Arc<CryptoProvider>,
    roots: Roots,
    by_name: Arc<ClientConfig>,
    setup: Option<SocketSetup>,
    proxy: Option<Proxy>,
    ledger: Ledger,
    prefer_ipv6: bool,
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("resolver", &self.resolver).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl Dialer {
    /// A dialer that connects directly and prefers IPv4.
    pub fn new(resolver: Arc<dyn Resolve>, roots: &Roots) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let by_name = builder(&provider).with_root_certificates(roots.store()).with_no_client_auth();
        let by_name = finish(by_name);
        Self {
            resolver,
            provider,
            roots: roots.clone(),
            by_name,
            setup: None,
            proxy: None,
            ledger: Ledger::default(),
            prefer_ipv6: false,
        }
    }

    /// Has every socket set up by this before it connects.
    #[must_use]
    pub fn with_socket_setup(mut self, setup: SocketSetup) -> Self {
        self.setup = Some(setup);
        self
    }

    /// Connects through a proxy.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Writes down in this ledger what goes to relays and comes from them, in place of one that nobody reads.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Ledger) -> Self {
        self.ledger = ledger;
        self
    }

    /// Tries IPv6 first.
    #[must_use]
    pub fn preferring_ipv6(mut self) -> Self {
        self.prefer_ipv6 = true;
        self
    }

    /// Connects to a relay by TLS, and has it prove itself.
    pub(crate) async fn tls(&self, relay: &Relay) -> Result<TlsStream<Socket>, ConnectError> {
        let config = match &relay.identity {
            RelayIdentity::Name(name) if *name == relay.host => self.by_name.clone(),
            RelayIdentity::Name(name) => self.renamed(server_name(name)?)?,
            RelayIdentity::Sha256(sha256) => {
                self.verified_by(Arc::new(Pinned { sha256: *sha256, provider: self.provider.clone() }))
            }
        };
        let name = server_name(&relay.host)?;
        let tcp = self.tcp(relay, true).await?;
        let connected = TlsConnector::from(config).connect(name, Socket::new(tcp)).await;
        connected.map_err(|error| match CertificateFault::find(&error) {
            Some(fault) => ConnectError::Certificate { host: relay.host.clone(), fault },
            None => ConnectError::Tls(error),
        })
    }

    /// Connects to where a relay is, directly or through the proxy.
    pub(crate) async fn tcp(&self, relay: &Relay, tls: bool) -> Result<Metered<TcpStream>, ConnectError> {
        let enter = |tcp| self.ledger.enter(&relay.host, tls, tcp).map_err(ConnectError::Connect);
        let Some(proxy) = &self.proxy else { return enter(self.connect(relay).await?) };
        let mut tcp = enter(self.connect(&Relay::named(proxy.host.clone(), proxy.port)).await?)?;
        let target = relay.authority();
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
        if let Some((user, password)) = &proxy.credentials {
            let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            request.push_str(&format!("Proxy-Authorization: Basic {credentials}\r\n"));
        }
        request.push_str("\r\n");
        let response = upgrade::exchange(&mut tcp, request.as_bytes()).await?;
        if response.status != 200 || !response.rest.is_empty() {
            return Err(ConnectError::Proxy { status: response.status });
        }
        Ok(tcp)
    }

    /// Connects to the first address that answers; the family that isn't preferred starts a little later.
    async fn connect(&self, relay: &Relay) -> Result<TcpStream, ConnectError> {
        let (v4, v6) = self.addresses(relay).await?;
        let (first, second) = if self.prefer_ipv6 { (v6, v4) } else { (v4, v6) };
        if first.is_empty() || second.is_empty() {
            let only = [first, second].concat();
            return self.connect_in_turn(&only).await.map_err(ConnectError::Connect);
        }
        let mut early = std::pin::pin!(self.connect_in_turn(&first));
        if let Ok(result) = tokio::time::timeout(SECOND_FAMILY_DELAY, &mut early).await {
            return match result {
                Ok(tcp) => Ok(tcp),
                Err(_) => self.connect_in_turn(&second).await.map_err(ConnectError::Connect),
            };
        }
        let mut late = std::pin::pin!(self.connect_in_turn(&second));
        let connected = tokio::select! {
            result = &mut early => match result {
                Ok(tcp) => Ok(tcp),
                Err(_) => late.await,
            },
            result = &mut late => match result {
                Ok(tcp) => Ok(tcp),
                Err(_) => early.await,
            },
        };
        connected.map_err(ConnectError::Connect)
    }

    async fn addresses(&self, relay: &Relay) -> Result<(Vec<SocketAddr>, Vec<SocketAddr>), ConnectError> {
        let literal = relay.host.parse::<IpAddr>().ok();
        let wants_name = relay.ipv4 == Address::Resolved || relay.ipv6 == Address::Resolved;
        let resolved = match literal {
            Some(address) => vec![address],
            None if wants_name => {
                let resolved = self.resolver.resolve(&relay.host).await;
                let given = matches!(relay.ipv4, Address::Is(_)) || matches!(relay.ipv6, Address::Is(_));
                match resolved {
                    Ok(addresses) => addresses,
                    // One given address is enough to go on with while names don't resolve.
                    Err(_) if given => Vec::new(),
                    Err(source) => return Err(ConnectError::Resolve { host: relay.host.clone(), source }),
                }
            }
            None => Vec::new(),
        };
        let at = |address: IpAddr| SocketAddr::new(address, relay.port);
        let v4 = match relay.ipv4 {
            Address::Is(address) => vec![at(address.into())],
            Address::Resolved => resolved.iter().copied().filter(IpAddr::is_ipv4).map(at).collect(),
            Address::Off => Vec::new(),
        };
        let v6 = match relay.ipv6 {
            Address::Is(address) => vec![at(address.into())],
            Address::Resolved => resolved.iter().copied().filter(IpAddr::is_ipv6).map(at).collect(),
            Address::Off => Vec::new(),
        };
        if v4.is_empty() && v6.is_empty() {
            return Err(ConnectError::NoAddress(relay.host.clone()));
        }
        Ok((v4, v6))
    }

    async fn connect_in_turn(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match tokio::time::timeout(ATTEMPT_TIME, self.connect_one(*address)).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn connect_one(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if let Some(setup) = &self.setup {
            setup(&socket, address)?;
        }
        let tcp = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }

    fn renamed(&self, name: ServerName<'static>) -> Result<Arc<ClientConfig>, ConnectError> {
        let inner = WebPkiServerVerifier::builder_with_provider(self.roots.store(), self.provider.clone())
            .build()
            .map_err(|error| ConnectError::Tls(io::Error::other(error)))?;
        Ok(self.verified_by(Arc::new(Renamed { name, inner })))
    }

    fn verified_by(&self, verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
        finish(builder(&self.provider).dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, ConnectError> {
    ServerName::try_from(name.to_owned()).map_err(|_| ConnectError::Name(name.to_owned()))
}

fn builder(provider: &Arc<CryptoProvider>) -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("ring's provider has the cipher suites of TLS 1.2 and 1.3")
}

fn finish(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session shows no certificates, and with them not the one that allows a fast start.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_entry_names_the_certificate_or_pins_it() {
        let identity = RelayIdentity::from_map;
        assert_eq!(identity("derp.example", ""), Some(RelayIdentity::Name("derp.example".to_owned())));
        assert_eq!(identity("192.0.2.1", "other.example"), Some(RelayIdentity::Name("other.example".to_owned())));
        let pin = format!("sha256-raw:{}", "ab".repeat(32));
        assert_eq!(identity("derp.example", &pin), Some(RelayIdentity::Sha256([0xab; 32])));
        assert_eq!(identity("derp.example", "sha256-raw:ab"), None);
    }

    #[test]
    fn an_ipv6_literal_stands_in_brackets() {
        assert_eq!(Relay::named("2001:db8::1", 443).authority(), "[2001:db8::1]:443");
        assert_eq!(Relay::named("derp.example", 8443).authority(), "derp.example:8443");
    }

    #[test]
    fn a_proxy_does_not_show_its_password() {
        let credentials = Some(("user".to_owned(), "secret".to_owned()));
        let proxy = Proxy { host: "proxy".to_owned(), port: 3128, credentials };
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy:3128)");
    }
}
