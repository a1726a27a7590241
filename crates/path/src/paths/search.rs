use std::time::{Duration, Instant};

use super::timing::{EAGER_SEARCH, GOOD_ENOUGH, PATIENT_INTERVAL, PING_INTERVAL, SEARCH_GAP, UPGRADE_INTERVAL};

/// When all candidates of a peer are to be pinged.
#[derive(Debug)]
pub(super) struct Search {
    last: Option<Instant>,
    /// Since when there was a reason to hope for a result.
    since: Instant,
    /// A round that does not wait for its interval.
    early: Option<Instant>,
    /// Rounds since there was a reason to begin.
    rounds: u32,
}

impl Search {
    pub(super) fn new(now: Instant) -> Self {
        Self { last: None, since: now, early: Some(now), rounds: 0 }
    }

    /// Something changed: searches eagerly again, with a round at `at`.
    pub(super) fn begin(&mut self, at: Instant) {
        self.hope(at);
        self.early = Some(at);
        self.rounds = 0;
    }

    /// Searches eagerly again, with the next round at its time.
    pub(super) fn hope(&mut self, now: Instant) {
        self.since = now;
    }

    /// Everything changed: rounds that were made before count no more.
    pub(super) fn restart(&mut self, at: Instant) {
        self.last = None;
        self.begin(at);
    }

    /// A round is made.
    pub(super) fn ran(&mut self, now: Instant) {
        self.last = Some(now);
        self.early = None;
        self.rounds = self.rounds.saturating_add(1);
    }

    /// Whether the round just made is the second: all that the first one tried has failed.
    pub(super) fn is_second(&self) -> bool {
        self.rounds == 2
    }

    /// When the next round is due while the session is active; `trusted` is the latency of a direct path that works.
    pub(super) fn due(&self, trusted: Option<Duration>) -> Option<Instant> {
        let Some(last) = self.last else {
            return trusted.is_none_or(|latency| latency > GOOD_ENOUGH).then_some(self.early.unwrap_or(self.since));
        };
        match trusted {
            Some(latency) if latency <= GOOD_ENOUGH => None,
            Some(_) => Some(last + UPGRADE_INTERVAL),
            None => {
                let eager = last < self.since + EAGER_SEARCH;
                let regular = last + if eager { PING_INTERVAL } else { PATIENT_INTERVAL };
                Some(self.early.map_or(regular, |early| regular.min(early.max(last + SEARCH_GAP))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_search_without_result_slows_down_after_a_minute() {
        let start = Instant::now();
        let mut search = Search::new(start);
        let mut rounds = Vec::new();
        while let Some(at) = search.due(None).filter(|at| *at <= start + seconds(100)) {
            search.ran(at);
            rounds.push((at - start).as_secs());
        }
        assert_eq!(rounds, [0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 74, 88]);
    }

    #[test]
    fn a_slow_direct_path_is_compared_each_minute_and_a_fast_one_never() {
        let start = Instant::now();
        let mut search = Search::new(start);
        search.ran(start);
        assert_eq!(search.due(Some(Duration::from_millis(6))), Some(start + seconds(60)));
        assert_eq!(search.due(Some(GOOD_ENOUGH)), None);
    }

    #[test]
    fn reasons_to_search_again_keep_a_second_apart() {
        let start = Instant::now();
        let mut search = Search::new(start);
        search.ran(start);
        search.begin(start + Duration::from_millis(100));
        assert_eq!(search.due(None), Some(start + SEARCH_GAP));
        search.restart(start + Duration::from_millis(200));
        assert_eq!(search.due(None), Some(start + Duration::from_millis(200)));
    }
}
