//! TCP: which connections there are, what happens to each, and when.

mod connection;
mod lingering;
mod sent;
mod sources;
mod table;
mod time_wait;
mod wire;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use packet::ip::Packet;
use packet::tcp::{Flags, Tcp, TcpRepr};

use crate::address::Pair;
use crate::listeners::Listeners;
use crate::outbox::Outbox;
use crate::{Closed, Config, Event, Transmit};
use connection::Open;
use table::{Entry, State, Table};
use time_wait::TimeWait;
use wire::Link;

/// A TCP connection of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(u64);

/// What a read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet; [`Event::Readable`] says when there is.
    Pending,
    /// The other side is done: all that it sent has been read.
    End,
    /// The connection broke, or was released: what is missing will not come.
    Broken,
}

/// Why nothing can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The connection is over, or this side of it was shut down.
    #[error("the connection is closed for writing")]
    Closed,
}

/// Why a client can't be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The client gave up, or was answered before.
    #[error("the client gave up, or was answered before")]
    Gone,
}

/// Why a connection can't be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The stack has no own address of the destination's family.
    #[error("this node has no address to reach {0} from")]
    NoSource(IpAddr),
    /// The destination is no address or port that a connection can go to.
    #[error("{0} is no destination that can be connected to")]
    Unroutable(SocketAddr),
    /// There are as many connections as there may be.
    #[error("there are {0} connections already; close some, or raise the limit")]
    Full(usize),
    /// Every ephemeral port towards the destination is in use.
    #[error("every port towards {0} is in use")]
    NoPort(SocketAddr),
}

/// A connection without an answer, as long as its SYN may be.
const LONGEST_SYN: usize = 160;

/// What became of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    Yes,
    /// A client found no room.
    CrowdedOut,
    /// It belongs to no connection and nobody listens.
    Unclaimed,
}

/// All TCP connections.
pub(crate) struct Connections {
    link: Link,
    table: Table,
    pub(crate) listeners: Listeners,
    time_wait: TimeWait,
    config: Config,
}

