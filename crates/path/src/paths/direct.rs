use std::time::{Duration, Instant};

use super::quality::Quality;
use super::timing::{
    CHECK_INTERVAL, DOUBT_INTERVAL, HEARTBEAT, HINT_INTERVAL, MAX_PATIENCE, MIN_HINT_PATIENCE, MIN_PATIENCE,
    PING_TIMEOUT, SILENCE, TRUST,
};

/// The direct path in use, and how far it is trusted.
///
/// A pong proves both directions and gives [`TRUST`]. While the session is active, the path has to keep proving itself: a
/// heartbeat now and then, and a *check* (pings in short succession) as soon as something looks wrong: packets sent and
/// nothing heard, a heartbeat without an answer, or the peer heard by relay. A check that no pong ends makes the trust
/// lapse: packets then go both ways, and if no pong comes within [`PING_TIMEOUT`] of that, the path is given up.
#[derive(Debug)]
pub(super) struct Direct {
    pub(super) quality: Quality,
    /// When a pong or a packet came by it last, while it was trusted.
    proven: Instant,
    trusted_until: Instant,
    pinged: Instant,
    /// When the oldest ping that no pong followed was sent.
    awaiting: Option<Instant>,
    /// When the first packet was sent that nothing was heard after.
    silent_since: Option<Instant>,
    check: Option<Check>,
    hinted: Option<Instant>,
    doubted_since: Option<Instant>,
}

#[derive(Debug)]
struct Check {
    next_ping: Instant,
    lapses: Instant,
}

/// What a direct path wants done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Ping it.
    Ping,
    /// Its trust just ended: look for another, and tell where packets go now.
    Lapsed,
    /// It did not come back: forget it.
    Dead,
}

impl Direct {
    /// A path that a pong has just proven.
    pub(super) fn new(quality: Quality, proven: Instant) -> Self {
        Self {
            quality,
            proven,
            trusted_until: proven + TRUST,
            pinged: proven,
            awaiting: None,
            silent_since: None,
            check: None,
            hinted: None,
            doubted_since: None,
        }
    }

    /// The session becomes active: what was pending when it fell asleep means nothing any more.
    pub(super) fn wake(&mut self) {
        (self.check, self.awaiting, self.silent_since, self.doubted_since) = (None, None, None, None);
    }

    /// A packet was handed to this path.
    pub(super) fn sent(&mut self, now: Instant) {
        self.silent_since.get_or_insert(now);
    }

    /// An authenticated packet came by this path: proof of one direction only, so it can extend trust but not restore it.
    pub(super) fn heard(&mut self, now: Instant) {
        if self.trusted(now) {
            self.prove(now);
            self.silent_since = None;
        }
    }

    /// An authenticated packet came from another address of the peer: it is alive, whatever that says of this path.
    pub(super) fn heard_elsewhere(&mut self) {
        self.silent_since = None;
    }

