use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use crypto::MachinePublic;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use serde::Serialize;
use tailcfg::frame::Packing;
use tailcfg::request::{AuditLog, CERTIFICATE_PATH, Certificate, CertificateAnswer};
use tailcfg::{MapRequest, PingResponse, RegisterRequest, RegisterResponse, SshAction};

use super::map_stream::{self, KeepAlive, MapSource};
use super::ssh::{self, SshLogin};
use super::{Caller, Refusal, body};
use crate::metrics::NO_ROUTE;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// What a map request comes to.
#[derive(Debug)]
pub(crate) enum MapAnswer<S> {
    /// What the node told was taken note of; there is nothing to answer.
    Noted,
    /// The node's view of the tailnet, from now on.
    Stream(S),
}

/// The state that machines ask about. Every call checks that the caller may speak for the node that it names.
pub(crate) trait Coordinator: Send + Sync + 'static {
    /// Where map streams come from.
    type Source: MapSource;

    /// Whether a machine has a device, or waits for somebody to let it in.
    fn knows(&self, machine: &MachinePublic) -> bool;

    /// Counts a request of a machine.
    fn asked(&self, route: &'static str);

    /// Answers a registration; with a followup it is held until the login has been decided.
    fn register(
        &self,
        caller: Caller,
        request: RegisterRequest,
    ) -> impl Future<Output = Result<RegisterResponse, Refusal>> + Send;

    /// Takes note of what a node tells about itself, and opens its map stream where it asks for one.
    fn map(
        &self,
        caller: Caller,
        request: MapRequest,
    ) -> impl Future<Output = Result<MapAnswer<Self::Source>, Refusal>> + Send;

    /// Signs a node's certificate request with the tailnet's authority.
    fn certificate(
        &self,
        caller: Caller,
        request: Certificate,
    ) -> impl Future<Output = Result<CertificateAnswer, Refusal>> + Send;

    /// Takes the answer to a ping that the server asked for under this number.
    fn pong(
        &self,
        caller: Caller,
        number: u64,
        response: Option<PingResponse>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Tells a node's SSH server what to do about a login; held while its user has yet to confirm it.
    fn ssh_action(&self, caller: Caller, login: SshLogin) -> impl Future<Output = Result<SshAction, Refusal>> + Send;

    /// Writes down what a node's user did there, such as switching it off.
    fn audit(&self, caller: Caller, entry: AuditLog) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Answers one request within a Noise channel.
pub(super) async fn answer<C: Coordinator>(
    coordinator: Arc<C>,
    caller: Caller,
    request: Request<Incoming>,
) -> Response<Body> {
    // A request may be held for long: its headers are not.
    let (http::request::Parts { method, uri, .. }, body) = request.into_parts();
    let path = uri.path();
    coordinator.asked(route(path));
    let answered = match (&method, path) {
        (&Method::POST, "/machine/register") => register(&*coordinator, caller, body).await,
        (&Method::POST, "/machine/map") => map(&*coordinator, caller, body).await,
        (&Method::POST, CERTIFICATE_PATH) => certificate(&*coordinator, caller, body).await,
        (&Method::POST, "/machine/audit-log") => audit(&*coordinator, caller, body).await,
        (&Method::POST, "/machine/update-health") => Ok(status(StatusCode::NO_CONTENT)),
        (&Method::GET, "/machine/whoami") => Ok(whoami(caller)),
        (&Method::POST, "/machine/set-dns") => Err(Refusal::unsupported("DNS records for certificates")),
        (&Method::POST, "/machine/id-token") => Err(Refusal::unsupported("identity tokens")),
        (&Method::POST, "/machine/feature/query") => Err(Refusal::unsupported("features to be switched on by URL")),
        (&Method::PATCH, "/machine/set-device-attr") => Err(Refusal::unsupported("device attributes set by nodes")),
        (&Method::GET, path) if path.starts_with(ssh::PATH) => {
            ssh_action(&*coordinator, caller, path, uri.query().unwrap_or_default()).await
        }
        (method, path) => match path.strip_prefix("/machine/ping/").map(str::parse) {
            Some(Ok(number)) => pong(&*coordinator, caller, number, method.clone(), body).await,
            _ => Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is nothing at {method} {path}"))),
        },
    };
    let response = answered.unwrap_or_else(|refusal| {
        tracing::debug!(%path, status = refusal.status.as_u16(), reason = %refusal.text, "refused a machine's request");
        refusal.into_response().map(|body| body.boxed_unsync())
    });
    // HTTP/2 takes a body behind `HEAD` for an error of the protocol, and nobody here drops it.
    if method == Method::HEAD { response.map(|_| BodyExt::boxed_unsync(Empty::new())) } else { response }
}

/// What a path is counted as.
fn route(path: &str) -> &'static str {
    const KNOWN: &[&str] = &[
        "/machine/register",
        "/machine/map",
        CERTIFICATE_PATH,
        "/machine/audit-log",
        "/machine/update-health",
        "/machine/whoami",
        "/machine/set-dns",
        "/machine/id-token",
        "/machine/feature/query",
        "/machine/set-device-attr",
    ];
    match KNOWN.iter().find(|known| **known == path) {
        Some(known) => known,
        None if path.starts_with("/machine/ping/") => "/machine/ping/{number}",
        None if path.starts_with(ssh::PATH) => "/machine/ssh/action/{source}/to/{destination}",
        None => NO_ROUTE,
    }
}

async fn register<C: Coordinator>(coordinator: &C, caller: Caller, body: Incoming) -> Result<Response<Body>, Refusal> {
    let request = body::read(body).await?;
    Ok(json(&coordinator.register(caller, request).await?))
}

async fn map<C: Coordinator>(coordinator: &C, caller: Caller, body: Incoming) -> Result<Response<Body>, Refusal> {
    let request: MapRequest = body::read(body).await?;
    let packing = if request.wants_zstd() { Packing::Zstd } else { Packing::Plain };
    match coordinator.map(caller, request).await? {
        MapAnswer::Noted => Ok(status(StatusCode::OK)),
        MapAnswer::Stream(source) => {
            let frames = map_stream::frames(source, packing, KeepAlive::default());
            Ok(Response::new(BodyExt::boxed_unsync(StreamBody::new(frames))))
        }
    }
}

async fn certificate<C: Coordinator>(
    coordinator: &C,
    caller: Caller,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let request = body::read(body).await?;
    Ok(json(&coordinator.certificate(caller, request).await?))
}

async fn ssh_action<C: Coordinator>(
    coordinator: &C,
    caller: Caller,
    path: &str,
    query: &str,
) -> Result<Response<Body>, Refusal> {
    let login = SshLogin::read(path, query).ok_or_else(|| {
        Refusal::malformed("ask as /machine/ssh/action/SOURCE/to/DESTINATION?ssh_user=ACCOUNT, the devices by number")
    })?;
    Ok(json(&coordinator.ssh_action(caller, login).await?))
}

async fn audit<C: Coordinator>(coordinator: &C, caller: Caller, body: Incoming) -> Result<Response<Body>, Refusal> {
    coordinator.audit(caller, body::read(body).await?).await?;
    Ok(status(StatusCode::OK))
}

async fn pong<C: Coordinator>(
    coordinator: &C,
    caller: Caller,
    number: u64,
    method: Method,
    body: Incoming,
) -> Result<Response<Body>, Refusal> {
    let response = match method {
        Method::HEAD => None,
        Method::POST => Some(body::read(body).await?),
        _ => return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a ping is answered by HEAD or POST")),
    };
    coordinator.pong(caller, number, response).await?;
    Ok(status(StatusCode::OK))
}

fn whoami(caller: Caller) -> Response<Body> {
    json(&serde_json::json!({ "MachineKey": caller.machine, "Version": caller.version, "Source": caller.source }))
}

fn json<T: Serialize>(value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let mut response = Response::new(BodyExt::boxed_unsync(Full::from(bytes)));
            let kind = header::HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => {
            let text = format!("the answer can't be written as JSON: {error}");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, text).into_response().map(BodyExt::boxed_unsync)
        }
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(BodyExt::boxed_unsync(Empty::new()));
    *response.status_mut() = status;
    response
}
