use bytes::Bytes;
use http::HeaderMap;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{HUJSON, JSON, text};
use crate::exchange::{Content, Payload, PayloadDescription};
use crate::server::POLICY_LIMIT;
use crate::{ApiError, Finding};

/// What is to be validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyCheck {
    /// These tests, against the policy in force: a JSON array.
    Tests(String),
    /// This whole policy, with its own tests.
    Policy(String),
}

impl Payload for PolicyCheck {
    const MOST_BYTES: usize = POLICY_LIMIT;

    fn read(_: &HeaderMap, bytes: Bytes) -> Result<Self, ApiError> {
        let text = text(bytes)?;
        match first_token(&text) {
            Some('[') => Ok(Self::Tests(text)),
            // gitops-pusher posts the policy as a JSON string.
            Some('"') => serde_json::from_str(&text)
                .map(Self::Policy)
                .map_err(|error| ApiError::bad_request(format!("the body is not a JSON string: {error}"))),
            _ => Ok(Self::Policy(text)),
        }
    }

    fn write(&self) -> Result<Content, ApiError> {
        let (Self::Tests(text) | Self::Policy(text)) = self;
        Ok(Content::typed(HUJSON, text.clone()))
    }

    fn describe(_: &mut SchemaGenerator) -> PayloadDescription {
        let content = json!({
            JSON: {"schema": {"anyOf": [{"type": "array", "items": {"type": "object"}}, {"type": "object"}]}},
            HUJSON: {"schema": {"type": "string"}},
        });
        PayloadDescription { content, headers: Vec::new() }
    }
}

/// What validation found; nothing when all is well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyVerdict {
    /// What is wrong, or `warning(s) found`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// For whom.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data: Vec<Finding>,
    /// What a policy without faults opens and closes, compared with the one in force. The hosted service has no such
    /// answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<PolicyDifference>,
}

/// What one policy allows and another doesn't.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
pub struct PolicyDifference {
    /// What the new policy allows and the old one doesn't.
    pub opens: Vec<PolicyReach>,
    /// What the old policy allows and the new one doesn't.
    pub closes: Vec<PolicyReach>,
    /// What is neither: postures and settings that are other than they were, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<String>,
    /// Some rules are about too many pairs to compare, and are told as they stand; or not everything is told.
    pub cut_short: bool,
}

/// Something that a source may do with a destination.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PolicyReach {
    /// A user's login, tags, or addresses; the aliases of a rule that is told as it stands.
    pub source: String,
    /// A user's login, tags, addresses or `autogroup:internet`; for what is no packet, what it is about.
    pub destination: String,
    /// Ports (`tcp:22,80-90`, `*`), a capability, a login (`ssh root (check)`), or what else somebody may do.
    pub what: String,
}

/// The first character that is neither space nor comment.
fn first_token(text: &str) -> Option<char> {
    let mut rest = text.trim_start();
    loop {
        rest = if let Some(line) = rest.strip_prefix("//") {
            line.split_once('\n')?.1
        } else if let Some(block) = rest.strip_prefix("/*") {
            block.split_once("*/")?.1
        } else {
            return rest.chars().next();
        }
        .trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_tells_tests_from_a_policy() {
        let read = |body: &'static str| PolicyCheck::read(&HeaderMap::new(), Bytes::from(body)).unwrap();
        assert!(matches!(read("// tests\n /* x */ [{}]"), PolicyCheck::Tests(_)));
        assert!(matches!(read("/* x */ {}"), PolicyCheck::Policy(_)));
        assert_eq!(read(r#""{\"acls\":[]}""#), PolicyCheck::Policy(r#"{"acls":[]}"#.to_owned()));
        assert!(matches!(read("/* never closed"), PolicyCheck::Policy(_)));
    }
}
