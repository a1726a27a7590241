use std::net::{IpAddr, SocketAddr};

use crate::{Connection, Listener, UdpSocket};

/// What the caller should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client wants to connect and has no answer yet: [`crate::Stack::accept`] or [`crate::Stack::refuse`].
    Incoming {
        /// The connection to be.
        connection: Connection,
        /// Which listener it came to.
        listener: Listener,
        /// Who wants to connect.
        from: SocketAddr,
        /// Where to.
        to: SocketAddr,
    },
    /// The handshake is complete.
    Connected(Connection),
    /// There is something to read, or the end of it, after [`crate::Read::Pending`] or for the first time.
    Readable(Connection),
    /// There is room again after a write that was cut short.
    Writable(Connection),
    /// The connection is over; what it received before can still be read until [`crate::Stack::release`].
    ///
    /// For a connection that was never accepted: the client gave up, and nothing is left to release.
    Closed {
        /// Which.
        connection: Connection,
        /// How it ended.
        reason: Closed,
    },
    /// The first datagram of a flow came to a UDP forwarder; `socket` sends and receives for this flow only.
    Flow {
        /// The flow, as a socket.
        socket: UdpSocket,
        /// Which forwarder it came to.
        listener: Listener,
        /// The flow's source.
        from: SocketAddr,
        /// The flow's destination.
        to: SocketAddr,
    },
    /// There are datagrams to receive, after [`crate::Stack::receive`] had none.
    Datagrams(UdpSocket),
    /// A flow was idle for too long, or had to make room; its socket is gone.
    FlowEnded(UdpSocket),
    /// Somebody pings an address that is not ours; answer with [`crate::Stack::pong`].
    Ping(Ping),
}

/// A ping to be sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// Who pings.
    pub from: IpAddr,
    /// Whom.
    pub to: IpAddr,
    /// Tells the pings of one sender apart.
    pub identifier: u16,
    /// Counts the pings of one sender.
    pub sequence: u16,
    /// What the answer repeats.
    pub data: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// Both sides said that they are done.
    Finished,
    /// The other side refused it.
    Refused,
    /// The other side reset it.
    Reset,
    /// The other side did not answer in time.
    TimedOut,
    /// A router or host said that the other side can't be reached.
    Unreachable,
}

/// How many packets and connections were turned away, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that are no valid packets, or of no protocol that is served.
    pub malformed: u64,
    /// Packets whose checksum is wrong.
    pub wrong_checksums: u64,
    /// Packets from or to an address that no packet may have.
    pub martians: u64,
    /// Fragments of packets.
    pub fragments: u64,
    /// Packets that nobody listens for.
    pub unclaimed: u64,
    /// Clients that found no room.
    pub crowded_out: u64,
    /// Datagrams for a socket whose queue was full.
    pub datagrams_dropped: u64,
    /// Answers that were not sent because too many waited.
    pub answers_dropped: u64,
}
