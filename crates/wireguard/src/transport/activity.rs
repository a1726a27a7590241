use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes of transport messages that a tunnel moved, headers, padding and tags included, as `wg show` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes sealed for the peer.
    pub sent: u64,
    /// Bytes from the peer that verified.
    pub received: u64,
}

/// What passed through a tunnel and when, for its timers: written by data threads, read by the handshake machine.
///
/// Nobody waits for anybody. Values that belong together may be read a moment apart; every timer that follows is
/// longer than that by orders of magnitude.
#[derive(Debug)]
pub(crate) struct Activity {
    epoch: Instant,
    sent: Direction,
    received: Direction,
}

/// One direction, on cache lines of its own (two, since they are fetched in pairs): each has another writer.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Direction {
    /// Tick of the last authenticated message, empty or not.
    last: AtomicU64,
    /// Tick of the first message with data since anything came the other way; 0 for none.
    unanswered: AtomicU64,
    bytes: AtomicU64,
}

/// Nanoseconds since a tunnel came to be, plus one: zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

/// What had happened when the machine last looked.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) last_sent: Option<Instant>,
    pub(crate) last_received: Option<Instant>,
    /// Since when this side has sent data and heard nothing.
    pub(crate) sent_unanswered: Option<Instant>,
    /// Since when this side has heard data and sent nothing.
    pub(crate) received_unanswered: Option<Instant>,
}

impl Activity {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self { epoch, sent: Direction::default(), received: Direction::default() }
    }

    #[inline]
    pub(crate) fn tick(&self, now: Instant) -> Tick {
        let since = now.saturating_duration_since(self.epoch);
        Tick(since.as_secs().saturating_mul(1_000_000_000) + u64::from(since.subsec_nanos()) + 1)
    }

    #[inline]
    pub(crate) fn note_sent(&self, tick: Tick, bytes: u64, data: bool) {
        self.sent.note(&self.received, tick, bytes, data);
    }

    #[inline]
    pub(crate) fn note_received(&self, tick: Tick, bytes: u64, data: bool) {
        self.received.note(&self.sent, tick, bytes, data);
    }

    /// When the tunnel came to be.
    pub(crate) fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Takes silence so far as dealt with: the next data that is sent begins a new wait.
    pub(crate) fn restart_wait(&self) {
        self.sent.unanswered.store(0, Relaxed);
    }

    pub(crate) fn traffic(&self) -> Traffic {
        Traffic { sent: self.sent.bytes.load(Relaxed), received: self.received.bytes.load(Relaxed) }
    }

    pub(crate) fn seen(&self) -> Seen {
        let (sent, received) = (self.sent.last.load(Relaxed), self.received.last.load(Relaxed));
        let unanswered = |direction: &Direction, other: u64| {
            let since = direction.unanswered.load(Relaxed);
            if since > other { self.instant(since) } else { None }
        };
        Seen {
            last_sent: self.instant(sent),
            last_received: self.instant(received),
            sent_unanswered: unanswered(&self.sent, received),
            received_unanswered: unanswered(&self.received, sent),
        }
    }

    fn instant(&self, tick: u64) -> Option<Instant> {
        tick.checked_sub(1).and_then(|nanos| self.epoch.checked_add(Duration::from_nanos(nanos)))
    }
}

impl Direction {
    #[inline]
    fn note(&self, other: &Self, Tick(tick): Tick, bytes: u64, data: bool) {
        if data && other.last.load(Relaxed) >= self.unanswered.load(Relaxed) {
            self.unanswered.store(tick, Relaxed);
        }
        if self.last.load(Relaxed) < tick {
            self.last.store(tick, Relaxed);
        }
        self.bytes.fetch_add(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn activity() -> (Activity, impl Fn(&Activity, u32) -> Tick, Instant) {
        let epoch = Instant::now();
        (Activity::new(epoch), move |activity: &Activity, at: u32| activity.tick(epoch + SECOND * at), epoch)
    }

    #[test]
    fn nothing_has_happened_at_first() {
        let (activity, ..) = activity();
        let seen = activity.seen();
        assert!(seen.last_sent.is_none() && seen.last_received.is_none());
        assert!(seen.sent_unanswered.is_none() && seen.received_unanswered.is_none());
    }

    #[test]
    fn a_wait_counts_from_the_first_data_that_nothing_answered() {
        let (activity, at, epoch) = activity();
        activity.note_sent(at(&activity, 1), 100, true);
        activity.note_sent(at(&activity, 2), 100, true);
        assert_eq!(activity.seen().sent_unanswered, Some(epoch + SECOND));
        activity.note_received(at(&activity, 3), 32, false);
        assert_eq!(activity.seen().sent_unanswered, None);
        activity.note_sent(at(&activity, 4), 100, true);
        assert_eq!(activity.seen().sent_unanswered, Some(epoch + SECOND * 4));
        assert_eq!(activity.seen().last_sent, Some(epoch + SECOND * 4));
        assert_eq!(activity.traffic(), Traffic { sent: 300, received: 32 });
    }

    #[test]
    fn an_empty_message_waits_for_no_answer() {
        let (activity, at, _) = activity();
        activity.note_received(at(&activity, 1), 32, false);
        assert_eq!(activity.seen().received_unanswered, None);
        activity.note_received(at(&activity, 2), 96, true);
        assert!(activity.seen().received_unanswered.is_some());
    }

    #[test]
    fn a_restarted_wait_begins_with_the_next_data() {
        let (activity, at, epoch) = activity();
        activity.note_sent(at(&activity, 1), 100, true);
        activity.restart_wait();
        assert_eq!(activity.seen().sent_unanswered, None);
        activity.note_sent(at(&activity, 9), 100, true);
        assert_eq!(activity.seen().sent_unanswered, Some(epoch + SECOND * 9));
    }

    #[test]
    fn a_moment_before_the_tunnel_is_its_beginning() {
        let (activity, _, epoch) = activity();
        activity.note_sent(activity.tick(epoch.checked_sub(SECOND).unwrap()), 1, true);
        assert_eq!(activity.seen().last_sent, Some(epoch));
    }
}
