use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crypto::{DiscoPublic, NodePublic};

use super::disco_peer::DiscoPeer;
use super::plain_peer::PlainPeer;
use super::shared::Turn;
use crate::{PathChoice, RegionId, Via};

/// What the netmap says of how a peer can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConfig {
    /// The peer.
    pub node: NodePublic,
    /// Its disco key; zero when it has told none yet, so that only the relay leads to it.
    pub disco: DiscoPublic,
    /// The relay region where it waits.
    pub home: Option<RegionId>,
    /// Where it said it can be reached; what can't be an endpoint, and all past the 32nd, is passed over.
    pub endpoints: Vec<SocketAddr>,
    /// Whether it speaks nothing but WireGuard (`IsWireGuardOnly`).
    pub wireguard_only: bool,
}

/// How a peer is reached at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    /// Where its packets go.
    pub choice: PathChoice,
    /// Round trip of the direct path, measured by the last pong; `None` by relay.
    pub latency: Option<Duration>,
    /// Whether packets were sent to it lately.
    pub active: bool,
    /// The relay region where it waits.
    pub home: Option<RegionId>,
    /// All addresses that would be tried.
    pub candidates: Vec<SocketAddr>,
}

/// A peer of either kind.
#[derive(Debug)]
pub(super) enum Peer {
    Disco(DiscoPeer),
    Plain(PlainPeer),
}

impl Peer {
    pub(super) fn new(config: &PeerConfig, turn: &mut Turn<'_>) -> Self {
        if config.wireguard_only {
            Self::Plain(PlainPeer::new(config))
        } else {
            Self::Disco(DiscoPeer::new(config, turn))
        }
    }

    pub(super) fn update(&mut self, config: &PeerConfig, turn: &mut Turn<'_>) {
        match self {
            Self::Disco(peer) if !config.wireguard_only => peer.update(config, turn),
            Self::Plain(peer) if config.wireguard_only => peer.update(config),
            other => {
                other.leave(turn);
                // A new peer starts from nowhere; that it is different from what was told must show.
                *other = Self::new(config, turn);
                turn.shared.changed.insert(config.node);
            }
        }
    }

    pub(super) fn leave(&mut self, turn: &mut Turn<'_>) {
        if let Self::Disco(peer) = self {
            peer.leave(turn);
        }
    }

    pub(super) fn handle_sent(&mut self, turn: &mut Turn<'_>) {
        match self {
            Self::Disco(peer) => peer.handle_sent(turn),
            Self::Plain(peer) => peer.handle_sent(turn.now),
        }
    }

    pub(super) fn handle_received(&mut self, via: Via, turn: &mut Turn<'_>) {
        match self {
            Self::Disco(peer) => peer.handle_received(via, turn),
            Self::Plain(peer) => peer.handle_received(via),
        }
    }

    pub(super) fn settle(&mut self, turn: &mut Turn<'_>) {
        match self {
            Self::Disco(peer) => peer.settle(turn),
            Self::Plain(peer) => peer.settle(turn),
        }
    }

    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.as_disco().and_then(|peer| peer.deadline(now))
    }

    pub(super) fn choice(&self) -> PathChoice {
        match self {
            Self::Disco(peer) => peer.choice(),
            Self::Plain(peer) => peer.choice(),
        }
    }

    /// Round trip of the direct path, if that is in use.
    pub(super) fn latency(&self) -> Option<Duration> {
        let session = self.as_disco()?.session_state()?;
        session.direct.as_ref().map(|direct| direct.quality.latency)
    }

    pub(super) fn status(&self, now: Instant) -> PeerStatus {
        let session = self.as_disco().and_then(DiscoPeer::session_state);
        let candidates = match (self, session) {
            (_, Some(session)) => session.candidates.all(),
            (Self::Disco(peer), None) => peer.listed().to_vec(),
            (Self::Plain(peer), None) => peer.endpoints().to_vec(),
        };
        PeerStatus {
            choice: self.choice(),
            latency: self.latency(),
            active: session.is_some_and(|session| session.is_active(now)),
            home: self.as_disco().and_then(DiscoPeer::home),
            candidates,
        }
    }

    pub(super) fn as_disco(&self) -> Option<&DiscoPeer> {
        match self {
            Self::Disco(peer) => Some(peer),
            Self::Plain(_) => None,
        }
    }

    pub(super) fn as_disco_mut(&mut self) -> Option<&mut DiscoPeer> {
        match self {
            Self::Disco(peer) => Some(peer),
            Self::Plain(_) => None,
        }
    }
}
