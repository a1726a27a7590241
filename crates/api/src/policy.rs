//! The policy file on the wire: as it is shown and set, checked, and asked about.

mod check;
mod preview;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ApiError;
use crate::exchange::{Content, Payload, PayloadDescription, Reply};
use crate::query::{Parameter, Query, flag};
use crate::server::POLICY_LIMIT;

pub use check::{PolicyCheck, PolicyDifference, PolicyReach, PolicyVerdict};
pub use preview::{PolicyMatch, PolicyPreview, PreviewQuery, PreviewType};

const JSON: &str = "application/json";
const HUJSON: &str = "application/hujson";

/// Why a policy is set, in its author's words.
const REASON: HeaderName = HeaderName::from_static("towline-reason");

/// The form that a policy is asked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PolicyForm {
    /// The text as it was saved: JSON with comments.
    #[default]
    Hujson,
    /// JSON without comments.
    Json,
}

impl PolicyForm {
    fn of(headers: &HeaderMap) -> Self {
        let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains(JSON));
        if headers.get_all(header::ACCEPT).iter().any(accepts) { Self::Json } else { Self::Hujson }
    }

    fn media(self) -> &'static str {
        match self {
            Self::Hujson => HUJSON,
            Self::Json => JSON,
        }
    }

    fn accept(self) -> (header::HeaderName, HeaderValue) {
        (header::ACCEPT, HeaderValue::from_static(self.media()))
    }
}

impl Payload for PolicyForm {
    fn read(headers: &HeaderMap, _: Bytes) -> Result<Self, ApiError> {
        Ok(Self::of(headers))
    }

    fn write(&self) -> Result<Content, ApiError> {
        Ok(Content { headers: HeaderMap::from_iter([self.accept()]), bytes: Bytes::new() })
    }

    fn describe(_: &mut SchemaGenerator) -> PayloadDescription {
        PayloadDescription { content: Value::Null, headers: vec!["Accept"] }
    }
}

/// How a policy is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyQuery {
    /// With its warnings and errors.
    pub details: bool,
}

impl Query for PolicyQuery {
    const PARAMETERS: &'static [Parameter] =
        &[Parameter { name: "details", required: false, values: &["true", "false", "1"] }];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        Ok(Self { details: flag(pairs, "details")? })
    }

    fn write(&self) -> Vec<(String, String)> {
        if self.details { vec![("details".to_owned(), "1".to_owned())] } else { Vec::new() }
    }
}

/// A policy and the mark of its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDocument {
    /// The mark, without its quotes: the SHA-256 of the formatted text, in hex.
    pub etag: String,
    /// The policy.
    pub body: PolicyBody,
}

/// A policy in the form that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyBody {
    /// The text as it was saved.
    Hujson(String),
    /// The same without comments.
    Json(String),
    /// The text with what is to be said about it.
    Details(PolicyDetails),
}

/// A policy's text with what is to be said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyDetails {
    /// The text, in base64.
    pub acl: String,
    /// What is probably not meant.
    pub warnings: Vec<String>,
    /// What fails; empty for a policy in force.
    pub errors: Vec<String>,
}

impl PolicyDetails {
    /// Puts a text and its warnings together.
    pub fn new(text: &str, warnings: Vec<String>) -> Self {
        Self { acl: STANDARD.encode(text), warnings, errors: Vec::new() }
    }
}

impl Reply for PolicyDocument {
    fn write(self) -> Result<Content, ApiError> {
        let mut content = match self.body {
            PolicyBody::Hujson(text) => Content::typed(HUJSON, text),
            PolicyBody::Json(text) => Content::typed(JSON, text),
            PolicyBody::Details(details) => Content::json(&details)?,
        };
        let etag = HeaderValue::from_str(&format!("\"{}\"", self.etag))
            .map_err(|_| ApiError::internal("the policy's version mark is no header value"))?;
        content.headers.insert(header::ETAG, etag);
        Ok(content)
    }

    fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, String> {
        let etag =
            headers.get(header::ETAG).and_then(|value| value.to_str().ok()).unwrap_or("").trim_matches('"').to_owned();
        let text = String::from_utf8(bytes.into()).map_err(|_| "the policy is not UTF-8".to_owned())?;
        let json = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(JSON.as_bytes()));
        let body = match serde_json::from_str::<PolicyDetails>(&text) {
            Ok(details) if json && !details.acl.is_empty() => PolicyBody::Details(details),
            _ if json => PolicyBody::Json(text),
            _ => PolicyBody::Hujson(text),
        };
        Ok(Self { etag, body })
    }

    fn describe(schemas: &mut SchemaGenerator) -> Value {
        json!({
            JSON: {"schema": {"anyOf": [{"type": "object"}, schemas.subschema_for::<PolicyDetails>()]}},
            HUJSON: {"schema": {"type": "string"}},
        })
    }
}

/// What must be so for a policy to be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPrecondition {
    /// The policy in force has this mark.
    Etag(String),
    /// No policy was ever set.
    NeverSet,
}

