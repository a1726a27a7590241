use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use packet::disco::TransactionId;

use super::quality::Quality;
use super::timing::{MAX_OBSERVED, OBSERVED, PING_INTERVAL, TRUST};
use crate::address::MAX_ENDPOINTS;

/// The addresses at which one peer may be found; never more than [`MAX_ENDPOINTS`].
#[derive(Debug, Default)]
pub(super) struct Candidates {
    known: BTreeMap<SocketAddr, Candidate>,
}

/// Why an address is a candidate, and what came of it.
#[derive(Debug, Default)]
struct Candidate {
    /// The netmap names it.
    listed: bool,
    /// The peer's last call-me-maybe names it.
    called: bool,
    /// The peer was last seen to send from it.
    observed: Option<Instant>,
    /// The ping that came from it last.
    received: Option<TransactionId>,
    pinged: Option<Instant>,
    /// When a ping from it was last answered with a ping of our own.
    returned: Option<Instant>,
    pong: Option<(Instant, Duration)>,
}

impl Candidate {
    /// What is dropped first when there are too many: the lowest.
    fn worth(&self) -> (bool, bool, Option<Instant>) {
        (self.called, self.listed, self.observed)
    }

    fn is_vouched_for(&self, now: Instant) -> bool {
        self.listed || self.called || self.observed.is_some_and(|at| now < at + OBSERVED)
    }
}

impl Candidates {
    /// The candidates that the netmap names.
    pub(super) fn listed(endpoints: &[SocketAddr]) -> Self {
        let mut candidates = Self::default();
        candidates.list(endpoints, None);
        candidates
    }

    /// Replaces what the netmap names; `keep` stays whatever happens.
    pub(super) fn list(&mut self, endpoints: &[SocketAddr], keep: Option<SocketAddr>) {
        self.known.values_mut().for_each(|candidate| candidate.listed = false);
        for endpoint in endpoints {
            self.known.entry(*endpoint).or_default().listed = true;
        }
        self.trim(keep);
    }

    /// Replaces what the peer's call-me-maybe names. Those are to be pinged at once, whenever they last were.
    pub(super) fn call(&mut self, endpoints: &[SocketAddr], keep: Option<SocketAddr>) {
        self.known.values_mut().for_each(|candidate| candidate.called = false);
        for endpoint in endpoints {
            let candidate = self.known.entry(*endpoint).or_default();
            candidate.called = true;
            candidate.pinged = None;
        }
        self.trim(keep);
    }

    /// The peer sent an authenticated packet from this address.
    pub(super) fn observe(&mut self, address: SocketAddr, now: Instant, keep: Option<SocketAddr>) {
        self.known.entry(address).or_default().observed = Some(now);
        self.trim(keep);
    }

    /// Whether this ping is the one that came from this address last: a duplicate, to be ignored.
    pub(super) fn is_duplicate(&mut self, address: SocketAddr, transaction: TransactionId) -> bool {
        let Some(candidate) = self.known.get_mut(&address) else { return false };
        candidate.received.replace(transaction) == Some(transaction)
    }

    /// Whether a ping from this address may be answered with a ping out of turn, and notes that it is.
    pub(super) fn may_return(&mut self, address: SocketAddr, now: Instant) -> bool {
        let Some(candidate) = self.known.get_mut(&address) else { return false };
        let may = candidate.returned.is_none_or(|at| at + PING_INTERVAL <= now);
        if may {
            candidate.returned = Some(now);
        }
        may
    }

    pub(super) fn pinged(&mut self, address: SocketAddr, now: Instant) {
        if let Some(candidate) = self.known.get_mut(&address) {
            candidate.pinged = Some(now);
        }
    }

    /// Whether the address that answered is a candidate still.
    pub(super) fn ponged(&mut self, address: SocketAddr, latency: Duration, now: Instant) -> bool {
        match self.known.get_mut(&address) {
            Some(candidate) => {
                candidate.pong = Some((now, latency));
                true
            }
            None => false,
        }
    }

    /// Those that were not pinged within the ping interval.
    pub(super) fn due(&self, now: Instant) -> Vec<SocketAddr> {
        let due = |candidate: &Candidate| candidate.pinged.is_none_or(|at| at + PING_INTERVAL <= now);
        self.known.iter().filter(|(_, candidate)| due(candidate)).map(|(address, _)| *address).collect()
    }

