//! Which way packets for each peer go: directly, by relay, or both for the moment.
//!
//! A peer that nobody talks to costs its entry in the map and nothing else: no timer, no packet. The first packet sent to
//! it opens a *session*: all addresses at which it may be are pinged, and it is asked through its relay to do the same
//! towards this node (call-me-maybe), so that the NATs of both sides let each other's pings pass. The first pong makes
//! the path direct; a heartbeat keeps it, and the session falls asleep 45 s after the last packet sent.
//!
//! # Where this goes beyond the stock nodes
//!
//! Nothing of it shows on the wire except more, or fewer, of the same messages.
//!
//! - A direct path that dies under traffic is noticed by silence, not by the end of its trust: packets go by relay too
//!   within 3 s instead of 6.5 s. A peer that is suddenly heard by relay (packets, a ping, call-me-maybe) or from another
//!   address makes this node check its own direction at once; a node that moved pings its peers by relay for that.
//! - An authenticated packet extends trust but never restores it: what comes in says nothing of the way out.
//! - A path whose trust lapsed loses to any path that works, and is given up after 5 s, so that packets are not sent both
//!   ways for ever.
//! - A ping from a new address is answered with a ping at once, not in the next round.
//! - A path that fails makes this node learn its own endpoints anew, and tell them: a NAT that forgot its mapping has made
//!   another. So does the second round of a search that found nothing.
//! - A peer without known endpoints is sent call-me-maybe as well: it may reach us where we can't reach it.
//! - A search without result slows down after a minute, from every 5 s to every 14 s.
//! - Pings that a peer can cause by call-me-maybe, or by pinging, are paid from a budget of the peer's.
//! - While the home relay of a peer is down, packets for it go through this node's own home.
//!
//! # What is missing
//!
//! Peer relays (Geneve), path MTU discovery, and learning the lifetime of NAT mappings.

mod candidates;
mod direct;
mod disco_peer;
mod keys;
mod peer;
mod pings;
mod plain_peer;
mod quality;
mod relays;
mod search;
mod session;
mod shared;
mod timing;
mod told;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crypto::{DiscoPrivate, DiscoPublic, Entropy, NodePublic};
use packet::disco::{Envelope, Message};

use crate::{Families, PathChoice, RegionId, Transmit, Via, Way};
use disco_peer::DiscoPeer;
use keys::DiscoKeys;
use peer::Peer;
use relays::Relays;
use shared::{OwnEndpoints, Shared, Turn, canonical};
use timing::{MAX_SHARING, PEERS_PER_TIMEOUT, SESSION_ACTIVE};

pub use peer::{PeerConfig, PeerStatus};
pub use relays::RelayState;
pub use told::{Counters, Event, PingRefused, Refused, UserPing};

/// The paths to all peers of one node.
pub struct Paths {
    peers: BTreeMap<NodePublic, Entry>,
    timetable: BTreeSet<(Instant, NodePublic)>,
    shared: Shared,
    next_ping: u64,
    last_sent: Option<Instant>,
}

struct Entry {
    peer: Peer,
    scheduled: Option<Instant>,
}

