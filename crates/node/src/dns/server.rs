use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use host::{Contest, ContestVerdict, DnsConfig, DnsOwner, SystemDns as Settings};
use mesh::{Names, Resolution, SERVICE_V4, SystemDns};
use tailcfg::Resolver;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::forward::{self, Upstreams};
use super::machine::own_settings;
use super::message::Asked;

const PORT: u16 = 53;
/// How many questions may wait for an answer at once; more are dropped, and asked again by whoever asks.
const AT_ONCE: usize = 512;
/// How many connections may be open at once, and for how long one may be idle.
const CONNECTIONS: usize = 64;
const IDLE: Duration = Duration::from_secs(30);
/// How long to wait before a socket that can't be had is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is served, and where the machine's programs are sent.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Served {
    pub(crate) names: Arc<Names>,
    pub(crate) system: SystemDns,
    /// Resolvers for a machine that has none of its own.
    pub(crate) fallback: Vec<Resolver>,
}

/// MagicDNS on this machine: a server at its own address, and the machine's programs sent there.
pub(crate) struct Service {
    settings: Arc<Settings>,
    served: Option<watch::Sender<Served>>,
    problem: Arc<Mutex<Option<String>>>,
    tasks: JoinSet<()>,
}

impl Service {
    /// A service that does not serve yet. What a crashed process left in the machine's settings is taken back.
    pub(crate) fn new() -> Self {
        let service = Self {
            settings: Arc::new(Settings::default()),
            served: None,
            problem: Arc::default(),
            tasks: JoinSet::new(),
        };
        service.restore();
        service
    }

    /// Serves this from now on. The address must be the machine's already.
    pub(crate) fn serve(&mut self, served: Served) {
        match &self.served {
            Some(sender) => {
                let before = sender.send_replace(served.clone());
                if before.system == served.system {
                    return;
                }
            }
            None => {
                let (sender, receiver) = watch::channel(served.clone());
                self.served = Some(sender);
                let open = Arc::new(Semaphore::new(AT_ONCE));
                let resolving = Resolving { served: receiver.clone(), settings: self.settings.clone(), open };
                self.tasks.spawn(serve_udp(resolving.clone()));
                self.tasks.spawn(serve_tcp(resolving));
                self.tasks.spawn(defend(self.settings.clone(), receiver, self.problem.clone()));
            }
        }
        self.send_programs(&served.system);
    }

    /// Serves no more, and gives the machine its settings back.
    pub(crate) fn stop(&mut self) {
        self.tasks.abort_all();
        self.tasks = JoinSet::new();
        if self.served.take().is_some() {
            self.restore();
        }
    }

    /// What is wrong with the machine's name settings.
    pub(crate) fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send_programs(&self, system: &SystemDns) {
        if system.servers.is_empty() {
            self.restore();
            return;
        }
        let result = self.settings.apply(&settings_of(system));
        tell(&self.problem, result.err().map(|error| error.to_string()));
    }

    fn restore(&self) {
        if !matches!(self.settings.owner(), Ok(DnsOwner::Towline)) {
            return;
        }
        if let Err(error) = self.settings.restore() {
            tracing::warn!(%error, "the machine's name settings could not be given back");
        }
    }
}

fn settings_of(system: &SystemDns) -> DnsConfig {
    DnsConfig { nameservers: system.servers.clone(), search: system.search.clone() }
}

fn tell(problem: &Mutex<Option<String>>, text: Option<String>) {
    *problem.lock().unwrap_or_else(PoisonError::into_inner) = text;
}

