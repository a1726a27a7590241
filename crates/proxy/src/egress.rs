use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use node::UserSpace;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config::{Port, Transport};
use crate::relay::{Idle, Paired, Relay, reset, splice};

/// How long the target may take to answer.
const CONNECT: Duration = Duration::from_secs(15);
/// The most flows of one UDP port.
const MAX_FLOWS: usize = 1024;
/// How many datagrams of one flow may wait.
const WAITING: usize = 64;
/// The longest datagram that UDP knows.
const LONGEST: usize = 65535;

/// Where an egress sends to now, and the node's own addresses of the tailnet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) targets: Vec<IpAddr>,
    pub(crate) own: Vec<IpAddr>,
}

/// A port that can't be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{port} of {address} can't be listened on: {source}{advice}")]
pub(crate) struct PortError {
    port: Port,
    address: IpAddr,
    source: io::Error,
    advice: &'static str,
}

/// An egress in user space: ports of the pod, and the stack that leads into the tailnet.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    user_space: UserSpace,
    way: watch::Receiver<Way>,
    relay: Relay,
    ends: CancellationToken,
}

impl Way {
    /// Pairs of a target and an own address of its family, in the order to try them.
    pub(crate) fn pairs(&self) -> Vec<(IpAddr, IpAddr)> {
        let own = |target: &IpAddr| self.own.iter().find(|own| own.is_ipv4() == target.is_ipv4()).copied();
        self.targets.iter().filter_map(|target| Some((*target, own(target)?))).collect()
    }
}

impl Egress {
    pub(crate) fn new(user_space: UserSpace, way: watch::Receiver<Way>, relay: Relay, ends: CancellationToken) -> Self {
        Self { user_space, way, relay, ends }
    }

    /// Listens on the ports at the pod's own addresses, and serves until it ends.
    ///
    /// # Errors
    /// The first port that can't be had.
    pub(crate) async fn listen(&self, addresses: &[IpAddr], ports: &[Port]) -> Result<(), PortError> {
        for address in addresses {
            for port in ports {
                let at = SocketAddr::new(*address, port.number);
                let failed = |source: io::Error| PortError {
                    port: *port,
                    address: *address,
                    advice: match source.kind() {
                        io::ErrorKind::PermissionDenied => {
                            "; ports below 1024 need the pod sysctl net.ipv4.ip_unprivileged_port_start=0"
                        }
                        _ => "",
                    },
                    source,
                };
                match port.transport {
                    Transport::Tcp => {
                        let listener = TcpListener::bind(at).await.map_err(failed)?;
                        tokio::spawn(self.clone().accept(listener, port.number));
                    }
                    Transport::Udp => {
                        let socket = UdpSocket::bind(at).await.map_err(failed)?;
                        tokio::spawn(self.clone().receive(Arc::new(socket), port.number));
                    }
                }
            }
        }
        Ok(())
    }

