//! One peer's tunnel: the handshake that may be under way, up to three sessions, and the timers over both.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::tunnel::{
    AuthenticInitiation, CookieCipher, HandshakeError, Initiator, MacKey, SealedResponse, TransportKeys,
};
use crypto::{Entropy, NodePublic};
use packet::wireguard::{CookieReply, Initiation, InitiationRepr, Response, ResponseRepr, TRANSPORT_OVERHEAD};

use crate::interface::Shared;
use crate::limits::{INITIATION_INTERVAL, LOOK_INTERVAL, REKEY_ATTEMPT_TIME, REKEY_JITTER, REKEY_TIMEOUT};
use crate::transport::{Activity, Traffic};
use crate::{Destination, Discard, Event, Moment, PeerConfig, Source};

mod jar;
mod sessions;
mod timers;

use jar::CookieJar;
use sessions::{Role, Session, Sessions};

/// A peer that something is going on with.
#[derive(Debug)]
pub(crate) struct Tunnel {
    peer: NodePublic,
    mac_key: MacKey,
    jar: CookieJar,
    attempt: Option<Attempt>,
    sessions: Sessions,
    activity: Arc<Activity>,
    last_handshake: Option<Instant>,
    last_initiation_sent: Option<Instant>,
    last_initiation_taken: Option<Instant>,
    gave_up: Option<Instant>,
    next_look: Instant,
}

/// A row of initiations that go on until one is answered.
#[derive(Debug)]
struct Attempt {
    since: Instant,
    sent: u32,
    /// When the next initiation goes out, or the row ends.
    next: Instant,
    /// The last one; an answer to an earlier one finds nothing.
    in_flight: Option<InFlight>,
}

#[derive(Debug)]
struct InFlight {
    index: u32,
    initiator: Initiator,
}

impl Tunnel {
    pub(crate) fn new(peer: NodePublic, now: Instant) -> Self {
        Self {
            peer,
            mac_key: MacKey::of(&peer),
            jar: CookieJar::default(),
            attempt: None,
            sessions: Sessions::default(),
            activity: Arc::new(Activity::new(now)),
            last_handshake: None,
            last_initiation_sent: None,
            last_initiation_taken: None,
            gave_up: None,
            next_look: now,
        }
    }

    /// Somebody has a packet for the peer and no key to seal it with.
    pub(crate) fn handle_wanted(&mut self, now: Moment, shared: &mut Shared, entropy: &mut dyn Entropy) {
        self.look(now.instant, shared);
        if let Some(session) = self.sessions.usable() {
            // It tried an old key at the moment at which the new one was made known.
            shared.events.push_back(Event::Send { peer: self.peer, key: session.send.clone() });
            return;
        }
        if self.attempt.is_some() {
            return;
        }
        // A session that the peer has just begun needs only its first message: starting another would cross with it.
        let offered = self.sessions.offered_at().map(|created| created + REKEY_TIMEOUT);
        self.begin(now.instant, offered.unwrap_or(now.instant));
        self.advance(now, shared, entropy);
    }

    /// Answers an initiation that has proven its sender.
    pub(crate) fn handle_initiation(
        &mut self,
        initiation: AuthenticInitiation,
        (source, sender): (Source, u32),
        now: Instant,
        config: &PeerConfig,
        (shared, entropy): (&mut Shared, &mut dyn Entropy),
    ) -> Result<(), HandshakeError> {
        let (SealedResponse { ephemeral, sealed_nothing }, keys) =
            initiation.respond(&config.preshared_key, entropy)?;
        let index = shared.indices.allocate(&self.peer, entropy);
        self.last_initiation_taken = Some(now);
        self.note_received(now);
        shared.events.push_back(Event::Authenticated { peer: self.peer, source });

        let session = self.open_session(Role::Responder, (index, sender), keys, now, shared);
        self.sessions.offer(session, &self.peer, shared);

        let mut message = ResponseRepr { sender: index, receiver: sender, ephemeral, sealed_nothing }.emit();
        self.authenticate(&mut message, Response::MAC1_AT, Response::MAC2_AT, now);
        self.note_sent(now);
        shared.send(Destination::Answer(self.peer, source), &message);
        Ok(())
    }

