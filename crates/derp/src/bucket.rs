use std::time::{Duration, Instant};

/// A token bucket: so many units a second, so many at once. Time is handed in.
#[derive(Debug, Clone)]
pub(crate) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub(crate) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { per_second, burst, tokens: burst, filled_at: now }
    }

    /// Takes `amount` if it is there.
    pub(crate) fn try_take(&mut self, amount: f64, now: Instant) -> bool {
        self.fill(now);
        let there = self.tokens >= amount;
        if there {
            self.tokens -= amount;
        }
        there
    }

    /// Takes `amount` whether it is there or not, and says how long to wait until nothing is owed.
    pub(crate) fn take(&mut self, amount: f64, now: Instant) -> Duration {
        self.fill(now);
        self.tokens -= amount;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / self.per_second) }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.filled_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1.0, 3.0, start);
        let passed = (0..10).filter(|_| bucket.try_take(1.0, start)).count();
        assert_eq!(passed, 3);
        let later = start + Duration::from_millis(2500);
        assert_eq!((0..10).filter(|_| bucket.try_take(1.0, later)).count(), 2);
    }

    #[test]
    fn what_is_owed_is_waited_for() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(100.0, 50.0, start);
        assert_eq!(bucket.take(50.0, start), Duration::ZERO);
        assert_eq!(bucket.take(10.0, start), Duration::from_millis(100));
        assert_eq!(bucket.take(10.0, start + Duration::from_millis(100)), Duration::from_millis(100));
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1e9, 1.0, start);
        assert!(bucket.try_take(1.0, start));
        assert!(!bucket.try_take(1.0, start));
    }
}
