use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, RecvError, Socket, SocketBuffer, State};

use super::sent::{Sent, Steps};
use super::wire::{Link, endpoint};
use super::{Connection, Read, WriteError};
use crate::address::Pair;
use crate::outbox::Outbox;
use crate::transmit::Transmit;
use crate::{Closed, Config, Event};

/// How long an acknowledgment may wait for data to travel with.
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(10);

/// A connection that smoltcp has: one socket in a set of its own, so that no other is looked at when it is polled.
pub(super) struct Open {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    told_connected: bool,
    told_closed: bool,
    waits_to_read: bool,
    waits_to_write: bool,
    /// This side was shut down during the handshake.
    shut_down_then: bool,
    /// A reset came in.
    reset: bool,
    /// The other side did not answer in time.
    timed_out: bool,
    /// This side has broken it off.
    aborted: bool,
    /// Since when the caller has no more interest, and until when it may linger.
    released: Option<Instant>,
    sent: Sent,
    /// The last packet without data that was sent after both sides were done.
    last_word: Option<Vec<u8>>,
}

impl Open {
    pub(super) fn listening(local: SocketAddr, window: usize, config: &Config) -> Self {
        let mut open = Self::new(window, config);
        // A closed socket listens anywhere but on port 0, which is refused before.
        let _listens = open.socket_mut().listen(endpoint(local));
        open
    }

    /// `None` when the ends can't be connected.
    pub(super) fn connecting(link: &mut Link, pair: Pair, window: usize, config: &Config) -> Option<Self> {
        let mut open = Self::new(window, config);
        open.socket_mut().connect(link.context(), endpoint(pair.remote), endpoint(pair.local)).ok()?;
        Some(open)
    }

