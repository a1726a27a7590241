//! UDP: sockets that are bound, and flows that a forwarder took.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use packet::udp::UdpRepr;

use crate::address::Pair;
use crate::listeners::Listeners;
use crate::outbox::Outbox;
use crate::transmit::Transmit;
use crate::{Config, Event};

/// A UDP socket of the stack: bound by the caller, or one flow of a forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpSocket(u64);

/// A received datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Who sent it.
    pub from: SocketAddr,
    /// Where to.
    pub to: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Why a socket can't be bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// Another socket has the address and port.
    #[error("{0} is taken by another socket; choose another port, or 0 for any")]
    Taken(SocketAddr),
    /// The address is not one of the node's.
    #[error("{0} is not an address of this node")]
    NotOurs(IpAddr),
    /// All ephemeral ports of the address are taken.
    #[error("every ephemeral port of {0} is taken")]
    NoPort(IpAddr),
}

/// Why a datagram can't be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The socket was closed, or its flow ended.
    #[error("the socket is closed, or its flow ended")]
    Gone,
    /// The datagram does not fit in a packet, and packets are not fragmented here.
    #[error("a datagram of {length} bytes does not fit: {most} do on this link")]
    TooLong {
        /// What was to be sent, in bytes.
        length: usize,
        /// What would fit, in bytes.
        most: usize,
    },
    /// The destination is of another family than the socket, or no address that a packet may go to.
    #[error("{0} can't be reached from this socket")]
    Unroutable(SocketAddr),
    /// Too many packets wait to be sent.
    #[error("too many packets wait to be sent; try again when some have left")]
    Congested,
}

const QUEUE: usize = 64;
const QUEUE_BYTES: usize = 256 << 10;
/// Both bounds of one socket at once for every flow would be a gigabyte.
const ALL_QUEUES_BYTES: usize = 16 << 20;

#[derive(Debug)]
struct Socket {
    local: SocketAddr,
    /// For a flow.
    flow: Option<Flow>,
    queue: VecDeque<Datagram>,
    queued_bytes: usize,
    waits: bool,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    remote: SocketAddr,
    /// When the last datagram passed.
    last: Instant,
    /// Its deadline in `Sockets::deadlines`.
    deadline: Instant,
}

