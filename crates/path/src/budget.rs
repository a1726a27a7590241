use std::time::{Duration, Instant};

/// A token bucket for what a peer can make this node send.
#[derive(Debug)]
pub(crate) struct Budget {
    capacity: u32,
    refill: Duration,
    tokens: u32,
    counted: Instant,
}

impl Budget {
    /// A full bucket of `capacity` tokens that gains one every `refill`.
    pub(crate) fn new(capacity: u32, refill: Duration, now: Instant) -> Self {
        Self { capacity, refill, tokens: capacity, counted: now }
    }

    /// Takes one token, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.counted);
        let gained = u32::try_from(elapsed.as_nanos() / self.refill.as_nanos()).unwrap_or(u32::MAX);
        if gained >= self.capacity - self.tokens {
            (self.tokens, self.counted) = (self.capacity, now);
        } else {
            self.tokens += gained;
            self.counted += self.refill * gained;
        }
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spent_budget_comes_back_at_its_rate_and_not_past_its_capacity() {
        let start = Instant::now();
        let mut budget = Budget::new(3, Duration::from_millis(100), start);
        let mut taken = |after: u64| (0..10).filter(|_| budget.take(start + Duration::from_millis(after))).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(99), 0);
        assert_eq!(taken(250), 2);
        assert_eq!(taken(300), 1);
        assert_eq!(taken(60_000), 3);
    }
}
