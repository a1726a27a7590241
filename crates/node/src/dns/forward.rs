use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tailcfg::Resolver;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};

use super::message::{Asked, is_cut};

/// How long a resolver may take by UDP, by TCP, and all of it together.
const BY_UDP: Duration = Duration::from_secs(2);
const BY_TCP: Duration = Duration::from_secs(5);
const ALTOGETHER: Duration = Duration::from_secs(10);
/// How much later each further resolver is asked.
const HEAD_START: Duration = Duration::from_millis(200);
/// The most resolvers that are asked about one name.
const MOST: usize = 6;
/// The longest datagram that is read.
const DATAGRAM: usize = 4096;

/// Whom to ask, and whether past the mesh.
pub(super) struct Upstreams {
    pub(super) servers: Vec<SocketAddr>,
    /// Whether the question goes past the node's own routes, as the machine's own resolvers are not in the mesh.
    pub(super) bypass: bool,
}

impl Upstreams {
    /// The resolvers of the tailnet's settings that are plain DNS.
    pub(super) fn of(resolvers: &[Resolver]) -> Self {
        let servers = resolvers.iter().filter_map(|resolver| {
            let text = resolver.addr.as_str();
            let plain = text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|address| (address, 53).into()));
            if plain.is_none() {
                tracing::debug!("a resolver that is not plain DNS is left out");
            }
            plain
        });
        Self { servers: servers.collect(), bypass: false }
    }

    /// The machine's own resolvers.
    pub(super) fn of_machine(addresses: &[IpAddr]) -> Self {
        Self { servers: addresses.iter().map(|address| (*address, 53).into()).collect(), bypass: true }
    }
}

/// Asks all of them, each a little later than the one before, and gives the first answer that is one.
pub(super) async fn ask(upstreams: &Upstreams, asked: &Asked, question: &[u8]) -> Option<Vec<u8>> {
    let mut racing: FuturesUnordered<_> = upstreams
        .servers
        .iter()
        .take(MOST)
        .zip(0_u32..)
        .map(|(server, place)| async move {
            tokio::time::sleep(HEAD_START * place).await;
            ask_one(*server, upstreams.bypass, asked, question).await
        })
        .collect();
    let first = async {
        while let Some(answer) = racing.next().await {
            match answer {
                Ok(answer) => return Some(answer),
                Err(error) => tracing::debug!(%error, "a resolver gave no answer"),
            }
        }
        None
    };
    tokio::time::timeout(ALTOGETHER, first).await.ok().flatten()
}

async fn ask_one(server: SocketAddr, bypass: bool, asked: &Asked, question: &[u8]) -> io::Result<Vec<u8>> {
    match tokio::time::timeout(BY_UDP, by_udp(server, bypass, asked, question)).await {
        Ok(Ok(answer)) if !is_cut(&answer) => Ok(answer),
        _ => tokio::time::timeout(BY_TCP, by_tcp(server, bypass, asked, question)).await?,
    }
}

/// Asks from a port of its own, so that an answer can't be guessed, and waits for one that fits the question.
async fn by_udp(server: SocketAddr, bypass: bool, asked: &Asked, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    if bypass {
        mark(&socket);
    }
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if asked.is_answered_by(&buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn by_tcp(server: SocketAddr, bypass: bool, asked: &Asked, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = if server.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if bypass {
        mark(&socket);
    }
    let mut stream = socket.connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    if asked.is_answered_by(&answer) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Without the right to mark, the question goes the way that the routes say.
pub(super) fn mark(socket: &impl std::os::fd::AsFd) {
    if let Err(error) = host::socket::set_bypass_mark(socket) {
        tracing::debug!(%error, "a question of the machine's own goes by the mesh's routes");
    }
}
