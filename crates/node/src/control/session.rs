use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crypto::{DiscoPublic, Entropy, NodePrivate, NodePublic, SystemEntropy};
use tailcfg::{
    CapabilityVersion, EndpointType, Hostinfo, MapRequest, MapResponse, RegisterAuth, RegisterRequest,
    RegisterResponse, Time,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use zeroize::Zeroizing;

use super::client::{Client, ClientError};

/// The longest wait between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// How long changes are gathered before the server is told.
const GATHER: Duration = Duration::from_millis(100);

/// What the coordination server is told of this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) hostinfo: Hostinfo,
    pub(crate) endpoints: Vec<(SocketAddr, EndpointType)>,
    pub(crate) disco: DiscoPublic,
}

/// How the node proves that it may join; never shown.
#[derive(Clone, Default)]
pub(crate) struct Login {
    /// An auth key, for a node that is not known yet.
    pub(crate) auth_key: Option<Zeroizing<String>>,
    /// Whether a person asked to log in anew, so that the node key that is there is not enough.
    pub(crate) fresh: bool,
    /// Whether the node goes away by itself when it is gone.
    pub(crate) ephemeral: bool,
}

/// What a session starts from.
pub(crate) struct SessionConfig {
    pub(crate) number: SessionNumber,
    pub(crate) client: Arc<Client>,
    pub(crate) node_key: Option<NodePrivate>,
    pub(crate) login: Login,
    pub(crate) report: watch::Receiver<Report>,
}

/// What a session tells.
#[derive(Debug)]
pub(crate) enum ControlEvent {
    /// A person has to visit this URL.
    LoginUrl(String),
    /// The node is in, under this key. It is to be kept before the session goes on.
    LoggedIn { node_key: NodePrivate, response: Box<RegisterResponse>, kept: oneshot::Sender<()> },
    /// The server won't have the node; nothing is tried again until somebody logs in anew.
    LoginFailed(String),
    /// A message of the map stream; the first of a stream stands for itself.
    Map { first: bool, message: Box<MapResponse> },
    /// The map stream is open (`None`), or there is none for this reason.
    Connected(Option<String>),
}

/// Which session an event is from: one that has ended since may have left some in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionNumber(u64);

/// What a session tells, and which one it is.
pub(crate) type SessionEvent = (SessionNumber, ControlEvent);

impl SessionNumber {
    /// Before all sessions.
    pub(crate) const NONE: Self = Self(0);

    /// The number of the session after the one with this number.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A node's standing with one coordination server: it logs in, keeps a map stream open, and tells what changed here.
/// It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Session {
    number: SessionNumber,
    /// To ask for the whole map again.
    resync: watch::Sender<u64>,
    _ends: DropGuard,
}

impl Session {
    /// Begins a session; what it finds comes out of `events`.
    pub(crate) fn start(config: SessionConfig, events: mpsc::Sender<SessionEvent>) -> Self {
        let ends = CancellationToken::new();
        let (resync, resyncs) = watch::channel(0);
        let number = config.number;
        let running = Running {
            number,
            client: config.client,
            node_key: config.node_key,
            login: config.login,
            report: config.report,
            events,
            resyncs,
        };
        let ended = ends.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = running.run() => {}
            }
        });
        Self { number, resync, _ends: ends.drop_guard() }
    }

    pub(crate) fn number(&self) -> SessionNumber {
        self.number
    }

    /// Asks for the whole map again: a message contradicted what was known.
    pub(crate) fn resync(&self) {
        self.resync.send_modify(|count| *count += 1);
    }
}

struct Running {
    number: SessionNumber,
    client: Arc<Client>,
    node_key: Option<NodePrivate>,
    login: Login,
    report: watch::Receiver<Report>,
    events: mpsc::Sender<SessionEvent>,
    resyncs: watch::Receiver<u64>,
}

/// Why a session can't go on by itself.
struct Ended;

/// How a map stream ended.
enum Poll {
    /// It is to be opened again, after a while.
    Again(ClientError),
    /// The server does not know the key any more.
    Unknown(ClientError),
    /// The whole map is wanted again.
    Resync,
    /// Nobody listens any more.
    Ended,
}