/// All UDP sockets.
#[derive(Debug)]
pub(crate) struct Sockets {
    sockets: HashMap<UdpSocket, Socket>,
    bound: HashMap<SocketAddr, UdpSocket>,
    flows: HashMap<Pair, UdpSocket>,
    flows_of: BTreeMap<IpAddr, usize>,
    /// When to look whether a flow has been idle for too long; not moved with every datagram.
    deadlines: BTreeSet<(Instant, UdpSocket)>,
    pub(crate) forwarders: Listeners,
    queued_bytes: usize,
    most_flows: usize,
    most_flows_per_source: usize,
    idle: Duration,
    mtu: usize,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivered {
    Queued,
    /// Its socket's queue is full.
    Dropped,
    /// A source has too many flows.
    CrowdedOut,
    Unclaimed,
}

impl Sockets {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            sockets: HashMap::new(),
            bound: HashMap::new(),
            flows: HashMap::new(),
            flows_of: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            forwarders: Listeners::default(),
            queued_bytes: 0,
            most_flows: config.udp_flows,
            most_flows_per_source: config.udp_flows_per_source,
            idle: config.udp_idle,
            mtu: usize::from(config.mtu),
        }
    }

    pub(crate) fn bind(&mut self, local: SocketAddr, number: u64) -> Result<UdpSocket, BindError> {
        if self.bound.contains_key(&local) {
            return Err(BindError::Taken(local));
        }
        let socket = UdpSocket(number);
        self.bound.insert(local, socket);
        self.sockets.insert(socket, Socket::new(local, None));
        Ok(socket)
    }

    pub(crate) fn is_bound(&self, local: SocketAddr) -> bool {
        self.bound.contains_key(&local)
    }

    pub(crate) fn deliver(
        &mut self,
        datagram: Datagram,
        own: bool,
        number: u64,
        now: Instant,
        events: &mut VecDeque<Event>,
    ) -> Delivered {
        if let Some(&socket) = self.bound.get(&datagram.to) {
            return self.queue(socket, datagram, now, events);
        }
        let pair = Pair { local: datagram.to, remote: datagram.from };
        if let Some(&socket) = self.flows.get(&pair) {
            return self.queue(socket, datagram, now, events);
        }
        let Some(listener) = self.forwarders.find(datagram.to, own) else { return Delivered::Unclaimed };
        let count = self.flows_of.get(&pair.remote.ip()).copied().unwrap_or(0);
        if count >= self.most_flows_per_source || self.most_flows == 0 {
            return Delivered::CrowdedOut;
        }
        if self.flows.len() >= self.most_flows {
            self.make_room(events);
        }
        let socket = UdpSocket(number);
        self.flows.insert(pair, socket);
        *self.flows_of.entry(pair.remote.ip()).or_default() += 1;
        self.deadlines.insert((now + self.idle, socket));
        let flow = Flow { remote: pair.remote, last: now, deadline: now + self.idle };
        self.sockets.insert(socket, Socket::new(pair.local, Some(flow)));
        events.push_back(Event::Flow { socket, listener, from: pair.remote, to: pair.local });
        self.queue(socket, datagram, now, events)
    }

    fn queue(
        &mut self,
        socket: UdpSocket,
        datagram: Datagram,
        now: Instant,
        events: &mut VecDeque<Event>,
    ) -> Delivered {
        let Some(entry) = self.sockets.get_mut(&socket) else { return Delivered::Unclaimed };
        if let Some(flow) = &mut entry.flow {
            flow.last = now;
        }
        let length = datagram.payload.len();
        let full = entry.queue.len() >= QUEUE || entry.queued_bytes + length > QUEUE_BYTES;
        if full || self.queued_bytes + length > ALL_QUEUES_BYTES {
            return Delivered::Dropped;
        }
        self.queued_bytes += length;
        entry.queued_bytes += length;
        entry.queue.push_back(datagram);
        if std::mem::take(&mut entry.waits) {
            events.push_back(Event::Datagrams(socket));
        }
        Delivered::Queued
    }

    pub(crate) fn receive(&mut self, socket: UdpSocket) -> Option<Datagram> {
        let entry = self.sockets.get_mut(&socket)?;
        let Some(datagram) = entry.queue.pop_front() else {
            entry.waits = true;
            return None;
        };
        entry.queued_bytes -= datagram.payload.len();
        self.queued_bytes -= datagram.payload.len();
        Some(datagram)
    }

    pub(crate) fn send(
        &mut self,
        socket: UdpSocket,
        to: SocketAddr,
        payload: &[u8],
        now: Instant,
        outbox: &mut Outbox,
    ) -> Result<(), SendError> {
        let entry = self.sockets.get_mut(&socket).ok_or(SendError::Gone)?;
        let local = entry.local;
        if local.is_ipv4() != to.is_ipv4() || !crate::address::is_routable(to.ip()) || to.port() == 0 {
            return Err(SendError::Unroutable(to));
        }
        let most = self.mtu - if to.is_ipv4() { 28 } else { 48 };
        if payload.len() > most {
            return Err(SendError::TooLong { length: payload.len(), most });
        }
        if let Some(flow) = &mut entry.flow {
            if flow.remote != to {
                return Err(SendError::Unroutable(to));
            }
            flow.last = now;
        }
        let repr = UdpRepr { source_port: local.port(), destination_port: to.port() };
        let packet = repr.packet(local.ip(), to.ip(), payload);
        if outbox.push(Transmit::plain(packet)) { Ok(()) } else { Err(SendError::Congested) }
    }

    pub(crate) fn close(&mut self, socket: UdpSocket) {
        let Some(entry) = self.sockets.remove(&socket) else { return };
        self.queued_bytes -= entry.queued_bytes;
        let Some(Flow { remote, deadline, .. }) = entry.flow else {
            self.bound.remove(&entry.local);
            return;
        };
        self.flows.remove(&Pair { local: entry.local, remote });
        if let Some(count) = self.flows_of.get_mut(&remote.ip()) {
            *count -= 1;
            if *count == 0 {
                self.flows_of.remove(&remote.ip());
            }
        }
        self.deadlines.remove(&(deadline, socket));
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, events: &mut VecDeque<Event>) {
        while let Some(&(at, socket)) = self.deadlines.first()
            && at <= now
        {
            self.deadlines.pop_first();
            let Some(flow) = self.sockets.get_mut(&socket).and_then(|entry| entry.flow.as_mut()) else { continue };
            if flow.last + self.idle > now {
                flow.deadline = flow.last + self.idle;
                self.deadlines.insert((flow.deadline, socket));
            } else {
                self.close(socket);
                events.push_back(Event::FlowEnded(socket));
            }
        }
    }

    /// Ends the flow whose last look is the longest ago, which is about the one that is idle for longest.
    fn make_room(&mut self, events: &mut VecDeque<Event>) {
        let Some((_, socket)) = self.deadlines.pop_first() else { return };
        self.close(socket);
        events.push_back(Event::FlowEnded(socket));
    }
}

impl Socket {
    fn new(local: SocketAddr, flow: Option<Flow>) -> Self {
        // The event that announces a flow announces its first datagram too.
        Self { local, flow, queue: VecDeque::new(), queued_bytes: 0, waits: flow.is_none() }
    }
}
