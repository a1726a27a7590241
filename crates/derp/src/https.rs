//! One HTTP request at a time to a server that was configured: who admits clients.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;

use crate::client::{ConnectError, Dialer, Relay};
use crate::wire::Socket;

/// A URL of a server, checked as far as it can be without asking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    host: String,
    port: u16,
    tls: bool,
    path_and_query: String,
}

/// Why a text is not the URL of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerUrlError {
    /// It does not parse, or has no host.
    #[error("{0:?} is not a URL; it should look like https://control.example/path")]
    Malformed(String),
    /// It is neither http nor https.
    #[error("{0:?} should start with https://")]
    Scheme(String),
    /// It would send a secret without encryption.
    #[error("{0:?} would send a secret in the clear: use https://, or a loopback address")]
    Insecure(String),
}

impl ServerUrl {
    /// Reads a URL.
    pub fn parse(text: &str) -> Result<Self, ServerUrlError> {
        let malformed = || ServerUrlError::Malformed(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| malformed())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(ServerUrlError::Scheme(text.to_owned())),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(malformed)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path_and_query = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { host, port, tls, path_and_query })
    }

    /// Reads a URL that a secret is sent to: https, or this machine.
    pub fn parse_for_secret(text: &str) -> Result<Self, ServerUrlError> {
        let url = Self::parse(text)?;
        let loopback = url.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if url.tls || loopback { Ok(url) } else { Err(ServerUrlError::Insecure(text.to_owned())) }
    }

    /// The path with `query` added to what it has of one.
    pub(crate) fn with_query(&self, query: &str) -> String {
        let separator = if self.path_and_query.contains('?') { '&' } else { '?' };
        format!("{}{separator}{query}", self.path_and_query)
    }

    pub(crate) fn path(&self) -> &str {
        &self.path_and_query
    }
}

/// Without what stands behind a question mark, which may be a secret.
impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let authority = Relay::named(self.host.clone(), self.port).authority();
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{authority}{path}")
    }
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("the answer is longer than {0} bytes, or broke off")]
    Body(usize),
    #[error("no answer within {} seconds", .0.as_secs())]
    TimedOut(Duration),
}

/// Sends a request to a server and reads an answer of at most `most` bytes, all within `time`. Follows no redirect.
pub(crate) async fn request(
    dialer: &Dialer,
    url: &ServerUrl,
    mut request: Request<Full<Bytes>>,
    most: usize,
    time: Duration,
) -> Result<Response<Bytes>, RequestError> {
    let relay = Relay::named(url.host.clone(), url.port);
    if let Ok(host) = header::HeaderValue::from_str(&relay.authority()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let exchange = async {
        if url.tls {
            exchange(TokioIo::new(dialer.tls(&relay).await?), request, most).await
        } else {
            exchange(TokioIo::new(Socket::new(dialer.tcp(&relay, false).await?)), request, most).await
        }
    };
    tokio::time::timeout(time, Box::pin(exchange)).await.unwrap_or(Err(RequestError::TimedOut(time)))
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, most: usize) -> Result<Response<Bytes>, RequestError>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let answer = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, most).collect().await.map_err(|_| RequestError::Body(most))?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            // The server closed after its answer, which may still have to be read.
            answer.await
        }
    }
}

impl From<io::Error> for RequestError {
    fn from(error: io::Error) -> Self {
        Self::Connect(ConnectError::Ended(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_and_path() {
        let url = ServerUrl::parse("https://control.example/relay/admission?x=1").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.tls), ("control.example", 443, true));
        assert_eq!(url.with_query("since=3"), "/relay/admission?x=1&since=3");
        assert_eq!(url.to_string(), "https://control.example:443/relay/admission");
        let url = ServerUrl::parse("http://[::1]:8080").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path()), ("::1", 8080, "/"));
    }

    #[test]
    fn a_url_that_cannot_be_used_is_refused_by_name() {
        assert!(matches!(ServerUrl::parse("control.example"), Err(ServerUrlError::Scheme(_))));
        assert!(matches!(ServerUrl::parse("ftp://control.example"), Err(ServerUrlError::Scheme(_))));
        assert!(matches!(ServerUrl::parse("https://"), Err(ServerUrlError::Malformed(_))));
        assert!(matches!(ServerUrl::parse_for_secret("http://control.example/"), Err(ServerUrlError::Insecure(_))));
        assert!(ServerUrl::parse_for_secret("http://127.0.0.1:1/").is_ok());
    }
}
