//! Who is connected: from a node's key to the connection that its packets go to.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use crypto::NodePublic;
use packet::derp::{Frame, FrameKind, GoneReason, PresenceFlags};

use super::mesh::{Forwarders, Watchers};
use super::outbox::{Ending, Lane, Outbox};
use crate::link::Outgoing;

/// The map is split so that lookups for different keys rarely meet on a lock's cache line.
const SHARDS: usize = 64;

/// How many connections one key may hold: a device that comes back before its old connection is known to be dead has two.
const MOST_CONNECTIONS_PER_KEY: usize = 8;

/// How long the active connection of a key must have been silent before another of the same key takes over by sending.
///
/// Two devices with one key would otherwise take every other packet from each other.
const TAKEOVER_AFTER: Duration = Duration::from_secs(5);

/// To how many peers a client's end is told.
pub(crate) const MOST_SENT_TO: usize = 4096;

/// What duplicates of a key are told.
const DUPLICATE: &str = "this node's key is connected to the relay more than once: packets go to one connection only";

type Shard = RwLock<HashMap<NodePublic, Arc<Presence>>>;

/// Everybody who is connected.
#[derive(Debug)]
pub(crate) struct Hub {
    shards: Box<[Shard]>,
    hasher: RandomState,
    started: Instant,
    next_id: AtomicU64,
    /// Relays of the mesh that want to know who comes and goes.
    pub(super) watchers: Watchers,
    /// Ways to clients of other relays of the mesh.
    pub(super) forwarders: Forwarders,
}

/// One client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Unique in this process.
    pub(crate) id: u64,
    /// The key that the client has proven.
    pub(crate) key: NodePublic,
    /// Where it connects from.
    pub(crate) address: SocketAddr,
    /// What kind of client it is.
    pub(crate) flags: PresenceFlags,
    /// What waits for it.
    pub(crate) outbox: Outbox,
    /// When it last sent a packet, in milliseconds since the hub started.
    last_sent: AtomicU64,
}

