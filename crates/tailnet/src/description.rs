use jiff::{SignedDuration, Timestamp};

/// How often a device may describe itself anew: each time is a write, and a message to everybody who sees the device.
///
/// A bucket of sixty times, of which one comes back every half minute. A server that starts has forgotten what was taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DescriptionLimit {
    /// When the bucket is full again; `None` while it was never touched.
    full_at: Option<Timestamp>,
}

impl DescriptionLimit {
    const BURST: i64 = 60;
    /// How many seconds it takes until one comes back.
    const REFILL: i64 = 30;

    /// After how many seconds the device may describe itself again; `None` where it may now.
    pub(crate) fn wait(&self, now: Timestamp) -> Option<u32> {
        let missing = self.full_at?.duration_since(now);
        let too_much = missing - SignedDuration::from_secs(Self::REFILL * (Self::BURST - 1));
        // Part of a second counts as one, so that who waits as told does not come too early.
        let seconds = too_much.as_secs() + i64::from(too_much.subsec_nanos() > 0);
        (too_much > SignedDuration::ZERO).then(|| u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// The device has described itself.
    pub(crate) fn take(&mut self, now: Timestamp) {
        let after = |start: Timestamp, seconds: i64| {
            start.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
        };
        let full = after(self.full_at.unwrap_or(now).max(now), Self::REFILL);
        self.full_at = Some(full.min(after(now, Self::REFILL * Self::BURST)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_at_once_and_then_two_a_minute() {
        let (mut limit, now) = (DescriptionLimit::default(), Timestamp::UNIX_EPOCH);
        for _ in 0..60 {
            assert_eq!(limit.wait(now), None);
            limit.take(now);
        }
        assert_eq!(limit.wait(now), Some(30));
        let later = now + SignedDuration::from_secs(30);
        assert_eq!(limit.wait(later), None);
        limit.take(later);
        assert_eq!(limit.wait(later), Some(30));
        let much_later = now + SignedDuration::from_hours(1);
        assert_eq!(limit.wait(much_later), None);
    }

    #[test]
    fn what_is_taken_without_asking_is_not_owed_for_ever() {
        let (mut limit, now) = (DescriptionLimit::default(), Timestamp::UNIX_EPOCH);
        (0..10_000).for_each(|_| limit.take(now));
        assert_eq!(limit.wait(now + SignedDuration::from_secs(30)), None);
    }
}
