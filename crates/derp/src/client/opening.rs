use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto::{NodePrivate, NodePublic, SystemEntropy};
use dial::CertificateFault;
use packet::derp::{Frame, FrameError, Limits};
use rustls::ProtocolVersion;
use rustls_pki_types::CertificateDer;
use tokio_rustls::client::TlsStream;

use super::connection::Connection;
use super::dialer::{Dialer, Relay};
use super::upgrade;
use crate::bucket::TokenBucket;
use crate::info::{self, ClientInfo, InfoError, ServerInfo};
use crate::link::{Link, LinkError, Outgoing};
use crate::server::MeshKey;
use crate::wire::{Socket, Wire};

/// How long connecting may take altogether.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// What a certificate's common name starts with that tells a relay's key.
const META_NAME: &[u8] = b"derpkey";

/// What a client tells a relay about itself.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What runs here, for the relay's statistics; at most 32 printable ASCII characters.
    pub app_name: String,
    /// The secret of the relays' mesh; for relays only.
    pub mesh_key: Option<MeshKey>,
    /// This client only measures.
    pub is_prober: bool,
    /// The region's node that would have been better, when this one is second choice.
    pub ideal_node: Option<String>,
}

/// Why there is no connection to a relay.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The relay's name can't be resolved.
    #[error("the relay's name {host:?} can't be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name has no address of a family that the relay is said to have.
    #[error("the relay {0:?} has no address")]
    NoAddress(String),
    /// The name is none that TLS could verify.
    #[error("{0:?} is not a name that a certificate can carry")]
    Name(String),
    /// No address answers.
    #[error("the relay can't be reached: {0}")]
    Connect(#[source] io::Error),
    /// The proxy refuses.
    #[error("the proxy answers CONNECT with status {status}")]
    Proxy {
        /// What it answers.
        status: u16,
    },
    /// Its certificate is not believed.
    #[error("{host} can't be trusted: {fault}")]
    Certificate {
        /// The host's name.
        host: String,
        /// What is wrong, and what helps.
        fault: CertificateFault,
    },
    /// TLS failed.
    #[error("TLS with the relay failed: {0}")]
    Tls(#[source] io::Error),
    /// The relay does not speak DERP.
    #[error("the relay answers the upgrade with status {status}, not with 101: is it a relay?")]
    Upgrade {
        /// What it answers.
        status: u16,
    },
    /// The stream broke during the handshake; what a relay does that doesn't admit this node.
    #[error("the relay ended the connection during the handshake ({0}): does it admit this node?")]
    Ended(#[source] io::Error),
    /// The relay's frames are not DERP.
    #[error("the relay does not speak DERP as it should: {0}")]
    Frame(#[from] FrameError),
    /// The relay sends another frame than the handshake has.
    #[error("the relay sends another frame than the handshake has at this point")]
    Order,
    /// The relay is another than its certificate says.
    #[error("the relay's key is not the one that its certificate tells")]
    Key,
    /// The relay can't prove its key.
    #[error("the relay can't prove its key: {0}")]
    Info(#[from] InfoError),
    /// It took longer than ten seconds.
    #[error("connecting to the relay took longer than {} seconds", CONNECT_TIME.as_secs())]
    TimedOut,
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Ended(error)
    }
}

impl From<LinkError> for ConnectError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Io(error) => Self::Ended(error),
            LinkError::Frame(error) => Self::Frame(error),
        }
    }
}

impl Connection {
    /// Connects to a relay as the node that holds `key`.
    pub async fn open(
        dialer: &Dialer,
        relay: &Relay,
        key: &NodePrivate,
        options: &Options,
    ) -> Result<Self, ConnectError> {
        let opening = async {
            let stream = dialer.tls(relay).await?;
            let local = stream.get_ref().0.local_address()?;
            let (link, told) = upgrade(stream, relay, options).await?;
            let (link, server, info) = shake_hands(link, told, key, options).await?;
            let pacing = (info.bytes_per_second > 0)
                .then(|| TokenBucket::new(info.bytes_per_second as f64, info.burst_bytes as f64, Instant::now()));
            Ok(Self::new(link, key.public(), server, local, pacing))
        };
        // The states of TLS and HTTP are large and short-lived: not for the caller's future to carry.
        tokio::time::timeout(CONNECT_TIME, Box::pin(opening)).await.unwrap_or(Err(ConnectError::TimedOut))
    }
}

