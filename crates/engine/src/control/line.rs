use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use crypto::{Entropy, NodePrivate, NodePublic, SystemEntropy};
use derp::client::{Connection, ConnectionError, Dialer, Event, Options, Relay};
use packet::demux::Carried;
use path::{RegionId, RelayState};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use wireguard::Source;

use super::relays::{Parcel, Role, Word};
use super::{Shared, Stranger};
use crate::counters::count;
use crate::pipeline::FromRelay;

/// A connection that is nobody's home is closed after so long without a packet either way.
const IDLE: Duration = Duration::from_secs(60);
/// Between attempts: from this, doubled each time, up to that; for the home and for others.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE_HOME: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// A connection that broke this soon is not followed by the next at once.
const SHORT_LIVED: Duration = Duration::from_secs(2);
const SHORT_LIVED_PAUSE: Duration = Duration::from_millis(500);
/// How long goodbye may take.
const CLOSE_TIME: Duration = Duration::from_secs(1);
/// How often the control thread hears that a relay is heard.
const HEARD_INTERVAL: Duration = Duration::from_secs(5);
/// How long a relay has to answer a ping after the network changed.
const PROOF_TIME: Duration = Duration::from_secs(3);
/// The most that a relay can make this node wait and try on when it announces its restart.
const LONGEST_RESTART: Duration = Duration::from_secs(60);

/// The connection to one region.
pub(super) struct Line {
    pub(super) region: RegionId,
    pub(super) relays: Vec<Relay>,
    pub(super) key: NodePrivate,
    pub(super) dialer: Arc<Dialer>,
    pub(super) options: Options,
    pub(super) shared: Arc<Shared>,
    pub(super) words: mpsc::Sender<Word>,
}

/// Why a connection is not served any more.
enum Ending {
    /// Nobody needs it.
    Unused,
    /// It broke.
    Broken(ConnectionError),
    /// The relay said that it restarts: how long to wait, and how long to go on trying.
    Restarting(Duration, Duration),
    /// The engine stops, or the region is gone.
    Over,
}

/// The region is gone, or the engine stops.
struct Over;

/// What happens while a connection is served.
enum Step {
    Event(Result<Event, ConnectionError>),
    Room,
    Parcel(Option<Parcel>),
    Role(bool),
    Idle,
    Silent,
}

/// A ping that the relay has not answered.
struct Ping {
    data: [u8; 8],
    sent: Instant,
}

impl Line {
    /// Runs until the region is gone.
    pub(super) async fn run(self, mut parcels: mpsc::Receiver<Parcel>, mut role: watch::Receiver<Role>) {
        // The end is told by the role's sender being gone, wherever that is noticed.
        let _over: Result<(), Over> = self.live(&mut parcels, &mut role).await;
    }

    async fn live(&self, parcels: &mut mpsc::Receiver<Parcel>, role: &mut watch::Receiver<Role>) -> Result<(), Over> {
        let mut measured = 0;
        loop {
            let first = self.until_wanted(parcels, role, measured).await?;
            let mut pending = first;
            let mut patience = None;
            // Wanted: connect, and connect again for as long as that holds.
            loop {
                let Some(connection) = self.connect(parcels, role, patience.take(), &mut measured).await? else {
                    break;
                };
                self.say(Word::State(self.region, RelayState::Up, None)).await?;
                let begun = Instant::now();
                match self.serve(connection, parcels, role, pending.take(), &mut measured).await {
                    Ending::Unused => break,
                    Ending::Over => return Err(Over),
                    Ending::Broken(error) => {
                        tracing::debug!(region = %self.region, %error, "relay connection broke");
                        if begun.elapsed() < SHORT_LIVED {
                            self.pause(parcels, role, SHORT_LIVED_PAUSE + jitter(SHORT_LIVED_PAUSE)).await?;
                        }
                    }
                    Ending::Restarting(wait, try_for) => {
                        self.pause(parcels, role, wait).await?;
                        patience = Some(Instant::now() + try_for);
                    }
                }
            }
            self.say(Word::State(self.region, RelayState::Closed, None)).await?;
        }
    }

    async fn until_wanted(
        &self,
        parcels: &mut mpsc::Receiver<Parcel>,
        role: &mut watch::Receiver<Role>,
        measured: u64,
    ) -> Result<Option<Parcel>, Over> {
        loop {
            let now = *role.borrow_and_update();
            if now.home || now.measurements > measured {
                return Ok(None);
            }
            tokio::select! {
                parcel = parcels.recv() => return parcel.map(Some).ok_or(Over),
                changed = role.changed() => changed.map_err(|_| Over)?,
            }
        }
    }

