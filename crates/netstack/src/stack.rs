use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use packet::icmp::Echo;
use packet::ip::{Fragment, Packet, Protocol};
use packet::tcp::Tcp;
use packet::udp::Udp;

use crate::address::{Pair, is_routable};
use crate::event::Ping;
use crate::icmp::{self, ErrorRate, Message};
use crate::outbox::Outbox;
use crate::tcp::{self, Connections, Taken};
use crate::transmit::Transmit;
use crate::udp::{Delivered, Sockets};
use crate::{
    AcceptError, BindError, Config, Connection, Counters, Datagram, DialError, Event, Listen, Listener, Read,
    SendError, UdpSocket, WriteError,
};

/// Ports that are chosen for the caller (RFC 6335).
const EPHEMERAL: std::ops::RangeInclusive<u16> = 49152..=65535;
/// How many pings may wait to be sent on.
const MOST_PINGS: usize = 64;

/// Whether the checksums of a packet that comes in are still to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksums {
    /// They are to be verified: the packet is as its sender made it.
    ToVerify,
    /// They were verified, or the packet was coalesced from verified ones and has no right checksum of its own.
    Verified,
}

/// TCP, UDP and ping in user space.
///
/// Each connection that was accepted or dialed is the caller's until [`Stack::release`], also after [`Event::Closed`].
pub struct Stack {
    own: BTreeSet<IpAddr>,
    tcp: Connections,
    udp: Sockets,
    outbox: Outbox,
    events: VecDeque<Event>,
    counters: Counters,
    errors: ErrorRate,
    /// Pings in `events`.
    pings: usize,
    forward_pings: bool,
    mtu: u16,
    next: u64,
    random: u64,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stack")
            .field("own", &self.own)
            .field("connections", &self.tcp.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Stack {
    /// Makes a stack without listeners.
    ///
    /// # Panics
    ///
    /// When the MTU is below 1280, which is the least of IPv6.
    pub fn new(config: Config, now: Instant) -> Self {
        assert!(config.mtu >= 1280, "the MTU of a stack is at least 1280");
        Self {
            own: config.addresses.iter().copied().collect(),
            udp: Sockets::new(&config),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            counters: Counters::default(),
            errors: ErrorRate::new(now),
            pings: 0,
            forward_pings: config.forward_pings,
            mtu: config.mtu,
            next: 0,
            random: config.seed,
            tcp: Connections::new(config, now),
        }
    }

    /// Takes an IP packet from the link; it may be coalesced from several TCP segments, up to 64 KiB.
    pub fn handle_packet(&mut self, packet: &[u8], checksums: Checksums, now: Instant) {
        let Ok(parsed) = Packet::parse(packet) else {
            self.counters.malformed += 1;
            return;
        };
        let verify = checksums == Checksums::ToVerify;
        if verify && matches!(parsed, Packet::V4(v4) if !v4.checksum_is_right()) {
            self.counters.wrong_checksums += 1;
            return;
        }
        if !is_routable(parsed.source()) || !is_routable(parsed.destination()) {
            self.counters.martians += 1;
            return;
        }
        let upper = parsed.upper_layer();
        if upper.fragment != Fragment::Whole {
            self.counters.fragments += 1;
            return;
        }
        match upper.protocol {
            Protocol::TCP => self.handle_tcp(&parsed, verify, now),
            Protocol::UDP => self.handle_udp(&parsed, verify, now),
            Protocol::ICMP | Protocol::ICMPV6 => self.handle_icmp(&parsed),
            _ => self.counters.unclaimed += 1,
        }
    }

    /// Tells that time has passed: retransmissions, keep-alives and time-outs become due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tcp.handle_timeout(now, &mut self.events);
        self.udp.handle_timeout(now, &mut self.events);
    }

    /// When to call [`Stack::handle_timeout`] next; ask again after every other call.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.tcp.next_deadline(), self.udp.next_deadline()].into_iter().flatten().min()
    }

