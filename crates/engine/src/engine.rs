use std::net::IpAddr;
use std::sync::Arc;

use crypto::{DiscoPublic, NodePublic};
use tokio::sync::{mpsc, oneshot};

use crate::control::{self, OrderBox, Orders, Query, Running};
use crate::{
    Config, Device, Events, Flow, Netcheck, PeerStatus, PingError, PingKind, Pong, StartError, Status, Stopped,
};

/// The data plane of a node: a handle that can be cloned. When the last one is dropped, the engine stops.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    orders: Arc<OrderBox>,
    queries: mpsc::Sender<Query>,
    node: NodePublic,
    disco: DiscoPublic,
}

impl Engine {
    /// Opens the sockets and starts the threads. Until a view is set, there are no peers and nothing is let in.
    ///
    /// # Errors
    ///
    /// When neither family has a socket at the port, or the system has no threads left.
    pub fn start(config: Config, device: impl Device) -> Result<(Self, Events), StartError> {
        let node = config.key.public();
        let Running { orders, queries, disco, events } = control::start(config, Arc::new(device))?;
        Ok((Self { inner: Arc::new(Inner { orders, queries, node, disco }) }, events))
    }

    /// The node's public key.
    pub fn node_key(&self) -> NodePublic {
        self.inner.node
    }

    /// The disco key that this engine chose: the coordination server and the peers must be told.
    pub fn disco_key(&self) -> DiscoPublic {
        self.inner.disco
    }

    /// Takes what the node is shown of the network from now on. Sessions and paths of peers that stay go on.
    pub fn set_view(&self, view: mesh::View) {
        self.order(|orders| orders.view = Some(view));
    }

    /// Takes the addresses of the machine's interfaces, at which peers nearby may reach it.
    pub fn set_interfaces(&self, addresses: Vec<IpAddr>) {
        self.order(|orders| orders.interfaces = Some(addresses));
    }

    /// The machine has another address, or another way out: sockets are opened anew, everything is measured again, and
    /// every path proves itself again. Called again within a second it waits that long.
    pub fn network_changed(&self, addresses: Vec<IpAddr>) {
        self.order(|orders| (orders.interfaces, orders.network_changed) = (Some(addresses), true));
    }

    /// Takes whether the coordination server can be told of a new home; while it can't, the node keeps its home.
    pub fn set_control_connected(&self, connected: bool) {
        self.order(|orders| orders.control_connected = Some(connected));
    }

    /// Takes the port of this node's PeerAPI, which answers to TSMP pings carry; 0 for none.
    pub fn set_peer_api_port(&self, port: u16) {
        self.order(|orders| orders.peer_api_port = Some(port));
    }

    /// How everything stands.
    ///
    /// # Errors
    ///
    /// When the engine has stopped.
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(Query::Status).await.map(|status| *status)
    }

    /// How one peer stands; `None` when the view has no such peer.
    ///
    /// # Errors
    ///
    /// When the engine has stopped.
    pub async fn peer(&self, peer: NodePublic) -> Result<Option<PeerStatus>, Stopped> {
        self.ask(|reply| Query::Peer(peer, reply)).await
    }

    /// Pings a peer, and waits 5 s for the answer.
    ///
    /// # Errors
    ///
    /// When the ping can't be sent, or nothing comes back.
    pub async fn ping(&self, peer: NodePublic, kind: PingKind) -> Result<Pong, PingError> {
        self.ask(|reply| Query::Ping(peer, kind, reply)).await?
    }

    /// Measures the network now; `None` when no relays are known, or it took longer than 10 s.
    ///
    /// # Errors
    ///
    /// When the engine has stopped.
    pub async fn netcheck(&self) -> Result<Option<Netcheck>, Stopped> {
        self.ask(Query::Netcheck).await.map(|netcheck| netcheck.map(|netcheck| *netcheck))
    }

    /// All flows since the engine started, the busiest first; no byte is missing, though idle flows of one peer may have
    /// become one.
    ///
    /// # Errors
    ///
    /// When the engine has stopped.
    pub async fn flows(&self) -> Result<Vec<Flow>, Stopped> {
        self.ask(Query::Flows).await
    }

    /// Ends relay connections in order, stops the threads, and waits for that. The device can be used again.
    pub async fn shutdown(&self) {
        // An engine that stopped before is what is wanted.
        let _stopped = self.ask(Query::Shutdown).await;
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        self.inner.orders.change(change);
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inner.queries.send(query(reply)).await.map_err(|_| Stopped)?;
        answer.await.map_err(|_| Stopped)
    }
}
