use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::Refusal;
use crate::access::Access;
use crate::grant::Grant;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An answer's body on its way to the client.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// No body.
pub(crate) fn empty() -> AnswerBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body of the proxy's own.
pub(crate) fn full(body: Full<Bytes>) -> AnswerBody {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A body of the API server's, which breaks off when the grant ends; it holds the caller's place until it is over.
pub(crate) fn streamed(body: Incoming, grant: Grant) -> AnswerBody {
    Streamed { body, cut: async move { grant.ended().await }.boxed() }.boxed_unsync()
}

/// A body that is logged when it is over.
pub(crate) fn logged(body: AnswerBody, log: Access) -> AnswerBody {
    Logged { body, _log: log }.boxed_unsync()
}

struct Streamed {
    body: Incoming,
    cut: BoxFuture<'static, Refusal>,
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(refusal) = self.cut.poll_unpin(context) {
            return Poll::Ready(Some(Err(refusal.into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Logged {
    body: AnswerBody,
    _log: Access,
}

impl Body for Logged {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
