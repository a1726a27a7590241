use crate::limits::REPLAY_WINDOW;

/// One word more than the window has bits for: the newest counter is rarely the last of its word.
const WORDS: usize = (REPLAY_WINDOW / 64) as usize + 1;

/// Which counters of a session have been received: the newest, and one bit for each of the [`REPLAY_WINDOW`] up to it.
///
/// The words are a ring (RFC 6479): moving ahead clears words, and shifts none.
#[derive(Debug)]
pub(super) struct Window {
    /// One more than the newest counter; 0 before the first.
    next: u64,
    words: [u64; WORDS],
}

impl Window {
    pub(super) fn new() -> Self {
        Self { next: 0, words: [0; WORDS] }
    }

    /// Whether a message with this counter may still come. Nothing changes before its tag has verified.
    #[inline]
    pub(super) fn admits(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        self.next - counter <= REPLAY_WINDOW && self.words[ring(counter / 64)] & bit(counter) == 0
    }

    /// Marks a counter that [`admits`](Self::admits) let through.
    #[inline]
    pub(super) fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            let newest = self.next.saturating_sub(1) / 64;
            let ahead = (counter / 64 - newest).min(WORDS as u64);
            for word in 1..=ahead {
                self.words[ring(newest + word)] = 0;
            }
            self.next = counter + 1;
        }
        self.words[ring(counter / 64)] |= bit(counter);
    }
}

#[inline]
fn ring(word: u64) -> usize {
    (word % WORDS as u64) as usize
}

#[inline]
fn bit(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::limits::REJECT_AFTER_MESSAGES;

    fn take(window: &mut Window, counter: u64) -> bool {
        let fresh = window.admits(counter);
        if fresh {
            window.mark(counter);
        }
        fresh
    }

    #[test]
    fn a_counter_passes_once() {
        let mut window = Window::new();
        for counter in [0, 1, 63, 64, 8191, 8192, 100_000] {
            assert!(take(&mut window, counter));
            assert!(!take(&mut window, counter));
        }
    }

    #[test]
    fn the_window_is_8192_counters_deep_and_no_deeper() {
        for newest in [8192, 8193, 8255, 8256, 1 << 40] {
            let mut window = Window::new();
            assert!(take(&mut window, newest));
            assert!(take(&mut window, newest - 8191));
            assert!(!take(&mut window, newest - 8192));
        }
    }

    #[test]
    fn a_jump_forgets_nothing_inside_the_window_and_everything_outside() {
        let mut window = Window::new();
        (0..9000).for_each(|counter| assert!(take(&mut window, counter)));
        assert!(take(&mut window, 9000 + 4000));
        (9001..13_000).for_each(|counter| assert!(window.admits(counter)));
        (0..9000).for_each(|counter| assert!(!window.admits(counter)));
    }

    #[test]
    fn the_last_counter_of_a_session_passes() {
        let mut window = Window::new();
        assert!(take(&mut window, REJECT_AFTER_MESSAGES - 1));
        assert!(!take(&mut window, REJECT_AFTER_MESSAGES - 1));
        assert!(take(&mut window, REJECT_AFTER_MESSAGES - 8192));
    }

    proptest! {
        #[test]
        fn the_ring_agrees_with_a_set_of_everything_seen(
            steps in proptest::collection::vec((any::<bool>(), 0u64..20_000), 1..400), base in 0u64..1 << 50,
        ) {
            let (mut window, mut seen, mut newest) = (Window::new(), BTreeSet::new(), base);
            for (back, distance) in steps {
                let counter = if back { newest.saturating_sub(distance % 9000) } else { newest + distance % 700 };
                let fresh = !seen.contains(&counter) && (seen.is_empty() || newest.saturating_sub(counter) < REPLAY_WINDOW);
                prop_assert_eq!(take(&mut window, counter), fresh);
                if fresh {
                    newest = if seen.is_empty() { counter } else { newest.max(counter) };
                    seen.insert(counter);
                }
            }
        }
    }
}
