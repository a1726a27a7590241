//! How a request's payload and an answer's content become values, and back, on both sides of the wire.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::ApiError;

/// A value that is sent as JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json<T>(pub T);

/// An answer that says nothing but that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done;

/// What is sent: headers and bytes.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Bytes,
}

impl Content {
    pub(crate) fn json(value: &impl Serialize) -> Result<Self, ApiError> {
        let bytes = serde_json::to_vec(value).map_err(|error| ApiError::internal(error.to_string()))?;
        Ok(Self::typed("application/json", bytes))
    }

    pub(crate) fn typed(kind: &'static str, bytes: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Self { headers, bytes: bytes.into() }
    }
}

/// What a request carries behind its head.
pub(crate) trait Payload: Sized + Send {
    /// How many bytes of it are read.
    const MOST_BYTES: usize = crate::BODY_LIMIT;

    /// Reads a request.
    fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, ApiError>;

    /// Writes a request that [`Payload::read`] reads as the same.
    fn write(&self) -> Result<Content, ApiError>;

    /// Describes it for OpenAPI: content by media type, and parameters that stand in headers.
    fn describe(schemas: &mut SchemaGenerator) -> PayloadDescription;
}

/// A payload in OpenAPI's words.
#[derive(Debug)]
pub(crate) struct PayloadDescription {
    pub(crate) content: Value,
    pub(crate) headers: Vec<&'static str>,
}

/// What an answer carries.
pub(crate) trait Reply: Sized + Send {
    /// Writes an answer.
    fn write(self) -> Result<Content, ApiError>;

    /// Reads the answer of a server.
    fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, String>;

    /// Describes it for OpenAPI: content by media type.
    fn describe(schemas: &mut SchemaGenerator) -> Value;
}

impl<T: Serialize + DeserializeOwned + JsonSchema + Send> Payload for Json<T> {
    fn read(_: &HeaderMap, bytes: Bytes) -> Result<Self, ApiError> {
        parse_json(&bytes).map(Self)
    }

    fn write(&self) -> Result<Content, ApiError> {
        Content::json(&self.0)
    }

    fn describe(schemas: &mut SchemaGenerator) -> PayloadDescription {
        PayloadDescription { content: json_content::<T>(schemas), headers: Vec::new() }
    }
}

impl<T: Serialize + DeserializeOwned + JsonSchema + Send> Reply for Json<T> {
    fn write(self) -> Result<Content, ApiError> {
        Content::json(&self.0)
    }

    fn read(_: &HeaderMap, bytes: Bytes) -> Result<Self, String> {
        serde_json::from_slice(&bytes).map(Self).map_err(|error| error.to_string())
    }

    fn describe(schemas: &mut SchemaGenerator) -> Value {
        json_content::<T>(schemas)
    }
}

impl Reply for Done {
    /// `null`, as the official API answers: it reads as "nothing" in every client.
    fn write(self) -> Result<Content, ApiError> {
        Ok(Content::typed("application/json", "null"))
    }

    fn read(_: &HeaderMap, _: Bytes) -> Result<Self, String> {
        Ok(Self)
    }

    fn describe(_: &mut SchemaGenerator) -> Value {
        json!({"application/json": {"schema": {"type": "null"}}})
    }
}

/// Reads JSON of a request; the message says what was wrong and where.
pub(crate) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let bytes = if bytes.is_empty() { b"{}" } else { bytes };
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::bad_request(format!("the body is not what is expected: {error}")))
}

pub(crate) fn json_content<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    json!({"application/json": {"schema": schemas.subschema_for::<T>()}})
}

/// Turns an error into what goes out.
pub(crate) fn error_content(error: &ApiError) -> (StatusCode, Content) {
    let mut content = Content::json(&error.body()).unwrap_or_else(|_| Content::typed("application/json", "{}"));
    if let Some(seconds) = error.retry_after {
        content.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        content.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"towline\""));
    }
    (error.status, content)
}
