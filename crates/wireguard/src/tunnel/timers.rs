//! When a tunnel acts by itself, from what its keys saw (whitepaper, sections 6.2 to 6.5).

use std::time::{Duration, Instant};

use super::Tunnel;
use super::sessions::Role;
use crate::PeerConfig;
use crate::limits::{
    KEEPALIVE_TIMEOUT, LOOK_INTERVAL, LOOK_INTERVAL_WHEN_OLD, REJECT_AFTER_TIME, REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME, REKEY_TIMEOUT,
};

/// Data sent for so long with no sign of the peer means that the session is dead on the other side.
const SILENCE: Duration = Duration::from_secs(KEEPALIVE_TIMEOUT.as_secs() + REKEY_TIMEOUT.as_secs());
/// Age at which even receiving makes the initiator renew: a session that is only received on must not run out.
const RENEW_ON_RECEIVE: Duration = Duration::from_secs(REJECT_AFTER_TIME.as_secs() - SILENCE.as_secs());

impl Tunnel {
    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub(crate) fn deadline(&self, config: &PeerConfig) -> Option<Instant> {
        let sessions = self.sessions.iter().map(|session| session.expires());
        let attempt = self.attempt.as_ref().map(|attempt| attempt.next);
        let live = (!self.sessions.is_empty()).then_some(self.next_look);
        let renewal = if attempt.is_none() { self.renewal_due(config) } else { None };
        sessions.chain(attempt).chain(live).chain(renewal).chain(self.keepalive_due(config)).min()
    }

    /// Whether the sessions call for a handshake. After a row of initiations that failed, something must happen first.
    pub(super) fn wants_handshake(&self, now: Instant, config: &PeerConfig) -> bool {
        self.renewal_due(config).is_some_and(|due| due <= now) || self.is_worn(now)
    }

    /// When an empty message is due: because the peer waits for an answer, or to keep the way open.
    ///
    /// The peer's empty messages are not data, so that two silent peers stay silent.
    pub(super) fn keepalive_due(&self, config: &PeerConfig) -> Option<Instant> {
        self.sessions.usable()?;
        let answer = self.activity.seen().received_unanswered.map(|since| since + KEEPALIVE_TIMEOUT);
        answer.into_iter().chain(self.persistent_due(config)).min()
    }

    pub(super) fn look_interval(&self, now: Instant) -> Duration {
        let old = self.sessions.current().is_some_and(|current| {
            current.role == Role::Initiator && now.saturating_duration_since(current.created) >= REKEY_AFTER_TIME
        });
        if old && self.attempt.is_none() { LOOK_INTERVAL_WHEN_OLD } else { LOOK_INTERVAL }
    }

    /// When a handshake is due that nothing else has to happen for.
    fn renewal_due(&self, config: &PeerConfig) -> Option<Instant> {
        if self.sessions.usable().is_none() {
            return self.persistent_due(config);
        }
        self.activity.seen().sent_unanswered.map(|since| since + SILENCE)
    }

    fn persistent_due(&self, config: &PeerConfig) -> Option<Instant> {
        let interval = config.persistent_keepalive?;
        let seen = self.activity.seen();
        let last = seen.last_sent.max(seen.last_received).max(self.gave_up);
        Some(last.map_or(self.activity.epoch(), |last| last + interval))
    }

    /// Whether the current session has served its time or its messages, and is still in use.
    fn is_worn(&self, now: Instant) -> bool {
        let Some(current) = self.sessions.current() else { return false };
        let seen = self.activity.seen();
        let since = |moment: Option<Instant>, age: Duration| {
            let from = current.created + age;
            now >= from && moment.is_some_and(|moment| moment >= from && self.gave_up.is_none_or(|end| moment > end))
        };
        let by_time = current.role == Role::Initiator
            && (since(seen.last_sent, REKEY_AFTER_TIME) || since(seen.last_received, RENEW_ON_RECEIVE));
        let by_messages = current.send.reserved() >= REKEY_AFTER_MESSAGES && since(seen.last_sent, Duration::ZERO);
        by_time || by_messages
    }
}