    async fn accept(self, listener: TcpListener, port: u16) {
        loop {
            let accepted = tokio::select! {
                // Who comes once the end has begun is not let in by chance.
                biased;
                () = self.ends.cancelled() => return,
                () = self.relay.draining.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    self.relay.tasks.spawn(self.clone().serve(stream, port));
                }
                Err(error) => {
                    // No descriptors left, most likely: others have to end first.
                    tracing::warn!(%error, port, "a client could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Serves a client of the cluster. Its kernel has the handshake already, so that a refusal is a reset after it.
    async fn serve(self, mut client: TcpStream, port: u16) {
        let Some(mut target) = self.dial(port).await else {
            self.relay.traffic.refused();
            reset(&client);
            return;
        };
        // A socket that takes no such option is a little slower.
        let _ = client.set_nodelay(true);
        let _open = self.relay.traffic.opened();
        if let Err(error) = splice(&mut target, &mut client, &self.relay).await {
            tracing::debug!(port, %error, "a connection broke");
            reset(&client);
            target.abort();
        }
    }

    async fn dial(&self, port: u16) -> Option<node::TcpStream> {
        let pairs = self.way.borrow().pairs();
        let tries = async {
            for (target, _) in pairs {
                match self.user_space.dial(SocketAddr::new(target, port)).await {
                    Ok(stream) => return Some(stream),
                    Err(error) => tracing::debug!(%target, port, %error, "the target was not reached"),
                }
            }
            None
        };
        tokio::time::timeout(CONNECT, tries).await.ok().flatten()
    }

    async fn receive(self, socket: Arc<UdpSocket>, port: u16) {
        let mut flows: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut buffer = vec![0; LONGEST];
        loop {
            let received = tokio::select! {
                () = self.ends.cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let (length, from) = match received {
                Ok(received) => received,
                Err(error) => {
                    // An answer that somebody did not take, told of at the next read.
                    tracing::debug!(%error, port, "a datagram could not be received");
                    continue;
                }
            };
            let payload = buffer[..length].to_vec();
            if let Some(flow) = flows.get(&from).filter(|flow| !flow.is_closed()) {
                // A queue that is full loses datagrams, as networks do.
                let _ = flow.try_send(payload);
                continue;
            }
            if flows.len() >= MAX_FLOWS {
                flows.retain(|_, flow| !flow.is_closed());
            }
            if flows.len() >= MAX_FLOWS || self.relay.draining.is_cancelled() {
                self.relay.traffic.refused();
                continue;
            }
            if let Some(flow) = self.open(&socket, from, port) {
                let _ = flow.try_send(payload);
                flows.insert(from, flow);
            }
        }
    }

    /// Begins a flow between a client of the cluster and the target.
    fn open(&self, socket: &Arc<UdpSocket>, from: SocketAddr, port: u16) -> Option<mpsc::Sender<Vec<u8>>> {
        let Some((target, own)) = self.way.borrow().pairs().first().copied() else {
            self.relay.traffic.refused();
            return None;
        };
        let inner = match self.user_space.bind_udp(SocketAddr::new(own, 0)) {
            Ok(inner) => inner,
            Err(error) => {
                tracing::debug!(%error, port, "a flow is not served");
                self.relay.traffic.refused();
                return None;
            }
        };
        let (sender, datagrams) = mpsc::channel(WAITING);
        let flow = Paired { socket: inner, with: SocketAddr::new(target, port) };
        self.relay.tasks.spawn(carry(flow, datagrams, socket.clone(), from, self.relay.clone()));
        Some(sender)
    }
}

/// Passes the datagrams of one client both ways until nothing happens any more.
async fn carry<F: crate::relay::Flow>(
    target: F,
    mut datagrams: mpsc::Receiver<Vec<u8>>,
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    relay: Relay,
) {
    let _open = relay.traffic.opened();
    let idle = Idle { draining: &relay.draining };
    loop {
        tokio::select! {
            payload = datagrams.recv() => match payload {
                Some(payload) => match target.send(&payload) {
                    Ok(()) => relay.traffic.bytes(0, payload.len() as u64),
                    Err(error) => tracing::debug!(%error, length = payload.len(), "a datagram is dropped"),
                },
                None => return,
            },
            payload = target.receive() => match payload {
                // What the client does not take is lost, as datagrams may be.
                Some(payload) => if socket.send_to(&payload, client).await.is_ok() {
                    relay.traffic.bytes(payload.len() as u64, 0);
                },
                None => return,
            },
            () = idle.over() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_reached_from_an_own_address_of_its_family() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let way = Way { targets: vec![ip("100.64.0.9"), ip("fd7a::9")], own: vec![ip("100.64.0.7"), ip("fd7a::7")] };
        assert_eq!(way.pairs(), [(ip("100.64.0.9"), ip("100.64.0.7")), (ip("fd7a::9"), ip("fd7a::7"))]);
        let way = Way { own: vec![ip("100.64.0.7")], ..way };
        assert_eq!(way.pairs(), [(ip("100.64.0.9"), ip("100.64.0.7"))]);
    }
}
