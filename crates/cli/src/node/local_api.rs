use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::bus::Bus;
use super::socket;
use crate::{EXIT_FAILED, EXIT_REFUSED, EXIT_UNREACHABLE};

/// The name that the daemon wants to be called, so that no web page can talk to it.
const HOST: &str = "local-tailscaled.sock";
/// What answers may hold: a status of ten thousand peers is about 15 MB.
const ANSWER_LIMIT: usize = 64 << 20;
/// How long an ordinary question may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the daemon may take to connect to a host.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);

/// Why the daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LocalApiError {
    /// Nobody listens.
    #[error(
        "the daemon is not running (nobody answers at {}): start it with `systemctl start towline-node`, or with `sudo towline node`",
        list(sockets)
    )]
    NotRunning {
        /// Where it was looked for.
        sockets: Vec<PathBuf>,
    },
    /// The socket's permissions keep this user out.
    #[error("you may not talk to the daemon at {}: run the command with sudo", .socket.display())]
    SocketDenied {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket can't be used.
    #[error("the daemon's socket {} can't be used: {source}", .socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// This user may look but not change.
    #[error(
        "the daemon refused: {text}. Run the command with sudo; `sudo towline set --operator=$USER` once lets you do without"
    )]
    Denied {
        /// What the daemon said.
        text: String,
    },
    /// The daemon refused for another reason.
    #[error("{text}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// What the daemon said.
        text: String,
    },
    /// The daemon does not know what was asked.
    #[error("this daemon can't do that ({what}): {hint}")]
    Unknown {
        /// Which request.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// It took too long.
    #[error("the daemon did not answer {what} within {} s: `towline status` shows whether it is well", .patience.as_secs())]
    TimedOut {
        /// Which request.
        what: String,
        /// How long was waited.
        patience: Duration,
    },
    /// The connection broke.
    #[error("the daemon ended the connection during {what}: {reason}. Was it stopped? `towline status` shows it")]
    Broken {
        /// Which request.
        what: String,
        /// What happened.
        reason: String,
    },
    /// The answer is not what it should be.
    #[error("the daemon's answer to {what} can't be used: {reason}")]
    Answer {
        /// Which request.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl LocalApiError {
    /// The exit code that tells scripts.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } | Self::Connection { .. } | Self::TimedOut { .. } | Self::Broken { .. } => {
                EXIT_UNREACHABLE
            }
            Self::SocketDenied { .. } | Self::Denied { .. } | Self::Refused { .. } | Self::Unknown { .. } => {
                EXIT_REFUSED
            }
            Self::Answer { .. } => EXIT_FAILED,
        }
    }
}

fn list(sockets: &[PathBuf]) -> String {
    sockets.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// The daemon of this machine, over its socket: one connection for each request, as it serves people and not load.
#[derive(Debug, Clone)]
pub struct LocalApi {
    socket: PathBuf,
}

impl LocalApi {
    /// Talks to the daemon that listens at `socket`.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Asks for a value; `path` is what follows `/localapi/v0/`, or begins with a slash and is whole.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, LocalApiError> {
        self.ask(Method::GET, path, None, PATIENCE).await
    }

    /// Sends a value, or nothing, and reads the answer.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<T, LocalApiError> {
        self.ask(Method::POST, path, body, patience).await
    }

    /// Changes a value, and reads the one that it is now.
    pub async fn patch<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, LocalApiError> {
        self.ask(Method::PATCH, path, Some(body), PATIENCE).await
    }

    /// Asks for something to be done; what the daemon answers to it means nothing.
    pub async fn command(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(), LocalApiError> {
        self.bytes(method, path, body, PATIENCE).await.map(drop)
    }

    /// Opens the stream of what happens, as [`mask`](super::bus) selects it.
    pub(super) async fn watch(&self, mask: u64) -> Result<Bus, LocalApiError> {
        let path = format!("watch-ipn-bus?mask={mask}");
        let deadline = Instant::now() + PATIENCE;
        let asked = self.request(Method::GET, &path, None);
        let response = timeout_at(deadline, asked).await.map_err(|_| timed_out(&Method::GET, &path, PATIENCE))??;
        Ok(Bus::new(accepted(&Method::GET, &path, response, deadline).await?))
    }

    /// Opens a connection to a host of the tailnet as the daemon reaches it, also where this machine's system does not.
    pub(crate) async fn dial(&self, host: &str, port: u16) -> Result<TokioIo<hyper::upgrade::Upgraded>, LocalApiError> {
        const PATH: &str = "dial";
        let (method, deadline) = (Method::POST, Instant::now() + DIAL_PATIENCE);
        let broken =
            |error: hyper::Error| LocalApiError::Broken { what: what(&Method::POST, PATH), reason: reason(&error) };
        let request = Request::builder()
            .method(&method)
            .uri("/localapi/v0/dial")
            .header(header::HOST, HOST)
            .header(header::CONNECTION, "upgrade")
            .header(header::UPGRADE, "ts-dial")
            .header("Dial-Host", host)
            .header("Dial-Port", port)
            .header("Dial-Network", "tcp")
            .body(Full::<Bytes>::default())
            .map_err(|error| LocalApiError::Answer { what: what(&method, PATH), reason: error.to_string() })?;
        let dialed = async {
            let stream = TokioIo::new(socket::connect(&self.socket).await?);
            let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
            tokio::spawn(connection.with_upgrades());
            let response = sender.send_request(request).await.map_err(broken)?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                accepted(&method, PATH, response, deadline).await?;
                let reason = "it did not open the connection".to_owned();
                return Err(LocalApiError::Answer { what: what(&method, PATH), reason });
            }
            Ok(TokioIo::new(hyper::upgrade::on(response).await.map_err(broken)?))
        };
        timeout_at(deadline, dialed).await.unwrap_or_else(|_| Err(timed_out(&method, PATH, DIAL_PATIENCE)))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<T, LocalApiError> {
        let bytes = self.bytes(method.clone(), path, body, patience).await?;
        let bytes = if bytes.is_empty() { b"null" } else { bytes.as_ref() };
        serde_json::from_slice(bytes)
            .map_err(|error| LocalApiError::Answer { what: what(&method, path), reason: error.to_string() })
    }

    async fn bytes(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        patience: Duration,
    ) -> Result<Bytes, LocalApiError> {
        let deadline = Instant::now() + patience;
        let answered = async {
            let response = self.request(method.clone(), path, body).await?;
            let response = accepted(&method, path, response, deadline).await?;
            read(&method, path, response).await
        };
        timeout_at(deadline, answered).await.unwrap_or_else(|_| Err(timed_out(&method, path, patience)))
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, LocalApiError> {
        let broken = |error: hyper::Error| LocalApiError::Broken { what: what(&method, path), reason: reason(&error) };
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method.clone())
            .uri(if path.starts_with('/') { path.to_owned() } else { format!("/localapi/v0/{path}") })
            .header(header::HOST, HOST)
            .header(header::USER_AGENT, concat!("towline/", env!("CARGO_PKG_VERSION")))
            .header("Tailscale-Cap", tailcfg::CapabilityVersion::OURS.to_string());
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(Bytes::from(bytes)))
            .map_err(|error| LocalApiError::Answer { what: what(&method, path), reason: error.to_string() })?;
        let stream = TokioIo::new(socket::connect(&self.socket).await?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(broken)?;
        // It ends with the last of the request and the answer's body.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(broken)
    }
}