impl Paths {
    /// The paths of the node that holds `node`, with a disco key of its own that nobody knows yet.
    pub fn new(node: NodePublic, entropy: &mut dyn Entropy) -> Self {
        let shared = Shared {
            node,
            keys: DiscoKeys::new(DiscoPrivate::generate(entropy)),
            relays: Relays::default(),
            families: Families::ALL,
            endpoints: OwnEndpoints::default(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            changed: BTreeSet::new(),
            counters: Counters::default(),
        };
        Self { peers: BTreeMap::new(), timetable: BTreeSet::new(), shared, next_ping: 0, last_sent: None }
    }

    /// Takes a peer from the netmap: a new one, or what is now known of one.
    pub fn handle_peer(&mut self, config: &PeerConfig, now: Instant, entropy: &mut dyn Entropy) {
        if self.turn(&config.node, now, entropy, |peer, turn| peer.update(config, turn)).is_some() {
            return;
        }
        let peer = Peer::new(config, &mut Turn { now, entropy, shared: &mut self.shared });
        self.peers.insert(config.node, Entry { peer, scheduled: None });
        self.turn(&config.node, now, entropy, |_, _| ());
    }

    /// Takes a peer's disco key, from a patch of the netmap or from the peer itself.
    pub fn handle_disco_key(&mut self, node: &NodePublic, key: DiscoPublic, now: Instant, entropy: &mut dyn Entropy) {
        self.turn(node, now, entropy, |peer, turn| {
            if let Some(peer) = peer.as_disco_mut() {
                peer.change_key(key, turn);
            }
        });
    }

    /// Forgets a peer that left the netmap.
    pub fn handle_peer_removed(&mut self, node: &NodePublic, now: Instant, entropy: &mut dyn Entropy) {
        let Some(mut entry) = self.peers.remove(node) else { return };
        entry.peer.leave(&mut Turn { now, entropy, shared: &mut self.shared });
        self.shared.changed.remove(node);
        self.shared.endpoints.waiting.remove(node);
        if let Some(at) = entry.scheduled {
            self.timetable.remove(&(at, *node));
        }
    }

    /// Takes this node's endpoints, as STUN and the interfaces now show them.
    pub fn handle_own_endpoints(&mut self, endpoints: &[SocketAddr], now: Instant, entropy: &mut dyn Entropy) {
        for node in self.shared.endpoints.learn(endpoints, now) {
            self.turn(&node, now, entropy, |peer, turn| {
                if let Some(peer) = peer.as_disco_mut() {
                    peer.handle_own_endpoints(turn);
                }
            });
        }
    }

    /// Takes the address families that this node can send in; until then, both are tried.
    pub fn handle_families(&mut self, families: Families, now: Instant, entropy: &mut dyn Entropy) {
        self.shared.families = families;
        self.turn_all(now, entropy, |_| ());
    }

    /// Takes the relay region where this node itself waits.
    pub fn handle_own_home(&mut self, home: Option<RegionId>, now: Instant, entropy: &mut dyn Entropy) {
        self.shared.relays.set_own_home(home);
        self.turn_all(now, entropy, |_| ());
    }

    /// Takes what the connection to a relay region is doing.
    ///
    /// It is [`RelayState::Down`] only when connecting anew failed too: a relay that restarts is no reason to look for
    /// another. Whoever owns the connections goes on trying regions that are down and are a peer's home.
    pub fn handle_relay(&mut self, region: RegionId, state: RelayState, now: Instant, entropy: &mut dyn Entropy) {
        self.shared.relays.set(region, state);
        self.turn_all(now, entropy, |peer| peer.handle_relay(region, state));
    }

    /// A relay says that a peer is not connected to it.
    pub fn handle_peer_gone(&mut self, node: &NodePublic, region: RegionId, now: Instant, entropy: &mut dyn Entropy) {
        self.turn(node, now, entropy, |peer, _| {
            if let Some(peer) = peer.as_disco_mut() {
                peer.forget_reverse(region);
            }
        });
    }

    /// This node has another address, or another way out: no path is known to work any more.
    pub fn handle_network_change(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        self.shared.endpoints.outdate();
        let active = self.peers.values().filter(|entry| entry.is_active(now)).count();
        // A node with a thousand sessions searches for all of them within a second, not within a packet's time.
        let spread = u64::try_from(active).unwrap_or(u64::MAX).min(2000);
        let nodes: Vec<NodePublic> = self.peers.keys().copied().collect();
        for node in nodes {
            let search_at = now + Duration::from_millis(entropy.below(spread));
            self.turn(&node, now, entropy, |peer, _| {
                if let Some(peer) = peer.as_disco_mut() {
                    peer.handle_network_change(search_at);
                }
            });
        }
    }

    /// A packet was, or is about to be, sent to a peer. To be told at once when the last was a second or more ago, and
    /// twice a second while more are sent.
    pub fn handle_sent(&mut self, node: &NodePublic, now: Instant, entropy: &mut dyn Entropy) {
        if self.turn(node, now, entropy, |peer, turn| peer.handle_sent(turn)).is_some() {
            self.last_sent = Some(now);
        }
    }

    /// WireGuard authenticated a packet of a peer that came this way. To be told when none came this way for half a
    /// second, and twice a second while more come.
    pub fn handle_received(&mut self, node: &NodePublic, via: Via, now: Instant, entropy: &mut dyn Entropy) {
        let via = match via {
            Via::Direct(address) => Via::Direct(canonical(address)),
            Via::Relay(_) => via,
        };
        self.turn(node, now, entropy, |peer, turn| peer.handle_received(via, turn));
    }

    /// Takes a disco packet, from the socket or from a relay.
    pub fn handle_disco(
        &mut self,
        envelope: &Envelope<'_>,
        came: Way,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refused> {
        let came = match came {
            Way::Udp(address) => Way::Udp(canonical(address)),
            Way::Relay { .. } => came,
        };
        let outcome = self.take_disco(envelope, came, now, entropy);
        self.shared.counters.refused += u64::from(outcome.is_err());
        outcome
    }

    /// Pings a peer for a user, who waits for [`Event::PingAnswered`] or [`Event::PingUnanswered`].
    ///
    /// It counts as a packet sent: pinging again and again brings up a direct path.
    pub fn ping(
        &mut self,
        node: &NodePublic,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<UserPing, PingRefused> {
        let user = UserPing(self.next_ping);
        self.next_ping += 1;
        let sent = self.turn(node, now, entropy, |peer, turn| {
            peer.as_disco_mut().ok_or(PingRefused::NotDisco)?.ping_for(user, turn)
        });
        sent.ok_or(PingRefused::UnknownPeer)??;
        self.last_sent = Some(now);
        Ok(user)
    }

    /// Does what is due. With very many peers due, some are left for the next call, which [`Self::poll_timeout`] asks for.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut dyn Entropy) {
        for _ in 0..PEERS_PER_TIMEOUT {
            let Some(&(at, node)) = self.timetable.first() else { return };
            if at > now {
                return;
            }
            self.turn(&node, now, entropy, |_, _| ());
        }
    }

    /// When [`Self::handle_timeout`] is to be called; `None` while all is quiet.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timetable.first().map(|(at, _)| *at)
    }

    /// The next packet to send. To be called until it is empty after every other call.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.shared.transmits.pop_front()
    }

