use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crypto::Entropy;

use crate::{RegionId, RelayMap, RelayState};

/// How long a measurement counts.
const HISTORY: Duration = Duration::from_secs(5 * 60);
/// Measurements that are remembered.
const MAX_HISTORY: usize = 64;
/// How long a region that could not be connected to is passed over, unless it is seen to be up before.
const DOWN: Duration = Duration::from_secs(5 * 60);
/// A region that a frame came from within this time is there, measured or not.
const HEARD: Duration = Duration::from_secs(8);
/// A new home must be nearer by so many seconds, …
const MIN_GAIN: f64 = 0.010;
/// … and by a third.
const MAX_SHARE: f64 = 2.0 / 3.0;

/// The region where this node waits for its peers, and what it is chosen by.
#[derive(Debug, Default)]
pub(super) struct Home {
    current: Option<RegionId>,
    history: VecDeque<(Instant, BTreeMap<RegionId, Duration>)>,
    heard: BTreeMap<RegionId, Instant>,
    down: BTreeMap<RegionId, Instant>,
    /// Whether a change would reach the control server, and through it the peers.
    announced: bool,
}

impl Home {
    pub(super) fn current(&self) -> Option<RegionId> {
        self.current
    }

    pub(super) fn set_announced(&mut self, announced: bool) {
        self.announced = announced;
    }

    pub(super) fn heard(&mut self, region: RegionId, now: Instant) {
        self.heard.insert(region, now);
    }

    pub(super) fn handle_relay(&mut self, region: RegionId, state: RelayState, now: Instant) {
        match state {
            RelayState::Up => {
                self.down.remove(&region);
                self.heard(region, now);
            }
            RelayState::Closed => {
                self.down.remove(&region);
            }
            RelayState::Down => {
                self.down.insert(region, now);
                self.heard.remove(&region);
            }
        }
    }

    /// What was measured in another network says nothing of this one.
    pub(super) fn forget_measurements(&mut self) {
        self.history.clear();
        self.heard.clear();
    }

    /// Chooses by a new measurement, or without one by those of the last minutes.
    pub(super) fn choose(
        &mut self,
        map: &RelayMap,
        measured: Option<&BTreeMap<RegionId, Duration>>,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Option<RegionId> {
        self.remember(measured, now);
        self.down.retain(|_, since| now < *since + DOWN);
        let scores = self.scores(map, measured);
        let usable = self.current.filter(|home| map.is_habitable(*home, self.current) && !self.down.contains_key(home));
        let nearest = scores.iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(region, score)| (*region, *score));
        self.current = match (usable, nearest) {
            (Some(home), Some((_, best))) if !self.announced || self.is_kept(home, scores.get(&home), best, now) => {
                Some(home)
            }
            (_, Some((region, _))) => Some(region),
            (Some(home), None) => Some(home),
            (None, None) => self.any(map, entropy),
        };
        self.current
    }

    /// Whether a home stays, given the score of the best region: moving costs every peer a moment.
    fn is_kept(&self, home: RegionId, score: Option<&f64>, best: f64, now: Instant) -> bool {
        match score {
            Some(score) => score - best < MIN_GAIN || best > score * MAX_SHARE,
            None => self.heard.get(&home).is_some_and(|at| now < *at + HEARD),
        }
    }

