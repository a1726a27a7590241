use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tailcfg::{NodeId, PingRequest};
use tailnet::{Map, StreamId, TailnetId, Viewer, Wake};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Coordination;
use crate::machine::MapSource;

/// How long changes are gathered before they are told: many come in a burst.
const GATHER: Duration = Duration::from_millis(20);

/// The live map streams: one per device, the newest.
#[derive(Debug, Default)]
pub(super) struct Streams(Mutex<HashMap<NodeId, Live>>);

/// How a live stream is reached.
#[derive(Debug)]
struct Live {
    tailnet: TailnetId,
    id: StreamId,
    /// Counts what it has to look at.
    wake: watch::Sender<u64>,
    end: CancellationToken,
    pings: Vec<PingRequest>,
}

impl Streams {
    /// Makes a stream the live one of its device; the one before ends.
    fn open(
        &self,
        tailnet: TailnetId,
        node: NodeId,
        id: StreamId,
        stop: &CancellationToken,
    ) -> (watch::Receiver<u64>, CancellationToken) {
        let (wake, end) = (watch::Sender::new(0), stop.child_token());
        let receiver = wake.subscribe();
        let live = Live { tailnet, id, wake, end: end.clone(), pings: Vec::new() };
        if let Some(before) = self.locked().insert(node, live) {
            before.end.cancel();
        }
        (receiver, end)
    }

    /// Forgets a stream that has ended, unless a newer one has its place.
    fn close(&self, node: NodeId, id: StreamId) {
        let mut streams = self.locked();
        if streams.get(&node).is_some_and(|live| live.id == id) {
            streams.remove(&node);
        }
    }

    /// Has streams look whether there is something to tell.
    pub(super) fn wake(&self, tailnet: TailnetId, whom: &Wake) {
        let notify = |live: &Live| live.wake.send_modify(|count| *count += 1);
        let streams = self.locked();
        match whom {
            Wake::Some(nodes) => nodes.iter().filter_map(|node| streams.get(node)).for_each(notify),
            Wake::All => streams.values().filter(|live| live.tailnet == tailnet).for_each(notify),
        }
    }

    /// Ends the streams of devices.
    pub(super) fn end(&self, nodes: &BTreeSet<NodeId>) {
        let streams = self.locked();
        nodes.iter().filter_map(|node| streams.get(node)).for_each(|live| live.end.cancel());
    }

    /// Has a device's stream carry a ping; false when it has none.
    pub(super) fn ping(&self, node: NodeId, ping: PingRequest) -> bool {
        /// Nobody needs more at once, and an ill-meaning caller must not fill the memory.
        const WAITING: usize = 8;
        let mut streams = self.locked();
        let Some(live) = streams.get_mut(&node).filter(|live| live.pings.len() < WAITING) else { return false };
        live.pings.push(ping);
        live.wake.send_modify(|count| *count += 1);
        true
    }

    fn take_ping(&self, node: NodeId, id: StreamId) -> Option<PingRequest> {
        let mut streams = self.locked();
        let live = streams.get_mut(&node).filter(|live| live.id == id && !live.pings.is_empty())?;
        Some(live.pings.remove(0))
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.locked().len()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<NodeId, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one device is told, from its first map to the end of its stream.
///
/// What it was last told is remembered here; whatever changed since is worked out when the client has taken the message
/// before, so a slow client is told less often, not later and later.
#[derive(Debug)]
pub(crate) struct NodeStream {
    coordination: Arc<Coordination>,
    tailnet: TailnetId,
    node: NodeId,
    stream: StreamId,
    /// What it was told; `None` before the first map.
    viewer: Option<Viewer>,
    wake: watch::Receiver<u64>,
    end: CancellationToken,
    /// Whether something may have changed that was not looked at.
    stale: bool,
}

impl NodeStream {
    /// Opens the stream of a device, as the live one.
    pub(super) fn open(coordination: Arc<Coordination>, tailnet: TailnetId, node: NodeId) -> Option<Self> {
        let now = coordination.now();
        let (stream, effects) = coordination.server_mut().tailnet_mut(tailnet)?.open_stream(node, now);
        let (wake, end) = coordination.streams.open(tailnet, node, stream, &coordination.stop);
        coordination.spread(tailnet, &effects);
        coordination.metrics.streams.set(i64::try_from(coordination.streams.count()).unwrap_or(i64::MAX));
        Some(Self { coordination, tailnet, node, stream, viewer: None, wake, end, stale: true })
    }

    fn look(&mut self) -> Option<Map> {
        if let Some(ping) = self.coordination.streams.take_ping(self.node, self.stream) {
            // Another may wait behind it.
            self.stale = true;
            return Some(Map { ping_request: Some(ping), ..Map::keep_alive() });
        }
        let now = self.coordination.now();
        let server = self.coordination.server();
        let tailnet = server.tailnet(self.tailnet)?;
        match &mut self.viewer {
            Some(viewer) => tailnet.delta(viewer, now).map(|map| with_known_users(map, &tailnet.record().name)),
            None => {
                let (map, viewer) = tailnet.netmap(self.node, now)?;
                self.viewer = Some(viewer);
                Some(map)
            }
        }
    }
}

/// Makes a client take new users for known.
///
/// Stock clients (seen with 1.104) keep a user that comes with a change of peers, but show only its number until something
/// makes them build their whole netmap anew; the tailnet's name, said once more, does that.
fn with_known_users(mut map: Map, name: &str) -> Map {
    if !map.user_profiles.is_empty() && map.domain.is_empty() {
        map.domain = name.to_owned();
    }
    map
}

impl MapSource for NodeStream {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.stale {
                tokio::select! {
                    biased;
                    () = self.end.cancelled() => return None,
                    changed = self.wake.changed() => changed.ok()?,
                }
                // From here on the future may be dropped without forgetting that there is something to look at.
                self.stale = true;
            }
            if self.viewer.is_some() {
                tokio::select! {
                    biased;
                    () = self.end.cancelled() => return None,
                    () = tokio::time::sleep(GATHER) => {}
                }
            }
            self.wake.mark_unchanged();
            self.stale = false;
            if let Some(map) = self.look() {
                return match serde_json::to_vec(&map) {
                    Ok(json) => Some(Bytes::from(json)),
                    Err(error) => {
                        tracing::error!(node = %self.node, %error, "a map can't be written as JSON; the stream ends");
                        None
                    }
                };
            }
            // Without a viewer the device was deleted between its request and its first map.
            self.viewer.as_ref()?;
        }
    }
}

impl Drop for NodeStream {
    fn drop(&mut self) {
        let coordination = &self.coordination;
        let now = coordination.now();
        if let Some(tailnet) = coordination.server_mut().tailnet_mut(self.tailnet) {
            tailnet.close_stream(self.node, self.stream, now);
        }
        coordination.streams.close(self.node, self.stream);
        coordination.metrics.streams.set(i64::try_from(coordination.streams.count()).unwrap_or(i64::MAX));
        coordination.replan.notify_one();
    }
}
