use std::net::SocketAddr;
use std::time::Instant;

use crypto::NodePublic;

use super::PeerConfig;
use super::shared::{Turn, admitted};
use super::timing::PLAIN_TRUST;
use crate::{PathChoice, Via};

/// A peer that speaks WireGuard and nothing else: it can't be pinged, and no relay knows it.
///
/// Its endpoints are taken as they are listed. One that lets packets vanish for [`PLAIN_TRUST`] makes room for the next.
#[derive(Debug)]
pub(super) struct PlainPeer {
    node: NodePublic,
    endpoints: Vec<SocketAddr>,
    current: usize,
    silent_since: Option<Instant>,
    choice: PathChoice,
}

impl PlainPeer {
    pub(super) fn new(config: &PeerConfig) -> Self {
        Self {
            node: config.node,
            endpoints: admitted(&config.endpoints),
            current: 0,
            silent_since: None,
            choice: PathChoice::Nowhere,
        }
    }

    pub(super) fn update(&mut self, config: &PeerConfig) {
        let endpoints = admitted(&config.endpoints);
        if endpoints != self.endpoints {
            (self.endpoints, self.current, self.silent_since) = (endpoints, 0, None);
        }
    }

    pub(super) fn handle_sent(&mut self, now: Instant) {
        let since = *self.silent_since.get_or_insert(now);
        if since + PLAIN_TRUST <= now {
            self.current = self.current.wrapping_add(1);
            self.silent_since = Some(now);
        }
    }

    pub(super) fn handle_received(&mut self, via: Via) {
        if matches!(via, Via::Direct(_)) {
            self.silent_since = None;
        }
    }

    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        let reachable = |endpoint: &&SocketAddr| turn.shared.reaches(endpoint);
        let count = self.endpoints.iter().filter(reachable).count().max(1);
        let endpoint = self.endpoints.iter().filter(reachable).nth(self.current % count);
        let choice = endpoint.map_or(PathChoice::Nowhere, |endpoint| PathChoice::Direct(*endpoint));
        if choice != self.choice {
            self.choice = choice;
            turn.shared.changed.insert(self.node);
        }
    }

    pub(super) fn choice(&self) -> PathChoice {
        self.choice
    }

    pub(super) fn endpoints(&self) -> &[SocketAddr] {
        &self.endpoints
    }
}
