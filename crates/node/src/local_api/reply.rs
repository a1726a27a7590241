use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use serde::Serialize;
use serde_json::json;
use tailcfg::CapabilityVersion;

use crate::{NodeError, VERSION};

/// What every answer is.
pub(super) type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Why a request is not answered with what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    pub(super) fn malformed(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(super) fn into_reply(self) -> Reply {
        with_headers(Response::new(full(json!({"error": self.text}).to_string())), self.status, "application/json")
    }
}

impl From<NodeError> for Refusal {
    fn from(error: NodeError) -> Self {
        let status = match &error {
            NodeError::Preferences(_) | NodeError::Control(_) => StatusCode::BAD_REQUEST,
            NodeError::Stopped => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}

/// An answer in JSON.
pub(super) fn json_reply<T: Serialize>(value: &T) -> Result<Reply, Refusal> {
    let text = serde_json::to_string(value)
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(with_headers(Response::new(full(text)), StatusCode::OK, "application/json"))
}

/// An answer in plain text.
pub(super) fn text_reply(text: String) -> Reply {
    with_headers(Response::new(full(text)), StatusCode::OK, "text/plain; charset=utf-8")
}

/// It is done, and there is nothing to say.
pub(super) fn done() -> Reply {
    with_headers(Response::new(Empty::new().boxed_unsync()), StatusCode::NO_CONTENT, "")
}

/// Puts on what every answer carries.
pub(super) fn with_headers(mut reply: Reply, status: StatusCode, kind: &'static str) -> Reply {
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    if !kind.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert("Tailscale-Version", HeaderValue::from_static(VERSION));
    headers.insert("Tailscale-Cap", HeaderValue::from(CapabilityVersion::OURS.0));
    headers.insert("X-Content-Type-Options", HeaderValue::from_static("nosniff"));
    reply
}

fn full(text: String) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(text)).boxed_unsync()
}