/// A key that is connected, once or more often.
#[derive(Debug)]
pub(crate) struct Presence {
    pub(crate) key: NodePublic,
    /// Who gets the packets.
    active: ArcSwap<Connection>,
    /// Whether there is more than one connection.
    duplicated: AtomicBool,
    /// Whether two of them send at the same time: two devices with one key, not one that came back.
    contended: AtomicBool,
    gone: AtomicBool,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    connections: Vec<Arc<Connection>>,
    /// Whom connections of this key that have ended had sent packets to.
    sent_to: BTreeSet<NodePublic>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(),
            hasher: RandomState::new(),
            started: Instant::now(),
            next_id: AtomicU64::new(1),
            watchers: Watchers::default(),
            forwarders: Forwarders::default(),
        }
    }

    /// Adds a connection; the newest of a key is the active one.
    pub(crate) fn register(
        &self,
        key: NodePublic,
        address: SocketAddr,
        flags: PresenceFlags,
    ) -> (Arc<Presence>, Arc<Connection>) {
        let connection = Arc::new(Connection {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            key,
            address,
            flags,
            outbox: Outbox::default(),
            last_sent: AtomicU64::new(self.now()),
        });
        let mut shard = self.shard(&key).write().unwrap_or_else(PoisonError::into_inner);
        let presence = match shard.get(&key) {
            Some(presence) => {
                presence.join(connection.clone());
                presence.clone()
            }
            None => {
                let presence = Arc::new(Presence::new(connection.clone()));
                shard.insert(key, presence.clone());
                presence
            }
        };
        drop(shard);
        self.watchers.tell(key);
        (presence, connection)
    }

    /// Removes a connection that had sent packets to `sent_to`; when it was the key's last, they are told that it is gone.
    pub(crate) fn unregister(&self, presence: &Arc<Presence>, connection: &Connection, sent_to: BTreeSet<NodePublic>) {
        let mut shard = self.shard(&presence.key).write().unwrap_or_else(PoisonError::into_inner);
        let Some(sent_to) = presence.leave(connection, sent_to) else { return };
        shard.remove(&presence.key);
        drop(shard);
        let gone = Frame::PeerGone { peer: presence.key, reason: GoneReason::Disconnected };
        self.watchers.tell(presence.key);
        for peer in sent_to {
            if let Some(peer) = self.find(&peer) {
                peer.active.load().outbox.push_note(Outgoing::frame(&gone));
            }
        }
    }

    /// Who has this key here.
    pub(crate) fn find(&self, key: &NodePublic) -> Option<Arc<Presence>> {
        self.shard(key).read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// How a key stands, as a relay of the mesh is told.
    pub(crate) fn standing(&self, key: &NodePublic) -> Frame<'static> {
        match self.find(key) {
            Some(presence) => {
                let active = presence.active.load();
                Frame::PeerPresent { peer: *key, address: Some(active.address), flags: active.flags }
            }
            None => Frame::PeerGone { peer: *key, reason: GoneReason::Disconnected },
        }
    }

    /// Ends every connection of a key.
    pub(crate) fn disconnect(&self, key: &NodePublic, ending: Ending) -> bool {
        let found = self.find(key);
        if let Some(presence) = &found {
            presence.for_each(|connection| connection.outbox.end(ending));
        }
        found.is_some()
    }

    /// Does something with every connection.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&Arc<Connection>)) {
        for shard in &self.shards {
            let shard: Vec<_> = shard.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
            for presence in shard {
                presence.for_each(&mut each);
            }
        }
    }

    /// Notes that a connection sends packets now. Where its key has several, it may become the one that receives.
    pub(crate) fn note_sending(&self, presence: &Presence, connection: &Arc<Connection>) {
        let now = self.now();
        if presence.duplicated.load(Ordering::Relaxed) {
            let active = presence.active.load();
            let silent = now.saturating_sub(active.last_sent.load(Ordering::Relaxed));
            if active.id != connection.id && silent >= TAKEOVER_AFTER.as_millis() as u64 {
                presence.active.store(connection.clone());
            } else if active.id != connection.id && !presence.contended.swap(true, Ordering::Relaxed) {
                presence.tell_all(&Frame::Health(DUPLICATE));
            }
        }
        connection.last_sent.store(now, Ordering::Relaxed);
    }

    fn shard(&self, key: &NodePublic) -> &Shard {
        // The map inside hashes with keys of its own, so that its buckets don't follow from the shard.
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Presence {
    fn new(connection: Arc<Connection>) -> Self {
        Self {
            key: connection.key,
            active: ArcSwap::new(connection.clone()),
            duplicated: AtomicBool::new(false),
            contended: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            members: Mutex::new(Members { connections: vec![connection], sent_to: BTreeSet::new() }),
        }
    }

    /// Whether the key's last connection has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Queues a packet for the active connection. Says whether one had to be dropped, and which connection to wait for
    /// before sending more, if any.
    pub(crate) fn deliver(
        &self,
        lane: Lane,
        source: NodePublic,
        sender: u64,
        packet: Bytes,
    ) -> (bool, Option<Arc<Connection>>) {
        let frame = Outgoing::packet(FrameKind::RECV_PACKET, &source, packet);
        let active = self.active.load();
        let pushed = active.outbox.push_packet(lane, sender, frame);
        (pushed.dropped, pushed.pressed.then(|| active.clone()))
    }

    fn join(&self, connection: Arc<Connection>) {
        let mut members = self.locked();
        if members.connections.len() >= MOST_CONNECTIONS_PER_KEY {
            members.connections[0].outbox.end(Ending::TooMany);
        }
        members.connections.push(connection.clone());
        self.duplicated.store(true, Ordering::Relaxed);
        self.active.store(connection);
    }

    fn tell_all(&self, frame: &Frame<'_>) {
        self.for_each(|connection| {
            connection.outbox.push_note(Outgoing::frame(frame));
        });
    }

    /// Removes a connection. When none is left, hands out whom they all had sent packets to.
    fn leave(&self, connection: &Connection, sent_to: BTreeSet<NodePublic>) -> Option<BTreeSet<NodePublic>> {
        let mut members = self.locked();
        members.connections.retain(|member| member.id != connection.id);
        let room = MOST_SENT_TO.saturating_sub(members.sent_to.len());
        members.sent_to.extend(sent_to.into_iter().take(room));
        let Some(newest) = members.connections.last() else {
            self.gone.store(true, Ordering::Relaxed);
            return Some(std::mem::take(&mut members.sent_to));
        };
        if self.active.load().id == connection.id {
            self.active.store(newest.clone());
        }
        if members.connections.len() == 1 {
            self.duplicated.store(false, Ordering::Relaxed);
            if self.contended.swap(false, Ordering::Relaxed) {
                newest.outbox.push_note(Outgoing::frame(&Frame::Health("")));
            }
        }
        None
    }

    fn for_each(&self, each: impl FnMut(&Arc<Connection>)) {
        let connections = self.locked().connections.clone();
        connections.iter().for_each(each);
    }

    fn locked(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const A: NodePublic = NodePublic::from_bytes([1; 32]);
    const B: NodePublic = NodePublic::from_bytes([2; 32]);

    fn join(hub: &Hub, key: NodePublic) -> (Arc<Presence>, Arc<Connection>) {
        hub.register(key, "203.0.113.1:1".parse().unwrap(), PresenceFlags::REGULAR)
    }

    /// The frames that wait for a connection, by type.
    fn waiting(connection: &Connection) -> Vec<u8> {
        let mut kinds = Vec::new();
        connection.outbox.take(1000, usize::MAX, Waker::noop(), |frame| {
            kinds.push(match frame {
                Outgoing::Packet { header, .. } => header[0],
                Outgoing::Forward { header, .. } => header[0],
                Outgoing::Whole(bytes) => bytes[0],
            });
        });
        kinds
    }

    #[test]
    fn a_packet_goes_to_who_has_the_key() {
        let hub = Hub::new();
        let (_, a) = join(&hub, A);
        assert!(!hub.find(&A).unwrap().deliver(Lane::Data, B, 9, Bytes::from_static(b"x")).0);
        assert_eq!(waiting(&a), [FrameKind::RECV_PACKET.0]);
        assert!(hub.find(&B).is_none());
    }

    #[test]
    fn who_got_packets_from_a_client_is_told_when_it_goes() {
        let hub = Hub::new();
        let (presence, a) = join(&hub, A);
        let (_, b) = join(&hub, B);
        hub.unregister(&presence, &a, BTreeSet::from([B]));
        assert_eq!(waiting(&b), [FrameKind::PEER_GONE.0]);
        assert!(presence.is_gone() && hub.find(&A).is_none());
    }

    #[test]
    fn drp_07_of_two_connections_that_send_the_newer_wins_and_both_are_told_once() {
        let hub = Hub::new();
        let (presence, old) = join(&hub, A);
        let (_, new) = join(&hub, A);
        // Both send in turn, as two machines with one key do: no packet changes sides.
        for _ in 0..100 {
            hub.note_sending(&presence, &old);
            hub.note_sending(&presence, &new);
            presence.deliver(Lane::Data, B, 9, Bytes::from_static(b"x"));
        }
        assert_eq!(waiting(&old), [FrameKind::HEALTH.0]);
        let got = waiting(&new);
        assert_eq!((got[0], got.len()), (FrameKind::HEALTH.0, 33));
        hub.unregister(&presence, &old, BTreeSet::new());
        assert_eq!(waiting(&new), [FrameKind::HEALTH.0]);
    }

    #[test]
    fn a_device_that_came_back_is_told_nothing_of_its_old_connection() {
        let hub = Hub::new();
        let (presence, old) = join(&hub, A);
        let (_, new) = join(&hub, A);
        hub.note_sending(&presence, &new);
        hub.unregister(&presence, &old, BTreeSet::new());
        assert!(waiting(&new).is_empty());
    }

    #[test]
    fn drp_07_when_the_winner_is_silent_the_other_takes_over_by_sending() {
        let hub = Hub::new();
        let (presence, old) = join(&hub, A);
        let (_, new) = join(&hub, A);
        // The hub's clock starts with the test: only a connection that last sent before that has been silent.
        new.last_sent.store(0, Ordering::Relaxed);
        let mut hub = hub;
        hub.started -= TAKEOVER_AFTER;
        hub.note_sending(&presence, &old);
        presence.deliver(Lane::Data, B, 9, Bytes::from_static(b"x"));
        assert_eq!((waiting(&old).len(), waiting(&new).len()), (1, 0));
    }

    #[test]
    fn when_one_of_two_connections_ends_the_other_gets_the_packets() {
        let hub = Hub::new();
        let (presence, old) = join(&hub, A);
        let (_, new) = join(&hub, A);
        let (_, b) = join(&hub, B);
        hub.unregister(&presence, &new, BTreeSet::from([B]));
        presence.deliver(Lane::Data, B, 9, Bytes::from_static(b"x"));
        assert_eq!(waiting(&old), [FrameKind::RECV_PACKET.0]);
        assert!(waiting(&b).is_empty());
        hub.unregister(&presence, &old, BTreeSet::new());
        assert_eq!(waiting(&b), [FrameKind::PEER_GONE.0]);
    }

    #[test]
    fn drp_07_a_key_with_too_many_connections_loses_the_oldest() {
        let hub = Hub::new();
        let (_, oldest) = join(&hub, A);
        let others: Vec<_> = (0..MOST_CONNECTIONS_PER_KEY - 1).map(|_| join(&hub, A).1).collect();
        assert_eq!(oldest.outbox.ending(Waker::noop()), None);
        join(&hub, A);
        assert_eq!(oldest.outbox.ending(Waker::noop()), Some(Ending::TooMany));
        assert_eq!(others[0].outbox.ending(Waker::noop()), None);
    }

    #[test]
    fn a_revoked_key_loses_all_its_connections() {
        let hub = Hub::new();
        let connections = [join(&hub, A).1, join(&hub, A).1];
        assert!(hub.disconnect(&A, Ending::Revoked));
        assert!(connections.iter().all(|connection| connection.outbox.ending(Waker::noop()) == Some(Ending::Revoked)));
        assert!(!hub.disconnect(&B, Ending::Revoked));
    }
}
