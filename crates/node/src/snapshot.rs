use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crypto::NodePublic;
use dial::Ledger;
use engine::Engine;
use mesh::{BackendState, LivePeer, LiveStatus, Mesh, Names, Status};
use tailcfg::RegionId;

use crate::VERSION;

/// How a node stands at one moment. A later one takes its place as a whole.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Where the node stands between being started and being connected.
    pub state: BackendState,
    /// Where a person has to log in.
    pub auth_url: Option<String>,
    /// Why the last attempt to log in failed.
    pub login_error: Option<String>,
    /// Why the coordination server isn't reached at the moment.
    pub control_error: Option<String>,
    /// What the node knows of its network, and what the user wants.
    pub mesh: Arc<Mesh>,
    /// What MagicDNS answers.
    pub names: Arc<Names>,
    /// What the user should know.
    pub health: Vec<String>,
    /// What of that everybody on the machine may know: without the page of a login.
    pub(crate) open_health: Vec<String>,
    /// The node key, once there is one.
    pub node_key: Option<NodePublic>,
    /// The relay region where the node waits.
    pub home: RegionId,
    /// The node's own UDP endpoints.
    pub endpoints: Vec<SocketAddr>,
    /// Whether packets pass an interface of the machine.
    pub tun: bool,
    pub(crate) hostname: String,
    pub(crate) engine: Option<Engine>,
    pub(crate) ledgers: Ledgers,
    pub(crate) profile: Arc<serde_json::Value>,
}

/// What went to servers and came from them since the daemon started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledgers {
    pub(crate) control: Ledger,
    pub(crate) relays: Ledger,
}

impl Snapshot {
    /// The node's own addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.mesh.addresses()
    }

    /// The node's own full name, without a dot at its end; `None` before it has joined.
    pub(crate) fn own_name(&self) -> Option<String> {
        let name = self.mesh.netmap()?.node().name.trim_end_matches('.').to_ascii_lowercase();
        (!name.is_empty()).then_some(name)
    }

    /// The snapshot as it may be shown: who may not change the node does not learn where a login for it waits, as whoever
    /// confirms that may make the machine theirs.
    pub(crate) fn shown_to(self: Arc<Self>, may_write: bool) -> Arc<Self> {
        if may_write {
            return self;
        }
        let mut open = Arc::unwrap_or_clone(self);
        open.auth_url = None;
        open.health.clone_from(&open.open_health);
        Arc::new(open)
    }

    /// Everything about the node and its peers, with what the data plane says of them now.
    pub async fn status(&self, with_peers: bool) -> Status {
        let peers = match &self.engine {
            Some(engine) if with_peers => match engine.status().await {
                Ok(status) => status.peers.iter().map(|(key, peer)| (*key, live(peer))).collect(),
                Err(_) => BTreeMap::new(),
            },
            _ => BTreeMap::new(),
        };
        let live = LiveStatus {
            version: VERSION.to_owned(),
            tun: self.tun,
            state: self.state,
            auth_url: self.auth_url.clone().unwrap_or_default(),
            health: self.health.clone(),
            node_key: self.node_key,
            home: self.home,
            endpoints: self.endpoints.clone(),
            hostname: self.hostname.clone(),
            peers,
        };
        self.mesh.status(&live, with_peers)
    }
}

fn live(peer: &engine::PeerStatus) -> LivePeer {
    // While both ways are in use the direct one has not proven itself: it is not shown.
    let endpoint = match peer.path {
        engine::PathChoice::Direct(endpoint) => Some(endpoint),
        _ => None,
    };
    LivePeer {
        received: peer.received_bytes,
        sent: peer.sent_bytes,
        endpoint,
        handshake: wall(peer.last_handshake),
        written: wall(peer.last_sent),
        active: peer.active,
        has_session: peer.established,
    }
}

pub(crate) fn wall(at: Option<std::time::SystemTime>) -> tailcfg::Time {
    at.and_then(|at| jiff::Timestamp::try_from(at).ok()).into()
}