impl Running {
    async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let Ok(node_key) = self.log_in().await else { return };
            loop {
                match self.poll(&node_key, &mut backoff).await {
                    Poll::Resync => backoff.wait(None).await,
                    Poll::Again(error) => {
                        tracing::debug!(%error, "the map stream ended");
                        if self.tell(ControlEvent::Connected(Some(error.to_string()))).await.is_err() {
                            return;
                        }
                        backoff.wait(error.retry_after()).await;
                    }
                    Poll::Unknown(error) => {
                        tracing::info!(%error, "the coordination server does not know this node's key, logging in again");
                        if self.tell(ControlEvent::Connected(Some(error.to_string()))).await.is_err() {
                            return;
                        }
                        backoff.wait(error.retry_after()).await;
                        break;
                    }
                    Poll::Ended => return,
                }
            }
        }
    }

    /// Registers until the node is in, or nobody can go on.
    async fn log_in(&mut self) -> Result<NodePublic, Ended> {
        let mut backoff = Backoff::default();
        let old = self.node_key.clone();
        let mut candidate = match (&self.node_key, self.login.fresh) {
            (Some(key), false) => key.clone(),
            _ => NodePrivate::generate(&mut SystemEntropy),
        };
        let mut followup = String::new();
        let mut renewed = false;
        loop {
            let request = self.registration(&candidate, old.as_ref(), &followup);
            let response = match self.client.register(&request).await {
                Ok(response) => response,
                Err(error) if error.is_transient() => {
                    tracing::debug!(%error, "registering failed");
                    self.tell(ControlEvent::Connected(Some(error.to_string()))).await?;
                    backoff.wait(error.retry_after()).await;
                    continue;
                }
                Err(error) => return self.give_up(error.to_string()).await,
            };
            if !response.error.is_empty() {
                return self.give_up(response.error).await;
            }
            if response.node_key_expired {
                if renewed {
                    return self.give_up("the coordination server calls a new key expired".to_owned()).await;
                }
                renewed = true;
                candidate = NodePrivate::generate(&mut SystemEntropy);
                continue;
            }
            if !response.auth_url.is_empty() {
                if followup == response.auth_url {
                    backoff.wait(None).await;
                } else {
                    followup.clone_from(&response.auth_url);
                    self.tell(ControlEvent::LoginUrl(response.auth_url)).await?;
                }
                continue;
            }
            return self.logged_in(candidate, response).await;
        }
    }

    async fn logged_in(&mut self, key: NodePrivate, response: RegisterResponse) -> Result<NodePublic, Ended> {
        self.login.fresh = false;
        // An auth key is for joining: a node that was thrown out since does not come back by itself with it.
        self.login.auth_key = None;
        self.node_key = Some(key.clone());
        let public = key.public();
        let (kept, is_kept) = oneshot::channel();
        self.tell(ControlEvent::LoggedIn { node_key: key, response: Box::new(response), kept }).await?;
        is_kept.await.map_err(|_| Ended)?;
        Ok(public)
    }

    async fn give_up(&self, reason: String) -> Result<NodePublic, Ended> {
        self.tell(ControlEvent::LoginFailed(reason)).await?;
        Err(Ended)
    }

    fn registration(&self, key: &NodePrivate, old: Option<&NodePrivate>, followup: &str) -> RegisterRequest {
        let public = key.public();
        let old = old.map(NodePrivate::public).filter(|old| *old != public);
        RegisterRequest {
            version: CapabilityVersion::OURS,
            node_key: public,
            old_node_key: old.unwrap_or_default(),
            auth: self.login.auth_key.as_ref().map(|key| RegisterAuth { auth_key: key.to_string() }),
            expiry: Time::ZERO,
            followup: followup.to_owned(),
            hostinfo: Some(self.report.borrow().hostinfo.clone()),
            ephemeral: self.login.ephemeral,
            ..RegisterRequest::default()
        }
    }

    /// Keeps one map stream open, and tells the server what changes here meanwhile.
    async fn poll(&mut self, node_key: &NodePublic, backoff: &mut Backoff) -> Poll {
        self.resyncs.mark_unchanged();
        let request = self.map_request(node_key, true);
        let mut stream = match self.client.map(&request).await {
            Ok(stream) => stream,
            Err(error) if error.is_transient() => return Poll::Again(error),
            Err(error) => return Poll::Unknown(error),
        };
        let mut told = self.report.clone();
        let client = self.client.clone();
        let report = {
            let node_key = *node_key;
            async move { tell_changes(&client, &node_key, &mut told).await }
        };
        let mut report = std::pin::pin!(report);
        let mut reporting = false;
        let mut first = true;
        let mut resyncs = self.resyncs.clone();
        loop {
            let message = tokio::select! {
                message = stream.next() => message,
                () = &mut report, if reporting => return Poll::Ended,
                _ = resyncs.changed() => return Poll::Resync,
            };
            match message {
                Ok(message) => {
                    let is_first = first && !message.keep_alive;
                    if is_first {
                        first = false;
                        reporting = true;
                        *backoff = Backoff::default();
                        if self.tell(ControlEvent::Connected(None)).await.is_err() {
                            return Poll::Ended;
                        }
                    }
                    let event = ControlEvent::Map { first: is_first, message: Box::new(message) };
                    if self.tell(event).await.is_err() {
                        return Poll::Ended;
                    }
                }
                Err(error) => {
                    self.client.forget().await;
                    return Poll::Again(error);
                }
            }
        }
    }

    fn map_request(&self, node_key: &NodePublic, stream: bool) -> MapRequest {
        map_request(&self.report.borrow(), node_key, stream)
    }

    async fn tell(&self, event: ControlEvent) -> Result<(), Ended> {
        self.events.send((self.number, event)).await.map_err(|_| Ended)
    }
}