    /// Tries until there is a connection, or it is not wanted any more. The region counts as down once all its relays
    /// were tried in vain, unless it is known to be back soon (`patience`).
    async fn connect(
        &self,
        parcels: &mut mpsc::Receiver<Parcel>,
        role: &mut watch::Receiver<Role>,
        patience: Option<Instant>,
        measured: &mut u64,
    ) -> Result<Option<Connection>, Over> {
        let mut wanted_until = Instant::now() + IDLE;
        let mut pause = FIRST_PAUSE;
        loop {
            let mut reason = String::new();
            for relay in &self.relays {
                let mut opening = std::pin::pin!(Connection::open(&self.dialer, relay, &self.key, &self.options));
                let opened = loop {
                    tokio::select! {
                        opened = &mut opening => break opened,
                        changed = role.changed() => changed.map_err(|_| Over)?,
                    }
                };
                match opened {
                    Ok(connection) => return Ok(Some(connection)),
                    Err(error) => reason = error.to_string(),
                }
            }
            let now = *role.borrow_and_update();
            if now.measurements > *measured {
                *measured = now.measurements;
                self.say(Word::Measured(self.region, None)).await?;
            }
            if patience.is_none_or(|until| until <= Instant::now()) {
                self.say(Word::State(self.region, RelayState::Down, Some(reason))).await?;
            }
            if self.pause(parcels, role, pause + jitter(pause)).await? {
                wanted_until = Instant::now() + IDLE;
            }
            let now = *role.borrow();
            if !now.home && !now.has_peers && wanted_until <= Instant::now() {
                return Ok(None);
            }
            pause = (pause * 2).min(if now.home { LONGEST_PAUSE_HOME } else { LONGEST_PAUSE });
        }
    }

    /// Waits, or until the role changes. Packets that come meanwhile are dropped; says whether there were any.
    async fn pause(
        &self,
        parcels: &mut mpsc::Receiver<Parcel>,
        role: &mut watch::Receiver<Role>,
        time: Duration,
    ) -> Result<bool, Over> {
        let mut over = std::pin::pin!(sleep(time));
        let mut any = false;
        loop {
            tokio::select! {
                () = &mut over => return Ok(any),
                changed = role.changed() => {
                    changed.map_err(|_| Over)?;
                    return Ok(any);
                }
                parcel = parcels.recv() => {
                    parcel.ok_or(Over)?;
                    count(&self.shared.counters.relay_full);
                    any = true;
                }
            }
        }
    }

    async fn serve(
        &self,
        connection: Connection,
        parcels: &mut mpsc::Receiver<Parcel>,
        role: &mut watch::Receiver<Role>,
        pending: Option<Parcel>,
        measured: &mut u64,
    ) -> Ending {
        let now = *role.borrow_and_update();
        let used = Instant::now();
        let mut service =
            Service { line: self, connection, role: now, pending, ping: None, proof: None, heard: None, used };
        if now.home && service.connection.note_preferred(true).is_err() {
            return Ending::Broken(ConnectionError::Closed);
        }
        loop {
            service.measure(measured);
            service.feed();
            let ending = match service.step(parcels, role).await {
                Step::Room => None,
                Step::Parcel(Some(parcel)) => {
                    (service.used, service.pending) = (Instant::now(), Some(parcel));
                    None
                }
                Step::Parcel(None) | Step::Role(false) => Some(Ending::Over),
                Step::Role(true) => service.turn(*role.borrow_and_update()),
                Step::Idle => Some(Ending::Unused),
                Step::Silent => Some(Ending::Broken(ConnectionError::Silent)),
                Step::Event(Err(error)) => Some(service.broken(error).await),
                Step::Event(Ok(event)) => service.take(event).await.unwrap_or(Some(Ending::Over)),
            };
            match ending {
                None => {}
                Some(ending @ (Ending::Over | Ending::Unused)) => {
                    // Goodbye is a courtesy: a connection that does not end in time is dropped.
                    let _late = timeout(CLOSE_TIME, service.connection.close()).await;
                    return ending;
                }
                Some(ending) => return ending,
            }
        }
    }

    /// Hands on a packet that a peer sent.
    fn pass_on(&self, node: NodePublic, packet: Bytes) {
        if self.shared.table.load().peer(&node).is_none() {
            return;
        }
        match Carried::classify(&packet) {
            Some(Carried::WireGuard([4, ..])) => {
                self.shared.frame(FromRelay { region: self.region, node, message: packet });
            }
            Some(_) => {
                let source = Source::Derp { region: self.region.get().into(), node };
                self.shared.stranger(Stranger { source, message: packet[..].into() });
            }
            None => {}
        }
    }

    async fn say(&self, word: Word) -> Result<(), Over> {
        self.words.send(word).await.map_err(|_| Over)
    }
}

