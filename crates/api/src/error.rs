use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// An answer that is not the one hoped for, as every operation gives it.
///
/// On the wire it is `{"message": …, "status": …}`, with `data` where a policy has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: StatusCode,
    /// What was wrong and what to do, in a sentence without its full stop.
    pub message: String,
    /// What was wrong for whom, where a policy's tests or warnings say so.
    pub data: Vec<Finding>,
    /// After how many seconds it is worth to try again.
    pub retry_after: Option<u32>,
}

/// What a policy's test or check found for one user or source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Finding {
    /// The source that the finding is about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// What fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// What works but is probably not meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The error's JSON.
#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "Error")]
pub(crate) struct ErrorBody {
    message: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    data: Vec<Finding>,
    #[serde(default)]
    status: u16,
}

impl ApiError {
    /// An error with a status and a message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), data: Vec::new(), retry_after: None }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: nobody is known by this credential.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: the caller may not do this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 409: the thing is taken or in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// 500: our own fault; the message says what to look at, never what is inside.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// 503: can't be done now, but is worth to be tried again after `seconds`.
    pub fn unavailable(message: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, message) }
    }

    /// 429: too many tries; worth another after `seconds`.
    pub fn too_many(message: impl Into<String>, seconds: u32) -> Self {
        Self { retry_after: Some(seconds), ..Self::new(StatusCode::TOO_MANY_REQUESTS, message) }
    }

    /// The same error with findings.
    #[must_use]
    pub fn with_data(self, data: Vec<Finding>) -> Self {
        Self { data, ..self }
    }

    /// The JSON that goes out.
    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody { message: self.message.clone(), data: self.data.clone(), status: self.status.as_u16() }
    }

    /// Reads an answer of any server; a body that is no such JSON becomes the message as it is, cut short.
    pub(crate) fn read(status: StatusCode, retry_after: Option<u32>, body: &[u8]) -> Self {
        let (message, data) = match serde_json::from_slice::<ErrorBody>(body) {
            Ok(body) => (body.message, body.data),
            Err(_) => (String::from_utf8_lossy(&body[..body.len().min(512)]).trim().to_owned(), Vec::new()),
        };
        let message = if message.is_empty() { "the server gave no reason".to_owned() } else { message };
        Self { status, message, data, retry_after }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.status)?;
        for finding in &self.data {
            for text in finding.errors.iter().chain(&finding.warnings) {
                write!(f, "\n  {}: {text}", finding.user)?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reads_back_from_its_json() {
        let finding = Finding { user: "a@b".to_owned(), errors: vec!["no".to_owned()], warnings: Vec::new() };
        let error = ApiError::bad_request("test(s) failed").with_data(vec![finding]);
        let json = serde_json::to_vec(&error.body()).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&json),
            r#"{"message":"test(s) failed","data":[{"user":"a@b","errors":["no"]}],"status":400}"#
        );
        assert_eq!(ApiError::read(StatusCode::BAD_REQUEST, None, &json), error);
    }

    #[test]
    fn a_body_that_is_not_json_becomes_the_message() {
        assert_eq!(ApiError::read(StatusCode::BAD_GATEWAY, None, b"upstream gone\n").message, "upstream gone");
        assert_eq!(ApiError::read(StatusCode::BAD_GATEWAY, None, b"").message, "the server gave no reason");
        assert!(ApiError::read(StatusCode::BAD_GATEWAY, None, &[b'x'; 100_000]).message.len() <= 512);
    }
}
