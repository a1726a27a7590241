//! One request, from the client's head to the last byte of the answer.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use hyper::body::{Body as _, Incoming};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::Access;
use crate::answer::{self, AnswerBody};
use crate::callers::Callers;
use crate::grant::{Client, Grant};
use crate::headers::{self, Upgrade};
use crate::metrics::{ProxyMetrics, Reason};
use crate::tunnel::Tunnel;
use crate::{Allowed, Identify, Impersonated, Refusal, path, status, upstream};

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
    /// Answers a client's request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, client: Client) -> Response<AnswerBody> {
        let mut log = Access::of(&request, client.pass.source().ip(), self.metrics.clone());
        // On HTTP/2 a stream ends by itself.
        let close = request.headers().contains_key(header::UPGRADE) && request.version() < Version::HTTP_2;
        match self.send_on(request, client, &mut log).await {
            Ok(response) => {
                log.code = response.status();
                response.map(|body| answer::logged(body, log))
            }
            // Not logged with the last byte: a client that leaves such answers unread makes nothing last.
            Err(refusal) => {
                self.metrics.refused.get_or_create(&Reason { reason: refusal.label() }).inc();
                let response = status::answer(&refusal, close);
                (log.refusal, log.code) = (Some(refusal.to_string()), response.status());
                response.map(answer::full)
            }
        }
    }

    /// Decides whom the client acts as, and asks the API server in that name.
    async fn send_on(
        &self,
        request: Request<Incoming>,
        client: Client,
        log: &mut Access,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let held = client.leash.decide().await?;
        log.user = Some(held.clone());
        let upgrade = examine(&request, &held)?;
        let place = self.callers.enter(&held, upgrade.is_some())?;
        let grant = Grant { held, client, place, metrics: self.metrics.clone(), stop: self.stop.clone() };
        match upgrade {
            Some(upgrade) => self.upgrade(request, upgrade, grant).await,
            None => pass(request, grant).await,
        }
    }

    /// Sends a request for an upgrade, and begins the session that it asks for.
    async fn upgrade(
        &self,
        mut request: Request<Incoming>,
        upgrade: Upgrade,
        grant: Grant,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let client = hyper::upgrade::on(&mut request);
        let (head, _no_body) = request.into_parts();
        let sent = grant.request(&head)?;
        let mut response = tokio::select! {
            response = grant.upstream().upgrade(sent, upgrade) => response?,
            refusal = grant.ended() => return Err(refusal),
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // No session, and the connection is not used for another request: what follows on it was meant for the session.
            let mut response = passed_back(response, grant);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Ok(response);
        }
        if !upgrade.is_agreed(response.headers()) {
            return Err(Refusal::BadAnswer("it switches to a protocol that was not asked for"));
        }
        let server = hyper::upgrade::on(&mut response);
        self.sessions.spawn(Tunnel { client, server, grant, path: head.uri.path().to_owned() }.run());
        Ok(switched(&response, upgrade))
    }
}

/// Refuses what has no meaning to the API server, or one that could be read in two ways, and says what is asked for.
fn examine(request: &Request<Incoming>, held: &Impersonated) -> Result<Option<Upgrade>, Refusal> {
    if request.method() == Method::CONNECT || request.method() == Method::TRACE {
        return Err(Refusal::Malformed("its method has no meaning to the API server"));
    }
    let upgrade = Upgrade::asked(request.headers())?;
    let reaches_into = path::reaches_into(request.uri().path())?;
    held.check_recording(reaches_into || upgrade.is_some())?;
    if upgrade.is_some() && (request.version() != Version::HTTP_11 || !request.body().is_end_stream()) {
        return Err(Refusal::Malformed("an upgrade is a request of HTTP/1.1 without a body"));
    }
    Ok(upgrade)
}

/// Sends a request whose answer is a body.
async fn pass(request: Request<Incoming>, grant: Grant) -> Result<Response<AnswerBody>, Refusal> {
    let (head, body) = request.into_parts();
    let sent = grant.request(&head)?;
    let response = tokio::select! {
        response = grant.upstream().send(sent, upstream::without_trailers(body)) => response?,
        refusal = grant.ended() => return Err(refusal),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Refusal::BadAnswer("it switches protocols although nobody asked for it"));
    }
    Ok(passed_back(response, grant))
}

fn passed_back(response: Response<Incoming>, grant: Grant) -> Response<AnswerBody> {
    let (mut head, body) = response.into_parts();
    head.headers = headers::without_hop_by_hop(&head.headers);
    head.version = Version::default();
    Response::from_parts(head, answer::streamed(body, grant))
}

/// Tells the client that the API server has agreed.
fn switched(agreed: &Response<Incoming>, upgrade: Upgrade) -> Response<AnswerBody> {
    let mut switched = Response::new(answer::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = headers::without_hop_by_hop(agreed.headers());
    upgrade.set(switched.headers_mut());
    switched
}
