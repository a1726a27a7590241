use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::query::{Parameter, Query, value};

/// What a preview is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreviewType {
    /// A user, as a source.
    User,
    /// An address and port, as a destination.
    IpPort,
}

/// Whom or what a preview is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviewQuery {
    /// Which of the two.
    pub kind: PreviewType,
    /// The user's login name, or `address:port`.
    pub preview_for: String,
}

impl Query for PreviewQuery {
    const PARAMETERS: &'static [Parameter] = &[
        Parameter { name: "type", required: true, values: &["user", "ipport"] },
        Parameter { name: "previewFor", required: true, values: &[] },
    ];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        let kind = match value(pairs, "type") {
            Some("user") => PreviewType::User,
            Some("ipport") => PreviewType::IpPort,
            _ => return Err(ApiError::bad_request("type is \"user\" or \"ipport\"")),
        };
        let preview_for = value(pairs, "previewFor").filter(|value| !value.is_empty());
        let preview_for =
            preview_for.ok_or_else(|| ApiError::bad_request("previewFor names a user, or address:port"))?;
        Ok(Self { kind, preview_for: preview_for.to_owned() })
    }

    fn write(&self) -> Vec<(String, String)> {
        let kind = match self.kind {
            PreviewType::User => "user",
            PreviewType::IpPort => "ipport",
        };
        vec![("type".to_owned(), kind.to_owned()), ("previewFor".to_owned(), self.preview_for.clone())]
    }
}

/// The rules that concern a user or an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyPreview {
    /// The rules.
    pub matches: Vec<PolicyMatch>,
    /// What was asked for.
    #[serde(rename = "type")]
    pub kind: PreviewType,
    /// Whom or what it was asked for.
    pub preview_for: String,
    /// What the postures ask for that the rules name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub postures: BTreeMap<String, Vec<String>>,
}

/// A rule that concerns a user or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyMatch {
    /// Its sources.
    pub users: Vec<String>,
    /// Its destinations.
    pub ports: Vec<String>,
    /// Where in the text it stands, from 1.
    pub line_number: usize,
    /// The tags of which a router must have one to lead there; none means any way will do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<String>,
    /// The postures of which a source's device must have one; none means any device will do.
    pub postures: Vec<String>,
}
