//! The control thread: everything of the data plane that is not a packet of traffic.

mod driver;
mod health;
mod line;
mod names;
mod pings;
mod relays;
mod report;
mod shared;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crypto::{DiscoPublic, NodePublic};
use filter::{Flow, Refusal};
use mesh::View;
use path::Via;
use tokio::sync::{Notify, mpsc, oneshot};
use wireguard::Source;

use crate::event::Backlog;
use crate::pipeline::{Receiver, Transmitter};
use crate::{
    Config, Device, Events, Flow as FlowRecord, Netcheck, PeerStatus, PingError, PingKind, Pong, StartError, Status,
};
use driver::Driver;

pub(crate) use shared::Shared;

/// Stack of a data thread: its largest frame is a few kilobytes.
const STACK: usize = 256 << 10;
/// Queries that wait for the control thread.
const MOST_QUERIES: usize = 256;
/// Words of the data threads that wait for it, and datagrams of strangers.
const MOST_NOTES: usize = 4096;
const MOST_STRANGERS: usize = 256;

/// What a data thread tells the control thread; only authenticated peers and this node itself can cause one.
#[derive(Debug)]
pub(crate) enum Note {
    /// Packets are sent to a peer.
    Sent(NodePublic),
    /// A packet for a peer waits for a key.
    Wanted(NodePublic),
    /// A peer is heard this way.
    Heard { node: NodePublic, via: Via },
    /// A session of the peer's making has carried its first message.
    Confirmed(u32),
    /// A message between nodes came.
    Tsmp { node: NodePublic, packet: Box<[u8]> },
    /// An ICMP ping of this engine's was answered.
    Echo { node: NodePublic, packet: Box<[u8]> },
    /// The filter refused a TCP connection.
    Refused { node: NodePublic, flow: Flow, reason: Refusal },
    /// The device is gone.
    DeviceFailed(String),
}

/// A datagram that anybody may have sent: a handshake, disco or STUN.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) source: Source,
    pub(crate) message: Box<[u8]>,
}

/// A question to the control thread.
#[derive(Debug)]
pub(crate) enum Query {
    Status(oneshot::Sender<Box<Status>>),
    Peer(NodePublic, oneshot::Sender<Option<PeerStatus>>),
    Ping(NodePublic, PingKind, oneshot::Sender<Result<Pong, PingError>>),
    Netcheck(oneshot::Sender<Option<Box<Netcheck>>>),
    Flows(oneshot::Sender<Vec<FlowRecord>>),
    Shutdown(oneshot::Sender<()>),
}

/// What the owner wants: of each kind the last counts.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) view: Option<View>,
    pub(crate) interfaces: Option<Vec<IpAddr>>,
    pub(crate) network_changed: bool,
    pub(crate) control_connected: Option<bool>,
    pub(crate) peer_api_port: Option<u16>,
}

/// Where orders lie until the control thread takes them.
#[derive(Debug, Default)]
pub(crate) struct OrderBox {
    orders: Mutex<Orders>,
    changed: Notify,
}

impl OrderBox {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn take(&self) -> Orders {
        std::mem::take(&mut self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// What a handle holds of a running engine.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) orders: Arc<OrderBox>,
    pub(crate) queries: mpsc::Sender<Query>,
    pub(crate) disco: DiscoPublic,
    pub(crate) events: Events,
}

/// What the data threads and relays have for the control thread.
pub(crate) struct Inboxes {
    pub(crate) notes: mpsc::Receiver<Note>,
    pub(crate) by_udp: mpsc::Receiver<Stranger>,
    pub(crate) by_relay: mpsc::Receiver<Stranger>,
}

/// Opens sockets and starts the three threads.
pub(crate) fn start(config: Config, device: Arc<dyn Device>) -> Result<Running, StartError> {
    let (notes_in, notes) = mpsc::channel(MOST_NOTES);
    let (udp_in, by_udp) = mpsc::channel(MOST_STRANGERS);
    let (relay_in, by_relay) = mpsc::channel(MOST_STRANGERS);
    let shared = Arc::new(Shared::new(&config, notes_in, [udp_in, relay_in])?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "control thread's timers", source })?;

    let backlog = Arc::new(Backlog::default());
    let orders = Arc::new(OrderBox::default());
    let (queries, asked) = mpsc::channel(MOST_QUERIES);
    let inboxes = Inboxes { notes, by_udp, by_relay };
    let driver = Driver::new(config, shared.clone(), backlog.clone(), orders.clone());
    let disco = driver.disco_key();

    let (transmitter, receiver) =
        (Transmitter::new(shared.clone(), device.clone()), Receiver::new(shared.clone(), device.clone()));
    let threads = Threads { shared: shared.clone(), device, running: Vec::new() };
    let threads = threads.spawn("mesh-tx", move || transmitter.run())?.spawn("mesh-rx", move || receiver.run())?;
    let events = backlog.clone();
    let control = move || {
        let waiting = runtime.block_on(driver.run(asked, inboxes));
        // Relay connections that did not end in time end here.
        drop(runtime);
        drop(threads);
        events.close();
        waiting.into_iter().for_each(|reply| {
            let _gone = reply.send(());
        });
    };
    let spawned = std::thread::Builder::new().name("mesh-control".to_owned()).spawn(control);
    spawned.map_err(|source| StartError::System { what: "control thread", source })?;
    Ok(Running { orders, queries, disco, events: Events::new(backlog) })
}

/// The data threads; they are stopped and waited for when this is dropped.
struct Threads {
    shared: Arc<Shared>,
    device: Arc<dyn Device>,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    fn spawn(mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<Self, StartError> {
        let builder = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let running = builder.spawn(run).map_err(|source| StartError::System { what: "data thread", source })?;
        self.running.push(running);
        Ok(self)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop();
        self.device.wake();
        for thread in self.running.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the data plane ended by a panic");
            }
        }
    }
}
