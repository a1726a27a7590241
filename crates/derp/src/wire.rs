//! The stream of bytes under a DERP connection, and reading it without a buffer per connection.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use dial::Metered;
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

/// How much is read from a socket or a TLS session at once.
const CHUNK: usize = 32 << 10;

thread_local! {
    /// Where ciphertext lands before TLS takes it in its own pieces of 4 KiB.
    static CIPHERTEXT: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    /// Where the bytes of frames land; what was read is split off and shared, the rest serves the next connection.
    static PLAINTEXT: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Reads into a buffer that the thread's connections share, so that an idle connection holds none.
///
/// `Ready` with nothing means that the stream ended.
fn read_shared<T: AsyncRead + Unpin>(
    stream: &mut T,
    cx: &mut Context<'_>,
    shared: &'static std::thread::LocalKey<RefCell<BytesMut>>,
) -> Poll<io::Result<Bytes>> {
    shared.with_borrow_mut(|buffer| {
        if buffer.capacity() < CHUNK / 2 {
            buffer.reserve(CHUNK);
        }
        let count = ready!(tokio_util::io::poll_read_buf(Pin::new(stream), cx, buffer))?;
        Poll::Ready(Ok(buffer.split_to(count).freeze()))
    })
}

/// A TCP connection that reads large pieces for a reader of small ones, and counts what it wrote.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: Metered<TcpStream>,
    unread: Bytes,
    written: u64,
}

impl Socket {
    pub(crate) fn new(tcp: Metered<TcpStream>) -> Self {
        Self { tcp, unread: Bytes::new(), written: 0 }
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.tcp.get_ref().local_addr()
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.unread.is_empty() {
            if out.remaining() >= CHUNK {
                return Pin::new(&mut this.tcp).poll_read(cx, out);
            }
            this.unread = ready!(read_shared(&mut this.tcp, cx, &CIPHERTEXT))?;
        }
        let now = this.unread.len().min(out.remaining());
        out.put_slice(&this.unread[..now]);
        this.unread.advance(now);
        if this.unread.is_empty() {
            // An empty slice would keep the shared buffer alive.
            this.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.tcp).poll_write(cx, bytes))?;
        self.written += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, slices))?;
        self.written += count as u64;
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Whatever carries frames.
#[derive(Debug)]
pub(crate) enum Wire {
    /// TLS, either side of it.
    Tls(Box<TlsStream<Socket>>),
    /// Binary messages of a WebSocket, whose boundaries mean nothing.
    WebSocket(Box<WebSocketStream<TlsStream<Socket>>>),
}

impl Wire {
    /// Reads what there is. `Ready` with nothing means that the stream ended.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        match self {
            Self::Tls(stream) => read_shared(stream.as_mut(), cx, &PLAINTEXT),
            Self::WebSocket(stream) => loop {
                match ready!(Pin::new(stream.as_mut()).poll_next(cx)) {
                    Some(Ok(Message::Binary(bytes))) if !bytes.is_empty() => return Poll::Ready(Ok(bytes)),
                    Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(Bytes::new())),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(websocket_error(error))),
                }
            },
        }
    }

    /// Writes some of `slices`.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            Self::WebSocket(stream) => {
                let mut stream = Pin::new(stream.as_mut());
                ready!(stream.as_mut().poll_ready(cx)).map_err(websocket_error)?;
                let message = slices.concat_bytes();
                let length = message.len();
                stream.start_send(Message::Binary(message)).map_err(websocket_error)?;
                Poll::Ready(Ok(length))
            }
        }
    }

    /// Hands everything written to the kernel.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Self::WebSocket(stream) => Pin::new(stream.as_mut()).poll_flush(cx).map_err(websocket_error),
        }
    }

    /// Says goodbye and closes the sending side.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            Self::WebSocket(stream) => Pin::new(stream.as_mut()).poll_close(cx).map_err(websocket_error),
        }
    }

    /// How many bytes the socket has taken so far: what shows that the other side still reads.
    pub(crate) fn written(&self) -> u64 {
        let tls = match self {
            Self::Tls(stream) => stream.as_ref(),
            Self::WebSocket(stream) => stream.get_ref(),
        };
        tls.get_ref().0.written
    }
}

trait ConcatBytes {
    fn concat_bytes(&self) -> Bytes;
}

impl ConcatBytes for [IoSlice<'_>] {
    fn concat_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.iter().map(|slice| slice.len()).sum());
        for slice in self {
            out.extend_from_slice(slice);
        }
        out.freeze()
    }
}

fn websocket_error(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
