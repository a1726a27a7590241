use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{SignedDuration, Timestamp};

/// How far the wall clock may move against the time that has passed without being doubted.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(60);

/// How long a doubted clock has to stay where it jumped to before it is believed.
const PROBATION: Duration = Duration::from_secs(10 * 60);

/// The wall clock, as far as it is to be believed.
///
/// Keys expire by it. When it jumps, by a broken time server or a slip of the hand, time goes on as it passed, so that no
/// device is thrown out or let back in; only when the clock stays there for a while, its word counts.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<Belief>);

#[derive(Debug, Clone, Copy)]
struct Belief {
    /// A moment at which wall and uptime were believed to belong together.
    wall: Timestamp,
    uptime: Duration,
    /// Since when the wall clock has been elsewhere, and how far.
    doubt: Option<Doubt>,
}

#[derive(Debug, Clone, Copy)]
struct Doubt {
    since: Duration,
    offset: SignedDuration,
}

/// What a reading of the clocks came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Steady,
    Jumped(SignedDuration),
    Believed(SignedDuration),
}

impl Clock {
    /// Believes the clock as it is now.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Belief { wall: wall(), uptime: uptime(), doubt: None }))
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        let mut belief = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, verdict) = belief.read(wall(), uptime());
        match verdict {
            Verdict::Steady => {}
            Verdict::Jumped(by) => {
                tracing::error!(
                    seconds = by.as_secs(),
                    "the system's clock jumped; the server goes on with the time that has passed"
                );
            }
            Verdict::Believed(by) => {
                tracing::warn!(
                    seconds = by.as_secs(),
                    "the system's clock stayed where it jumped to; it counts from now on"
                );
            }
        }
        now
    }
}

impl Belief {
    fn read(&mut self, wall: Timestamp, uptime: Duration) -> (Timestamp, Verdict) {
        let passed = SignedDuration::try_from(uptime.saturating_sub(self.uptime)).unwrap_or(SignedDuration::MAX);
        let expected = self.wall.saturating_add(passed).unwrap_or(Timestamp::MAX);
        let offset = wall.duration_since(expected);
        if offset.abs() <= TOLERANCE {
            *self = Self { wall, uptime, doubt: None };
            return (wall, Verdict::Steady);
        }
        match self.doubt {
            Some(doubt) if (offset - doubt.offset).abs() <= TOLERANCE => {
                if uptime.saturating_sub(doubt.since) < PROBATION {
                    return (expected, Verdict::Steady);
                }
                *self = Self { wall, uptime, doubt: None };
                (wall, Verdict::Believed(offset))
            }
            _ => {
                self.doubt = Some(Doubt { since: uptime, offset });
                (expected, Verdict::Jumped(offset))
            }
        }
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    SignedDuration::try_from(since)
        .ok()
        .and_then(|since| Timestamp::from_duration(since).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Time since the machine started, sleep included: what nobody can set.
fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
impl Clock {
    /// Lets so much time pass at once, as if the wall clock had jumped back by it: what it shows then is doubted for longer
    /// than a test runs.
    pub(crate) fn pass(&self, time: SignedDuration) {
        let (wall, uptime, later) = (wall(), uptime(), self.now() + time);
        let doubt = Some(Doubt { since: uptime, offset: wall.duration_since(later) });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Belief { wall: later, uptime, doubt };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn start() -> (Belief, Timestamp) {
        let wall = Timestamp::from_second(1_800_000_000).unwrap();
        (Belief { wall, uptime: Duration::from_secs(1000), doubt: None }, wall)
    }

    fn at(second: u64) -> Duration {
        Duration::from_secs(1000 + second)
    }

    fn after(wall: Timestamp, seconds: i64) -> Timestamp {
        wall + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_clock_that_runs_a_little_fast_is_followed() {
        let (mut belief, wall) = start();
        for minute in 1..1000 {
            let fast = after(wall, minute * 61);
            assert_eq!(belief.read(fast, at(minute as u64 * 60)), (fast, Verdict::Steady));
        }
    }

    #[test]
    fn a_jump_of_a_day_either_way_changes_nothing_at_first() {
        for day in [DAY, -DAY] {
            let (mut belief, wall) = start();
            let jumped = after(wall, 10) + day;
            assert_eq!(belief.read(jumped, at(10)), (after(wall, 10), Verdict::Jumped(day)));
            assert_eq!(belief.read(after(jumped, 290), at(300)), (after(wall, 300), Verdict::Steady));
            assert_eq!(belief.read(after(wall, 310), at(310)), (after(wall, 310), Verdict::Steady));
        }
    }

    #[test]
    fn a_clock_that_stays_where_it_jumped_to_counts_in_the_end() {
        let (mut belief, wall) = start();
        let jumped = wall + DAY;
        assert_eq!(belief.read(jumped, at(0)).1, Verdict::Jumped(DAY));
        assert_eq!(belief.read(after(jumped, 599), at(599)).0, after(wall, 599));
        assert_eq!(belief.read(after(jumped, 600), at(600)), (after(jumped, 600), Verdict::Believed(DAY)));
        assert_eq!(belief.read(after(jumped, 601), at(601)), (after(jumped, 601), Verdict::Steady));
    }

    #[test]
    fn a_second_jump_starts_the_wait_again() {
        let (mut belief, wall) = start();
        assert_eq!(belief.read(wall + DAY, at(0)).1, Verdict::Jumped(DAY));
        assert_eq!(belief.read(after(wall, 590) - DAY, at(590)).1, Verdict::Jumped(-DAY));
        assert_eq!(belief.read(after(wall, 700) - DAY, at(700)), (after(wall, 700), Verdict::Steady));
    }
}