    /// The next event. To be called until it is empty after every other call.
    pub fn poll_event(&mut self) -> Option<Event> {
        if let Some(event) = self.shared.events.pop_front() {
            return Some(event);
        }
        while let Some(node) = self.shared.changed.pop_first() {
            if let Some(Entry { peer, .. }) = self.peers.get(&node) {
                return Some(Event::PathChanged { node, choice: peer.choice(), latency: peer.latency() });
            }
        }
        None
    }

    /// The disco key of this process, for the control server.
    pub fn disco_key(&self) -> DiscoPublic {
        self.shared.keys.public()
    }

    /// Where packets for a peer go now; nowhere for who is no peer.
    pub fn choice(&self, node: &NodePublic) -> PathChoice {
        self.peers.get(node).map(|entry| entry.peer.choice()).unwrap_or_default()
    }

    /// How a peer is reached at the moment.
    pub fn status(&self, node: &NodePublic, now: Instant) -> Option<PeerStatus> {
        self.peers.get(node).map(|entry| entry.peer.status(now))
    }

    /// Whether packets were sent to any peer lately: as long as that is so, this node's endpoints are worth keeping fresh.
    pub fn is_active(&self, now: Instant) -> bool {
        self.last_sent.is_some_and(|at| now < at + SESSION_ACTIVE)
    }

    /// What was sent and refused since the start.
    pub fn counters(&self) -> Counters {
        self.shared.counters
    }