    /// Whether the peer's last initiation is long enough ago for another.
    pub(crate) fn takes_initiation(&self, now: Instant) -> bool {
        self.last_initiation_taken.is_none_or(|last| now.saturating_duration_since(last) >= INITIATION_INTERVAL)
    }

    /// Whether an initiation with that index waits for its answer.
    pub(crate) fn awaits_response(&self, index: u32) -> bool {
        self.in_flight(index).is_some()
    }

    /// Takes what claims to answer this side's initiation. Unless it verifies, nothing changes.
    pub(crate) fn handle_response(
        &mut self,
        response: &Response<'_>,
        source: Source,
        now: Instant,
        config: &PeerConfig,
        shared: &mut Shared,
    ) -> Result<(), Discard> {
        let flight = self.in_flight(response.receiver()).ok_or(Discard::UnknownIndex)?;
        let pieces = SealedResponse { ephemeral: response.ephemeral(), sealed_nothing: response.sealed_nothing() };
        let keys = flight.initiator.finish(&shared.identity, &config.preshared_key, &pieces)?;
        self.attempt = None;
        self.gave_up = None;
        self.last_handshake = Some(now);
        self.note_received(now);
        shared.events.push_back(Event::Authenticated { peer: self.peer, source });

        let indices = (response.receiver(), response.sender());
        let session = self.open_session(Role::Initiator, indices, keys, now, shared);
        self.sessions.establish(session, &self.peer, shared);
        // The peer may send once it has heard this side under the new keys, and packets may be long in coming.
        self.send_keepalive(now, shared);
        Ok(())
    }

    /// Keeps a cookie for the next message, sent when its time comes: a cookie moves no timer and no path.
    pub(crate) fn handle_cookie_reply(&mut self, reply: &CookieReply<'_>, now: Instant) -> Result<(), Discard> {
        let cipher = CookieCipher::of(&self.peer);
        if self.jar.take(&cipher, reply, now) { Ok(()) } else { Err(Discard::Cookie) }
    }

    /// Catches up with what the data threads did: sessions that the peer confirmed, and those whose time is over.
    pub(crate) fn look(&mut self, now: Instant, shared: &mut Shared) {
        if self.sessions.promote_confirmed(&self.peer, shared) {
            self.last_handshake = Some(now);
            self.gave_up = None;
            self.cancel_attempt(shared);
        }
        self.sessions.expire(now, &self.peer, shared);
    }

