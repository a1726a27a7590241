use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};

use crate::body::receive;
use crate::exchange::{Content, Payload, error_content};
use crate::operations::{Api, not_yet, routes};
use crate::query::Query;
use crate::{ApiError, Caller, Credential, PathParameters, TokenRequest, urlencoded};

/// The largest body that is read.
pub const BODY_LIMIT: usize = 1 << 20;

/// The largest policy that is read. Fifteen thousand rules have a megabyte.
pub(crate) const POLICY_LIMIT: usize = 8 << 20;

/// Where a request came from; whoever accepts connections puts one into each request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The address of the client.
    pub source: IpAddr,
    /// Whether nobody on the way could read along.
    pub encrypted: bool,
}

/// Makes the routes below `/api/v2` from an implementation of the API.
///
/// Every answer is JSON, errors too. Each request must carry a [`Peer`] among its extensions.
pub fn router<A: Api>(api: Arc<A>) -> Router {
    let mut router = routes(Router::new(), &api);
    for operation in not_yet() {
        for path in operation.paths {
            let (api, id) = (api.clone(), operation.id);
            let answer = move |request| refuse_unserved(api.clone(), id, request);
            router = router.route(path, answering(operation.method.clone(), answer));
        }
    }
    let token = answering(Method::POST, move |request| issue_token(api.clone(), request));
    let router = router
        .route("/oauth/token", token)
        .route("/oauth/token-exchange", answering(Method::POST, |_| async { Err(no_exchange()) }))
        .fallback(|| async { respond(Err(ApiError::not_found("there is no such path in this API"))) })
        .method_not_allowed_fallback(|| async {
            let message = "this path exists, but not with this method";
            respond(Err(ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)))
        });
    Router::new().nest("/api/v2", router)
}

async fn issue_token<A: Api>(api: Arc<A>, request: Request) -> Result<Content, ApiError> {
    let (parts, body) = request.into_parts();
    let peer = peer(&parts)?;
    let (form, _) = receive(body, BODY_LIMIT, || Ok(())).await?;
    let token = api.issue_token(TokenRequest::read(&parts.headers, &form)?, peer).await?;
    let mut content = Content::json(&token)?;
    content.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(content)
}

async fn refuse_unserved<A: Api>(api: Arc<A>, id: &'static str, request: Request) -> Result<Content, ApiError> {
    Call::begin(&*api, request).await?;
    Err(ApiError::new(StatusCode::NOT_IMPLEMENTED, format!("the operation {id} is not served by this server yet")))
}

/// What a program is answered that has a token of a cluster and wants one of this server for it. It shows no credential of
/// this server, so there is nobody to authenticate.
fn no_exchange() -> ApiError {
    let message = "token exchange is not served by this server yet: make an OAuth client, and send its id and secret to \
                   /api/v2/oauth/token";
    ApiError::new(StatusCode::NOT_IMPLEMENTED, message)
}

/// A request on its way to its operation, past authentication and before its body is read.
pub(crate) struct Call {
    parts: Parts,
    body: Body,
    values: Vec<String>,
}

impl Call {
    /// Finds out who calls, before anything else of the request is looked at.
    pub(crate) async fn begin<A: Api>(api: &A, request: Request) -> Result<(Caller<A::Identity>, Self), ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = api.authenticate(Credential::read(&parts.headers)?, peer(&parts)?).await?;
        let values = match RawPathParams::from_request_parts(&mut parts, &()).await {
            Ok(params) => params.iter().map(|(_, value)| value.to_owned()).collect(),
            Err(_) => return Err(ApiError::bad_request("a part of the path is not UTF-8")),
        };
        Ok((caller, Self { parts, body, values }))
    }

    /// Reads a body of so many bytes at most, which has a place if it is large.
    pub(crate) async fn receive<P>(
        self,
        most: usize,
        admit: impl FnOnce() -> Result<P, ApiError>,
    ) -> Result<Received<P>, ApiError> {
        let (bytes, place) = receive(self.body, most, admit).await?;
        Ok(Received { bytes, parts: self.parts, values: self.values, _place: place })
    }
}

/// A request with its body.
pub(crate) struct Received<P> {
    parts: Parts,
    values: Vec<String>,
    bytes: Bytes,
    /// Held for as long as there is the body.
    _place: Option<P>,
}

impl<L> Received<L> {
    pub(crate) fn path<P: PathParameters>(&self) -> Result<P, ApiError> {
        P::read(self.values.clone())
    }

    pub(crate) fn query<Q: Query>(&self) -> Result<Q, ApiError> {
        Q::read(&urlencoded::decode_pairs(self.parts.uri.query().unwrap_or("")))
    }

    pub(crate) fn payload<P: Payload>(&self) -> Result<P, ApiError> {
        P::read(&self.parts.headers, self.bytes.clone())
    }
}

fn peer(parts: &Parts) -> Result<Peer, ApiError> {
    parts.extensions.get::<Peer>().copied().ok_or_else(|| ApiError::internal("the connection has no known origin"))
}

/// A route that answers one method.
pub(crate) fn answering<F, O>(method: Method, answer: F) -> MethodRouter
where
    F: Fn(Request) -> O + Clone + Send + Sync + 'static,
    O: Future<Output = Result<Content, ApiError>> + Send + 'static,
{
    let filter = MethodFilter::try_from(method).unwrap_or(MethodFilter::GET);
    on(filter, move |request: Request| {
        let answered = answer(request);
        async move { respond(answered.await) }
    })
}

fn respond(outcome: Result<Content, ApiError>) -> Response {
    let (status, content) = match outcome {
        Ok(content) => (StatusCode::OK, content),
        Err(error) => {
            // What is not there yet is no failure, and strangers may ask for it as often as they like.
            if error.status.is_server_error() && error.status != StatusCode::NOT_IMPLEMENTED {
                tracing::warn!(status = error.status.as_u16(), message = error.message, "an API request failed");
            }
            error_content(&error)
        }
    };
    let mut response = Response::new(Body::from(content.bytes));
    *response.status_mut() = status;
    *response.headers_mut() = content.headers;
    response
}