fn map_request(report: &Report, node_key: &NodePublic, stream: bool) -> MapRequest {
    MapRequest {
        version: CapabilityVersion::OURS,
        compress: "zstd".to_owned(),
        keep_alive: true,
        node_key: *node_key,
        disco_key: report.disco,
        stream,
        omit_peers: !stream,
        hostinfo: Some(report.hostinfo.clone()),
        endpoints: report.endpoints.iter().map(|(endpoint, _)| *endpoint).collect(),
        endpoint_types: report.endpoints.iter().map(|(_, kind)| *kind).collect(),
        ..MapRequest::default()
    }
}

/// Tells the server what is so now, and again whenever it changes.
async fn tell_changes(client: &Client, node_key: &NodePublic, report: &mut watch::Receiver<Report>) {
    let mut backoff = Backoff::default();
    loop {
        let now = report.borrow_and_update().clone();
        while let Err(error) = client.update(&map_request(&now, node_key, false)).await {
            tracing::debug!(%error, "telling the coordination server what changed failed");
            backoff.wait(error.retry_after()).await;
            if report.has_changed().unwrap_or(false) {
                break;
            }
        }
        if report.changed().await.is_err() {
            return std::future::pending().await;
        }
        tokio::time::sleep(GATHER).await;
    }
}

/// Waits that grow from a tenth of a second to half a minute, each cut at random by up to a half, so that nodes that lost
/// their server together don't come back together.
#[derive(Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    async fn wait(&mut self, at_least: Option<Duration>) {
        let random = u32::from(SystemEntropy.bytes32()[0]);
        let wait = self.next(random).max(at_least.unwrap_or_default());
        tokio::time::sleep(wait).await;
    }

    fn next(&mut self, random: u32) -> Duration {
        self.attempts = (self.attempts + 1).min(16);
        let whole = MAX_BACKOFF.min(Duration::from_millis(100) * 2_u32.saturating_pow(self.attempts));
        whole - whole.mul_f64(f64::from(random.min(255)) / 510.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_half_a_minute_and_are_spread() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next(0)).collect();
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(waits[0], Duration::from_millis(200));
        assert_eq!(waits[19], MAX_BACKOFF);
        assert_eq!(backoff.next(255), MAX_BACKOFF / 2);
    }
}
