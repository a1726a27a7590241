use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Instant;

/// Counts what each of many does in the current second, in memory that no number of them makes grow.
///
/// Counters are found by a keyed hash. Two that share one share its limit, which with as many counters takes a flood to be
/// noticed.
#[derive(Debug)]
pub(crate) struct SecondCounts {
    started: Instant,
    slots: Box<[Slot]>,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    second: u32,
    count: u32,
}

const SLOTS: usize = 1 << 16;

impl SecondCounts {
    pub(crate) fn new(now: Instant) -> Self {
        // Zeroed memory is the kernel's until it is written: an idle relay does not hold it.
        let slots = vec![Slot::default(); SLOTS].into_boxed_slice();
        Self { started: now, slots, hasher: RandomState::new() }
    }

    /// Counts one more of `who`; says whether that is within `limit` for this second.
    pub(crate) fn take<T: Hash>(&mut self, who: &T, limit: u32, now: Instant) -> bool {
        let slot = &mut self.slots[self.hasher.hash_one(who) as usize % SLOTS];
        // The first second is 1, so that a slot that was never used differs from it.
        let second = (now.saturating_duration_since(self.started).as_secs() as u32).wrapping_add(1);
        if slot.second != second {
            *slot = Slot { second, count: 0 };
        }
        slot.count = slot.count.saturating_add(1);
        slot.count <= limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn each_second_gives_the_limit_anew() {
        let start = Instant::now();
        let mut counts = SecondCounts::new(start);
        let passed = |counts: &mut SecondCounts, now| (0..300).filter(|_| counts.take(&"a", 3, now)).count();
        assert_eq!(passed(&mut counts, start), 3);
        assert_eq!(passed(&mut counts, start + Duration::from_millis(999)), 0);
        assert_eq!(passed(&mut counts, start + Duration::from_millis(1000)), 3);
        assert!(counts.take(&"b", 3, start));
    }
}