    /// Time has passed.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Moment,
        config: &PeerConfig,
        shared: &mut Shared,
        entropy: &mut dyn Entropy,
    ) {
        self.look(now.instant, shared);
        if self.attempt.is_none() && self.wants_handshake(now.instant, config) {
            // Both sides notice a dead session at about the same time.
            self.begin(now.instant, now.instant + jitter(entropy));
        }
        self.advance(now, shared, entropy);
        if self.keepalive_due(config).is_some_and(|due| due <= now.instant) {
            self.send_keepalive(now.instant, shared);
        }
        self.next_look = now.instant + self.look_interval(now.instant);
    }

    /// Ends everything: the peer was removed.
    pub(crate) fn close(mut self, shared: &mut Shared) {
        self.cancel_attempt(shared);
        self.sessions.end_all(&self.peer, shared);
    }

    /// Whether nothing is left that needs the tunnel.
    pub(crate) fn is_idle(&self, config: &PeerConfig) -> bool {
        self.attempt.is_none() && self.sessions.is_empty() && config.persistent_keepalive.is_none()
    }

    pub(crate) fn traffic(&self) -> Traffic {
        self.activity.traffic()
    }

    pub(crate) fn last_handshake(&self) -> Option<Instant> {
        self.last_handshake
    }

    pub(crate) fn is_established(&self) -> bool {
        self.sessions.usable().is_some()
    }

    fn in_flight(&self, index: u32) -> Option<&InFlight> {
        self.attempt.as_ref()?.in_flight.as_ref().filter(|flight| flight.index == index)
    }

    /// Begins a row of initiations, the first of which goes out no earlier than `not_before`.
    fn begin(&mut self, now: Instant, not_before: Instant) {
        let spaced = self.last_initiation_sent.map_or(now, |last| last + REKEY_TIMEOUT);
        self.attempt = Some(Attempt { since: now, sent: 0, next: not_before.max(spaced), in_flight: None });
    }

    /// Sends the next initiation of a row if it is due, or ends the row.
    fn advance(&mut self, now: Moment, shared: &mut Shared, entropy: &mut dyn Entropy) {
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| attempt.next <= now.instant) else { return };
        let is_over = attempt.sent > 0 && now.instant >= attempt.since + REKEY_ATTEMPT_TIME;
        if is_over || self.initiate(now, shared, entropy).is_err() {
            self.give_up(now.instant, shared);
        }
    }

    fn initiate(&mut self, now: Moment, shared: &mut Shared, entropy: &mut dyn Entropy) -> Result<(), HandshakeError> {
        let stamp = shared.stamp(now.wall);
        let (initiator, pieces) = Initiator::start(&shared.identity, &self.peer, stamp, entropy)?;
        let index = shared.indices.allocate(&self.peer, entropy);
        let mut message = InitiationRepr {
            sender: index,
            ephemeral: pieces.ephemeral,
            sealed_static: pieces.sealed_static,
            sealed_timestamp: pieces.sealed_timestamp,
        }
        .emit();
        self.authenticate(&mut message, Initiation::MAC1_AT, Initiation::MAC2_AT, now.instant);
        self.last_initiation_sent = Some(now.instant);
        self.note_sent(now.instant);

        let Some(attempt) = &mut self.attempt else { return Ok(()) };
        attempt.sent += 1;
        attempt.next = now.instant + REKEY_TIMEOUT + jitter(entropy);
        if let Some(flight) = attempt.in_flight.replace(InFlight { index, initiator }) {
            shared.indices.free(flight.index);
        }
        shared.events.push_back(Event::HandshakeStarted { peer: self.peer, attempt: attempt.sent });
        shared.send(Destination::Peer(self.peer), &message);
        Ok(())
    }

    fn give_up(&mut self, now: Instant, shared: &mut Shared) {
        let attempts = self.cancel_attempt(shared);
        self.gave_up = Some(now);
        self.activity.restart_wait();
        shared.events.push_back(Event::HandshakeFailed { peer: self.peer, attempts });
    }

    /// Ends a row of initiations and returns how many there were.
    fn cancel_attempt(&mut self, shared: &mut Shared) -> u32 {
        let Some(attempt) = self.attempt.take() else { return 0 };
        if let Some(flight) = attempt.in_flight {
            shared.indices.free(flight.index);
        }
        attempt.sent
    }

    fn open_session(
        &mut self,
        role: Role,
        (index, receiver): (u32, u32),
        keys: TransportKeys,
        now: Instant,
        shared: &mut Shared,
    ) -> Session {
        let (session, key) = Session::open(self.peer, role, (index, receiver), keys, now, &self.activity);
        self.next_look = now + LOOK_INTERVAL;
        shared.events.push_back(Event::Receive { peer: self.peer, key: Box::new(key) });
        session
    }

    /// Writes both authenticators; the second stays zero unless the peer has lately asked for it.
    fn authenticate(&mut self, message: &mut [u8], mac1_at: usize, mac2_at: usize, now: Instant) {
        let mac1 = self.mac_key.mac1(&message[..mac1_at]);
        message[mac1_at..mac2_at].copy_from_slice(&mac1);
        if let Some(cookie) = self.jar.cookie(now) {
            let mac2 = cookie.mac2(&message[..mac2_at]);
            message[mac2_at..].copy_from_slice(&mac2);
        }
        self.jar.expect(mac1);
    }

    fn send_keepalive(&mut self, now: Instant, shared: &mut Shared) {
        let Some(session) = self.sessions.usable() else { return };
        let mut message = [0; TRANSPORT_OVERHEAD];
        let sealed = session.send.begin(1, now).is_ok_and(|mut train| train.seal(&mut message, 0, 0).is_ok());
        if sealed {
            shared.send(Destination::Peer(self.peer), &message);
        }
    }

    fn note_sent(&self, now: Instant) {
        self.activity.note_sent(self.activity.tick(now), 0, false);
    }

    fn note_received(&self, now: Instant) {
        self.activity.note_received(self.activity.tick(now), 0, false);
    }
}

fn jitter(entropy: &mut dyn Entropy) -> Duration {
    Duration::from_millis(entropy.below(REKEY_JITTER.as_millis() as u64 + 1))
}
