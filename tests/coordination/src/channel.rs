use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crypto::control::{RecordReader, RecordWriter, Transport};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// The server's half of a Noise channel.
pub(crate) struct Channel {
    inner: TcpStream,
    reader: RecordReader,
    writer: RecordWriter,
}

impl Channel {
    pub(crate) fn new(inner: TcpStream, transport: Transport) -> Self {
        let (seal, open) = transport.split();
        Self { inner, reader: RecordReader::new(open), writer: RecordWriter::new(seal) }
    }
}

impl AsyncRead for Channel {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.reader.text().is_empty() {
            let mut space = ReadBuf::new(this.reader.space());
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut space))?;
            match space.filled().len() {
                0 => return Poll::Ready(Ok(())),
                count => this.reader.advance(count).unwrap(),
            }
        }
        let count = this.reader.text().len().min(out.remaining());
        out.put_slice(&this.reader.text()[..count]);
        this.reader.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Channel {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, text: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(self.writer.write(text).unwrap()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while !this.writer.waiting().is_empty() {
            let count = ready!(Pin::new(&mut this.inner).poll_write(context, this.writer.waiting()))?;
            this.writer.advance(count);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
