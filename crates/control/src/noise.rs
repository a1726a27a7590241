//! A byte stream inside a Noise channel.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crypto::control::{RecordReader, RecordWriter, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is written comes out of the other end's reads, in records that nobody between can read or change.
///
/// A record that does not verify ends the stream with an error, for good.
#[derive(Debug)]
pub struct NoiseStream<S> {
    inner: S,
    reader: RecordReader,
    writer: RecordWriter,
}

impl<S: AsyncRead + AsyncWrite + Unpin> NoiseStream<S> {
    /// Speaks `transport` over `inner`.
    pub fn new(inner: S, transport: Transport) -> Self {
        let (seal, open) = transport.split();
        Self { inner, reader: RecordReader::new(open), writer: RecordWriter::new(seal) }
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        while this.reader.text().is_empty() {
            let at_boundary = this.reader.is_at_boundary();
            let mut space = ReadBuf::new(this.reader.space());
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut space))?;
            let count = space.filled().len();
            if count == 0 {
                let end = if at_boundary { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
                return Poll::Ready(end);
            }
            this.reader.advance(count).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
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
            ready!(this.poll_drain(context))?;
        }
        Poll::Ready(this.writer.write(text).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use crypto::control::ClientHandshake;
    use crypto::{MachinePrivate, SystemEntropy};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair(buffer: usize) -> (NoiseStream<tokio::io::DuplexStream>, NoiseStream<tokio::io::DuplexStream>) {
        let (client, server) =
            (MachinePrivate::generate(&mut SystemEntropy), MachinePrivate::generate(&mut SystemEntropy));
        let (handshake, initiation) =
            ClientHandshake::start(&client, &server.public(), 145, &mut SystemEntropy).unwrap();
        let accepted = crypto::control::accept(&server, &initiation, &mut SystemEntropy).unwrap();
        let transport = handshake.finish(&accepted.response).unwrap();
        let (left, right) = tokio::io::duplex(buffer);
        (NoiseStream::new(left, transport), NoiseStream::new(right, accepted.transport))
    }

    #[tokio::test]
    async fn a_megabyte_passes_through_a_narrow_pipe_unchanged() {
        let (mut client, mut server) = pair(333);
        let sent: Vec<u8> = (0..1_000_000u32).map(|at| (at * 7) as u8).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            client.write_all(&sent).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        server.read_to_end(&mut got).await.unwrap();
        writer.await.unwrap();
        assert!(got == expected);
    }

    #[tokio::test]
    async fn a_stream_cut_within_a_record_is_an_error() {
        let (mut client, mut server) = pair(1 << 16);
        client.write_all(b"hello").await.unwrap();
        // All but the last byte of what waits goes out; then the client hangs up.
        let cut = client.writer.waiting().len() - 1;
        let NoiseStream { mut inner, writer, .. } = client;
        inner.write_all(&writer.waiting()[..cut]).await.unwrap();
        drop(inner);
        let error = server.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
