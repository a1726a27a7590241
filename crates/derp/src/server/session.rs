//! One client's connection after the handshake: what it sends is routed, what waits for it is written.

use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crypto::{Entropy, NodePublic, SystemEntropy};
use listen::Place;
use packet::derp::{Frame, FrameError, FrameKind, GoneReason, RawFrame};
use packet::disco::Envelope;
use tokio::time::Sleep;

use super::hub::{Connection, MOST_SENT_TO, Presence};
use super::metrics::DroppedReason;
use super::outbox::{Ending, Lane, MOST_PACKETS};
use super::shared::Shared;
use crate::bucket::TokenBucket;
use crate::link::{Link, Outgoing};

/// How much of one client's input is handled before others get their turn: bytes, and packets. So few packets, because
/// all of them may be for one receiver, whose queue must not overflow before it had its turn to write.
const TURN_BYTES: usize = 64 << 10;
const TURN_PACKETS: u64 = MOST_PACKETS as u64 / 2;

/// How much is taken from a client's queues for one write.
const BATCH_FRAMES: usize = 32;
const BATCH_BYTES: usize = 64 << 10;

/// How many changes a relay of the mesh is told in one batch.
const BATCH_CHANGES: usize = 64;

/// How often a client is told that a peer that it looks for is not here: a second, and at once.
const GONE_RATE: f64 = 1.0;
const GONE_BURST: f64 = 3.0;

/// How long a relay of the mesh may take nothing: it carries many clients' packets.
const MESH_WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionEnd {
    #[error("the client closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it sent a frame of type {:#04x}, which clients must not send", .0.0)]
    Forbidden(FrameKind),
    #[error("it did not read")]
    Stalled,
    #[error("the relay ended it: {0:?}")]
    Ended(Ending),
}

/// A client that is connected. As a future it is ready when the connection is over.
pub(crate) struct Session {
    shared: Arc<Shared>,
    link: Link,
    presence: Arc<Presence>,
    connection: Arc<Connection>,
    _place: Place,
    /// Whom the last packet went to: the next goes there most often.
    last_peer: Option<Arc<Presence>>,
    sent_to: BTreeSet<NodePublic>,
    gone: TokenBucket,
    is_home: bool,
    is_mesh_peer: bool,
    rate: Option<TokenBucket>,
    /// Whose turn to write is waited for before more is handled, because much waits for it.
    pressed: Option<Arc<Connection>>,
    /// Whether frames may be left of what was read last.
    has_input: bool,
    /// Nothing is read before then, because the client has sent faster than it may.
    resume_at: Option<Instant>,
    keep_alive_at: Instant,
    stalled: Option<Stalled>,
    timer: Pin<Box<Sleep>>,
}

/// The kernel takes nothing for the client.
#[derive(Debug, Clone, Copy)]
struct Stalled {
    written: u64,
    until: Instant,
}

/// What is left of a client's turn.
#[derive(Debug)]
struct Turn {
    bytes: usize,
    packets: u64,
}

