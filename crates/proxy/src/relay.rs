use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use node::{Datagram, Incoming, UdpSocket};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::traffic::Traffic;

mod tcp;
mod udp;

pub(crate) use tcp::{reset, splice};
pub(crate) use udp::Idle;

/// What is under way between the tailnet and the cluster: counted, and waited for when the proxy ends.
#[derive(Debug, Clone)]
pub(crate) struct Relay {
    pub(crate) tasks: TaskTracker,
    pub(crate) traffic: Traffic,
    /// No new flows are taken any more.
    pub(crate) draining: CancellationToken,
}

/// A client of the tailnet that has no answer yet. Dropping it refuses it.
pub(crate) trait Client: Send {
    /// The connection once it was accepted.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send;

    /// Where the client wants to go.
    fn to(&self) -> SocketAddr;

    /// Completes the handshake.
    fn accept(self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Answers with a reset.
    fn refuse(self);

    /// Breaks a connection off.
    fn abort(stream: Self::Stream);
}

/// Datagrams between one end in the tailnet and this node.
pub(crate) trait Flow: Send + Sync {
    /// The next datagram from the tailnet; `None` once the flow has ended.
    fn receive(&self) -> impl Future<Output = Option<Vec<u8>>> + Send;

    /// Sends a datagram into the tailnet.
    fn send(&self, payload: &[u8]) -> io::Result<()>;
}

/// A socket of the node, and the one whom it speaks with.
#[derive(Debug)]
pub(crate) struct Paired {
    pub(crate) socket: UdpSocket,
    pub(crate) with: SocketAddr,
}

impl Relay {
    pub(crate) fn new(traffic: Traffic) -> Self {
        Self { tasks: TaskTracker::new(), traffic, draining: CancellationToken::new() }
    }

    /// Takes no new flows, and waits for those that are open: until the last is over, or for this long.
    pub(crate) async fn drain(&self, longest: Duration) {
        self.draining.cancel();
        self.tasks.close();
        let open = self.tasks.len();
        if open > 0 {
            tracing::info!(open, seconds = longest.as_secs(), "waiting for flows that are open");
        }
        if tokio::time::timeout(longest, self.tasks.wait()).await.is_err() {
            tracing::warn!(open = self.tasks.len(), "flows were still open and are cut");
        }
    }
}

impl Client for Incoming {
    type Stream = node::TcpStream;

    fn to(&self) -> SocketAddr {
        Incoming::to(self)
    }

    fn accept(self) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        Incoming::accept(self)
    }

    fn refuse(self) {
        Incoming::refuse(self);
    }

    fn abort(stream: Self::Stream) {
        stream.abort();
    }
}

impl Flow for Paired {
    async fn receive(&self) -> Option<Vec<u8>> {
        loop {
            let Datagram { from, payload, .. } = self.socket.receive().await?;
            // A bound socket hears everybody; the flow is with one.
            if from == self.with {
                return Some(payload);
            }
        }
    }

    fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send(self.with, payload)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    const LONGEST: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_for_the_last_that_is_open_and_no_longer_than_it_is_told() {
        let relay = Relay::new(Traffic::default());
        let (first, second) = (oneshot::channel::<()>(), oneshot::channel::<()>());
        for open in [first.1, second.1] {
            relay.tasks.spawn(async move { open.await.unwrap_err() });
        }
        let begun = Instant::now();
        drop(first.0);
        relay.drain(LONGEST).await;
        assert!(begun.elapsed() >= LONGEST, "one of two is still open");

        let begun = Instant::now();
        tokio::join!(relay.drain(LONGEST), async { drop(second.0) });
        assert!(begun.elapsed() < LONGEST, "the last was over");
    }
}
