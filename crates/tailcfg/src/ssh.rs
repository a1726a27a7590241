use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::go::{self, Time};
use crate::id::StableNodeId;

/// Who may open SSH sessions on the node; the first rule that matches decides.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SshPolicy {
    /// The rules in order.
    #[serde(deserialize_with = "go::nullable")]
    pub rules: Vec<SshRule>,
}

/// One rule.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SshRule {
    /// When the rule stops to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_expires: Option<Time>,
    /// Who it is about.
    #[serde(deserialize_with = "go::nullable")]
    pub principals: Vec<SshPrincipal>,
    /// Local users by the user asked for: `*` stands for any, `=` for the one asked for, empty for a refusal.
    #[serde(deserialize_with = "go::nullable")]
    pub ssh_users: BTreeMap<String, String>,
    /// What happens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<SshAction>,
    /// Names of environment variables that the client may set; `*` and `?` are wild cards.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub accept_env: Vec<String>,
}

/// Who a rule is about; one of the fields is set.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SshPrincipal {
    /// A node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<StableNodeId>,
    /// A node's address.
    #[serde(rename = "nodeIP", skip_serializing_if = "Option::is_none")]
    pub node_ip: Option<IpAddr>,
    /// A user by login name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_login: String,
    /// Anybody.
    #[serde(skip_serializing_if = "go::is_default")]
    pub any: bool,
}

/// What happens to a session.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SshAction {
    /// Shown to the client.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The session is refused.
    #[serde(skip_serializing_if = "go::is_default")]
    pub reject: bool,
    /// The session is let in.
    #[serde(skip_serializing_if = "go::is_default")]
    pub accept: bool,
    /// How long it may last, in nanoseconds; zero is unbounded.
    #[serde(skip_serializing_if = "go::is_default")]
    pub session_duration: i64,
    /// Whether the client's agent may be forwarded.
    #[serde(skip_serializing_if = "go::is_default")]
    pub allow_agent_forwarding: bool,
    /// The URL that decides; the session waits for its answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hold_and_delegate: String,
    /// Whether the client may forward its ports to the node.
    #[serde(skip_serializing_if = "go::is_default")]
    pub allow_local_port_forwarding: bool,
    /// Whether the node's ports may be forwarded to the client.
    #[serde(skip_serializing_if = "go::is_default")]
    pub allow_remote_port_forwarding: bool,
    /// Where the session is recorded, as `ip:port`.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub recorders: Vec<String>,
    /// What happens when it can't be recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_recording_failure: Option<SshRecorderFailureAction>,
}

/// What happens when a session can't be recorded. Go names these fields as they are.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SshRecorderFailureAction {
    /// A session that can't start recording is refused with this message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reject_session_with_message: String,
    /// A session whose recording breaks ends with this message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub terminate_session_with_message: String,
    /// The URL that is told of it.
    #[serde(rename = "NotifyURL", skip_serializing_if = "String::is_empty")]
    pub notify_url: String,
}
