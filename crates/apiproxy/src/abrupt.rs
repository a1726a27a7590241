use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::AdmittedStream;

/// A connection that ends with a reset unless this side said goodbye: whoever is hung up on, because it spoke no TLS, asked
/// nothing, or lost its grant, has no place any more by the time that it can have another.
#[derive(Debug)]
pub(crate) struct Abrupt<S: AdmittedStream> {
    /// There until it is dropped.
    stream: Option<S>,
    said_goodbye: bool,
}

impl<S: AdmittedStream> Abrupt<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream: Some(stream), said_goodbye: false }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut S>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: AdmittedStream> Drop for Abrupt<S> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take().filter(|_| !self.said_goodbye) {
            stream.abort();
        }
    }
}

impl<S: AdmittedStream> AsyncRead for Abrupt<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(context, out)
    }
}

impl<S: AdmittedStream> AsyncWrite for Abrupt<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = self.stream()?.poll_shutdown(context);
        if matches!(shut, Poll::Ready(Ok(()))) {
            self.said_goodbye = true;
        }
        shut
    }
}
