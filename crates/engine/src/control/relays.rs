//! Connections to relays: a task for each region, which sleeps until it is wanted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use crypto::{NodePrivate, NodePublic};
use derp::client::{Address, Dialer, Options, Relay, RelayIdentity};
use path::{RegionId, RelayState};
use tailcfg::{DerpAddress, DerpMap, DerpNode};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Shared;
use super::line::Line;

/// Trains that wait for one relay, and their bytes.
const MOST_PARCELS: usize = 256;
const MOST_BYTES: usize = 1 << 20;
/// Words of all relays that wait for the control thread; relays wait for room.
const MOST_WORDS: usize = 256;

/// Where the other threads put messages for the relay of a region.
#[derive(Debug, Clone)]
pub(crate) struct RelayQueue {
    parcels: mpsc::Sender<Parcel>,
    bytes: Arc<AtomicUsize>,
}

/// Messages for one peer: all of one length, the last may be shorter.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) to: NodePublic,
    pub(super) bytes: Bytes,
    pub(super) message: usize,
    held: Arc<AtomicUsize>,
    size: usize,
}

impl Drop for Parcel {
    fn drop(&mut self) {
        self.held.fetch_sub(self.size, Relaxed);
    }
}

impl RelayQueue {
    fn new() -> (Self, mpsc::Receiver<Parcel>) {
        let (parcels, queued) = mpsc::channel(MOST_PARCELS);
        (Self { parcels, bytes: Arc::default() }, queued)
    }

    pub(super) fn push(&self, to: NodePublic, bytes: Bytes, message: usize) -> bool {
        let size = bytes.len();
        let held = self.bytes.fetch_add(size, Relaxed);
        // Dropping the parcel gives its bytes back.
        let parcel = Parcel { to, bytes, message, held: self.bytes.clone(), size };
        held <= MOST_BYTES && self.parcels.try_send(parcel).is_ok()
    }
}

/// What a region's connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Role {
    /// This node waits there for its peers.
    pub(super) home: bool,
    /// A peer waits there: while the relay is down, it is tried again.
    pub(super) has_peers: bool,
    /// How many measurements were asked for.
    pub(super) measurements: u64,
    /// How often the network became another: what is being waited for is tried at once.
    pub(super) networks: u64,
}

/// What a region's task tells.
#[derive(Debug)]
pub(super) enum Word {
    /// What the connection is doing; with a sentence, when it does not do what it should.
    State(RegionId, RelayState, Option<String>),
    /// Something came from the relay.
    Heard(RegionId),
    /// The relay says that a peer is not there.
    PeerGone(RegionId, NodePublic),
    /// The relay has a problem with this connection; `None` when it is over.
    Health(RegionId, Option<String>),
    /// How long a ping took; `None` when there was no answer.
    Measured(RegionId, Option<std::time::Duration>),
}

/// All regions of the relay map.
pub(super) struct Relays {
    key: NodePrivate,
    dialer: Arc<Dialer>,
    options: Options,
    shared: Arc<Shared>,
    regions: BTreeMap<RegionId, Region>,
    tasks: JoinSet<()>,
    words: mpsc::Sender<Word>,
}

struct Region {
    relays: Vec<Relay>,
    role: watch::Sender<Role>,
    queue: RelayQueue,
}

impl Relays {
    pub(super) fn new(
        key: NodePrivate,
        dialer: Dialer,
        app_name: String,
        shared: Arc<Shared>,
    ) -> (Self, mpsc::Receiver<Word>) {
        let (words, said) = mpsc::channel(MOST_WORDS);
        let options = Options { app_name, ..Options::default() };
        let dialer = Arc::new(dialer);
        (Self { key, dialer, options, shared, regions: BTreeMap::new(), tasks: JoinSet::new(), words }, said)
    }