/// What a client sent, to be added to the shared counters at once.
#[derive(Debug, Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    unknown: u64,
    full: u64,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        link: Link,
        presence: Arc<Presence>,
        connection: Arc<Connection>,
        place: Place,
        is_mesh_peer: bool,
    ) -> Self {
        let now = Instant::now();
        let rate = shared.limits.client_rate.filter(|_| !is_mesh_peer);
        shared.metrics.clients.inc();
        let mut session = Self {
            rate: rate.map(|rate| TokenBucket::new(rate.get() as f64, shared.limits.client_burst as f64, now)),
            shared,
            link,
            presence,
            connection,
            _place: place,
            last_peer: None,
            sent_to: BTreeSet::new(),
            gone: TokenBucket::new(GONE_RATE, GONE_BURST, now),
            is_home: false,
            is_mesh_peer,
            pressed: None,
            has_input: true,
            resume_at: None,
            keep_alive_at: now,
            stalled: None,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        };
        session.plan_keep_alive(now);
        session
    }

    /// Serves the client until the connection is over.
    pub(crate) async fn run(mut self) -> SessionEnd {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        if let SessionEnd::Ended(_) = end {
            // What is queued was written; the goodbye tells the client that this was no accident of the network.
            let _unsent = tokio::time::timeout(self.shared.limits.write_timeout, self.link.close()).await;
        }
        end
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        let mut turn = Turn { bytes: TURN_BYTES, packets: TURN_PACKETS };
        loop {
            if let Poll::Ready(end) = self.poll_output(cx) {
                return Poll::Ready(end);
            }
            if turn.bytes == 0 || turn.packets == 0 {
                // A client that never pauses gets here each time: its deadlines must not wait for a pause.
                if let Err(end) = self.handle_timeout(Instant::now()) {
                    return Poll::Ready(end);
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.poll_input(cx, &mut turn) {
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(end)) => return Poll::Ready(end),
                Poll::Pending => {}
            }
            let due = self.next_timeout().into();
            if self.timer.deadline() != due {
                self.timer.as_mut().reset(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Err(end) = self.handle_timeout(Instant::now()) {
                return Poll::Ready(end);
            }
        }
    }

    /// Writes what waits for the client; ready only when the session is over.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<SessionEnd> {
        loop {
            match self.link.poll_send(cx) {
                Poll::Ready(Ok(())) => self.stalled = None,
                Poll::Ready(Err(error)) => return Poll::Ready(error.into()),
                Poll::Pending => {
                    self.note_stall();
                    return match self.connection.outbox.ending(cx.waker()) {
                        Some(Ending::Restart) | None => Poll::Pending,
                        Some(ending) => Poll::Ready(SessionEnd::Ended(ending)),
                    };
                }
            }
            let (outbox, link) = (&self.connection.outbox, &mut self.link);
            let taken = outbox.take(BATCH_FRAMES, BATCH_BYTES, cx.waker(), |frame| link.push(frame));
            if taken.changes {
                for key in outbox.take_changes(BATCH_CHANGES) {
                    link.push(Outgoing::frame(&self.shared.hub.standing(&key)));
                }
            } else if taken.count == 0 {
                return match taken.ending {
                    Some(ending) => Poll::Ready(SessionEnd::Ended(ending)),
                    None => Poll::Pending,
                };
            }
        }
    }

    /// Starts the time within which the kernel must take something, again whenever it did.
    fn note_stall(&mut self) {
        let written = self.link.written();
        if self.stalled.is_none_or(|stalled| stalled.written != written) {
            let timeout = if self.is_mesh_peer { MESH_WRITE_TIMEOUT } else { self.shared.limits.write_timeout };
            self.stalled = Some(Stalled { written, until: Instant::now() + timeout });
        }
    }

    fn next_timeout(&self) -> Instant {
        let others = [self.resume_at, self.stalled.map(|stalled| stalled.until)];
        others.into_iter().flatten().fold(self.keep_alive_at, Instant::min)
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), SessionEnd> {
        if self.stalled.is_some_and(|stalled| now >= stalled.until) {
            self.shared.metrics.stalled.inc();
            return Err(SessionEnd::Stalled);
        }
        if self.resume_at.is_some_and(|resume_at| now >= resume_at) {
            self.resume_at = None;
        }
        if now >= self.keep_alive_at {
            self.connection.outbox.push_note(Outgoing::frame(&Frame::KeepAlive));
            self.connection.outbox.shrink();
            self.link.shrink();
            self.plan_keep_alive(now);
        }
        Ok(())
    }

    fn plan_keep_alive(&mut self, now: Instant) {
        let every = self.shared.limits.keep_alive;
        let jitter = SystemEntropy.below((every / 12).as_millis() as u64);
        self.keep_alive_at = now + every + Duration::from_millis(jitter);
    }

    /// Handles what was read, and reads more when all of that is handled. Pending when there is nothing, or nothing may
    /// be read yet.
    fn poll_input(&mut self, cx: &mut Context<'_>, turn: &mut Turn) -> Poll<Result<(), SessionEnd>> {
        if let Some(pressed) = &self.pressed {
            if pressed.outbox.wait_for_room(cx.waker()) {
                return Poll::Pending;
            }
            self.pressed = None;
        }
        if self.has_input {
            return Poll::Ready(self.handle_input(turn));
        }
        if self.resume_at.is_some() {
            return Poll::Pending;
        }
        match self.link.poll_fill(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(SessionEnd::Closed)),
            Poll::Ready(Ok(count)) => {
                self.has_input = true;
                turn.bytes = turn.bytes.saturating_sub(count);
                self.pay_for(count);
                Poll::Ready(self.handle_input(turn))
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Err(SessionEnd::Closed))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Stops reading for as long as the client has sent faster than it may.
    fn pay_for(&mut self, count: usize) {
        if let Some(rate) = &mut self.rate {
            let now = Instant::now();
            let wait = rate.take(count as f64, now);
            self.resume_at = (!wait.is_zero()).then(|| now + wait);
        }
    }

    fn handle_input(&mut self, turn: &mut Turn) -> Result<(), SessionEnd> {
        let mut tally = Tally::default();
        let handled = self.handle_frames(turn.packets, &mut tally);
        turn.packets -= tally.packets;
        if tally.packets > 0 {
            self.shared.hub.note_sending(&self.presence, &self.connection);
            let metrics = &self.shared.metrics;
            metrics.packets.inc_by(tally.packets);
            metrics.bytes.inc_by(tally.bytes);
            metrics.drop_packets(DroppedReason::UnknownPeer, tally.unknown);
            metrics.drop_packets(DroppedReason::QueueFull, tally.full);
        }
        handled
    }

    fn handle_frames(&mut self, most_packets: u64, tally: &mut Tally) -> Result<(), SessionEnd> {
        while tally.packets < most_packets && self.pressed.is_none() {
            let Some(frame) = self.link.next_frame()? else {
                self.has_input = false;
                break;
            };
            self.handle_frame(frame, tally)?;
        }
        Ok(())
    }

    fn handle_frame(&mut self, frame: RawFrame, tally: &mut Tally) -> Result<(), SessionEnd> {
        match Frame::parse(frame.kind, &frame.body)? {
            Frame::SendPacket { destination, packet } => {
                let packet = frame.body.slice_ref(packet);
                self.route(self.connection.key, &destination, packet, Reach::Mesh, tally);
            }
            Frame::ForwardPacket { source, destination, packet } if self.is_mesh_peer => {
                let packet = frame.body.slice_ref(packet);
                self.route(source, &destination, packet, Reach::Here, tally);
            }
            Frame::NotePreferred(is_home) => self.note_home(is_home),
            Frame::Ping(data) => {
                // A client that pings and does not read gets as many answers as its queue has room for.
                self.connection.outbox.push_note(Outgoing::frame(&Frame::Pong(data)));
            }
            Frame::Pong(_) | Frame::KeepAlive | Frame::Unknown(_) => {}
            Frame::WatchConns if self.is_mesh_peer => self.watch(),
            Frame::ClosePeer(peer) if self.is_mesh_peer => {
                self.shared.hub.disconnect(&peer, Ending::ByMesh);
            }
            _ => return Err(SessionEnd::Forbidden(frame.kind)),
        }
        Ok(())
    }

    fn route(&mut self, source: NodePublic, destination: &NodePublic, packet: Bytes, reach: Reach, tally: &mut Tally) {
        tally.packets += 1;
        tally.bytes += packet.len() as u64;
        let lane = if Envelope::is_disco(&packet) { Lane::Disco } else { Lane::Data };
        let sender = self.connection.id;
        if let Some(peer) = self.find(destination) {
            let (dropped, pressed) = peer.deliver(lane, source, sender, packet);
            tally.full += u64::from(dropped);
            self.pressed = pressed;
            return;
        }
        if reach == Reach::Mesh
            && let Some(remote) = self.shared.hub.forwarders.find(destination)
        {
            let frame = Outgoing::forward(&source, destination, packet);
            tally.full += u64::from(remote.outbox.push_packet(lane, sender, frame).dropped);
            return;
        }
        tally.unknown += 1;
        // Only who looks for a path waits for an answer; data is retried anyway.
        if lane == Lane::Disco && self.gone.try_take(1.0, Instant::now()) {
            let gone = Frame::PeerGone { peer: *destination, reason: GoneReason::NotHere };
            self.connection.outbox.push_note(Outgoing::frame(&gone));
        }
    }

    fn find(&mut self, destination: &NodePublic) -> Option<&Arc<Presence>> {
        let remembered = self.last_peer.as_ref().is_some_and(|peer| peer.key == *destination && !peer.is_gone());
        if !remembered {
            self.last_peer = self.shared.hub.find(destination);
            if self.last_peer.is_some() && self.sent_to.len() < MOST_SENT_TO {
                self.sent_to.insert(*destination);
            }
        }
        self.last_peer.as_ref()
    }

    fn note_home(&mut self, is_home: bool) {
        if is_home != self.is_home {
            self.is_home = is_home;
            if is_home {
                self.shared.metrics.homes.inc()
            } else {
                self.shared.metrics.homes.dec()
            };
        }
    }

    fn watch(&self) {
        self.shared.hub.watchers.add(self.connection.clone());
        self.shared.hub.for_each(|other| {
            if other.key != self.connection.key {
                self.connection.outbox.push_change(other.key);
            }
        });
    }
}

/// How far a packet may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// To clients of this relay: it was forwarded once.
    Here,
    /// To clients of other relays of the mesh too.
    Mesh,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.note_home(false);
        self.shared.metrics.clients.dec();
        self.shared.hub.watchers.remove(&self.connection);
        self.shared.hub.unregister(&self.presence, &self.connection, std::mem::take(&mut self.sent_to));
        self.connection.outbox.end(Ending::Restart);
    }
}
