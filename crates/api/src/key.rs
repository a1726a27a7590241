use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::query::{Parameter, Query, flag};

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// Letting devices in.
    #[default]
    Auth,
    /// Getting access tokens as an OAuth client.
    Client,
    /// Calling the API.
    Api,
    /// Exchanging another issuer's tokens for access tokens.
    Federated,
}

/// A key of a tailnet. The secret itself is there only in the answer that made it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// The secret, once.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// What it is for.
    pub key_type: KeyType,
    /// How long it was made to live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_seconds: Option<i64>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub created: Option<Timestamp>,
    /// When it was last changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub updated: Option<Timestamp>,
    /// When it stops to work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub expires: Option<Timestamp>,
    /// When it was taken away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub revoked: Option<Timestamp>,
    /// What an auth key lets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<KeyCapabilities>,
    /// What a client's or token's holder may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// The tags that a client may give.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// What its maker wrote about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether it is used up, expired or taken away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invalid: bool,
    /// The user who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_id: String,
    /// The OAuth client that made it. An extension of the official API.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_id: String,
    /// Whom a federated identity's tokens must be for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audience: String,
    /// Who issues a federated identity's tokens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// Whom a federated identity's tokens must be about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What else a federated identity's tokens must say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub custom_claim_rules: BTreeMap<String, String>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).field("key_type", &self.key_type).finish_non_exhaustive()
    }
}

/// What a key allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyCapabilities {
    /// To do with devices.
    pub devices: DeviceCapabilities,
}

/// What a key allows to do with devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceCapabilities {
    /// To let them in.
    pub create: CreateDevices,
}

/// What devices a key lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateDevices {
    /// More than one.
    pub reusable: bool,
    /// Such that go away by themselves.
    pub ephemeral: bool,
    /// Without an administrator's word.
    pub preauthorized: bool,
    /// With these tags.
    #[serde(deserialize_with = "crate::json::null_is_default")]
    pub tags: Vec<String>,
}

/// The keys of a tailnet that the caller may see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyList {
    /// All of them at once.
    pub keys: Vec<Key>,
}

/// Which keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyQuery {
    /// Those of everybody and every kind, not only the caller's auth keys.
    pub all: bool,
}

impl Query for KeyQuery {
    const PARAMETERS: &'static [Parameter] = &[Parameter { name: "all", required: false, values: &["true", "false"] }];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        Ok(Self { all: flag(pairs, "all")? })
    }

    fn write(&self) -> Vec<(String, String)> {
        if self.all { vec![("all".to_owned(), "true".to_owned())] } else { Vec::new() }
    }
}

/// A key that is to be made.
///
/// `keyType` is `auth` (the default), `client`, or — an extension of this API — `api`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CreateKey {
    /// What it is for.
    pub key_type: KeyType,
    /// What its maker writes about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What an auth key lets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<KeyCapabilities>,
    /// How long it lives; 0 or absent for the longest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiry_seconds: Option<i64>,
    /// What a client's or token's holder may do.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::json::null_is_default")]
    pub scopes: Vec<String>,
    /// The tags that a client may give.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::json::null_is_default")]
    pub tags: Vec<String>,
    /// Who issues a federated identity's tokens.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// Whom a federated identity's tokens must be about.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Whom a federated identity's tokens must be for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audience: String,
    /// What else a federated identity's tokens must say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::json::null_is_default")]
    pub custom_claim_rules: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_request_reads() {
        let text = r#"{"capabilities":{"devices":{"create":{"reusable":false,"ephemeral":false,"preauthorized":true,"tags":["tag:k8s"]}}},"expirySeconds":0}"#;
        let request: CreateKey = serde_json::from_str(text).unwrap();
        assert_eq!(request.key_type, KeyType::Auth);
        assert_eq!(request.capabilities.unwrap().devices.create.tags, ["tag:k8s"]);
    }

    #[test]
    fn a_key_does_not_show_its_secret() {
        let key = Key { key: "tskey-auth-secret".to_owned(), ..Key::default() };
        assert!(!format!("{key:?}").contains("secret"));
    }
}