impl Connections {
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        Self {
            link: Link::new(&config, now),
            table: Table::default(),
            listeners: Listeners::default(),
            time_wait: TimeWait::default(),
            config,
        }
    }

    pub(crate) fn set_bounds(&mut self, memory: usize, connections: usize, connections_per_source: usize) {
        (self.config.memory, self.config.connections) = (memory, connections);
        self.config.connections_per_source = connections_per_source;
    }

    /// Takes a segment that is whole, between routable addresses, and whose checksum is right.
    pub(crate) fn handle_segment(
        &mut self,
        packet: &Packet<'_>,
        tcp: &Tcp<'_>,
        own: bool,
        number: u64,
        now: Instant,
        (outbox, events): (&mut Outbox, &mut VecDeque<Event>),
    ) -> Taken {
        let pair = Pair {
            local: (packet.destination(), tcp.destination_port()).into(),
            remote: (packet.source(), tcp.source_port()).into(),
        };
        if let Some(connection) = self.table.at(&pair) {
            self.continue_with(connection, packet, tcp, now, (outbox, events));
            return Taken::Yes;
        }
        if !tcp.flags().opens() {
            return if self.time_wait.handle(&pair, tcp, now, outbox) { Taken::Yes } else { Taken::Unclaimed };
        }
        if tcp.flags().contains(Flags::RST) || tcp.flags().contains(Flags::FIN) {
            return Taken::Yes;
        }
        let Some(listener) = self.listeners.find(pair.local, own) else { return Taken::Unclaimed };
        let crowded = self.table.handshakes_of(pair.remote.ip()) >= self.config.handshakes_per_source;
        if crowded || packet.bytes().len() > LONGEST_SYN || pair.remote.port() == 0 || pair.local.port() == 0 {
            return Taken::CrowdedOut;
        }
        if !self.make_room(pair.remote.ip(), now, outbox) {
            return Taken::CrowdedOut;
        }
        self.time_wait.forget(&pair);
        let connection = Connection(number);
        let state = State::Asked { syn: packet.bytes().into() };
        self.table.insert(connection, pair, state);
        self.table.set_deadline(connection, Some(now + self.config.handshake_time));
        events.push_back(Event::Incoming { connection, listener, from: pair.remote, to: pair.local });
        Taken::Yes
    }

    /// Finds room for one more client of a source; false where what is open to the caller leaves none.
    fn make_room(&mut self, source: IpAddr, now: Instant, outbox: &mut Outbox) -> bool {
        while self.table.clients_of(source) >= self.config.connections_per_source {
            let Some(oldest) = self.table.oldest_lingering_of(source) else { return false };
            self.break_off(oldest, now, outbox);
        }
        while self.table.len() >= self.config.connections {
            let Some(oldest) = self.table.oldest_lingering() else { return false };
            self.break_off(oldest, now, outbox);
        }
        true
    }

    /// Ends a connection that lingers at once, with a reset.
    fn break_off(&mut self, connection: Connection, now: Instant, outbox: &mut Outbox) {
        if let Some(Entry { state: State::Open(open), .. }) = self.table.get_mut(&connection) {
            open.abort();
            if let Some(reset) = open.transmit(&mut self.link, now) {
                outbox.push(reset);
            }
        }
        self.table.remove(connection);
    }

    pub(crate) fn accept(
        &mut self,
        connection: Connection,
        now: Instant,
        (outbox, events): (&mut Outbox, &mut VecDeque<Event>),
    ) -> Result<(), AcceptError> {
        let window = self.config.window(self.table.len());
        let entry = self.table.get_mut(&connection).ok_or(AcceptError::Gone)?;
        if !matches!(entry.state, State::Asked { .. }) {
            return Err(AcceptError::Gone);
        }
        let open = Open::listening(entry.pair.local, window, &self.config);
        let asked = std::mem::replace(&mut entry.state, State::Open(Box::new(open)));
        if let (State::Asked { syn }, State::Open(open)) = (asked, &mut entry.state) {
            open.handle(&mut self.link, &syn, 0, now, outbox);
        }
        self.settle(connection, events);
        self.table.wake(connection);
        Ok(())
    }

    pub(crate) fn refuse(&mut self, connection: Connection, outbox: &mut Outbox) {
        let Some(Entry { state: State::Asked { syn }, .. }) = self.table.get(&connection) else { return };
        if let Some(reset) = Packet::parse(syn).ok().and_then(|packet| reset(&packet)) {
            outbox.push(Transmit::plain(reset));
        }
        self.table.remove(connection);
    }

    /// Begins a connection from `local`, whose port the caller has chosen with [`Self::is_taken`].
    pub(crate) fn dial(
        &mut self,
        pair: Pair,
        number: u64,
        events: &mut VecDeque<Event>,
    ) -> Result<Connection, DialError> {
        if self.table.len() >= self.config.connections {
            return Err(DialError::Full(self.config.connections));
        }
        let window = self.config.window(self.table.len());
        let open =
            Open::connecting(&mut self.link, pair, window, &self.config).ok_or(DialError::Unroutable(pair.remote))?;
        let connection = Connection(number);
        self.table.insert(connection, pair, State::Open(Box::new(open)));
        self.settle(connection, events);
        self.table.wake(connection);
        Ok(connection)
    }

    pub(crate) fn is_taken(&self, pair: &Pair) -> bool {
        self.table.at(pair).is_some() || self.time_wait.holds(pair)
    }

    /// A router or host says that the segment with this sequence number did not reach its destination.
    pub(crate) fn handle_unreachable(&mut self, pair: &Pair, sequence: u32, events: &mut VecDeque<Event>) {
        let Some(connection) = self.table.at(pair) else { return };
        let Some(Entry { state: State::Open(open), .. }) = self.table.get_mut(&connection) else { return };
        if !open.is_dialing(sequence) {
            return;
        }
        open.give_up(connection, Closed::Unreachable, events);
        self.forget_if_over(connection);
        self.table.wake(connection);
    }

    pub(crate) fn read(&mut self, connection: Connection, into: &mut [u8], now: Instant) -> Read {
        let Some(open) = self.open(connection) else { return Read::Broken };
        let read = open.read(into);
        // What was taken out may let the other side send again, and that wants to be told.
        if matches!(read, Read::Bytes(_)) && self.is_due(connection, now) {
            self.table.wake(connection);
        }
        read
    }

    pub(crate) fn write(&mut self, connection: Connection, data: &[u8]) -> Result<usize, WriteError> {
        let written = self.open(connection).ok_or(WriteError::Closed)?.write(data)?;
        self.table.wake(connection);
        Ok(written)
    }

    pub(crate) fn shut_down(&mut self, connection: Connection) {
        if let Some(open) = self.open(connection) {
            open.shut_down();
            self.table.wake(connection);
        }
    }

    pub(crate) fn abort(&mut self, connection: Connection, outbox: &mut Outbox) {
        match self.table.get_mut(&connection) {
            Some(Entry { state: State::Asked { .. }, .. }) => self.refuse(connection, outbox),
            Some(Entry { state: State::Open(open), .. }) => {
                open.abort();
                self.table.wake(connection);
            }
            None => {}
        }
    }

    pub(crate) fn release(&mut self, connection: Connection, now: Instant, outbox: &mut Outbox) {
        let linger = self.config.linger;
        match self.table.get_mut(&connection) {
            Some(Entry { state: State::Asked { .. }, .. }) => self.refuse(connection, outbox),
            Some(Entry { state: State::Open(open), .. }) => {
                open.release(now + linger);
                self.table.linger(connection);
                self.table.wake(connection);
                self.retire(connection, now);
            }
            None => {}
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.table.next_deadline()
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant, events: &mut VecDeque<Event>) {
        self.time_wait.expire(now);
        while let Some(connection) = self.table.pop_due(now) {
            match self.table.get_mut(&connection) {
                Some(Entry { state: State::Asked { .. }, .. }) => {
                    self.table.remove(connection);
                    events.push_back(Event::Closed { connection, reason: Closed::TimedOut });
                }
                Some(Entry { state: State::Open(open), .. }) => {
                    open.linger_until(now);
                    self.table.wake(connection);
                }
                None => {}
            }
        }
    }

    /// The next packet of a connection whose turn it is.
    pub(crate) fn poll_transmit(&mut self, now: Instant, events: &mut VecDeque<Event>) -> Option<Transmit> {
        while let Some(connection) = self.table.pop_ready() {
            let Some(Entry { state: State::Open(open), .. }) = self.table.get_mut(&connection) else { continue };
            let transmit = open.transmit(&mut self.link, now);
            self.settle(connection, events);
            if transmit.is_some() {
                self.table.wake(connection);
                return transmit;
            }
            self.reschedule(connection, now);
            self.retire(connection, now);
        }
        None
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    fn open(&mut self, connection: Connection) -> Option<&mut Open> {
        match self.table.get_mut(&connection) {
            Some(Entry { state: State::Open(open), .. }) if !open.is_released() => Some(open),
            _ => None,
        }
    }

    fn continue_with(
        &mut self,
        connection: Connection,
        packet: &Packet<'_>,
        tcp: &Tcp<'_>,
        now: Instant,
        (outbox, events): (&mut Outbox, &mut VecDeque<Event>),
    ) {
        let Some(entry) = self.table.get_mut(&connection) else { return };
        match &mut entry.state {
            State::Asked { syn } => {
                let first = Packet::parse(syn)
                    .ok()
                    .and_then(|first| Tcp::parse(first.upper_layer().payload).ok().map(|first| first.sequence()));
                if tcp.flags().contains(Flags::RST) && first.map(|first| first.wrapping_add(1)) == Some(tcp.sequence())
                {
                    self.table.remove(connection);
                    events.push_back(Event::Closed { connection, reason: Closed::Reset });
                }
            }
            State::Open(open) => {
                open.handle(&mut self.link, packet.bytes(), tcp.payload().len(), now, outbox);
                if tcp.flags().contains(Flags::RST) {
                    open.note_reset();
                }
                self.settle(connection, events);
                self.table.wake(connection);
            }
        }
    }

    /// Says what the last step changed for the caller.
    fn settle(&mut self, connection: Connection, events: &mut VecDeque<Event>) {
        let Some(Entry { state: State::Open(open), .. }) = self.table.get_mut(&connection) else { return };
        open.settle(connection, &self.config, events);
        if !open.is_handshaking() {
            self.table.end_handshake(connection);
        }
        self.forget_if_over(connection);
    }

    /// Frees the address pair of a connection that is over, so that its client can come again while the caller still reads.
    fn forget_if_over(&mut self, connection: Connection) {
        let Some(entry) = self.table.get(&connection) else { return };
        let State::Open(open) = &entry.state else { return };
        if open.is_over() {
            self.table.free_pair(connection);
        }
    }

    /// Drops a released connection that has nothing left to say.
    fn retire(&mut self, connection: Connection, now: Instant) {
        let Some(entry) = self.table.get_mut(&connection) else { return };
        let State::Open(open) = &mut entry.state else { return };
        if !open.is_released() {
            return;
        }
        if let Some(last) = open.last_word() {
            self.time_wait.add(entry.pair, last, now);
            self.table.remove(connection);
        } else if open.is_over() {
            self.table.remove(connection);
        }
    }

    fn is_due(&mut self, connection: Connection, now: Instant) -> bool {
        match self.table.get_mut(&connection) {
            Some(Entry { state: State::Open(open), .. }) => {
                open.next_deadline(&mut self.link, now).is_some_and(|at| at <= now)
            }
            _ => false,
        }
    }

    fn reschedule(&mut self, connection: Connection, now: Instant) {
        /// What smoltcp calls due although it just had nothing to send is looked at again after this.
        const AGAIN: Duration = Duration::from_millis(5);
        let Some(Entry { state: State::Open(open), .. }) = self.table.get_mut(&connection) else { return };
        let deadline = open.next_deadline(&mut self.link, now);
        self.table.set_deadline(connection, deadline.map(|at| at.max(now + AGAIN)));
    }
}

/// The reset that answers a segment which belongs to no connection.
pub(crate) fn reset(packet: &Packet<'_>) -> Option<Vec<u8>> {
    let tcp = Tcp::parse(packet.upper_layer().payload).ok()?;
    Some(TcpRepr::reset(&tcp)?.packet(packet.destination(), packet.source(), b""))
}