    pub(super) fn all(&self) -> Vec<SocketAddr> {
        self.known.keys().copied().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The best candidate but one that lately proved itself, and later than `since`; and when it did.
    pub(super) fn proven_beside(
        &self,
        address: SocketAddr,
        since: Instant,
        now: Instant,
    ) -> Option<(Quality, Instant)> {
        let mut best: Option<(Quality, Instant)> = None;
        for (&candidate, state) in &self.known {
            let Some((at, latency)) = state.pong.filter(|(at, _)| *at > since && now < *at + TRUST) else { continue };
            let quality = Quality { address: candidate, latency };
            if candidate != address && best.is_none_or(|(best, _)| quality.beats(&best)) {
                best = Some((quality, at));
            }
        }
        best
    }

    /// Drops what nothing vouches for any more.
    pub(super) fn expire(&mut self, now: Instant, keep: Option<SocketAddr>) {
        self.known.retain(|address, candidate| Some(*address) == keep || candidate.is_vouched_for(now));
    }

    /// Forgets what was tried: the network under this node is another.
    pub(super) fn forget_trials(&mut self) {
        for candidate in self.known.values_mut() {
            (candidate.pinged, candidate.returned, candidate.pong) = (None, None, None);
        }
    }

    fn trim(&mut self, keep: Option<SocketAddr>) {
        self.known.retain(|address, candidate| {
            candidate.listed || candidate.called || candidate.observed.is_some() || Some(*address) == keep
        });
        let only_observed = |candidate: &Candidate| !candidate.listed && !candidate.called;
        while self.known.values().filter(|candidate| only_observed(candidate)).count() > MAX_OBSERVED {
            self.drop_least(keep, only_observed);
        }
        while self.known.len() > MAX_ENDPOINTS {
            self.drop_least(keep, |_| true);
        }
    }

    fn drop_least(&mut self, keep: Option<SocketAddr>, among: impl Fn(&Candidate) -> bool) {
        let eligible = self.known.iter().filter(|(address, candidate)| Some(**address) != keep && among(candidate));
        let least = eligible.min_by_key(|(_, candidate)| candidate.worth()).map(|(address, _)| *address);
        if let Some(least) = least {
            self.known.remove(&least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(net: u8, count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|host| SocketAddr::from(([10, 0, net, host], 1))).collect()
    }

    #[test]
    fn endpoints_called_for_displace_listed_ones_and_the_path_in_use_stays() {
        let listed = addresses(1, 32);
        let mut candidates = Candidates::listed(&listed);
        candidates.call(&addresses(2, 32), Some(listed[5]));
        let left = candidates.all();
        assert_eq!(left.len(), MAX_ENDPOINTS);
        assert!(left.contains(&listed[5]));
        assert_eq!(left.iter().filter(|address| addresses(2, 32).contains(address)).count(), 31);
    }

    #[test]
    fn the_oldest_observed_address_makes_room_for_a_new_one() {
        let start = Instant::now();
        let mut candidates = Candidates::default();
        for (index, address) in addresses(3, 20).into_iter().enumerate() {
            candidates.observe(address, start + Duration::from_secs(index as u64), None);
        }
        assert_eq!(candidates.all(), addresses(3, 20)[12..]);
    }

    #[test]
    fn an_observed_address_is_forgotten_after_five_minutes() {
        let start = Instant::now();
        let mut candidates = Candidates::listed(&addresses(1, 1));
        candidates.observe(addresses(2, 1)[0], start, None);
        candidates.expire(start + OBSERVED - Duration::from_millis(1), None);
        assert_eq!(candidates.all().len(), 2);
        candidates.expire(start + OBSERVED, None);
        assert_eq!(candidates.all(), addresses(1, 1));
    }

    #[test]
    fn a_candidate_is_due_again_after_the_ping_interval_or_when_called_for() {
        let start = Instant::now();
        let mut candidates = Candidates::listed(&addresses(1, 1));
        candidates.pinged(addresses(1, 1)[0], start);
        assert!(candidates.due(start + PING_INTERVAL - Duration::from_millis(1)).is_empty());
        assert_eq!(candidates.due(start + PING_INTERVAL), addresses(1, 1));
        candidates.pinged(addresses(1, 1)[0], start);
        candidates.call(&addresses(1, 1), None);
        assert_eq!(candidates.due(start), addresses(1, 1));
    }
}
