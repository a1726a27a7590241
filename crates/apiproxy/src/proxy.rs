//! One request, from the client's head to the last byte of the answer.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::callers::{Callers, Place};
use crate::headers::{self, Upgrade};
use crate::leash::Leash;
use crate::metrics::{Answered, ProxyMetrics, Reason};
use crate::tunnel::Tunnel;
use crate::upstream::{self, UpstreamRequest};
use crate::{Allowed, Identify, Impersonated, Refusal, path, status};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// An answer's body on its way to the client.
pub(crate) type AnswerBody = UnsyncBoxBody<Bytes, BoxError>;

/// What every request of the proxy needs.
pub(crate) struct Proxy {
    pub(crate) identify: Arc<dyn Identify>,
    pub(crate) allowed: Arc<Allowed>,
    pub(crate) callers: Arc<Callers>,
    pub(crate) metrics: ProxyMetrics,
    pub(crate) sessions: TaskTracker,
    /// Ends what is still under way when the time for draining is over.
    pub(crate) stop: CancellationToken,
}

impl Proxy {
    /// Answers a request that came from `source`.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        source: SocketAddr,
        leash: Leash,
    ) -> Response<AnswerBody> {
        let mut log = Access::of(&request, source, self.metrics.clone());
        let wants_upgrade = request.headers().contains_key(header::UPGRADE);
        // On HTTP/2 a stream ends by itself.
        let close = wants_upgrade && request.version() < Version::HTTP_2;
        match self.try_answer(request, source, leash, &mut log).await {
            Ok((response, held)) => {
                log.code = response.status();
                response.map(|body| Logged { body, _held: held, _log: log }.boxed_unsync())
            }
            Err(refusal) => {
                self.metrics.refused.get_or_create(&Reason { reason: refusal.label() }).inc();
                log.refusal = Some(refusal.to_string());
                let response = status::answer(&refusal, close);
                log.code = response.status();
                response.map(|body| {
                    let body = body.map_err(|never| match never {}).boxed_unsync();
                    Logged { body, _held: None, _log: log }.boxed_unsync()
                })
            }
        }
    }

    async fn try_answer(
        &self,
        mut request: Request<Incoming>,
        source: SocketAddr,
        leash: Leash,
        log: &mut Access,
    ) -> Result<(Response<AnswerBody>, Option<Place>), Refusal> {
        let held = leash.decide().await?;
        log.user = Some(held.clone());
        if request.method() == Method::CONNECT || request.method() == Method::TRACE {
            return Err(Refusal::Malformed("its method has no meaning to the API server"));
        }
        let upgrade = Upgrade::asked(request.headers())?;
        let reaches_into = path::reaches_into(request.uri().path())?;
        held.check_recording(reaches_into || upgrade.is_some())?;
        let place = self.callers.enter(&held, upgrade.is_some())?;
        let Some(upgrade) = upgrade else {
            return self.pass(request, source, leash, held, place).await;
        };
        if request.version() >= Version::HTTP_2 || !request.body().is_end_stream() {
            return Err(Refusal::Malformed("an upgrade is a request of HTTP/1.1 without a body"));
        }
        let client = hyper::upgrade::on(&mut request);
        let (head, _body) = request.into_parts();
        let upstream = place.upstream().clone();
        let sent = UpstreamRequest::new(&head, &held, upstream.cluster(), source.ip())?;
        let mut response = tokio::select! {
            response = upstream.upgrade(sent, upgrade) => response?,
            () = leash.cut(held.clone()) => return Err(Refusal::Revoked),
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // No tunnel, and the connection is not used for another request: what follows on it was meant for the tunnel.
            let (mut response, place) = self.passed_back(response, leash, held, place);
            response.headers_mut().insert(header::CONNECTION, http::HeaderValue::from_static("close"));
            return Ok((response, place));
        }
        if !upgrade.is_agreed(response.headers()) {
            return Err(Refusal::BadAnswer("it switches to a protocol that was not asked for"));
        }
        let server = hyper::upgrade::on(&mut response);
        let mut headers = headers::without_hop_by_hop(response.headers());
        upgrade.set(&mut headers);
        let mut switched = Response::new(http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync());
        *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *switched.headers_mut() = headers;
        let (metrics, stop) = (self.metrics.clone(), self.stop.clone());
        self.sessions.spawn(
            Tunnel { client, server, leash, held, place, metrics, stop, path: head.uri.path().to_owned() }.run(),
        );
        Ok((switched, None))
    }

    async fn pass(
        &self,
        request: Request<Incoming>,
        source: SocketAddr,
        leash: Leash,
        held: Arc<Impersonated>,
        place: Place,
    ) -> Result<(Response<AnswerBody>, Option<Place>), Refusal> {
        let (head, body) = request.into_parts();
        let upstream = place.upstream().clone();
        let sent = UpstreamRequest::new(&head, &held, upstream.cluster(), source.ip())?;
        let response = tokio::select! {
            response = upstream.send(sent, upstream::without_trailers(body)) => response?,
            () = leash.cut(held.clone()) => {
                self.metrics.cut.inc();
                return Err(Refusal::Revoked);
            }
            () = self.stop.cancelled() => return Err(Refusal::Stopping),
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refusal::BadAnswer("it switches protocols although nobody asked for it"));
        }
        Ok(self.passed_back(response, leash, held, place))
    }

    fn passed_back(
        &self,
        response: Response<Incoming>,
        leash: Leash,
        held: Arc<Impersonated>,
        place: Place,
    ) -> (Response<AnswerBody>, Option<Place>) {
        let (mut head, body) = response.into_parts();
        head.headers = headers::without_hop_by_hop(&head.headers);
        head.version = Version::default();
        let (metrics, stop) = (self.metrics.clone(), self.stop.clone());
        let cut = Box::pin(async move {
            tokio::select! {
                () = leash.cut(held) => {
                    metrics.cut.inc();
                    Refusal::Revoked
                }
                () = stop.cancelled() => Refusal::Stopping,
            }
        });
        (Response::from_parts(head, Cuttable { body, cut }.boxed_unsync()), Some(place))
    }
}