/// Writes the settings again when another program overwrote them, but does not fight on for ever.
async fn defend(settings: Arc<Settings>, served: watch::Receiver<Served>, problem: Arc<Mutex<Option<String>>>) {
    let mut contest = Contest::default();
    let mut watch = match settings.watch() {
        Ok(watch) => watch,
        Err(error) => return tracing::debug!(%error, "the machine's name settings can't be watched"),
    };
    while watch.overwritten().await.is_ok() {
        let system = served.borrow().system.clone();
        if system.servers.is_empty() {
            continue;
        }
        match contest.overwritten(Instant::now()) {
            ContestVerdict::WriteAgain => {
                let result = settings.apply(&settings_of(&system));
                tell(&problem, result.err().map(|error| error.to_string()));
            }
            ContestVerdict::GiveUp => {
                let text = "another program keeps overwriting /etc/resolv.conf: names of the tailnet may not resolve";
                tell(&problem, Some(text.to_owned()));
                return;
            }
        }
    }
}

/// What is needed to answer a question.
#[derive(Clone)]
struct Resolving {
    served: watch::Receiver<Served>,
    settings: Arc<Settings>,
    open: Arc<Semaphore>,
}

impl Resolving {
    /// The answer to a question; `None` for what gets none.
    async fn answer(&self, question: &[u8]) -> Option<(Option<Asked>, Vec<u8>)> {
        let asked = match Asked::read(question)? {
            Ok(asked) => asked,
            Err(refusal) => return Some((None, refusal)),
        };
        let resolution = self.served.borrow().names.resolve(&asked.question());
        if let Some(answer) = asked.answer(&resolution) {
            return Some((Some(asked), answer));
        }
        let upstreams = match &resolution {
            Resolution::Forward(resolvers) => Upstreams::of(resolvers),
            _ => self.machine(),
        };
        let answer = match forward::ask(&upstreams, &asked, question).await {
            Some(answer) => answer,
            None => asked.failed()?,
        };
        Some((Some(asked), answer))
    }

    /// The resolvers that the machine had before, or those that the tailnet has for machines without.
    fn machine(&self) -> Upstreams {
        let own = own_settings(&self.settings).map(|own| own.nameservers).unwrap_or_else(|error| {
            tracing::debug!(%error, "the machine's own resolvers are not known");
            Vec::new()
        });
        let own = Upstreams::of_machine(&own);
        if own.servers.is_empty() { Upstreams::of(&self.served.borrow().fallback) } else { own }
    }
}

async fn serve_udp(resolving: Resolving) {
    let socket = loop {
        match bind_udp(SERVICE_V4) {
            Ok(socket) => break Arc::new(socket),
            Err(error) => {
                tracing::debug!(%error, "MagicDNS can't listen yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    let mut buffer = vec![0; 4096];
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "MagicDNS could not receive");
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        let Ok(permit) = resolving.open.clone().try_acquire_owned() else { continue };
        let (question, resolving, socket) = (buffer[..length].to_vec(), resolving.clone(), socket.clone());
        tokio::spawn(async move {
            if let Some((asked, answer)) = resolving.answer(&question).await {
                let answer = match &asked {
                    Some(asked) => asked.fit(answer),
                    None => Some(answer),
                };
                if let Some(answer) = answer
                    && let Err(error) = socket.send_to(&answer, from).await
                {
                    tracing::debug!(%error, "MagicDNS could not answer");
                }
            }
            drop(permit);
        });
    }
}

fn bind_udp(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(SocketAddr::new(address, PORT))?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

async fn serve_tcp(resolving: Resolving) {
    let listener = loop {
        match TcpListener::bind(SocketAddr::new(SERVICE_V4, PORT)).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::debug!(%error, "MagicDNS can't listen yet");
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let resolving = resolving.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_connection(stream, &resolving).await {
                        tracing::trace!(%error, "a connection to MagicDNS ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "MagicDNS could not accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_connection(mut stream: TcpStream, resolving: &Resolving) -> io::Result<()> {
    loop {
        let length = usize::from(tokio::time::timeout(IDLE, stream.read_u16()).await??);
        let mut question = vec![0; length];
        tokio::time::timeout(IDLE, stream.read_exact(&mut question)).await??;
        let Some((_, answer)) = resolving.answer(&question).await else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).await?;
    }
}
