//! Where a cluster's API server should be: what answers there, and whose certificate it shows.

use std::time::Duration;

use bytes::Bytes;
use dial::Roots;
use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Failure;
use crate::kubeconfig::Authority;
use crate::node::LocalApi;
use crate::node::state::PeerStatus;
use crate::trust::Root;
use crate::web::{Trust, WebError, ask};

/// How long the site may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node that is said to stand before a cluster's API server.
pub(super) struct Site<'a> {
    /// The whole name, without a dot at the end.
    pub(super) name: &'a str,
    pub(super) secure: bool,
    pub(super) peer: &'a PeerStatus,
    pub(super) api: &'a LocalApi,
}

/// Why a site is not taken for a cluster's.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoApiServer {
    #[error("nothing answers at {url}: {reason}. If the cluster's proxy is only starting, try again in a minute")]
    Silent { url: String, reason: WebError },
    #[error("the certificate of {url} can't be verified: {reason}")]
    Untrusted { url: String, reason: WebError },
    #[error(
        "what answers at {url} is no API server of Kubernetes, nor a proxy of one (GET /version was answered with {status})"
    )]
    Other { url: String, status: StatusCode },
}

impl Site<'_> {
    /// The URL of the site.
    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.secure { "https" } else { "http" }, self.name)
    }

    /// Looks whether an API server answers, and by whom its certificate is signed: by `root`, the tailnet's own authority, or by
    /// one of `others`.
    ///
    /// # Errors
    /// When none answers whose certificate can be believed.
    pub(super) async fn look(&self, root: Option<&Root>, others: &Roots) -> Result<Authority, NoApiServer> {
        match timeout(PATIENCE, self.look_within(root, others)).await {
            Ok(looked) => looked,
            Err(_) => Err(NoApiServer::Silent { url: self.url(), reason: WebError::TimedOut(self.name.to_owned()) }),
        }
    }

    async fn look_within(&self, root: Option<&Root>, others: &Roots) -> Result<Authority, NoApiServer> {
        let silent = |reason| NoApiServer::Silent { url: self.url(), reason };
        if !self.secure {
            self.judge(ask(self.connect(80).await.map_err(silent)?, self.name, "/version").await)?;
            return Ok(Authority::System);
        }
        if let Some(root) = root {
            let only = Trust::only(root.der().clone());
            let only = only.map_err(|error| silent(WebError::Unreachable(self.name.to_owned(), error.to_string())))?;
            match only.handshake(self.name, self.connect(443).await.map_err(silent)?).await {
                Ok(stream) => {
                    self.judge(ask(stream, self.name, "/version").await)?;
                    return Ok(Authority::Only(root.pem().to_owned()));
                }
                // Its certificate may come from elsewhere.
                Err(WebError::Untrusted(..)) => {}
                Err(reason) => return Err(silent(reason)),
            }
        }
        let stream = Trust::new(others).handshake(self.name, self.connect(443).await.map_err(silent)?).await;
        let stream = stream.map_err(|reason| match reason {
            WebError::Untrusted(..) => NoApiServer::Untrusted { url: self.url(), reason },
            _ => silent(reason),
        })?;
        self.judge(ask(stream, self.name, "/version").await)?;
        Ok(Authority::System)
    }

    /// Whether it was an API server that answered.
    fn judge(&self, answer: Result<(StatusCode, Bytes), WebError>) -> Result<(), NoApiServer> {
        let (status, body) = answer.map_err(|reason| NoApiServer::Silent { url: self.url(), reason })?;
        match is_api_server(&body) {
            true => Ok(()),
            false => Err(NoApiServer::Other { url: self.url(), status }),
        }
    }

    /// Connects by way of the daemon, or else by this machine's routes.
    async fn connect(&self, port: u16) -> Result<Box<dyn Stream>, WebError> {
        if let Ok(stream) = self.api.dial(self.name, port).await {
            return Ok(Box::new(stream));
        }
        let unreachable = |reason: String| WebError::Unreachable(self.name.to_owned(), reason);
        let address = self.peer.addresses.first().ok_or_else(|| unreachable("it has no address".to_owned()))?;
        let stream = TcpStream::connect((*address, port)).await.map_err(|error| unreachable(error.to_string()))?;
        Ok(Box::new(stream))
    }
}

impl From<NoApiServer> for Failure {
    fn from(error: NoApiServer) -> Self {
        let text = format!(
            "{error}. The kubeconfig is as it was; --force writes the context all the same, or name another host: `towline status` \
             shows all"
        );
        match error {
            NoApiServer::Silent { .. } => Self::unreachable(text),
            NoApiServer::Untrusted { .. } | NoApiServer::Other { .. } => Self::failed(text),
        }
    }
}

/// A connection of whatever kind.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Whether an API server, or a proxy before one, has answered the question for its version: with that, or with the reason why
/// it doesn't tell.
fn is_api_server(body: &[u8]) -> bool {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    answer["gitVersion"].is_string() || (answer["kind"] == "Status" && answer["apiVersion"] == "v1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_is_known_by_its_version_or_its_refusal() {
        assert!(is_api_server(br#"{"major": "1", "gitVersion": "v1.34.1"}"#));
        assert!(is_api_server(br#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403}"#));
        for other in [&b"<html>printer: ready</html>"[..], b"{}", br#"{"version": "2"}"#, b"", b"\xff"] {
            assert!(!is_api_server(other), "{other:?}");
        }
    }

    #[test]
    fn a_refusal_says_that_nothing_was_changed_and_the_way_out() {
        let error = NoApiServer::Other { url: "https://web.t.net".to_owned(), status: StatusCode::OK };
        let said = Failure::from(error).to_string();
        assert!(said.contains("no API server") && said.contains("as it was") && said.contains("--force"), "{said}");
    }
}
