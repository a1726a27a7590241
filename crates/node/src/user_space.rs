use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use crypto::{Entropy, SystemEntropy};
use engine::{PacketQueue, SuperPacket};
use netstack::{Checksums, Config, Connection, Destination, Event, Listen, Listener, Stack};
use tokio::sync::{Notify, mpsc};

mod driver;
mod stream;
mod udp;

pub use stream::TcpStream;
pub use udp::UdpSocket;

/// How many clients may wait at one listener to be accepted; more are refused.
const WAITING_CLIENTS: usize = 128;

/// The IP stack of a node in user space: listens and dials in the mesh, and touches nothing of the machine.
///
/// It outlives the data plane: connections go on when that is started anew.
#[derive(Clone)]
pub struct UserSpace {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// For the driver: something was called that may have packets to send.
    work: Notify,
}

struct State {
    stack: Stack,
    connections: HashMap<Connection, Wakers>,
    listeners: HashMap<Listener, mpsc::Sender<(Connection, SocketAddr, SocketAddr)>>,
    flows: HashMap<Listener, mpsc::Sender<(netstack::UdpSocket, SocketAddr, SocketAddr)>>,
    datagrams: HashMap<netstack::UdpSocket, Arc<Notify>>,
}

/// Who waits for what of a connection, and what became of it.
#[derive(Default)]
struct Wakers {
    read: Option<Waker>,
    write: Option<Waker>,
    connected: bool,
    closed: Option<netstack::Closed>,
}

/// A client that wants to connect and has no answer yet. Dropping it refuses the client.
#[derive(Debug)]
pub struct Incoming {
    user_space: UserSpace,
    connection: Option<Connection>,
    from: SocketAddr,
    to: SocketAddr,
}

/// A place where clients connect.
pub struct TcpListener {
    user_space: UserSpace,
    listener: Listener,
    clients: mpsc::Receiver<(Connection, SocketAddr, SocketAddr)>,
}

/// A place where UDP flows come, each a socket of its own.
pub struct UdpForwarder {
    user_space: UserSpace,
    listener: Listener,
    flows: mpsc::Receiver<(netstack::UdpSocket, SocketAddr, SocketAddr)>,
}

impl UserSpace {
    pub(crate) fn new() -> Self {
        let random = SystemEntropy.bytes32();
        let seed = random.iter().take(8).fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let stack = Stack::new(Config::new(Vec::new(), seed), Instant::now());
        let state = State {
            stack,
            connections: HashMap::new(),
            listeners: HashMap::new(),
            flows: HashMap::new(),
            datagrams: HashMap::new(),
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(state), work: Notify::new() }) }
    }

    /// Joins the stack to a running data plane, until that ends.
    pub(crate) fn attach(&self, queue: PacketQueue) {
        driver::start(Arc::downgrade(&self.shared), queue);
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<IpAddr>) {
        self.lock().stack.set_addresses(addresses);
    }

    /// Bounds the bytes that the windows of all TCP connections hold together, but for 128 KiB that each has anyway, and
    /// how many connections there are, and how many of them one remote address may have begun; for those that begin from now on.
    /// A connection counts until its client has said goodbye, or had a minute to.
    pub fn bound(&self, memory: usize, connections: usize, connections_per_source: usize) {
        self.lock().stack.set_bounds(memory, connections, connections_per_source);
    }

    /// Listens at a port of each of the node's own addresses.
    ///
    /// # Errors
    /// When somebody listens there already.
    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        self.listen_at(Listen { to: Destination::Own, port: Some(port) })
    }

    /// Listens wherever it is said: at single addresses, or at all that are routed to this node.
    ///
    /// # Errors
    /// When somebody listens there already.
    pub fn listen_at(&self, place: Listen) -> io::Result<TcpListener> {
        let (sender, clients) = mpsc::channel(WAITING_CLIENTS);
        let mut state = self.lock();
        let listener = state.stack.listen(place).ok_or(io::ErrorKind::AddrInUse)?;
        state.listeners.insert(listener, sender);
        drop(state);
        Ok(TcpListener { user_space: self.clone(), listener, clients })
    }

    /// Takes UDP flows wherever it is said, each as a socket of its own.
    ///
    /// # Errors
    /// When somebody takes them already.
    pub fn forward_udp(&self, place: Listen) -> io::Result<UdpForwarder> {
        let (sender, flows) = mpsc::channel(WAITING_CLIENTS);
        let mut state = self.lock();
        let listener = state.stack.forward_udp(place).ok_or(io::ErrorKind::AddrInUse)?;
        state.flows.insert(listener, sender);
        drop(state);
        Ok(UdpForwarder { user_space: self.clone(), listener, flows })
    }

    /// Connects to an address of the mesh.
    ///
    /// # Errors
    /// When it is not reached, refuses, or the node has no address of its own yet.
    pub async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let connection = {
            let mut state = self.lock();
            let connection =
                state.stack.dial(to).map_err(|error| io::Error::new(io::ErrorKind::AddrNotAvailable, error))?;
            state.connections.insert(connection, Wakers::default());
            connection
        };
        self.shared.work.notify_one();
        let stream = TcpStream::new(self.clone(), connection, to);
        stream.connected().await?;
        Ok(stream)
    }

    /// Binds a UDP socket to one of the node's own addresses; port 0 is any free one.
    ///
    /// # Errors
    /// When the address is not the node's own, or the port is taken.
    pub fn bind_udp(&self, local: SocketAddr) -> io::Result<UdpSocket> {
        let mut state = self.lock();
        let socket = state.stack.bind(local).map_err(|error| io::Error::new(io::ErrorKind::AddrInUse, error))?;
        Ok(UdpSocket::new(self.clone(), &mut state, socket))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Passes on what the stack tells.
    fn tell(&mut self) {
        while let Some(event) = self.stack.poll_event() {
            match event {
                Event::Incoming { connection, listener, from, to } => {
                    let told = self.listeners.get(&listener).map(|clients| clients.try_send((connection, from, to)));
                    if !matches!(told, Some(Ok(()))) {
                        self.stack.refuse(connection);
                    }
                }
                Event::Connected(connection) => {
                    if let Some(wakers) = self.connections.get_mut(&connection) {
                        wakers.connected = true;
                        wakers.wake();
                    }
                }
                Event::Readable(connection) | Event::Writable(connection) => {
                    if let Some(wakers) = self.connections.get_mut(&connection) {
                        wakers.wake();
                    }
                }
                Event::Closed { connection, reason } => {
                    if let Some(wakers) = self.connections.get_mut(&connection) {
                        wakers.closed = Some(reason);
                        wakers.wake();
                    }
                }
                Event::Flow { socket, listener, from, to } => {
                    let told = self.flows.get(&listener).map(|flows| flows.try_send((socket, from, to)));
                    if !matches!(told, Some(Ok(()))) {
                        self.stack.close(socket);
                    }
                }
                Event::Datagrams(socket) | Event::FlowEnded(socket) => {
                    if let Some(notify) = self.datagrams.get(&socket) {
                        notify.notify_one();
                    }
                    if matches!(event, Event::FlowEnded(_)) {
                        self.datagrams.remove(&socket);
                    }
                }
                Event::Ping(_) => {}
            }
        }
    }
}