    fn new(window: usize, config: &Config) -> Self {
        let buffer = || SocketBuffer::new(vec![0; window]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(clock(config.handshake_time)));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            sockets,
            handle,
            told_connected: false,
            told_closed: false,
            waits_to_read: true,
            waits_to_write: false,
            shut_down_then: false,
            reset: false,
            timed_out: false,
            aborted: false,
            released: None,
            sent: Sent::default(),
            last_word: None,
        }
    }

    /// Takes a segment that carries `payload` bytes.
    pub(super) fn handle(&mut self, link: &mut Link, packet: &[u8], payload: usize, now: Instant, outbox: &mut Outbox) {
        // Many segments in one: waiting for a second one would stall a sender that waits for this acknowledgment.
        let coalesced = payload > 1460;
        let delay = if coalesced { Duration::ZERO } else { ACKNOWLEDGE_WITHIN };
        self.socket_mut().set_ack_delay(Some(clock(delay)));
        let mut steps = self.sent.steps(packet, self.socket().send_capacity());
        while let Some(step) = steps.as_mut().and_then(Steps::next) {
            link.receive(&mut self.sockets, step, now);
        }
        if let Some(mut answer) = link.receive(&mut self.sockets, packet, now) {
            self.sent.follow(&mut answer.packet);
            outbox.push(answer);
        }
        // Nobody will read it: the other side must not believe that it arrived.
        if self.released.is_some() && self.socket().recv_queue() > 0 {
            self.abort();
        }
    }

    /// Remembers that the segment just taken was a reset, if it was one that counted.
    pub(super) fn note_reset(&mut self) {
        self.reset = matches!(self.socket().state(), State::Closed | State::Listen);
    }

    pub(super) fn transmit(&mut self, link: &mut Link, now: Instant) -> Option<Transmit> {
        let before = self.socket().state();
        // When its rest is over, smoltcp forgets what was received but not read yet; the rest is kept elsewhere.
        if before == State::TimeWait && self.last_word.is_some() {
            return None;
        }
        let mut transmit = link.send(&mut self.sockets, now);
        // Between two segments of the other side only time closes a socket.
        if self.socket().state() == State::Closed && !matches!(before, State::Closed | State::TimeWait) {
            self.timed_out = true;
        }
        if let Some(transmit) = &mut transmit {
            self.sent.follow(&mut transmit.packet);
            if self.socket().state() == State::TimeWait {
                self.last_word = Some(transmit.packet.clone());
            }
        }
        transmit
    }

    pub(super) fn next_deadline(&mut self, link: &mut Link, now: Instant) -> Option<Instant> {
        let rests = self.socket().state() == State::TimeWait && self.last_word.is_some();
        let own = if rests { None } else { link.next_deadline(&self.sockets, now) };
        [own, self.released].into_iter().flatten().min()
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> Read {
        match self.socket_mut().recv_slice(into) {
            Ok(0) => {
                self.waits_to_read = true;
                Read::Pending
            }
            Ok(length) => Read::Bytes(length),
            Err(RecvError::Finished) => Read::End,
            Err(RecvError::InvalidState) if self.is_handshaking() => {
                self.waits_to_read = true;
                Read::Pending
            }
            Err(RecvError::InvalidState) => Read::Broken,
        }
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Result<usize, WriteError> {
        if self.is_handshaking() {
            self.waits_to_write = true;
            return Ok(0);
        }
        let written = self.socket_mut().send_slice(data).map_err(|_| WriteError::Closed)?;
        self.waits_to_write |= written < data.len();
        Ok(written)
    }

    pub(super) fn shut_down(&mut self) {
        // smoltcp never says goodbye on a connection that was closed before its handshake was complete.
        if self.is_handshaking() {
            self.shut_down_then = true;
        } else {
            self.socket_mut().close();
        }
    }

    pub(super) fn abort(&mut self) {
        self.aborted = true;
        self.told_closed = true;
        self.socket_mut().abort();
    }

    /// Ends a connection without a word to the other side.
    pub(super) fn give_up(&mut self, connection: Connection, reason: Closed, events: &mut VecDeque<Event>) {
        if !std::mem::replace(&mut self.told_closed, true) {
            events.push_back(Event::Closed { connection, reason });
        }
        self.socket_mut().abort();
        self.aborted = true;
    }

    pub(super) fn release(&mut self, until: Instant) {
        self.released = Some(until);
        self.told_closed = true;
        if self.socket().recv_queue() > 0 || self.socket().state() == State::SynReceived {
            self.abort();
        } else {
            self.socket_mut().close();
        }
    }

    /// Breaks a released connection off when its time is over.
    pub(super) fn linger_until(&mut self, now: Instant) {
        if self.released.is_some_and(|until| until <= now) && self.socket().state() != State::Closed {
            self.abort();
        }
    }

    pub(super) fn settle(&mut self, connection: Connection, config: &Config, events: &mut VecDeque<Event>) {
        let state = self.socket().state();
        let over = matches!(state, State::Closed | State::Listen | State::TimeWait);
        if !self.told_connected && !over && !self.is_handshaking() {
            self.told_connected = true;
            let socket = self.socket_mut();
            socket.set_timeout(Some(clock(config.unanswered_time)));
            socket.set_keep_alive(Some(clock(config.keep_alive)));
            if self.shut_down_then {
                self.socket_mut().close();
            }
            if self.released.is_none() {
                events.push_back(Event::Connected(connection));
            }
        }
        if self.released.is_some() || self.aborted {
            return;
        }
        let socket = self.socket();
        let readable = socket.can_recv() || !socket.may_recv() && !self.is_handshaking();
        let room = socket.send_capacity() - socket.send_queue();
        let writable = room >= socket.send_capacity() / 4 || !socket.may_send();
        let writable = writable && !self.is_handshaking();
        if self.waits_to_read && readable && self.told_connected {
            self.waits_to_read = false;
            events.push_back(Event::Readable(connection));
        }
        if self.waits_to_write && writable && self.told_connected {
            self.waits_to_write = false;
            events.push_back(Event::Writable(connection));
        }
        if over && !std::mem::replace(&mut self.told_closed, true) {
            events.push_back(Event::Closed { connection, reason: self.reason() });
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self.socket().state(), State::SynSent | State::SynReceived) && !self.aborted
    }

    /// Whether this is a dial that waits for the answer to this SYN.
    pub(super) fn is_dialing(&self, sequence: u32) -> bool {
        self.socket().state() == State::SynSent && self.sent.ends_with(sequence)
    }

    pub(super) fn is_released(&self) -> bool {
        self.released.is_some()
    }

    /// Whether nothing will be sent any more.
    pub(super) fn is_over(&self) -> bool {
        let socket = self.socket();
        match socket.state() {
            State::Listen => true,
            // An abort is over when its reset was sent, which is when smoltcp forgets the other end.
            State::Closed => socket.remote_endpoint().is_none(),
            _ => false,
        }
    }

    /// What is left of a connection that both sides ended, once it has been said.
    pub(super) fn last_word(&mut self) -> Option<Vec<u8>> {
        if self.socket().state() == State::TimeWait { self.last_word.take() } else { None }
    }

    fn reason(&self) -> Closed {
        match (self.reset, self.told_connected) {
            (true, true) => Closed::Reset,
            (true, false) => Closed::Refused,
            (false, true) if !self.timed_out => Closed::Finished,
            (false, _) => Closed::TimedOut,
        }
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

fn clock(duration: Duration) -> smoltcp::time::Duration {
    smoltcp::time::Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}
