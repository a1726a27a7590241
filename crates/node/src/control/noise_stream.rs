use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crypto::control::{RecordReader, RecordWriter, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What goes in and out of a Noise channel, as a byte stream.
///
/// Bytes that were read ahead of the channel's own (`front`) come first. The stream ends for good at the first record
/// that does not verify.
#[derive(Debug)]
pub(super) struct NoiseStream<S> {
    inner: S,
    reader: RecordReader,
    writer: RecordWriter,
    front: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> NoiseStream<S> {
    pub(super) fn new(inner: S, transport: Transport) -> Self {
        let (seal, open) = transport.split();
        Self { inner, reader: RecordReader::new(open), writer: RecordWriter::new(seal), front: Vec::new() }
    }

    /// Puts bytes back that were read: the next read gives them again.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.front.splice(0..0, bytes.iter().copied());
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.writer.waiting().is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_write(context, self.writer.waiting()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.writer.advance(count),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for NoiseStream<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.front.is_empty() {
            let count = this.front.len().min(out.remaining());
            out.put_slice(&this.front[..count]);
            this.front.drain(..count);
            return Poll::Ready(Ok(()));
        }
        while this.reader.text().is_empty() {
            let between_records = this.reader.is_at_boundary();
            let mut space = ReadBuf::new(this.reader.space());
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut space))?;
            match space.filled().len() {
                0 if between_records => return Poll::Ready(Ok(())),
                0 => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                count => this.reader.advance(count).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?,
            }
        }
        let text = this.reader.text();
        let count = text.len().min(out.remaining());
        out.put_slice(&text[..count]);
        this.reader.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for NoiseStream<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !this.writer.has_room() {
            ready!(this.poll_send(context))?;
        }
        Poll::Ready(this.writer.write(text).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}
