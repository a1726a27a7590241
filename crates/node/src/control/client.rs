use std::io;
use std::time::Duration;

use bytes::Bytes;
use crypto::control::HandshakeError;
use crypto::{MachinePrivate, MachinePublic};
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tailcfg::{MapRequest, RegisterRequest, RegisterResponse};
use tokio::sync::Mutex;

use super::ControlUrl;
use super::channel::{self, Channel};
use super::dial::Dialer;
use super::map_stream::MapStream;

/// How long connecting may take, with everything that belongs to it.
const CONNECT: Duration = Duration::from_secs(20);
/// How long an answer may take that nobody has to decide about.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the server may hold a request until a person has logged in.
const HELD: Duration = Duration::from_secs(15 * 60);
/// The longest answer that is no map.
const MAX_ANSWER: usize = 1 << 20;
/// How much of a refusal's text is shown.
const MAX_TEXT: usize = 1_000;

/// Why the coordination server did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the coordination server {url} can't be reached: {source}")]
    Unreachable { url: String, source: io::Error },
    #[error("the coordination server does not answer: {0}")]
    Io(#[from] io::Error),
    #[error("there is no coordination server at {url}: GET /key was answered with {status}")]
    NoControl { url: String, status: u16 },
    #[error(
        "{url} answered the upgrade with {status} in place of 101: a proxy before it may drop Upgrade headers of POST requests"
    )]
    NoUpgrade { url: String, status: u16 },
    #[error("the coordination server did not prove its key: {0}")]
    Handshake(#[from] HandshakeError),
    #[error("the coordination server's answer can't be used: {0}")]
    Answer(String),
    #[error("the control connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("{text}")]
    Refused { status: u16, text: String, retry_after: Option<Duration> },
    #[error("the coordination server did not answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

impl ClientError {
    /// Whether trying again may help: nobody has decided against it.
    pub(crate) fn is_transient(&self) -> bool {
        !matches!(self, Self::Refused { status, .. } if *status < 500 && !matches!(status, 408 | 425 | 429))
    }

    /// How long the server wants to be left alone.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// One machine's connection to one coordination server, opened when it is needed.
pub(crate) struct Client {
    dialer: Dialer,
    url: ControlUrl,
    machine: MachinePrivate,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    key: Option<MachinePublic>,
    channel: Option<Channel>,
}

impl Client {
    pub(crate) fn new(dialer: Dialer, url: ControlUrl, machine: MachinePrivate) -> Self {
        Self { dialer, url, machine, open: Mutex::default() }
    }

    /// Registers; a followup is held by the server until its login has been decided.
    pub(crate) async fn register(&self, request: &RegisterRequest) -> Result<RegisterResponse, ClientError> {
        let time = if request.followup.is_empty() { ANSWER } else { HELD };
        self.ask(Method::POST, "/machine/register", request, time).await
    }

    /// Opens the map stream.
    pub(crate) async fn map(&self, request: &MapRequest) -> Result<MapStream, ClientError> {
        let answer = self.send(Method::POST, "/machine/map", json(request)?, ANSWER).await?;
        Ok(MapStream::new(answer.into_body()))
    }

    /// Tells the server what changed here.
    pub(crate) async fn update(&self, request: &MapRequest) -> Result<(), ClientError> {
        let answer = self.send(Method::POST, "/machine/map", json(request)?, ANSWER).await?;
        read(answer).await.map(drop)
    }

    /// Answers a request of the server's at the URL that came with it: within the channel.
    pub(crate) async fn answer(&self, method: Method, url: &str, body: Vec<u8>) -> Result<(), ClientError> {
        let wrong = |_| ClientError::Answer("it wants an answer at a URL that is none".to_owned());
        let url: Uri = url.parse().map_err(wrong)?;
        let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let answer = self.send(method, &path, body, ANSWER).await?;
        read(answer).await.map(drop)
    }

    /// Asks for something that is answered with JSON.
    pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        question: &Q,
        time: Duration,
    ) -> Result<A, ClientError> {
        let answer = self.send(method, path, json(question)?, time).await?;
        let body = read(answer).await?;
        tailcfg::json::read(&body, tailcfg::json::Limits::ANSWER)
            .map_err(|error| ClientError::Answer(error.to_string()))
    }

    /// Sends one request; an answer other than 200 and its kin is an error with the server's own words.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        time: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut channel =
            tokio::time::timeout(CONNECT, self.channel()).await.map_err(|_| ClientError::TimedOut(CONNECT))??;
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.url.authority()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "towline")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| ClientError::Answer(error.to_string()))?;
        let sent = tokio::time::timeout(time, channel.send_request(request)).await;
        let answer = match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.forget().await;
                return Err(error.into());
            }
            Err(_) => {
                // A server that does not answer may be gone without a farewell.
                self.forget().await;
                return Err(ClientError::TimedOut(time));
            }
        };
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    /// Closes the connection: the next request opens another.
    pub(crate) async fn forget(&self) {
        self.open.lock().await.channel = None;
    }

    async fn channel(&self) -> Result<Channel, ClientError> {
        let mut open = self.open.lock().await;
        if let Some(channel) = open.channel.as_ref().filter(|channel| !channel.is_closed()) {
            return Ok(channel.clone());
        }
        // The key is asked for each time: a server that was set up anew has another one.
        let key = match channel::server_key(&self.dialer, &self.url).await {
            Ok(key) => key,
            Err(error) => {
                match open.key.filter(|_| error.is_transient() && !matches!(error, ClientError::Unreachable { .. })) {
                    Some(key) => key,
                    None => return Err(error),
                }
            }
        };
        open.key = Some(key);
        let channel = channel::open(&self.dialer, &self.url, &self.machine, &key).await?;
        open.channel = Some(channel.clone());
        Ok(channel)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|error| ClientError::Answer(error.to_string()))
}

async fn read(answer: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(answer.into_body(), MAX_ANSWER).collect();
    let body = tokio::time::timeout(ANSWER, body).await.map_err(|_| ClientError::TimedOut(ANSWER))?;
    Ok(body.map_err(|error| ClientError::Answer(error.to_string()))?.to_bytes())
}

async fn refusal(answer: Response<Incoming>) -> ClientError {
    let status = answer.status();
    let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let retry_after = seconds
        .map(|seconds: u64| Duration::from_secs(seconds.min(600)))
        .or_else(|| (status == StatusCode::TOO_MANY_REQUESTS).then_some(Duration::from_secs(5)));
    let body = read(answer).await.unwrap_or_default();
    let text: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect();
    let text = if text.trim().is_empty() {
        format!("the coordination server answered {status}")
    } else {
        text.trim().to_owned()
    };
    ClientError::Refused { status: status.as_u16(), text, retry_after }
}