/// Turns TLS into a link; says the relay's key too, when its certificate tells it.
async fn upgrade(
    mut stream: TlsStream<Socket>,
    relay: &Relay,
    options: &Options,
) -> Result<(Link, Option<NodePublic>), ConnectError> {
    let told = fast_start_key(stream.get_ref().1);
    let mut request =
        format!("GET /derp HTTP/1.1\r\nHost: {}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n", relay.authority());
    if let Some(node) = options.ideal_node.as_deref().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic())) {
        request.push_str(&format!("Ideal-Node: {node}\r\n"));
    }
    if told.is_some() {
        // The relay answers with frames at once, and the client's first frame follows in the same flight.
        request.push_str("Derp-Fast-Start: 1\r\n\r\n");
        let wire = Wire::Tls(Box::new(stream.into()));
        let mut link = Link::new(wire, Bytes::new(), Limits::RELAY);
        link.push(Outgoing::Whole(request.into()));
        return Ok((link, told));
    }
    request.push_str("\r\n");
    let response = upgrade::exchange(&mut stream, request.as_bytes()).await?;
    if response.status != 101 {
        return Err(ConnectError::Upgrade { status: response.status });
    }
    Ok((Link::new(Wire::Tls(Box::new(stream.into())), response.rest, Limits::RELAY), None))
}

async fn shake_hands(
    mut link: Link,
    told: Option<NodePublic>,
    key: &NodePrivate,
    options: &Options,
) -> Result<(Link, NodePublic, ServerInfo), ConnectError> {
    let info = ClientInfo {
        mesh_key: options.mesh_key.as_ref().map(|key| key.expose_text().to_owned()).unwrap_or_default(),
        version: info::VERSION,
        can_answer_pings: true,
        is_prober: options.is_prober,
        app_name: options.app_name.clone(),
    };
    let introduce = |link: &mut Link, server: &NodePublic| {
        let sealed = info::seal(&info, key, server, &mut SystemEntropy)?;
        link.push(Outgoing::frame(&Frame::ClientInfo { key: key.public(), sealed: &sealed }));
        Ok::<_, InfoError>(())
    };
    if let Some(server) = told {
        introduce(&mut link, &server)?;
        link.send().await?;
    }
    let frame = receive(&mut link).await?;
    let Frame::ServerKey(server) = Frame::parse(frame.kind, &frame.body)? else { return Err(ConnectError::Order) };
    match told {
        Some(told) if told != server => return Err(ConnectError::Key),
        Some(_) => {}
        None => {
            introduce(&mut link, &server)?;
            link.send().await?;
        }
    }
    let frame = receive(&mut link).await?;
    let Frame::ServerInfo { sealed } = Frame::parse(frame.kind, &frame.body)? else { return Err(ConnectError::Order) };
    let info = info::open(sealed, key, &server)?;
    Ok((link, server, info))
}

async fn receive(link: &mut Link) -> Result<packet::derp::RawFrame, ConnectError> {
    Ok(link.receive().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?)
}

/// The relay's key, when it offers a fast start: TLS 1.3, and a certificate beside its own that is named after the key.
///
/// That certificate is not verified, nor need it be: TLS has proven who sent it, and the relay proves the key itself
/// when it seals its info. So its name is looked for in the raw bytes.
fn fast_start_key(session: &rustls::ClientConnection) -> Option<NodePublic> {
    if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return None;
    }
    session.peer_certificates()?.iter().skip(1).find_map(key_in_certificate)
}

fn key_in_certificate(certificate: &CertificateDer<'_>) -> Option<NodePublic> {
    let at = certificate.windows(META_NAME.len()).position(|window| window == META_NAME)?;
    let digits = certificate.get(at + META_NAME.len()..at + META_NAME.len() + 64)?;
    let mut key = [0; 32];
    hex::decode_to_slice(digits, &mut key).ok()?;
    Some(NodePublic::from_bytes(key))
}