/// Reads what the daemon refused with, if it did.
async fn accepted(
    method: &Method,
    path: &str,
    response: Response<Incoming>,
    deadline: Instant,
) -> Result<Response<Incoming>, LocalApiError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let read = timeout_at(deadline, read(method, path, response)).await;
    let text = read.ok().and_then(Result::ok).map(|bytes| refusal(&bytes)).unwrap_or_default();
    Err(match status {
        StatusCode::FORBIDDEN => LocalApiError::Denied { text: or_status(text, status) },
        StatusCode::NOT_IMPLEMENTED | StatusCode::METHOD_NOT_ALLOWED => LocalApiError::Unknown {
            what: what(method, path),
            hint: "it may be older than this command, or made without it; `towline version --daemon` shows both",
        },
        _ => LocalApiError::Refused { status, text: or_status(text, status) },
    })
}

fn or_status(text: String, status: StatusCode) -> String {
    if text.is_empty() { format!("the daemon answered {status}") } else { text }
}

/// The text of a refusal, which comes as JSON or plain.
fn refusal(bytes: &[u8]) -> String {
    let error = serde_json::from_slice::<Value>(bytes).ok();
    let text = error.as_ref().and_then(|value| value.get("error").or(value.get("Error"))?.as_str());
    let text = text.map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), str::to_owned);
    text.trim().chars().take(2000).collect()
}

async fn read(method: &Method, path: &str, response: Response<Incoming>) -> Result<Bytes, LocalApiError> {
    let limited = http_body_util::Limited::new(response.into_body(), ANSWER_LIMIT);
    let collected = limited.collect().await;
    let collected = collected.map_err(|error| match error.downcast_ref::<hyper::Error>() {
        Some(error) => LocalApiError::Broken { what: what(method, path), reason: reason(error) },
        None => LocalApiError::Answer {
            what: what(method, path),
            reason: format!("it is longer than {} MiB", ANSWER_LIMIT >> 20),
        },
    })?;
    Ok(collected.to_bytes())
}

fn reason(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// A request in words, without its parameters.
fn what(method: &Method, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or_default().trim_end_matches('/'))
}

fn timed_out(method: &Method, path: &str, patience: Duration) -> LocalApiError {
    LocalApiError::TimedOut { what: what(method, path), patience }
}

/// A text as a value in a query: everything but unreserved letters as percent and hex digits.
pub(crate) fn query_value(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_as_json_and_as_text() {
        assert_eq!(refusal(b"{\"error\":\"no\"}"), "no");
        assert_eq!(refusal(b"prefs write access denied\n"), "prefs write access denied");
        assert_eq!(refusal(b""), "");
    }

    #[test]
    fn a_value_in_a_query_can_hold_nothing_that_ends_it() {
        assert_eq!(query_value("a b&c=[fd7a::1]:80"), "a%20b%26c%3D%5Bfd7a%3A%3A1%5D%3A80");
    }
}
