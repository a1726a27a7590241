use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

/// A connection's bytes, in both directions.
pub trait AdmittedStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Breaks it off with a reset, so that nothing is held of it any more. A connection that is only dropped waits for its
    /// client's goodbye, and one that never says it keeps a place meanwhile.
    fn abort(self);
}

impl AdmittedStream for TcpStream {
    fn abort(self) {
        // What fails here has ended already.
        let _unset = self.set_zero_linger();
    }
}

/// Where connections from the tailnet come from.
///
/// The source address that it gives is the identity: it must be one that the tailnet's encryption vouches for, never one
/// that a header or a forwarder claims.
pub trait Listener: Send + 'static {
    /// What a connection is made of.
    type Stream: AdmittedStream;

    /// The next connection and its source. An error is a connection's own, unless they come without end.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;
}

/// For a node whose tailnet addresses are the kernel's: bound to one of them, and to nothing else.
impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, source) = TcpListener::accept(self).await?;
        stream.set_nodelay(true)?;
        Ok((stream, source))
    }
}