/// A body that breaks off when its grant ends.
struct Cuttable<F> {
    body: Incoming,
    cut: Pin<Box<F>>,
}

impl<F: Future<Output = Refusal>> Body for Cuttable<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(refusal) = self.cut.as_mut().poll(context) {
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

/// A body that is logged when it is over, and holds its caller's place until then.
struct Logged {
    body: AnswerBody,
    _held: Option<Place>,
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

/// A line of the access log, written when the request is over.
struct Access {
    began: Instant,
    source: SocketAddr,
    method: Method,
    path: String,
    user: Option<Arc<Impersonated>>,
    code: StatusCode,
    refusal: Option<String>,
    metrics: ProxyMetrics,
}

impl Access {
    fn of(request: &Request<Incoming>, source: SocketAddr, metrics: ProxyMetrics) -> Self {
        metrics.under_way.inc();
        Self {
            began: Instant::now(),
            source,
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            user: None,
            code: StatusCode::INTERNAL_SERVER_ERROR,
            refusal: None,
            metrics,
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.metrics.under_way.dec();
        self.metrics.requests.get_or_create(&Answered { code: self.code.as_u16() }).inc();
        // An access log has to name people: that is what it is for.
        tracing::info!(
            target: "apiproxy::access",
            user = self.user.as_ref().map(|user| user.user()).unwrap_or("-"),
            source = %self.source.ip(),
            verb = %self.method,
            path = %self.path,
            code = self.code.as_u16(),
            duration_ms = self.began.elapsed().as_millis() as u64,
            refused = self.refusal.as_deref(),
            "request"
        );
    }
}
