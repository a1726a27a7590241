use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio_util::sync::CancellationToken;

use super::{Flow, Relay};
use crate::backends::Backends;

/// After how long without a datagram a flow is over.
const FLOW_IDLE: Duration = Duration::from_secs(120);
/// The same once the proxy ends.
const DRAIN_IDLE: Duration = Duration::from_secs(2);
/// The longest datagram that UDP knows.
const LONGEST: usize = 65535;

/// When a flow is over: sooner once the proxy ends.
pub(crate) struct Idle<'a> {
    pub(crate) draining: &'a CancellationToken,
}

impl Idle<'_> {
    /// Ends when nothing has happened for too long since this was called.
    pub(crate) async fn over(&self) {
        tokio::select! {
            () = tokio::time::sleep(FLOW_IDLE) => {}
            () = async {
                self.draining.cancelled().await;
                tokio::time::sleep(DRAIN_IDLE).await;
            } => {}
        }
    }
}

impl Relay {
    /// Serves one flow from the tailnet that wants to go to `to`.
    pub(crate) async fn serve_flow<F: Flow>(self, flow: F, to: SocketAddr, backends: Backends) {
        let Some(address) = backends.candidates(to.ip()).first().copied() else {
            self.traffic.refused();
            return;
        };
        match open(SocketAddr::new(address, to.port())).await {
            Ok(backend) => {
                let _open = self.traffic.opened();
                pump(&flow, &backend, &self).await;
            }
            Err(error) => {
                tracing::debug!(%to, %error, "a flow is not served");
                self.traffic.refused();
            }
        }
    }
}

async fn open(to: SocketAddr) -> io::Result<UdpSocket> {
    let any =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)) };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// Passes datagrams both ways until the flow is idle or ended.
async fn pump<F: Flow>(flow: &F, backend: &UdpSocket, relay: &Relay) {
    let mut buffer = vec![0; LONGEST];
    let idle = Idle { draining: &relay.draining };
    loop {
        tokio::select! {
            payload = flow.receive() => match payload {
                Some(payload) => {
                    // What a backend does not take is lost, as datagrams may be.
                    if backend.send(&payload).await.is_ok() {
                        relay.traffic.bytes(payload.len() as u64, 0);
                    }
                }
                None => return,
            },
            received = backend.recv(&mut buffer) => match received {
                Ok(length) => match flow.send(&buffer[..length]) {
                    Ok(()) => relay.traffic.bytes(0, length as u64),
                    Err(error) => tracing::debug!(%error, length, "a datagram is dropped"),
                },
                // A port that is closed now may be open for the next datagram.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => {
                    tracing::debug!(%error, "a flow ended");
                    return;
                }
            },
            () = idle.over() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Mutex, mpsc};

    use super::*;
    use crate::config::Destination;
    use crate::traffic::Traffic;

    struct Fake {
        from: Mutex<mpsc::Receiver<Vec<u8>>>,
        to: mpsc::UnboundedSender<Vec<u8>>,
    }

    impl Flow for Fake {
        async fn receive(&self) -> Option<Vec<u8>> {
            self.from.lock().await.recv().await
        }

        fn send(&self, payload: &[u8]) -> io::Result<()> {
            self.to.send(payload.to_vec()).map_err(io::Error::other)
        }
    }

    #[tokio::test]
    async fn datagrams_go_both_ways_on_the_same_port_until_the_flow_ends() {
        let backend = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = SocketAddr::new([100, 64, 0, 7].into(), backend.local_addr().unwrap().port());
        let (asks, from) = mpsc::channel(4);
        let (answers, mut answered) = mpsc::unbounded_channel();
        let backends = Backends::fixed(&Destination::Addresses { v4: Some(Ipv4Addr::LOCALHOST), v6: None });
        let flow = Fake { from: Mutex::new(from), to: answers };
        let served = tokio::spawn(Relay::new(Traffic::default()).serve_flow(flow, to, backends));

        asks.send(b"question".to_vec()).await.unwrap();
        let mut buffer = [0; 64];
        let (length, peer) = backend.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"question");
        backend.send_to(b"answer", peer).await.unwrap();
        assert_eq!(answered.recv().await.unwrap(), b"answer");
        drop(asks);
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_flow_ends_sooner_when_the_proxy_ends() {
        let draining = CancellationToken::new();
        let started = tokio::time::Instant::now();
        Idle { draining: &draining }.over().await;
        assert!(started.elapsed() >= FLOW_IDLE);
        draining.cancel();
        let started = tokio::time::Instant::now();
        Idle { draining: &draining }.over().await;
        assert!(started.elapsed() < DRAIN_IDLE * 2);
    }
}