/// A connection that stands.
struct Service<'a> {
    line: &'a Line,
    connection: Connection,
    role: Role,
    /// What was taken from the queue and not written yet.
    pending: Option<Parcel>,
    ping: Option<Ping>,
    /// When the relay must have been heard, after the network changed.
    proof: Option<Instant>,
    /// When the control thread was last told that the relay is heard.
    heard: Option<Instant>,
    used: Instant,
}

impl Service<'_> {
    /// Waits for the next thing to happen, and writes meanwhile.
    async fn step(&mut self, parcels: &mut mpsc::Receiver<Parcel>, role: &mut watch::Receiver<Role>) -> Step {
        let has_pending = self.pending.is_some();
        let idle_at = self.used + IDLE;
        let (home, proof) = (self.role.home, self.proof);
        let connection = &mut self.connection;
        tokio::select! {
            step = poll_fn(|cx| match connection.poll_next(cx) {
                Poll::Ready(event) => Poll::Ready(Step::Event(event)),
                Poll::Pending if has_pending && connection.has_room() => Poll::Ready(Step::Room),
                Poll::Pending => Poll::Pending,
            }) => step,
            parcel = parcels.recv(), if !has_pending => Step::Parcel(parcel),
            changed = role.changed() => Step::Role(changed.is_ok()),
            () = tokio::time::sleep_until(idle_at.into()), if !home => Step::Idle,
            () = tokio::time::sleep_until(proof.unwrap_or(idle_at).into()), if proof.is_some() => Step::Silent,
        }
    }

    /// Pings the relay if that was asked for, unless an answer is still to come.
    fn measure(&mut self, measured: &mut u64) {
        let waits = self.ping.as_ref().is_some_and(|ping| ping.sent.elapsed() < PROOF_TIME);
        if self.role.measurements > *measured && !waits {
            *measured = self.role.measurements;
            self.ping = send_ping(&mut self.connection);
        }
    }

    /// Queues as many messages as there is room for.
    fn feed(&mut self) {
        while let Some(parcel) = &mut self.pending {
            if !parcel.bytes.has_remaining() {
                self.pending = None;
                return;
            }
            if !self.connection.has_room() {
                return;
            }
            let message = parcel.bytes.split_to(parcel.message.clamp(1, parcel.bytes.len()));
            if self.connection.send(&parcel.to, message).is_err() {
                // There is room, so that it is too long, or more than the relay takes in a second.
                count(&self.line.shared.counters.relay_full);
            }
        }
    }

    /// Takes another role.
    fn turn(&mut self, now: Role) -> Option<Ending> {
        let before = std::mem::replace(&mut self.role, now);
        if before.home != now.home && self.connection.note_preferred(now.home).is_err() {
            return Some(Ending::Broken(ConnectionError::Closed));
        }
        if before.networks != now.networks {
            self.ping = send_ping(&mut self.connection);
            self.proof = Some(Instant::now() + PROOF_TIME);
        }
        None
    }

    async fn broken(&self, error: ConnectionError) -> Ending {
        if self.ping.is_some() && self.line.say(Word::Measured(self.line.region, None)).await.is_err() {
            return Ending::Over;
        }
        Ending::Broken(error)
    }

    async fn take(&mut self, event: Event) -> Result<Option<Ending>, Over> {
        let (line, region, now) = (self.line, self.line.region, Instant::now());
        self.proof = None;
        if self.heard.is_none_or(|heard| now.duration_since(heard) >= HEARD_INTERVAL) {
            self.heard = Some(now);
            line.say(Word::Heard(region)).await?;
        }
        match event {
            Event::Packet { source: node, packet } => {
                self.used = now;
                line.pass_on(node, packet);
            }
            Event::PeerGone { peer, .. } => line.say(Word::PeerGone(region, peer)).await?,
            Event::Pong(data) => {
                if let Some(answered) = self.ping.take_if(|ping| ping.data == data) {
                    line.say(Word::Measured(region, Some(answered.sent.elapsed()))).await?;
                }
            }
            Event::Health(problem) => line.say(Word::Health(region, problem)).await?,
            Event::Restarting { reconnect_in, try_for } => {
                let wait = reconnect_in.min(LONGEST_RESTART) + jitter(Duration::from_millis(200));
                return Ok(Some(Ending::Restarting(wait, try_for.min(LONGEST_RESTART))));
            }
            Event::KeepAlive | Event::PeerPresent { .. } => {}
        }
        Ok(None)
    }
}

/// Sends a ping; `None` when there is no room for it, which a later measurement makes up for.
fn send_ping(connection: &mut Connection) -> Option<Ping> {
    let mut data = [0; 8];
    SystemEntropy.fill(&mut data);
    connection.ping(data).ok().map(|()| Ping { data, sent: Instant::now() })
}

fn jitter(most: Duration) -> Duration {
    Duration::from_millis(SystemEntropy.below(most.as_millis() as u64 + 1))
}