impl Wakers {
    fn wake(&mut self) {
        for waker in [self.read.take(), self.write.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl TcpListener {
    /// The stack that it listens in.
    pub fn user_space(&self) -> &UserSpace {
        &self.user_space
    }

    /// The next client; `None` once the stack is gone.
    pub async fn accept(&mut self) -> Option<Incoming> {
        let (connection, from, to) = self.clients.recv().await?;
        Some(Incoming { user_space: self.user_space.clone(), connection: Some(connection), from, to })
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        let mut state = self.user_space.lock();
        state.stack.unlisten(self.listener);
        state.listeners.remove(&self.listener);
        self.clients.close();
        while let Ok((connection, ..)) = self.clients.try_recv() {
            state.stack.refuse(connection);
        }
        drop(state);
        self.user_space.shared.work.notify_one();
    }
}

impl UdpForwarder {
    /// The next flow: a socket that speaks with its source only, the source, and where it went.
    pub async fn accept(&mut self) -> Option<(UdpSocket, SocketAddr, SocketAddr)> {
        let (socket, from, to) = self.flows.recv().await?;
        let socket = UdpSocket::new(self.user_space.clone(), &mut self.user_space.lock(), socket);
        Some((socket, from, to))
    }
}

impl Drop for UdpForwarder {
    fn drop(&mut self) {
        let mut state = self.user_space.lock();
        state.stack.unlisten(self.listener);
        state.flows.remove(&self.listener);
        self.flows.close();
        while let Ok((socket, ..)) = self.flows.try_recv() {
            state.stack.close(socket);
        }
    }
}

impl Incoming {
    /// Who wants to connect.
    pub fn from(&self) -> SocketAddr {
        self.from
    }

    /// Where to.
    pub fn to(&self) -> SocketAddr {
        self.to
    }

    /// Completes the handshake.
    ///
    /// # Errors
    /// When the client gave up meanwhile.
    pub async fn accept(mut self) -> io::Result<TcpStream> {
        let connection = self.connection.take().ok_or(io::ErrorKind::NotConnected)?;
        {
            let mut state = self.user_space.lock();
            state.connections.insert(connection, Wakers::default());
            if let Err(error) = state.stack.accept(connection, Instant::now()) {
                state.connections.remove(&connection);
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, error));
            }
        }
        self.user_space.shared.work.notify_one();
        let stream = TcpStream::new(self.user_space.clone(), connection, self.from);
        stream.connected().await?;
        Ok(stream)
    }

    /// Answers the client with a reset.
    pub fn refuse(self) {}
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.user_space.lock().stack.refuse(connection);
            self.user_space.shared.work.notify_one();
        }
    }
}

impl fmt::Debug for UserSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserSpace")
    }
}

impl fmt::Debug for TcpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TcpListener").field(&self.listener).finish()
    }
}

impl fmt::Debug for UdpForwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UdpForwarder").field(&self.listener).finish()
    }
}

/// Packs what the stack sends for the data plane, super-packets as such.
fn packed(transmit: netstack::Transmit) -> Vec<SuperPacket> {
    match transmit.segment {
        Some(segment) => {
            let whole = transmit.clone();
            match SuperPacket::tcp_segments(transmit.packet, segment) {
                Some(packet) => vec![packet],
                None => whole.split().into_iter().map(SuperPacket::whole).collect(),
            }
        }
        None => vec![SuperPacket::whole(transmit.packet)],
    }
}

/// Takes a packet from the data plane into the stack.
fn take(stack: &mut Stack, packet: SuperPacket, now: Instant) {
    stack.handle_packet(&packet.into_checked(), Checksums::ToVerify, now);
}
