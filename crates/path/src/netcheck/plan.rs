use std::net::SocketAddr;
use std::time::Duration;

use super::Report;
use crate::{Families, RegionId, RelayMap};

/// How often a region is asked in a full measurement, and the time between.
const FULL_TRIES: u32 = 3;
const FULL_SPACING: Duration = Duration::from_millis(100);
/// How many of the nearest regions an incremental measurement asks; the home comes on top.
const NEAREST: usize = 3;
/// How often it asks the home: losing sight of it must not be an accident.
const HOME_TRIES: u32 = 4;
/// The least time between two of its requests to one region.
const MIN_SPACING: Duration = Duration::from_millis(50);
/// How many regions are timed by HTTPS where UDP is blocked.
const MAX_HTTPS: usize = 6;
/// Regions past this many are never asked: a map of more is no map that anybody means.
const MAX_REGIONS: usize = 256;

/// One request of a measurement. It is left out if by then the answer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Planned {
    /// Time since the start.
    pub(super) after: Duration,
    pub(super) region: RegionId,
    pub(super) server: SocketAddr,
}

/// Asks every region a few times, its servers in turn.
pub(super) fn full(map: &RelayMap, families: Families, home: Option<RegionId>) -> Vec<Planned> {
    let mut plan = Vec::new();
    for region in map.regions.keys().filter(|region| map.is_measured(**region, home)).take(MAX_REGIONS) {
        for ipv6 in [false, true] {
            ask(&mut plan, map, families, *region, ipv6, FULL_TRIES, FULL_SPACING);
        }
    }
    plan.sort();
    plan
}

/// Asks the regions that were nearest the last time, and the home.
pub(super) fn incremental(map: &RelayMap, families: Families, home: Option<RegionId>, last: &Report) -> Vec<Planned> {
    let mut nearest: Vec<RegionId> = last.latency.keys().copied().collect();
    nearest.retain(|region| map.is_measured(*region, home) && Some(*region) != home);
    nearest.sort_by_key(|region| last.latency.get(region));
    nearest.truncate(NEAREST);
    let mut plan = Vec::new();
    let home = home.filter(|home| map.is_measured(*home, Some(*home)));
    for (rank, region) in home.into_iter().chain(nearest).enumerate() {
        let had_ipv6 = last.latency_v6.contains_key(&region);
        let tries = match rank {
            0 if home.is_some() => HOME_TRIES,
            0 | 1 => 2,
            _ if had_ipv6 => 1,
            _ => 3,
        };
        let spacing = last.latency.get(&region).map_or(FULL_SPACING, |latency| *latency * 6 / 5).max(MIN_SPACING);
        ask(&mut plan, map, families, region, false, tries, spacing);
        if had_ipv6 {
            ask(&mut plan, map, families, region, true, tries, spacing);
        }
    }
    plan.sort();
    plan
}

/// The regions to time by HTTPS: the home, then those that were nearest, then any.
pub(super) fn https(map: &RelayMap, home: Option<RegionId>, last: Option<&Report>) -> Vec<RegionId> {
    let mut regions = map.habitable(home);
    let latency = |region: &RegionId| last.and_then(|last| last.latency.get(region).copied()).unwrap_or(Duration::MAX);
    regions.sort_by_key(|region| (Some(*region) != home, latency(region)));
    regions.truncate(MAX_HTTPS);
    regions
}

fn ask(
    plan: &mut Vec<Planned>,
    map: &RelayMap,
    families: Families,
    region: RegionId,
    ipv6: bool,
    tries: u32,
    spacing: Duration,
) {
    let Some(found) = map.regions.get(&region) else { return };
    let servers: Vec<SocketAddr> = found.nodes.iter().filter_map(|node| node.stun_address(ipv6, families)).collect();
    for (number, server) in (0..tries).zip(servers.iter().cycle()) {
        plan.push(Planned { after: spacing * number, region, server: *server });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netcheck::run::tests::{map, region};
    use std::collections::BTreeMap;
    use std::time::Instant;

    fn report(latency: &[(u16, u64)]) -> Report {
        let latency: BTreeMap<_, _> =
            latency.iter().map(|(number, millis)| (region(*number), Duration::from_millis(*millis))).collect();
        Report {
            at: Instant::now(),
            full: true,
            udp: true,
            global_v4: None,
            global_v6: None,
            seen_v4: BTreeMap::new(),
            mapping_varies: None,
            latency_v4: latency.clone(),
            latency,
            latency_v6: BTreeMap::new(),
            home: None,
        }
    }

    #[test]
    fn a_full_measurement_asks_each_region_three_times_its_servers_in_turn() {
        let plan = full(&map(&[(1, 2), (2, 1)]), Families { v4: true, v6: false }, None);
        let asked: Vec<_> =
            plan.iter().map(|planned| (planned.after.as_millis(), planned.server.to_string())).collect();
        let expected = [
            (0, "203.0.1.1:3478"),
            (0, "203.0.2.1:3478"),
            (100, "203.0.1.2:3478"),
            (100, "203.0.2.1:3478"),
            (200, "203.0.1.1:3478"),
            (200, "203.0.2.1:3478"),
        ];
        assert_eq!(asked, expected.map(|(after, server)| (after, server.to_owned())));
    }

    #[test]
    fn an_incremental_measurement_asks_the_home_and_the_three_nearest() {
        let map = map(&[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
        let last = report(&[(1, 90), (2, 20), (3, 30), (4, 40), (5, 50)]);
        let plan = incremental(&map, Families::ALL, Some(region(5)), &last);
        let tries = |number| plan.iter().filter(|planned| planned.region == region(number)).count();
        assert_eq!([1, 2, 3, 4, 5].map(tries), [0, 2, 3, 3, 4]);
        let second = plan.iter().find(|planned| planned.region == region(5) && !planned.after.is_zero()).unwrap();
        assert_eq!(second.after, Duration::from_millis(60));
    }

    #[test]
    fn regions_that_are_not_to_be_measured_are_not_asked() {
        let mut map = map(&[(1, 1), (2, 1), (3, 1)]);
        map.regions.get_mut(&region(1)).unwrap().no_measure_no_home = true;
        map.regions.get_mut(&region(2)).unwrap().avoid = true;
        let asked = |home| {
            let plan = full(&map, Families { v4: true, v6: false }, home);
            let mut regions: Vec<u16> = plan.iter().map(|planned| planned.region.get()).collect();
            regions.dedup();
            regions.truncate(2);
            regions
        };
        assert_eq!(asked(None), [3]);
        assert_eq!(asked(Some(region(1))), [3]);
        assert_eq!(asked(Some(region(2))), [2, 3]);
        assert_eq!(https(&map, Some(region(2)), None), [region(2), region(3)]);
    }
}
