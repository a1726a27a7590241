use std::net::SocketAddr;
use std::time::Instant;

use packet::disco::TransactionId;

use super::candidates::Candidates;
use super::direct::Direct;
use super::pings::Pings;
use super::search::Search;
use super::timing::{OBSERVED, PROVOKED_BURST, PROVOKED_REFILL, SESSION_ACTIVE};
use crate::RegionId;
use crate::budget::Budget;

/// What is kept of a peer that was talked to, or heard from, in the last minutes. An idle peer has none.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) last_sent: Option<Instant>,
    /// When the peer was last heard from in any way.
    pub(super) last_heard: Instant,
    pub(super) candidates: Candidates,
    pub(super) pings: Pings,
    pub(super) direct: Option<Direct>,
    /// The region that the peer was last heard through.
    pub(super) reverse: Option<RegionId>,
    pub(super) search: Search,
    /// Pings that the peer can make this node send.
    pub(super) provoked: Budget,
    /// The ping that came by relay last.
    pub(super) relay_ping: Option<TransactionId>,
    /// This node moved, and the peer has not been told.
    pub(super) moved: bool,
}

impl Session {
    pub(super) fn new(listed: &[SocketAddr], now: Instant) -> Self {
        Self {
            last_sent: None,
            last_heard: now,
            candidates: Candidates::listed(listed),
            pings: Pings::default(),
            direct: None,
            reverse: None,
            search: Search::new(now),
            provoked: Budget::new(PROVOKED_BURST, PROVOKED_REFILL, now),
            relay_ping: None,
            moved: false,
        }
    }

    /// Whether packets were sent lately, so that the path is to be kept warm.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.last_sent.is_some_and(|at| now < at + SESSION_ACTIVE)
    }

    /// A packet was sent to the peer.
    pub(super) fn sent(&mut self, now: Instant) {
        if !self.is_active(now) {
            self.direct.iter_mut().for_each(Direct::wake);
            self.search.begin(now);
        }
        self.last_sent = Some(now);
        if let Some(direct) = &mut self.direct {
            direct.sent(now);
        }
    }

    /// The peer is a new process, or this node is elsewhere: no path is known to work, a search starts at `at`.
    pub(super) fn start_over(&mut self, at: Instant) {
        self.direct = None;
        self.pings.forget();
        self.candidates.forget_trials();
        self.search.restart(at);
    }

    /// The address of the path in use, proven or not.
    pub(super) fn direct_address(&self) -> Option<SocketAddr> {
        self.direct.as_ref().map(|direct| direct.quality.address)
    }

    pub(super) fn trusted(&self, now: Instant) -> Option<&Direct> {
        self.direct.as_ref().filter(|direct| direct.trusted(now))
    }

    /// When the next search is due; `None` while nothing is sent, or the path needs no better.
    pub(super) fn search_at(&self, now: Instant) -> Option<Instant> {
        if !self.is_active(now) {
            return None;
        }
        self.search.due(self.trusted(now).map(|direct| direct.quality.latency))
    }

    /// When this session can be forgotten.
    pub(super) fn forgotten_at(&self) -> Instant {
        self.last_sent.map_or(self.last_heard, |sent| sent.max(self.last_heard)) + OBSERVED
    }

    /// When something is to be done.
    pub(super) fn deadline(&self, now: Instant) -> Instant {
        let direct = match &self.direct {
            Some(direct) if self.is_active(now) => Some(direct.deadline(now)),
            Some(direct) => direct.trusted(now).then(|| direct.trusted_until()),
            None => None,
        };
        let others = [direct, self.search_at(now), self.pings.deadline()];
        others.into_iter().flatten().fold(self.forgotten_at(), Instant::min)
    }
}
