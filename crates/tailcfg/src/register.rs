use std::fmt;

use crypto::NodePublic;
use serde::{Deserialize, Serialize};

use crate::capability::CapabilityVersion;
use crate::go::{self, Time};
use crate::hostinfo::Hostinfo;
use crate::user::{Login, User};

/// A node asks to join, to renew its key, or to leave; its machine key is proven by the channel that this comes through.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegisterRequest {
    /// What the client understands.
    pub version: CapabilityVersion,
    /// The node key that it wants to use.
    pub node_key: NodePublic,
    /// The one that it used before; zero when none.
    pub old_node_key: NodePublic,
    /// Its tailnet lock key.
    #[serde(rename = "NLKey")]
    pub lock_key: TailnetLockKey,
    /// What proves the right to join, when not a person in a browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<RegisterAuth>,
    /// When the key is to expire; zero for the server's choice, in the past for "now", which is a logout.
    pub expiry: Time,
    /// The login URL of an earlier answer; the server holds the request until that login ends.
    pub followup: String,
    /// What the node says of itself.
    pub hostinfo: Option<Hostinfo>,
    /// Whether the node goes away by itself when it is gone.
    #[serde(skip_serializing_if = "go::is_default")]
    pub ephemeral: bool,
    /// Tailnet lock's signature of the node key.
    #[serde(with = "go::bytes", skip_serializing_if = "Vec::is_empty")]
    pub node_key_signature: Vec<u8>,
    /// Which kind of device signature follows.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub signature_type: String,
    /// When the device signature was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Time>,
    /// The device's certificate.
    #[serde(with = "go::bytes", skip_serializing_if = "Vec::is_empty")]
    pub device_cert: Vec<u8>,
    /// The device's signature.
    #[serde(with = "go::bytes", skip_serializing_if = "Vec::is_empty")]
    pub signature: Vec<u8>,
    /// The tailnet that the user asked for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tailnet: String,
}

/// What proves the right to join.
#[derive(Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegisterAuth {
    /// An auth key.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth_key: String,
}

impl fmt::Debug for RegisterAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RegisterAuth(…)")
    }
}

/// A tailnet lock key in its text form. Towline has no tailnet lock: it passes the key on and sends the zero key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TailnetLockKey(pub String);

impl Default for TailnetLockKey {
    /// The zero key, which stock servers want to read where there is none.
    fn default() -> Self {
        Self(format!("nlpub:{}", "0".repeat(64)))
    }
}

/// The answer to a [`RegisterRequest`].
///
/// A client looks at the fields in this order: an error, a signature to be renewed, an expired key, a login URL; with
/// none of these it is in.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RegisterResponse {
    /// Whose node it became.
    pub user: User,
    /// The account that logged in.
    pub login: Login,
    /// Whether the client must make a new node key and ask again.
    pub node_key_expired: bool,
    /// Whether the node is let in, where an administrator decides.
    pub machine_authorized: bool,
    /// Where the user logs in; empty when that is not needed.
    #[serde(rename = "AuthURL")]
    pub auth_url: String,
    /// A lock signature that the client renews.
    #[serde(with = "go::bytes")]
    pub node_key_signature: Vec<u8>,
    /// Why it did not work, for the user; empty when it did.
    pub error: String,
}
