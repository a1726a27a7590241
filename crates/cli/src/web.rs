//! Single requests to servers that speak HTTP but no API: bounded in size and time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dial::{CertificateFault, Resolve, Roots};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// What an answer may hold.
const ANSWER_LIMIT: usize = 256 << 10;
/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one address may take to accept a connection.
const DIAL_PATIENCE: Duration = Duration::from_secs(4);

/// Why a server gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    #[error("{0:?} is no URL of a server")]
    Url(String),
    #[error("{0} can't be found: {1}")]
    Name(String, io::Error),
    #[error("{0} can't be reached: {1}")]
    Unreachable(String, String),
    #[error("{0} can't be trusted: {1}")]
    Untrusted(String, CertificateFault),
    #[error("{0} did not answer within {seconds} s", seconds = PATIENCE.as_secs())]
    TimedOut(String),
    #[error("{0} answered {1}")]
    Refused(String, StatusCode),
}

/// How servers are told from impostors.
#[derive(Clone)]
pub(crate) struct Trust(TlsConnector);

impl Trust {
    /// Trusts these authorities.
    pub(crate) fn new(roots: &Roots) -> Self {
        Self(TlsConnector::from(Arc::new(roots.tls())))
    }

    /// Trusts one authority and no other.
    pub(crate) fn only(root: CertificateDer<'static>) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        store.add(root)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with the server behind a connection; fails when it can't show a certificate for its name.
    pub(crate) async fn handshake<S>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<tokio_rustls::client::TlsStream<S>, WebError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| WebError::Url(host.to_owned()))?;
        self.0.connect(name, stream).await.map_err(|error| match CertificateFault::find(&error) {
            Some(fault) => WebError::Untrusted(host.to_owned(), fault),
            None => WebError::Unreachable(host.to_owned(), error.to_string()),
        })
    }
}

/// Fetches what is at a URL.
pub(crate) async fn get(url: &str, resolver: &dyn Resolve, trust: &Trust) -> Result<Bytes, WebError> {
    let fetched = timeout(PATIENCE, fetch(url, resolver, trust)).await;
    fetched.unwrap_or_else(|_| Err(WebError::TimedOut(url.to_owned())))
}

async fn fetch(url: &str, resolver: &dyn Resolve, trust: &Trust) -> Result<Bytes, WebError> {
    let uri: Uri = url.parse().map_err(|_| WebError::Url(url.to_owned()))?;
    let host = uri.host().ok_or_else(|| WebError::Url(url.to_owned()))?.trim_matches(['[', ']']).to_owned();
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(WebError::Url(url.to_owned())),
    };
    let stream = dial(&host, uri.port_u16().unwrap_or(if secure { 443 } else { 80 }), resolver).await?;
    if secure {
        exchange(&uri, &host, trust.handshake(&host, stream).await?).await
    } else {
        exchange(&uri, &host, stream).await
    }
}

async fn dial(host: &str, port: u16, resolver: &dyn Resolve) -> Result<TcpStream, WebError> {
    let addresses = match host.parse() {
        Ok(address) => vec![address],
        Err(_) => resolver.resolve(host).await.map_err(|error| WebError::Name(host.to_owned(), error))?,
    };
    let mut reason = "it has no address".to_owned();
    for address in addresses {
        match timeout(DIAL_PATIENCE, TcpStream::connect((address, port))).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => reason = error.to_string(),
            Err(_) => reason = format!("{address} does not answer"),
        }
    }
    Err(WebError::Unreachable(host.to_owned(), reason))
}

async fn exchange<S>(uri: &Uri, host: &str, stream: S) -> Result<Bytes, WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let authority = uri.authority().map_or(host, |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let (status, body) = ask(stream, authority, path).await?;
    if !status.is_success() {
        return Err(WebError::Refused(uri.to_string(), status));
    }
    Ok(body)
}

/// Asks whoever is at the other end of a connection for what it has at `path`, as `host`; answers what it says, well or not.
pub(crate) async fn ask<S>(stream: S, host: &str, path: &str) -> Result<(StatusCode, Bytes), WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| WebError::Unreachable(host.to_owned(), error.to_string());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("towline/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| WebError::Url(format!("{host}{path}")))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(broken)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
    let body = body.map_err(|error| WebError::Unreachable(host.to_owned(), error.to_string()))?;
    Ok((status, body.to_bytes()))
}
