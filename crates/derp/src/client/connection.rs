use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto::NodePublic;
use packet::derp::{Frame, FrameKind, GoneReason, MAX_PACKET_LEN, PresenceFlags, RawFrame};
use tokio::time::Sleep;

use crate::bucket::TokenBucket;
use crate::link::{Link, LinkError, Outgoing};

/// How long a relay may be silent: it keeps alive every minute.
const SILENCE: Duration = Duration::from_secs(120);

/// How many frames may wait to be written.
const MOST_WAITING: usize = 32;

/// A connection to a relay.
///
/// Queue with [`Connection::send`] and its like, and call [`Connection::next`] again and again: it is what writes.
#[derive(Debug)]
pub struct Connection {
    link: Link,
    key: NodePublic,
    server: NodePublic,
    local: SocketAddr,
    pacing: Option<TokenBucket>,
    silent: Pin<Box<Sleep>>,
}

/// What a relay tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A packet from another node.
    Packet {
        /// Whence it came, by the relay's word.
        source: NodePublic,
        /// The packet.
        packet: Bytes,
    },
    /// A node can't be reached by this relay.
    PeerGone {
        /// The node.
        peer: NodePublic,
        /// Why.
        reason: GoneReason,
    },
    /// A node is connected to this relay; only told to relays that watch.
    PeerPresent {
        /// The node.
        peer: NodePublic,
        /// Where it connects from.
        address: Option<SocketAddr>,
        /// What kind of client it is.
        flags: PresenceFlags,
    },
    /// The answer to a ping.
    Pong([u8; 8]),
    /// A problem of this connection; `None` when it is over.
    Health(Option<String>),
    /// The relay is about to restart.
    Restarting {
        /// How long to wait before connecting again.
        reconnect_in: Duration,
        /// How long to go on trying then.
        try_for: Duration,
    },
    /// The relay is still there.
    KeepAlive,
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is longer than 64 KiB.
    #[error("a relay takes packets of at most 65536 bytes")]
    TooLong,
    /// The relay does not take frames as fast as they come; drop the packet, or wait for [`Connection::next`].
    #[error("frames for the relay come faster than it takes them")]
    Full,
    /// The relay has said what it takes in a second, and this would be more; drop the packet.
    #[error("the relay's limit is reached")]
    Paced,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The relay closed it.
    #[error("the relay closed the connection")]
    Closed,
    /// The stream broke.
    #[error("the connection to the relay broke: {0}")]
    Io(#[from] io::Error),
    /// What the relay sent is no DERP.
    #[error("the relay does not speak DERP as it should: {0}")]
    Frame(#[from] packet::derp::FrameError),
    /// Nothing was heard for two minutes.
    #[error("the relay has been silent for {} seconds", SILENCE.as_secs())]
    Silent,
}

impl Connection {
    pub(super) fn new(
        link: Link,
        key: NodePublic,
        server: NodePublic,
        local: SocketAddr,
        pacing: Option<TokenBucket>,
    ) -> Self {
        Self { link, key, server, local, pacing, silent: Box::pin(tokio::time::sleep(SILENCE)) }
    }

    /// The node's key, under which others reach this connection.
    pub fn key(&self) -> NodePublic {
        self.key
    }

    /// The relay's key, which it has proven.
    pub fn server_key(&self) -> NodePublic {
        self.server
    }

    /// The address that this end of the connection has.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Whether [`Connection::send`] would find room.
    pub fn has_room(&self) -> bool {
        self.link.waiting() < MOST_WAITING
    }

    /// Queues a packet for `peer`.
    pub fn send(&mut self, peer: &NodePublic, packet: Bytes) -> Result<(), SendError> {
        if packet.len() > MAX_PACKET_LEN {
            return Err(SendError::TooLong);
        }
        self.queue(Outgoing::packet(FrameKind::SEND_PACKET, peer, packet))
    }

    /// Tells the relay whether it is this node's home.
    pub fn note_preferred(&mut self, preferred: bool) -> Result<(), SendError> {
        self.queue(Outgoing::frame(&Frame::NotePreferred(preferred)))
    }

    /// Asks for a pong with the same bytes.
    pub fn ping(&mut self, data: [u8; 8]) -> Result<(), SendError> {
        self.queue(Outgoing::frame(&Frame::Ping(data)))
    }

    /// Asks to be told who comes and goes; relays of the mesh only.
    pub fn watch(&mut self) -> Result<(), SendError> {
        self.queue(Outgoing::frame(&Frame::WatchConns))
    }

    /// Asks the relay to disconnect a client; relays of the mesh only.
    pub fn close_peer(&mut self, peer: NodePublic) -> Result<(), SendError> {
        self.queue(Outgoing::frame(&Frame::ClosePeer(peer)))
    }

    /// Queues a packet between clients of two relays; relays of the mesh only.
    pub fn forward(&mut self, source: &NodePublic, destination: &NodePublic, packet: Bytes) -> Result<(), SendError> {
        if packet.len() > MAX_PACKET_LEN {
            return Err(SendError::TooLong);
        }
        self.queue(Outgoing::forward(source, destination, packet))
    }

    /// Waits for what the relay tells next, and writes what is queued meanwhile.
    ///
    /// A future that is dropped before it is ready has lost nothing.
    pub async fn next(&mut self) -> Result<Event, ConnectionError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits until everything queued is written; what the relay tells stays for [`Connection::next`].
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        Ok(self.link.send().await?)
    }

    /// Writes what is queued and says goodbye.
    pub async fn close(mut self) -> Result<(), ConnectionError> {
        Ok(self.link.close().await?)
    }

    /// Polls for what [`Connection::next`] waits for.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Event, ConnectionError>> {
        loop {
            while let Some(frame) = self.link.next_frame()? {
                if let Some(event) = self.handle(frame)? {
                    return Poll::Ready(Ok(event));
                }
            }
            if let Poll::Ready(Err(error)) = self.link.poll_send(cx) {
                return Poll::Ready(Err(error.into()));
            }
            match self.link.poll_fill(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(ConnectionError::Closed)),
                Poll::Ready(Ok(_)) => self.silent.as_mut().reset(tokio::time::Instant::now() + SILENCE),
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Poll::Ready(Err(ConnectionError::Closed));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {
                    return match self.silent.as_mut().poll(cx) {
                        Poll::Ready(()) => Poll::Ready(Err(ConnectionError::Silent)),
                        Poll::Pending => Poll::Pending,
                    };
                }
            }
        }
    }

    /// Queues a frame that was bounded elsewhere.
    pub(crate) fn push(&mut self, frame: Outgoing) {
        self.link.push(frame);
    }

    fn handle(&mut self, frame: RawFrame) -> Result<Option<Event>, ConnectionError> {
        Ok(match Frame::parse(frame.kind, &frame.body)? {
            Frame::RecvPacket { source, packet } => {
                Some(Event::Packet { source, packet: frame.body.slice_ref(packet) })
            }
            Frame::PeerGone { peer, reason } => Some(Event::PeerGone { peer, reason }),
            Frame::PeerPresent { peer, address, flags } => Some(Event::PeerPresent { peer, address, flags }),
            Frame::Pong(data) => Some(Event::Pong(data)),
            Frame::Health(problem) => Some(Event::Health((!problem.is_empty()).then(|| problem.to_owned()))),
            Frame::Restarting { reconnect_in, try_for } => Some(Event::Restarting { reconnect_in, try_for }),
            Frame::KeepAlive => Some(Event::KeepAlive),
            Frame::Ping(data) => {
                // A relay that pings faster than it reads gets fewer answers.
                let _full = self.queue(Outgoing::frame(&Frame::Pong(data)));
                None
            }
            _ => None,
        })
    }

    fn queue(&mut self, frame: Outgoing) -> Result<(), SendError> {
        if !self.has_room() {
            return Err(SendError::Full);
        }
        if let Some(pacing) = &mut self.pacing
            && !pacing.try_take(frame.len() as f64, Instant::now())
        {
            return Err(SendError::Paced);
        }
        self.link.push(frame);
        Ok(())
    }
}

impl From<LinkError> for ConnectionError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Io(error) => Self::Io(error),
            LinkError::Frame(error) => Self::Frame(error),
        }
    }
}