    fn remember(&mut self, measured: Option<&BTreeMap<RegionId, Duration>>, now: Instant) {
        self.history.extend(measured.map(|latencies| (now, latencies.clone())));
        self.history.retain(|(at, _)| now < *at + HISTORY);
        while self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    /// The score of each region that can be chosen: the best of its recent latencies times its factor, in seconds.
    fn scores(&self, map: &RelayMap, measured: Option<&BTreeMap<RegionId, Duration>>) -> BTreeMap<RegionId, f64> {
        let mut best: BTreeMap<RegionId, Duration> = BTreeMap::new();
        for (region, latency) in self.history.iter().flat_map(|(_, latencies)| latencies) {
            let least = best.entry(*region).or_insert(*latency);
            *least = (*least).min(*latency);
        }
        best.retain(|region, _| {
            measured.is_none_or(|measured| measured.contains_key(region))
                && map.is_habitable(*region, self.current)
                && !self.down.contains_key(region)
        });
        best.into_iter().map(|(region, latency)| (region, map.scored(region, latency.as_secs_f64()))).collect()
    }

    /// Any region: with no way to measure, some relay is better than none, and each node of a network takes another.
    fn any(&self, map: &RelayMap, entropy: &mut dyn Entropy) -> Option<RegionId> {
        let habitable = map.habitable(self.current);
        let standing: Vec<RegionId> =
            habitable.iter().copied().filter(|region| !self.down.contains_key(region)).collect();
        if standing.is_empty() {
            // Everything is down: the home of before is as good as any, and peers look there.
            return self.current.filter(|home| habitable.contains(home)).or(habitable.first().copied());
        }
        let index = usize::try_from(entropy.below(standing.len() as u64)).unwrap_or(0);
        standing.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::{map, region};
    use super::*;
    use crypto::SystemEntropy;

    struct Case {
        home: Home,
        map: RelayMap,
        now: Instant,
    }

    impl Case {
        /// A node whose home is region 1, with three regions to choose from, connected to control.
        fn new() -> Self {
            let home = Home { current: Some(region(1)), announced: true, ..Home::default() };
            Self { home, map: map(&[(1, 1), (2, 1), (3, 1)]), now: Instant::now() }
        }

        fn measure(&mut self, latencies: &[(u16, u64)]) -> u16 {
            let measured =
                latencies.iter().map(|(number, millis)| (region(*number), Duration::from_millis(*millis))).collect();
            self.home.choose(&self.map, Some(&measured), self.now, &mut SystemEntropy).unwrap().get()
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }
    }

    #[test]
    fn a_home_is_left_only_for_one_that_is_clearly_nearer() {
        // (latency of the home, of another region, which is chosen)
        let table =
            [(100, 95, 1), (100, 70, 1), (100, 66, 2), (25, 16, 1), (25, 14, 2), (12, 3, 1), (30, 30, 1), (10, 200, 1)];
        for (home, other, chosen) in table {
            assert_eq!(Case::new().measure(&[(1, home), (2, other)]), chosen, "{home} {other}");
        }
    }

    #[test]
    fn the_first_home_is_the_nearest_by_score() {
        let mut case = Case::new();
        case.home.current = None;
        case.map.regions.get_mut(&region(2)).unwrap().score = 3.0;
        assert_eq!(case.measure(&[(2, 20), (3, 50)]), 3);
        case.home.current = None;
        case.map.regions.get_mut(&region(2)).unwrap().score = f64::NAN;
        assert_eq!(case.measure(&[(2, 20), (3, 50)]), 2);
    }

    #[test]
    fn the_best_of_five_minutes_counts() {
        let mut case = Case::new();
        assert_eq!(case.measure(&[(1, 20), (2, 50)]), 1);
        case.pass(60);
        assert_eq!(case.measure(&[(1, 200), (2, 50)]), 1);
        case.pass(250);
        assert_eq!(case.measure(&[(1, 200), (2, 50)]), 2);
    }

    #[test]
    fn a_home_that_does_not_answer_stays_while_it_is_heard() {
        let mut case = Case::new();
        case.home.heard(region(1), case.now);
        case.pass(7);
        assert_eq!(case.measure(&[(2, 5)]), 1);
        case.pass(1);
        assert_eq!(case.measure(&[(2, 5)]), 2);
    }

    #[test]
    fn without_any_measurement_the_home_stays() {
        assert_eq!(Case::new().measure(&[]), 1);
        let mut case = Case::new();
        case.home.current = None;
        let any = case.measure(&[]);
        assert!((1..=3).contains(&any));
        for _ in 0..20 {
            assert_eq!(case.measure(&[]), any);
        }
    }

    #[test]
    fn a_node_that_cannot_tell_its_peers_stays_unless_its_home_is_down() {
        let mut case = Case::new();
        case.home.set_announced(false);
        assert_eq!(case.measure(&[(1, 500), (2, 5), (3, 9)]), 1);
        case.home.handle_relay(region(1), RelayState::Down, case.now);
        assert_eq!(case.home.choose(&case.map, None, case.now, &mut SystemEntropy), Some(region(2)));
        case.home.handle_relay(region(2), RelayState::Down, case.now);
        assert_eq!(case.home.choose(&case.map, None, case.now, &mut SystemEntropy), Some(region(3)));
        case.home.handle_relay(region(3), RelayState::Down, case.now);
        assert_eq!(case.home.choose(&case.map, None, case.now, &mut SystemEntropy), Some(region(3)));
    }

    #[test]
    fn a_region_that_was_down_is_given_another_chance_after_a_while() {
        let mut case = Case::new();
        case.home.handle_relay(region(1), RelayState::Down, case.now);
        assert_eq!(case.measure(&[(1, 5), (2, 50)]), 2);
        case.pass(299);
        assert_eq!(case.measure(&[(1, 5), (2, 50)]), 2);
        case.pass(1);
        assert_eq!(case.measure(&[(1, 5), (2, 50)]), 1);
        case.home.handle_relay(region(1), RelayState::Down, case.now);
        case.home.handle_relay(region(1), RelayState::Up, case.now);
        assert_eq!(case.measure(&[(1, 5), (2, 50)]), 1);
    }

    #[test]
    fn a_region_that_left_the_map_or_takes_nobody_is_left() {
        let mut case = Case::new();
        case.map.regions.remove(&region(1));
        case.map.regions.get_mut(&region(2)).unwrap().no_measure_no_home = true;
        assert_eq!(case.measure(&[(1, 5), (2, 5), (3, 100)]), 3);
        case.map.regions.get_mut(&region(3)).unwrap().nodes[0].stun_only = true;
        case.map.regions.get_mut(&region(2)).unwrap().no_measure_no_home = false;
        assert_eq!(case.measure(&[(2, 300), (3, 100)]), 2);
    }

    #[test]
    fn a_region_to_avoid_keeps_who_is_there() {
        let mut case = Case::new();
        case.map.regions.get_mut(&region(1)).unwrap().avoid = true;
        case.map.regions.get_mut(&region(2)).unwrap().avoid = true;
        assert_eq!(case.measure(&[(1, 50), (2, 1), (3, 60)]), 1);
        assert_eq!(case.measure(&[(1, 50), (2, 1), (3, 10)]), 3);
        assert_eq!(case.measure(&[(1, 1), (2, 1), (3, 10)]), 3);
    }
}