/// A policy that is to be put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyUpload {
    /// Its text; empty to go back to the policy that a new tailnet has.
    pub text: String,
    /// What must be so.
    pub precondition: Option<PolicyPrecondition>,
    /// Why, for the history; an extension of the official API.
    pub why: String,
    /// The form that the answer is wanted in.
    pub form: PolicyForm,
}

impl Payload for PolicyUpload {
    const MOST_BYTES: usize = POLICY_LIMIT;

    fn read(headers: &HeaderMap, bytes: Bytes) -> Result<Self, ApiError> {
        let precondition = match headers.get(header::IF_MATCH) {
            None => None,
            Some(value) => {
                let value = value.to_str().map_err(|_| ApiError::bad_request("the If-Match header is not text"))?;
                match value.trim().trim_start_matches("W/").trim_matches('"') {
                    "ts-default" => Some(PolicyPrecondition::NeverSet),
                    etag => Some(PolicyPrecondition::Etag(etag.to_owned())),
                }
            }
        };
        let text = text(bytes)?;
        // Terraform's provider resets by posting an empty JSON string.
        let text = if matches!(text.trim(), "" | "\"\"") { String::new() } else { text };
        let why = headers.get(REASON).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok(Self { text, precondition, why: why.unwrap_or_default(), form: PolicyForm::of(headers) })
    }

    fn write(&self) -> Result<Content, ApiError> {
        let mut content = Content::typed(HUJSON, self.text.clone());
        content.headers.extend([self.form.accept()]);
        if !self.why.is_empty() {
            let line: String = self.why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            let value = HeaderValue::from_bytes(line.as_bytes())
                .map_err(|_| ApiError::bad_request("the reason can't be sent as a header"))?;
            content.headers.insert(REASON, value);
        }
        let precondition = match &self.precondition {
            None => return Ok(content),
            Some(PolicyPrecondition::NeverSet) => "\"ts-default\"".to_owned(),
            Some(PolicyPrecondition::Etag(etag)) => format!("\"{etag}\""),
        };
        let value =
            HeaderValue::from_str(&precondition).map_err(|_| ApiError::bad_request("the version mark is not text"))?;
        content.headers.insert(header::IF_MATCH, value);
        Ok(content)
    }

    fn describe(_: &mut SchemaGenerator) -> PayloadDescription {
        PayloadDescription { content: policy_content(), headers: vec!["Accept", "If-Match", "Towline-Reason"] }
    }
}

/// A policy that is only looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyText(pub String);

impl Payload for PolicyText {
    const MOST_BYTES: usize = POLICY_LIMIT;

    fn read(_: &HeaderMap, bytes: Bytes) -> Result<Self, ApiError> {
        text(bytes).map(Self)
    }

    fn write(&self) -> Result<Content, ApiError> {
        Ok(Content::typed(HUJSON, self.0.clone()))
    }

    fn describe(_: &mut SchemaGenerator) -> PayloadDescription {
        PayloadDescription { content: policy_content(), headers: Vec::new() }
    }
}

fn text(bytes: Bytes) -> Result<String, ApiError> {
    String::from_utf8(bytes.into()).map_err(|_| ApiError::bad_request("the body is not UTF-8"))
}

fn policy_content() -> Value {
    json!({JSON: {"schema": {"type": "object"}}, HUJSON: {"schema": {"type": "string"}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn the_policy_comes_as_saved_unless_json_is_asked_for() {
        assert_eq!(PolicyForm::of(&headers(&[])), PolicyForm::Hujson);
        assert_eq!(PolicyForm::of(&headers(&[(header::ACCEPT, "*/*")])), PolicyForm::Hujson);
        assert_eq!(PolicyForm::of(&headers(&[(header::ACCEPT, "application/json")])), PolicyForm::Json);
    }

    #[test]
    fn preconditions_read_with_and_without_quotes() {
        let read =
            |value| PolicyUpload::read(&headers(&[(header::IF_MATCH, value)]), Bytes::new()).unwrap().precondition;
        assert_eq!(read("\"ts-default\""), Some(PolicyPrecondition::NeverSet));
        assert_eq!(read("\"abc\""), Some(PolicyPrecondition::Etag("abc".to_owned())));
        assert_eq!(read("abc"), Some(PolicyPrecondition::Etag("abc".to_owned())));
    }

    #[test]
    fn an_empty_string_resets() {
        for body in ["", " \n", "\"\""] {
            assert_eq!(PolicyUpload::read(&HeaderMap::new(), Bytes::from(body)).unwrap().text, "");
        }
    }

    #[test]
    fn a_document_reads_back_with_its_mark() {
        let bodies = [
            PolicyBody::Hujson("{} // x".to_owned()),
            PolicyBody::Json("{}".to_owned()),
            PolicyBody::Details(PolicyDetails::new("{}", vec!["w".to_owned()])),
        ];
        for body in bodies {
            let document = PolicyDocument { etag: "ab12".to_owned(), body };
            let content = document.clone().write().unwrap();
            assert_eq!(content.headers[header::ETAG], "\"ab12\"");
            assert_eq!(PolicyDocument::read(&content.headers, content.bytes).unwrap(), document);
        }
    }
}
