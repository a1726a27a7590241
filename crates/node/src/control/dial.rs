use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use derp::client::SocketSetup;
use dial::{Ledger, Metered, Resolve};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ControlUrl;

/// How long one address may take to answer, when there are others.
const ATTEMPT: Duration = Duration::from_secs(3);
/// The most addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// How this machine reaches the coordination server.
#[derive(Clone)]
pub(crate) struct Dialer {
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) socket_setup: Option<SocketSetup>,
    /// Where connections to the server are written down.
    pub(crate) ledger: Ledger,
}

/// A connection to the server, with TLS or without.
pub(crate) enum Stream {
    Plain(Metered<TcpStream>),
    Tls(Box<TlsStream<Metered<TcpStream>>>),
}

impl Dialer {
    /// Connects; by TLS when the URL says so, and the server's certificate is checked then.
    pub(crate) async fn connect(&self, url: &ControlUrl) -> io::Result<Stream> {
        let tcp = self.ledger.enter(url.host(), url.is_tls(), self.tcp(url.host(), url.port()).await?)?;
        if !url.is_tls() {
            return Ok(Stream::Plain(tcp));
        }
        let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(TlsConnector::from(self.tls.clone()).connect(name, tcp).await?)))
    }

    async fn tcp(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(host).await?,
        };
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
        for address in addresses.into_iter().take(ADDRESSES) {
            match tokio::time::timeout(ATTEMPT, self.one(SocketAddr::new(address, port))).await {
                Ok(Ok(tcp)) => return Ok(tcp),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn one(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        if let Some(setup) = &self.socket_setup {
            setup(&socket, address)?;
        }
        let tcp = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(tcp)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, out),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, out),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
