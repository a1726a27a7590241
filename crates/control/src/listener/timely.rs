use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

/// The body of a request that has so long to arrive, whoever reads it; then it breaks off.
#[derive(Debug)]
pub(super) struct Timely<B> {
    body: B,
    deadline: Pin<Box<Sleep>>,
}

/// A body was not there in time.
#[derive(Debug, thiserror::Error)]
#[error("the request did not arrive in time")]
struct Late;

impl<B> Timely<B> {
    /// Gives a body so much time, from now on.
    pub(super) fn new(body: B, time: Duration) -> Self {
        Self { body, deadline: Box::pin(tokio::time::sleep(time)) }
    }
}

impl<B> Body for Timely<B>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        // What is there already is not late, however long nobody asked for it.
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        self.deadline.as_mut().poll(context).map(|()| Some(Err(Late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
