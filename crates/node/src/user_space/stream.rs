use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use netstack::{Closed, Connection, Read};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::UserSpace;

/// A TCP connection of the mesh. Dropping it sends what was written and says goodbye.
pub struct TcpStream {
    user_space: UserSpace,
    connection: Connection,
    peer: SocketAddr,
}

impl TcpStream {
    pub(super) fn new(user_space: UserSpace, connection: Connection, peer: SocketAddr) -> Self {
        Self { user_space, connection, peer }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Breaks the connection off with a reset.
    pub fn abort(self) {
        self.user_space.lock().stack.abort(self.connection);
    }

    /// Waits for the handshake.
    pub(super) async fn connected(&self) -> io::Result<()> {
        std::future::poll_fn(|context| {
            let mut state = self.user_space.lock();
            let wakers = state.connections.entry(self.connection).or_default();
            if wakers.connected {
                return Poll::Ready(Ok(()));
            }
            if let Some(reason) = wakers.closed {
                return Poll::Ready(Err(failure(reason)));
            }
            wakers.write = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.user_space.lock();
        let into = out.initialize_unfilled();
        let result = match state.stack.read(self.connection, into, Instant::now()) {
            Read::Bytes(count) => {
                out.advance(count);
                Ok(())
            }
            Read::End => Ok(()),
            Read::Broken => {
                let reason = state.connections.get(&self.connection).and_then(|wakers| wakers.closed);
                Err(reason.map_or_else(|| io::ErrorKind::ConnectionReset.into(), failure))
            }
            Read::Pending => {
                state.connections.entry(self.connection).or_default().read = Some(context.waker().clone());
                return Poll::Pending;
            }
        };
        drop(state);
        // What was read makes room that the other side may be told of.
        self.user_space.shared.work.notify_one();
        Poll::Ready(result)
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let mut state = self.user_space.lock();
        let written = match state.stack.write(self.connection, data) {
            Ok(0) => {
                state.connections.entry(self.connection).or_default().write = Some(context.waker().clone());
                return Poll::Pending;
            }
            Ok(count) => Ok(count),
            Err(error) => Err(io::Error::new(io::ErrorKind::BrokenPipe, error)),
        };
        drop(state);
        self.user_space.shared.work.notify_one();
        Poll::Ready(written)
    }

    /// What was written leaves as fast as the other side takes it; there is nothing to push.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.user_space.lock().stack.shut_down(self.connection);
        self.user_space.shared.work.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        let mut state = self.user_space.lock();
        state.connections.remove(&self.connection);
        state.stack.shut_down(self.connection);
        state.stack.release(self.connection, Instant::now());
        drop(state);
        self.user_space.shared.work.notify_one();
    }
}

impl fmt::Debug for TcpStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

fn failure(reason: Closed) -> io::Error {
    match reason {
        Closed::Finished => io::ErrorKind::NotConnected.into(),
        Closed::Refused => io::ErrorKind::ConnectionRefused.into(),
        Closed::Reset => io::ErrorKind::ConnectionReset.into(),
        Closed::TimedOut => io::ErrorKind::TimedOut.into(),
        Closed::Unreachable => io::ErrorKind::HostUnreachable.into(),
    }
}