    /// The next packet for the link, made now; ask until there is none, after every other call.
    ///
    /// Connections take turns, a packet each. What is not fetched is not made, so a caller whose link is full just waits.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.outbox.pop().or_else(|| self.tcp.poll_transmit(now, &mut self.events))
    }

    /// The next thing that the caller should know; ask until there is none, after every other call.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if matches!(event, Event::Ping(_)) {
            self.pings -= 1;
        }
        Some(event)
    }

    /// What was turned away so far.
    pub fn counters(&self) -> Counters {
        Counters { answers_dropped: self.outbox.dropped, ..self.counters }
    }

    /// How many TCP connections there are, those that wait for an answer or linger included.
    pub fn connections(&self) -> usize {
        self.tcp.len()
    }

    /// Replaces the node's own addresses; connections of old ones go on as long as packets come.
    pub fn set_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.own = addresses.into_iter().collect();
    }

    /// Changes [`Config::memory`], [`Config::connections`] and [`Config::connections_per_source`], for connections that begin
    /// from now on.
    pub fn set_bounds(&mut self, memory: usize, connections: usize, connections_per_source: usize) {
        self.tcp.set_bounds(memory, connections, connections_per_source);
    }

    /// Listens for TCP connections; `None` when there is a listener at this very place.
    pub fn listen(&mut self, place: Listen) -> Option<Listener> {
        let number = self.number();
        self.tcp.listeners.add(place, number)
    }

    /// Takes UDP flows, each as a socket of its own; `None` when there is a forwarder at this very place.
    pub fn forward_udp(&mut self, place: Listen) -> Option<Listener> {
        let number = self.number();
        self.udp.forwarders.add(place, number)
    }

    /// Stops listening or forwarding; what came before goes on.
    pub fn unlisten(&mut self, listener: Listener) {
        self.tcp.listeners.remove(listener);
        self.udp.forwarders.remove(listener);
    }

    /// Completes the handshake of a client; [`Event::Connected`] follows.
    ///
    /// # Errors
    ///
    /// When the client has given up meanwhile.
    pub fn accept(&mut self, connection: Connection, now: Instant) -> Result<(), AcceptError> {
        self.tcp.accept(connection, now, (&mut self.outbox, &mut self.events))
    }

    /// Answers a client with a reset.
    pub fn refuse(&mut self, connection: Connection) {
        self.tcp.refuse(connection, &mut self.outbox);
    }

    /// Begins a connection from an own address; [`Event::Connected`] or [`Event::Closed`] follows.
    pub fn dial(&mut self, to: SocketAddr) -> Result<Connection, DialError> {
        let from = self.own.iter().find(|own| own.is_ipv4() == to.is_ipv4()).copied();
        self.dial_from(from.ok_or(DialError::NoSource(to.ip()))?, to)
    }

    /// Begins a connection from any address, as a router does that keeps its clients' addresses.
    pub fn dial_from(&mut self, from: IpAddr, to: SocketAddr) -> Result<Connection, DialError> {
        if !is_routable(to.ip()) || to.port() == 0 || !is_routable(from) || from.is_ipv4() != to.is_ipv4() {
            return Err(DialError::Unroutable(to));
        }
        let port =
            self.free_port(|stack, port| !stack.tcp.is_taken(&Pair { local: SocketAddr::new(from, port), remote: to }));
        let local = SocketAddr::new(from, port.ok_or(DialError::NoPort(to))?);
        let number = self.number();
        self.tcp.dial(Pair { local, remote: to }, number, &mut self.events)
    }

    /// Takes what was received, up to the length of `into`, which must not be empty.
    pub fn read(&mut self, connection: Connection, into: &mut [u8], now: Instant) -> Read {
        self.tcp.read(connection, into, now)
    }

    /// Puts data behind what is to be sent and returns how much there was room for.
    ///
    /// When it is less than all, [`Event::Writable`] says when there is room again.
    pub fn write(&mut self, connection: Connection, data: &[u8]) -> Result<usize, WriteError> {
        self.tcp.write(connection, data)
    }

    /// Tells the other side, after what was written, that nothing more comes; reading goes on.
    pub fn shut_down(&mut self, connection: Connection) {
        self.tcp.shut_down(connection);
    }

    /// Breaks a connection off with a reset; it is still to be released.
    pub fn abort(&mut self, connection: Connection) {
        self.tcp.abort(connection, &mut self.outbox);
    }

    /// Gives a connection back: what was written is still sent, for a while; what comes in is answered with a reset.
    pub fn release(&mut self, connection: Connection, now: Instant) {
        self.tcp.release(connection, now, &mut self.outbox);
    }

    /// Binds a UDP socket to an own address; port 0 is any free one.
    pub fn bind(&mut self, local: SocketAddr) -> Result<UdpSocket, BindError> {
        if !self.own.contains(&local.ip()) {
            return Err(BindError::NotOurs(local.ip()));
        }
        let port = match local.port() {
            0 => self
                .free_port(|stack, port| !stack.udp.is_bound(SocketAddr::new(local.ip(), port)))
                .ok_or(BindError::NoPort(local.ip()))?,
            port => port,
        };
        let number = self.number();
        self.udp.bind(SocketAddr::new(local.ip(), port), number)
    }

    /// The next datagram of a socket.
    pub fn receive(&mut self, socket: UdpSocket) -> Option<Datagram> {
        self.udp.receive(socket)
    }

    /// Sends a datagram; a flow's socket sends to the flow's source only.
    pub fn send(&mut self, socket: UdpSocket, to: SocketAddr, payload: &[u8], now: Instant) -> Result<(), SendError> {
        self.udp.send(socket, to, payload, now, &mut self.outbox)
    }

    /// Closes a UDP socket, or ends a flow.
    pub fn close(&mut self, socket: UdpSocket) {
        self.udp.close(socket);
    }

    /// Answers a ping that was sent on, in the name of the one that was pinged.
    pub fn pong(&mut self, ping: &Ping) {
        let echo = Echo { identifier: ping.identifier, sequence: ping.sequence, data: &ping.data };
        if let Some(packet) = icmp::pong(ping.to, ping.from, echo) {
            self.outbox.push(Transmit::plain(packet));
        }
    }

    fn handle_tcp(&mut self, packet: &Packet<'_>, verify: bool, now: Instant) {
        let upper = packet.upper_layer();
        let bare = match packet {
            Packet::V4(_) => true,
            // smoltcp would answer extension headers in its own way; nobody sends them with TCP.
            Packet::V6(_) => upper.offset == 40,
        };
        let Ok(tcp) = Tcp::parse(upper.payload) else {
            self.counters.malformed += 1;
            return;
        };
        if !bare {
            self.counters.malformed += 1;
            return;
        }
        if verify && !tcp.checksum_is_right(packet.source(), packet.destination()) {
            self.counters.wrong_checksums += 1;
            return;
        }
        let own = self.own.contains(&packet.destination());
        let number = self.number();
        match self.tcp.handle_segment(packet, &tcp, own, number, now, (&mut self.outbox, &mut self.events)) {
            Taken::Yes => {}
            Taken::CrowdedOut => self.counters.crowded_out += 1,
            Taken::Unclaimed => {
                self.counters.unclaimed += 1;
                // Of other addresses nobody here can say that a port is closed.
                if own && let Some(reset) = tcp::reset(packet) {
                    self.outbox.push(Transmit::plain(reset));
                }
            }
        }
    }

    fn handle_udp(&mut self, packet: &Packet<'_>, verify: bool, now: Instant) {
        let Ok(udp) = Udp::parse(packet.upper_layer().payload) else {
            self.counters.malformed += 1;
            return;
        };
        if verify && !udp.checksum_is_right(packet.source(), packet.destination()) {
            self.counters.wrong_checksums += 1;
            return;
        }
        if udp.source_port() == 0 || udp.destination_port() == 0 {
            self.counters.malformed += 1;
            return;
        }
        let datagram = Datagram {
            from: (packet.source(), udp.source_port()).into(),
            to: (packet.destination(), udp.destination_port()).into(),
            payload: udp.payload().to_vec(),
        };
        let own = self.own.contains(&packet.destination());
        let number = self.number();
        match self.udp.deliver(datagram, own, number, now, &mut self.events) {
            Delivered::Queued => {}
            Delivered::Dropped => self.counters.datagrams_dropped += 1,
            Delivered::CrowdedOut => self.counters.crowded_out += 1,
            Delivered::Unclaimed => {
                self.counters.unclaimed += 1;
                if own && self.errors.allows(now) {
                    self.outbox.push(Transmit::plain(icmp::port_unreachable(packet)));
                }
            }
        }
    }

    fn handle_icmp(&mut self, packet: &Packet<'_>) {
        let (from, to) = (packet.source(), packet.destination());
        match icmp::read(packet) {
            None => self.counters.malformed += 1,
            Some(Message::EchoRequest(echo)) if self.own.contains(&to) => {
                // What came in one packet goes out in one; a coalesced one is none.
                if packet.bytes().len() <= usize::from(self.mtu)
                    && let Some(answer) = icmp::pong(to, from, echo)
                {
                    self.outbox.push(Transmit::plain(answer));
                }
            }
            Some(Message::EchoRequest(echo)) if self.forward_pings && self.pings < MOST_PINGS => {
                self.pings += 1;
                let (identifier, sequence, data) = (echo.identifier, echo.sequence, echo.data.to_vec());
                self.events.push_back(Event::Ping(Ping { from, to, identifier, sequence, data }));
            }
            Some(Message::Unreachable { pair, sequence }) => {
                self.tcp.handle_unreachable(&pair, sequence, &mut self.events);
            }
            Some(Message::EchoRequest(_) | Message::Other) => self.counters.unclaimed += 1,
        }
    }

    fn free_port(&mut self, is_free: impl Fn(&Self, u16) -> bool) -> Option<u16> {
        let count = u32::from(EPHEMERAL.end() - EPHEMERAL.start()) + 1;
        let first = self.random() as u32 % count;
        (0..count).map(|step| EPHEMERAL.start() + ((first + step) % count) as u16).find(|port| is_free(self, *port))
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
