use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Waits that grow from one attempt to the next, each shortened by chance, so that a thousand pods do not come at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    first: Duration,
    most: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, most: Duration) -> Self {
        Self { next: first, first, most }
    }

    /// How long to wait before the next attempt: between half of the step and all of it.
    pub(crate) fn step(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.most);
        // The standard library's hasher is seeded at random: good enough to scatter, and nothing depends on it.
        let chance = (RandomState::new().hash_one(step) % 1000) as u32;
        step / 2 + step / 2 * chance / 1000
    }

    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_start_again() {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut backoff = Backoff::new(first, most);
        for bound in [1, 2, 4, 8, 16, 30, 30] {
            let step = backoff.step();
            assert!(step <= Duration::from_secs(bound) && step >= Duration::from_secs(bound) / 2, "{step:?} {bound}");
        }
        backoff.reset();
        assert!(backoff.step() <= first);
    }
}