    /// A ping to this path was sent.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pinged = now;
        self.awaiting.get_or_insert(now);
    }

    /// A pong came by this path.
    pub(super) fn ponged(&mut self, latency: Duration, now: Instant) {
        self.quality.latency = latency;
        self.prove(now);
        self.wake();
    }

    /// The peer shows by another way that it may have lost this path: check it with little patience.
    pub(super) fn hint(&mut self, now: Instant) {
        if !self.trusted(now) || self.hinted.is_some_and(|hinted| now < hinted + HINT_INTERVAL) {
            return;
        }
        self.hinted = Some(now);
        let lapses = now + (self.quality.latency * 2).clamp(MIN_HINT_PATIENCE, MAX_PATIENCE);
        match &mut self.check {
            Some(check) => check.lapses = check.lapses.min(lapses),
            None => self.check = Some(Check { next_ping: now, lapses }),
        }
    }

    /// What is to be done now, while the session is active. Asked again after each answer but [`Step::Rest`].
    pub(super) fn step(&mut self, now: Instant) -> Step {
        if self.trusted(now) { self.step_trusted(now) } else { self.step_doubted(now) }
    }

    fn step_trusted(&mut self, now: Instant) -> Step {
        if self.check.is_none() && self.suspicious_at().is_some_and(|at| at <= now) {
            self.check = Some(Check { next_ping: now, lapses: now + self.patience() });
        }
        if let Some(check) = &mut self.check {
            if check.lapses <= now {
                self.trusted_until = now;
                return self.step_doubted(now);
            }
            if check.next_ping <= now {
                check.next_ping = now + CHECK_INTERVAL;
                return Step::Ping;
            }
        }
        if self.pinged + HEARTBEAT <= now { Step::Ping } else { Step::Rest }
    }

    fn step_doubted(&mut self, now: Instant) -> Step {
        let Some(since) = self.doubted_since else {
            self.doubted_since = Some(now);
            self.check = None;
            return Step::Lapsed;
        };
        if since + PING_TIMEOUT <= now {
            Step::Dead
        } else if self.pinged + DOUBT_INTERVAL <= now {
            Step::Ping
        } else {
            Step::Rest
        }
    }

    /// When [`Self::step`] has something to do next, while the session is active.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        if !self.trusted(now) {
            let Some(since) = self.doubted_since else { return now };
            return (since + PING_TIMEOUT).min(self.pinged + DOUBT_INTERVAL);
        }
        let suspicion = match &self.check {
            Some(check) => Some(check.next_ping.min(check.lapses)),
            None => self.suspicious_at(),
        };
        let heartbeat = self.pinged + HEARTBEAT;
        suspicion.map_or(heartbeat, |at| at.min(heartbeat)).min(self.trusted_until)
    }

    fn prove(&mut self, now: Instant) {
        (self.proven, self.trusted_until) = (now, now + TRUST);
    }

    /// When silence, or a ping without pong, will have lasted too long.
    fn suspicious_at(&self) -> Option<Instant> {
        let silent = self.silent_since.map(|since| since + SILENCE);
        let unanswered = self.awaiting.map(|since| since + self.patience());
        silent.into_iter().chain(unanswered).min()
    }

    /// How long a check may take: three round trips, within bounds.
    fn patience(&self) -> Duration {
        (self.quality.latency * 3).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }

    pub(super) fn trusted(&self, now: Instant) -> bool {
        now < self.trusted_until
    }

    pub(super) fn proven(&self) -> Instant {
        self.proven
    }

    pub(super) fn trusted_until(&self) -> Instant {
        self.trusted_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(start: Instant) -> Direct {
        let address = "203.0.113.1:1".parse().unwrap();
        Direct::new(Quality { address, latency: Duration::from_millis(20) }, start)
    }

    /// Runs the path for `span`, answering no ping; returns when each ping left and when trust lapsed.
    fn run(path: &mut Direct, from: Instant, span: Duration) -> (Vec<u128>, Option<u128>) {
        let (mut pings, mut lapsed) = (Vec::new(), None);
        let mut now = from;
        while now <= from + span {
            match path.step(now) {
                Step::Rest => now = path.deadline(now).max(now + Duration::from_millis(1)),
                Step::Ping => {
                    path.pinged(now);
                    pings.push((now - from).as_millis());
                }
                Step::Lapsed => lapsed = Some((now - from).as_millis()),
                Step::Dead => break,
            }
        }
        (pings, lapsed)
    }

    #[test]
    fn silence_while_sending_is_checked_and_ends_trust_within_two_seconds() {
        let start = Instant::now();
        let mut path = path(start);
        path.sent(start);
        let (pings, lapsed) = run(&mut path, start, Duration::from_secs(2));
        assert_eq!(pings[..2], [750, 1000]);
        assert_eq!(lapsed, Some(1250));
    }

    #[test]
    fn a_quiet_path_gets_heartbeats_only() {
        let start = Instant::now();
        let mut path = path(start);
        for beat in 1..10 {
            let now = start + HEARTBEAT * beat;
            assert_eq!(path.step(now - Duration::from_millis(1)), Step::Rest);
            assert_eq!(path.step(now), Step::Ping);
            path.pinged(now);
            path.ponged(Duration::from_millis(20), now + Duration::from_millis(20));
        }
    }

    #[test]
    fn packets_heard_do_not_hide_that_pings_get_no_answer() {
        let start = Instant::now();
        let mut path = path(start);
        let mut lapsed = None;
        for tick in 0..600 {
            let now = start + Duration::from_millis(tick * 10);
            path.heard(now);
            match path.step(now) {
                Step::Ping => path.pinged(now),
                Step::Lapsed => lapsed = lapsed.or(Some(tick * 10)),
                Step::Rest | Step::Dead => {}
            }
        }
        assert_eq!(lapsed, Some(4000));
    }

    #[test]
    fn a_hint_is_checked_at_once_and_not_more_often_than_its_interval() {
        let start = Instant::now();
        let mut path = path(start);
        path.hint(start);
        assert_eq!(path.step(start), Step::Ping);
        path.pinged(start);
        path.ponged(Duration::from_millis(20), start + Duration::from_millis(20));
        path.hint(start + Duration::from_millis(100));
        assert_eq!(path.step(start + Duration::from_millis(100)), Step::Rest);
        path.hint(start + HINT_INTERVAL);
        let (_, lapsed) = run(&mut path, start + HINT_INTERVAL, Duration::from_secs(1));
        assert_eq!(lapsed, Some(250));
    }

    #[test]
    fn a_doubted_path_is_pinged_each_second_and_given_up_after_the_ping_timeout() {
        let start = Instant::now();
        let mut path = path(start);
        path.hint(start);
        let (pings, lapsed) = run(&mut path, start, Duration::from_secs(20));
        assert_eq!(lapsed, Some(250));
        assert_eq!(pings, [0, 1000, 2000, 3000, 4000, 5000]);
        assert_eq!(path.step(start + Duration::from_millis(5250)), Step::Dead);
        path.ponged(Duration::from_millis(20), start + Duration::from_secs(6));
        assert!(path.trusted(start + Duration::from_secs(6)));
    }
}
