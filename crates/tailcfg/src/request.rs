//! What a node asks for inside the Noise channel besides registering and its map.

use std::collections::BTreeMap;

use crypto::NodePublic;
use filter::RawJson;
use serde::{Deserialize, Serialize};

use crate::capability::CapabilityVersion;
use crate::go::{self, Time};

/// `POST /machine/set-dns`: publish a record, so that a certificate authority sees it.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SetDns {
    /// What the client understands.
    pub version: CapabilityVersion,
    /// The node.
    pub node_key: NodePublic,
    /// `_acme-challenge.` and the node's name, without a trailing dot.
    pub name: String,
    /// `TXT`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The record's text.
    pub value: String,
}

/// `POST /machine/id-token`: a token that proves to others which node this is.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct IdToken {
    /// What the client understands.
    pub cap_version: CapabilityVersion,
    /// The node.
    pub node_key: NodePublic,
    /// Whom the token is for.
    pub audience: String,
}

/// The answer to [`IdToken`].
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdTokenAnswer {
    /// A signed JWT.
    pub id_token: String,
}

/// `POST /machine/feature/query`: can a feature be turned on, and how.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FeatureQuery {
    /// `serve` or `funnel`.
    pub feature: String,
    /// The node.
    pub node_key: NodePublic,
}

/// The answer to [`FeatureQuery`].
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct FeatureQueryAnswer {
    /// Whether the feature is on already.
    #[serde(skip_serializing_if = "go::is_default")]
    pub complete: bool,
    /// What to tell the user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Where the user turns it on.
    #[serde(rename = "URL", skip_serializing_if = "String::is_empty")]
    pub url: String,
    /// Whether the client waits for that.
    #[serde(skip_serializing_if = "go::is_default")]
    pub should_wait: bool,
}

/// `PATCH /machine/set-device-attr`: facts about the device that policy may ask for.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SetDeviceAttributes {
    /// What the client understands.
    pub version: CapabilityVersion,
    /// The node.
    pub node_key: NodePublic,
    /// New values by name; `None` takes one away.
    #[serde(deserialize_with = "go::nullable")]
    pub update: BTreeMap<String, Option<RawJson>>,
}

/// `POST /machine/audit-log`: the user did something that is to be on record.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuditLog {
    /// What the client understands.
    #[serde(skip_serializing_if = "go::is_default")]
    pub version: CapabilityVersion,
    /// The node.
    pub node_key: NodePublic,
    /// What it was: `DISCONNECT_NODE`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub action: String,
    /// Why, in the user's words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// When.
    #[serde(skip_serializing_if = "Time::is_zero")]
    pub timestamp: Time,
}

/// `POST /machine/update-health`: a part of an older client is unwell.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UpdateHealth {
    /// Which part.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subsys: String,
    /// What is wrong; empty when it is well again.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// The node.
    pub node_key: NodePublic,
}

/// `POST /verify`, outside the Noise channel: a relay asks whether a client may use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RelayAdmission {
    /// The client's node key.
    pub node_public: NodePublic,
    /// The client's address.
    #[serde(with = "go::optional_text", default)]
    pub source: Option<std::net::IpAddr>,
}

/// The answer to [`RelayAdmission`].
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RelayAdmissionAnswer {
    /// Whether the client may use the relay.
    pub allow: bool,
}

/// `POST` to [`CERTIFICATE_PATH`], Towline's own: a certificate of the tailnet's authority for the node's name.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Certificate {
    /// What the client understands.
    pub version: CapabilityVersion,
    /// The node.
    pub node_key: NodePublic,
    /// The PKCS #10 request in DER. Of what it asks only the public key is taken: the names are the node's own.
    #[serde(with = "go::bytes")]
    pub csr: Vec<u8>,
}

/// The answer to [`Certificate`].
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CertificateAnswer {
    /// The certificate and the intermediates above it, in PEM, the node's own first.
    pub chain: String,
    /// The root to trust, in PEM.
    pub root: String,
}

/// Where [`Certificate`] is posted.
pub const CERTIFICATE_PATH: &str = "/machine/towline/certificate";
