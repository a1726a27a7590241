//! What owners and users ask.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime};

use crypto::{NodePublic, SystemEntropy};
use path::RegionId;

use super::{Driver, Query};
use crate::slots::Peer;
use crate::{PeerStatus, Status};

impl Driver {
    /// Answers a question, or notes who waits for the answer; false when the engine is to stop.
    pub(super) fn query(&mut self, query: Query) -> bool {
        // What was ordered before it was asked shows in the answer.
        self.take_orders();
        let now = Instant::now();
        // Whoever asked may have gone before the answer.
        match query {
            Query::Status(reply) => {
                let _gone = reply.send(Box::new(self.status(now)));
            }
            Query::Peer(node, reply) => {
                let table = self.shared.table.load_full();
                let _gone = reply.send(table.peer(&node).map(|peer| self.peer_status(peer, now)));
            }
            Query::Ping(node, kind, reply) => self.ping(node, kind, reply),
            Query::Netcheck(reply) => {
                if self.has_regions() {
                    self.netchecks.push((now, reply));
                    self.netcheck.handle_wanted(now, &mut SystemEntropy);
                } else {
                    let _gone = reply.send(None);
                }
            }
            Query::Flows(reply) => {
                self.take_flows(now, true);
                let _gone = reply.send(self.flows.flows());
            }
            Query::Shutdown(reply) => {
                self.waiting_for_end.push(reply);
                return false;
            }
        }
        true
    }

    /// Whether there are relays that could tell how this node looks from outside.
    pub(super) fn has_regions(&self) -> bool {
        self.shared.table.load().view.relays.regions.as_ref().is_some_and(|regions| !regions.is_empty())
    }

    fn status(&self, now: Instant) -> Status {
        let table = self.shared.table.load_full();
        let status = |peer: &Peer| (peer.slot.node, self.peer_status(peer, now));
        Status {
            peers: table.peers().map(status).collect(),
            home: self.netcheck.home(),
            v4_port: self.shared.sockets.load().v4_port(),
            v6_port: self.shared.sockets.load().v6_port(),
            endpoints: self.endpoints.current(),
            problems: self.health.problems(),
            counters: self.shared.counters.read(),
        }
    }

    fn peer_status(&self, peer: &Peer, now: Instant) -> PeerStatus {
        let node: &NodePublic = &peer.slot.node;
        let path = self.paths.status(node, now);
        let tunnel = self.wireguard.status(node);
        let wall = |moment: Instant| SystemTime::now() - now.saturating_duration_since(moment);
        let at = |tick: &AtomicU64| self.shared.clock.moment(tick.load(Relaxed)).map(wall);
        let home: Option<RegionId> = path.as_ref().and_then(|path| path.home);
        PeerStatus {
            path: peer.slot.path(),
            latency: path.as_ref().and_then(|path| path.latency),
            active: path.as_ref().is_some_and(|path| path.active),
            established: tunnel.is_some_and(|tunnel| tunnel.established),
            home: home.or(peer.view.home),
            candidates: path.map(|path| path.candidates).unwrap_or_default(),
            received_bytes: peer.slot.received_bytes.load(Relaxed),
            sent_bytes: peer.slot.sent_bytes.load(Relaxed),
            last_handshake: tunnel.and_then(|tunnel| tunnel.last_handshake).map(wall),
            last_sent: at(&peer.slot.last_sent),
            last_heard: at(&peer.slot.last_heard),
        }
    }
}