    /// Takes the relay map: regions that stay as they were keep their connection. Says which are gone.
    pub(super) fn set_map(&mut self, map: &DerpMap) -> Vec<RegionId> {
        let mut wanted: BTreeMap<RegionId, Vec<Relay>> = BTreeMap::new();
        for (id, region) in map.regions.iter().flatten() {
            let relays: Vec<Relay> = region.nodes.iter().filter(|node| !node.stun_only).filter_map(relay).collect();
            if let Some(id) = RegionId::new(id.0).filter(|_| !relays.is_empty()) {
                wanted.insert(id, relays);
            }
        }
        let gone: Vec<RegionId> = self
            .regions
            .iter()
            .filter(|(id, region)| wanted.get(id) != Some(&region.relays))
            .map(|(id, _)| *id)
            .collect();
        // With its role's sender, a region's task ends.
        gone.iter().for_each(|id| {
            self.regions.remove(id);
        });
        for (id, relays) in wanted {
            if !self.regions.contains_key(&id) {
                let region = self.open(id, relays);
                self.regions.insert(id, region);
            }
        }
        let queues = self.regions.iter().map(|(id, region)| (*id, region.queue.clone())).collect();
        self.shared.relays.store(Arc::new(queues));
        gone
    }

    /// Says which region is home and where peers wait.
    pub(super) fn set_roles(&mut self, home: Option<RegionId>, with_peers: impl Fn(RegionId) -> bool) {
        for (id, region) in &self.regions {
            let (home, has_peers) = (home == Some(*id), with_peers(*id));
            region.role.send_if_modified(|role| {
                let changed = (role.home, role.has_peers) != (home, has_peers);
                (role.home, role.has_peers) = (home, has_peers);
                changed
            });
        }
    }

    /// Has a region pinged; false when there is no such region.
    pub(super) fn measure(&self, id: RegionId) -> bool {
        let region = self.regions.get(&id);
        if let Some(region) = region {
            region.role.send_modify(|role| role.measurements += 1);
        }
        region.is_some()
    }

    /// The network is another: connections prove themselves, and those that are waited for are tried at once.
    pub(super) fn network_changed(&self) {
        for region in self.regions.values() {
            region.role.send_modify(|role| role.networks += 1);
        }
    }

    /// Ends all connections in order, as far as that goes in the time given.
    pub(super) async fn close(mut self, within: std::time::Duration) {
        self.regions.clear();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        // What did not end in time is cut off.
        let _late = tokio::time::timeout(within, all).await;
    }

    fn open(&mut self, id: RegionId, relays: Vec<Relay>) -> Region {
        let (queue, parcels) = RelayQueue::new();
        let (role, told) = watch::channel(Role::default());
        let line = Line {
            region: id,
            relays: relays.clone(),
            key: self.key.clone(),
            dialer: self.dialer.clone(),
            options: self.options.clone(),
            shared: self.shared.clone(),
            words: self.words.clone(),
        };
        // Tasks that have ended are let go here, so that their number is that of the regions.
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn(line.run(parcels, told));
        Region { relays, role, queue }
    }
}

fn relay(node: &DerpNode) -> Option<Relay> {
    fn address<A>(address: DerpAddress<A>) -> Address<A> {
        match address {
            DerpAddress::Lookup => Address::Resolved,
            DerpAddress::At(address) => Address::Is(address),
            DerpAddress::Unused => Address::Off,
        }
    }
    Some(Relay {
        host: node.host_name.clone(),
        port: node.relay_port(),
        identity: RelayIdentity::from_map(&node.host_name, &node.cert_name)?,
        ipv4: address(node.ipv4_address()),
        ipv6: address(node.ipv6_address()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relays_queue_is_bounded_by_bytes_and_gives_them_back() {
        let (queue, mut parcels) = RelayQueue::new();
        let to = NodePublic::from_bytes([1; 32]);
        let large = Bytes::from(vec![0; 64 << 10]);
        let taken = (0..MOST_PARCELS).take_while(|_| queue.push(to, large.clone(), 1312)).count();
        assert_eq!(taken, MOST_BYTES / large.len() + 1);
        while parcels.try_recv().is_ok() {}
        assert!(queue.push(to, large, 1312));
    }
}
