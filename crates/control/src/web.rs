//! What the server answers outside the Noise channel: to clients before they have one, to relays, to people, to programs.

use std::sync::Arc;
use std::time::Duration;

use api::Peer;
use axum::body::Body;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use tailcfg::request::{RelayAdmission, RelayAdmissionAnswer};
use tower::ServiceExt;

use crate::coordination::Coordination;

/// The largest question of a relay about a client.
const QUESTION_LIMIT: usize = 4 << 10;

/// The longest that a relay may wait for a change.
const LONGEST_WAIT: u64 = 300;

/// What these routes are made from.
pub(crate) struct Web {
    pub(crate) coordination: Arc<Coordination>,
    /// The SHA-256 of the token that relays show.
    pub(crate) relay_token: Option<[u8; 32]>,
}

type Shared = State<Arc<Web>>;

/// The routes.
pub(crate) fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/generate_204", get(nothing))
        .route("/derpmap/default", get(relays))
        .route("/trust.pem", get(trust))
        .route("/verify", post(verify))
        .route("/relay/admission", get(admission))
        .route("/robots.txt", get(|| async { "User-agent: *\nDisallow: /\n" }))
        .with_state(web)
}

/// Tells clients that no captive portal stands between: it would not know the answer.
async fn nothing(headers: HeaderMap) -> Response {
    let name = HeaderName::from_static("x-tailscale-challenge");
    let plain = |value: &&str| {
        value.len() <= 64 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte))
    };
    let challenge = headers.get(name).and_then(|value| value.to_str().ok()).filter(plain);
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(value) = challenge.and_then(|challenge| HeaderValue::from_str(&format!("response {challenge}")).ok()) {
        response.headers_mut().insert(HeaderName::from_static("x-tailscale-response"), value);
    }
    response
}

/// The relays, for clients that are not logged in and want to measure.
async fn relays(State(web): Shared) -> Response {
    Json(web.coordination.server().relays().clone()).into_response()
}

#[derive(Debug, Deserialize)]
struct Trusted {
    domain: Option<String>,
}

/// Tells the certificate to trust for names of a tailnet's devices: an authority that can sign no others.
async fn trust(State(web): Shared, Query(query): Query<Trusted>) -> Response {
    let kind = HeaderValue::from_static("application/x-pem-file");
    match web.coordination.anchor(query.domain.as_deref()) {
        Ok(Some(pem)) => ([(header::CONTENT_TYPE, kind)], pem).into_response(),
        Ok(None) => {
            let text = match query.domain {
                Some(_) => "there is no tailnet with this domain here\n",
                None => "this server has several tailnets: name yours, as in /trust.pem?domain=example.ts.net\n",
            };
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        Err(failure) => {
            let error = api::ApiError::from(failure);
            (error.status, format!("{}\n", error.message)).into_response()
        }
    }
}

/// Answers stock relays, which ask about each client.
async fn verify(State(web): Shared, body: Body) -> Response {
    let bytes = match axum::body::to_bytes(body, QUESTION_LIMIT).await {
        Ok(bytes) => bytes,
        Err(error) if is_too_long(&error) => {
            return (StatusCode::PAYLOAD_TOO_LARGE, "a question is at most 4096 bytes\n").into_response();
        }
        Err(error) => {
            return (StatusCode::REQUEST_TIMEOUT, format!("the question did not come whole: {error}\n"))
                .into_response();
        }
    };
    match serde_json::from_slice::<RelayAdmission>(&bytes) {
        Ok(question) => {
            Json(RelayAdmissionAnswer { allow: web.coordination.admits(&question.node_public) }).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("the question can't be read: {error}\n")).into_response(),
    }
}

/// Whether a body was given up because of its length.
fn is_too_long(error: &axum::Error) -> bool {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |error| error.source());
    causes.any(|error| error.is::<http_body_util::LengthLimitError>())
}

#[derive(Debug, Deserialize)]
struct Since {
    since: Option<u64>,
    #[serde(default)]
    wait: u64,
}

/// Tells our relays whom to admit, as soon as it differs from what they know.
async fn admission(State(web): Shared, Query(query): Query<Since>, headers: HeaderMap) -> Response {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // What is compared are hashes, so the time that it takes tells nothing of the token.
    let known = shown.is_some_and(|token| Some(crypto::sha256(token.trim().as_bytes())) == web.relay_token);
    if !known {
        return (StatusCode::UNAUTHORIZED, "this needs the relays' token\n").into_response();
    }
    let wait = Duration::from_secs(query.wait.min(LONGEST_WAIT));
    match web.coordination.admission_since(query.since, wait).await {
        Some(set) => Json(set).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// What a listener without TLS serves where people and programs are expected to come by TLS: nodes, whose channel needs
/// none, and captive portal checks. Everything else is told where to go; nothing hangs, and nothing is upgraded by chance.
pub(crate) fn plain_only(router: Router, url: String) -> Router {
    let redirect = move |request: Request| {
        let url = url.clone();
        async move {
            if *request.method() != Method::GET && *request.method() != Method::HEAD {
                return (StatusCode::FORBIDDEN, "this is served by https:// only\n").into_response();
            }
            let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
            let location = HeaderValue::from_str(&format!("{url}{path}"));
            let location = location.unwrap_or(HeaderValue::from_static("/"));
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, location)]).into_response()
        }
    };
    Router::new().fallback(move |request: Request| {
        let (router, redirect) = (router.clone(), redirect.clone());
        async move {
            let peer = request.extensions().get::<Peer>().copied();
            let open = ["/ts2021", "/generate_204", "/robots.txt"].contains(&request.uri().path());
            // Tokens that come in the clear must reach the API, which takes them away.
            let burnt = request.headers().contains_key(header::AUTHORIZATION);
            if open || burnt || peer.is_some_and(|peer| peer.encrypted) {
                router.oneshot(request).await.unwrap_or_else(|never| match never {})
            } else {
                redirect(request).await
            }
        }
    })
}