    fn take_disco(
        &mut self,
        envelope: &Envelope<'_>,
        came: Way,
        now: Instant,
        entropy: &mut dyn Entropy,
    ) -> Result<(), Refused> {
        let sender = self.sender(envelope, came)?;
        match self.shared.keys.open(envelope).ok_or(Refused::UnknownSender)?? {
            Message::Ping(ping) => {
                let claimed = ping.node_key.filter(|node| self.shared.keys.holds(*node, &envelope.sender));
                if let Some(node) = sender.proven.or(claimed).or(sender.only) {
                    self.turn_disco(&node, now, entropy, |peer, turn| peer.handle_ping(came, ping.transaction, turn));
                } else {
                    // Which of its nodes asks is unclear, but not that a peer does.
                    let mut turn = Turn { now, entropy, shared: &mut self.shared };
                    turn.pong(came, &envelope.sender, ping.transaction);
                }
                Ok(())
            }
            Message::Pong(pong) => {
                let holders = self.shared.keys.holders_of(&envelope.sender).take(MAX_SHARING).collect();
                let mut asked = sender.proven.map_or(holders, |node| vec![node]).into_iter();
                let answers = |node: NodePublic| {
                    self.turn_disco(&node, now, entropy, |peer, turn| peer.handle_pong(came.via(), &pong, turn))
                };
                asked.any(answers).then_some(()).ok_or(Refused::StrayPong)
            }
            Message::CallMeMaybe(call) => {
                let Way::Relay { region, node } = came else { return Err(Refused::DirectCall) };
                let endpoints = &call.endpoints;
                self.turn_disco(&node, now, entropy, |peer, turn| peer.handle_call(endpoints, region, turn));
                Ok(())
            }
            Message::RelayBind(_)
            | Message::RelayBindChallenge(_)
            | Message::RelayBindAnswer(_)
            | Message::CallMeMaybeVia(_)
            | Message::RelayAllocateRequest(_)
            | Message::RelayAllocateResponse(_) => Err(Refused::PeerRelay),
        }
    }

    /// Who can have sent an envelope, as far as its outside and the way it came tell.
    fn sender(&self, envelope: &Envelope<'_>, came: Way) -> Result<Sender, Refused> {
        let keys = &self.shared.keys;
        let mut holders = keys.holders_of(&envelope.sender);
        let first = holders.next().ok_or(Refused::UnknownSender)?;
        let only = holders.next().is_none().then_some(first);
        match came {
            Way::Udp(_) => Ok(Sender { proven: None, only }),
            Way::Relay { node, .. } if keys.holds(node, &envelope.sender) => Ok(Sender { proven: Some(node), only }),
            Way::Relay { .. } => Err(Refused::ForeignRelay),
        }
    }

    /// Lets one peer act, settles what follows, and sets its timer. `None` when there is no such peer.
    fn turn<R>(
        &mut self,
        node: &NodePublic,
        now: Instant,
        entropy: &mut dyn Entropy,
        act: impl FnOnce(&mut Peer, &mut Turn<'_>) -> R,
    ) -> Option<R> {
        let entry = self.peers.get_mut(node)?;
        let mut turn = Turn { now, entropy, shared: &mut self.shared };
        let result = act(&mut entry.peer, &mut turn);
        entry.peer.settle(&mut turn);
        let deadline = entry.peer.deadline(now);
        if deadline != entry.scheduled {
            if let Some(before) = std::mem::replace(&mut entry.scheduled, deadline) {
                self.timetable.remove(&(before, *node));
            }
            self.timetable.extend(deadline.map(|at| (at, *node)));
        }
        Some(result)
    }

    /// The same for a peer that speaks disco; the default for any other.
    fn turn_disco<R: Default>(
        &mut self,
        node: &NodePublic,
        now: Instant,
        entropy: &mut dyn Entropy,
        act: impl FnOnce(&mut DiscoPeer, &mut Turn<'_>) -> R,
    ) -> R {
        let result = self.turn(node, now, entropy, |peer, turn| peer.as_disco_mut().map(|peer| act(peer, turn)));
        result.flatten().unwrap_or_default()
    }

    fn turn_all(&mut self, now: Instant, entropy: &mut dyn Entropy, mut act: impl FnMut(&mut DiscoPeer)) {
        let nodes: Vec<NodePublic> = self.peers.keys().copied().collect();
        for node in nodes {
            self.turn_disco(&node, now, entropy, |peer, _| act(peer));
        }
    }
}

/// Who can have sent a disco packet.
struct Sender {
    /// The node that the relay vouches for.
    proven: Option<NodePublic>,
    /// The node that alone holds the disco key.
    only: Option<NodePublic>,
}

impl Entry {
    fn is_active(&self, now: Instant) -> bool {
        let session = self.peer.as_disco().and_then(DiscoPeer::session_state);
        session.is_some_and(|session| session.is_active(now))
    }
}

impl std::fmt::Debug for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paths").field("disco_key", &self.disco_key()).field("peers", &self.peers.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_peer_is_small() {
        assert!(size_of::<Entry>() <= 192, "{}", size_of::<Entry>());
    }
}
