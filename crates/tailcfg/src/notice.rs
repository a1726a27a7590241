use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::go;

/// Which client version to run.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ClientVersion {
    /// Whether the client is up to date.
    #[serde(skip_serializing_if = "go::is_default")]
    pub running_latest: bool,
    /// The newest version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub latest_version: String,
    /// Whether the client has a hole that the newest version closes.
    #[serde(skip_serializing_if = "go::is_default")]
    pub urgent_security_update: bool,
    /// Whether to tell the user.
    #[serde(skip_serializing_if = "go::is_default")]
    pub notify: bool,
    /// Where the user reads more.
    #[serde(rename = "NotifyURL", skip_serializing_if = "String::is_empty")]
    pub notify_url: String,
    /// What to tell the user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub notify_text: String,
}

/// A warning that the client shows.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DisplayMessage {
    /// A few words.
    pub title: String,
    /// A sentence or two.
    pub text: String,
    /// `high`, `medium` or `low`.
    pub severity: String,
    /// Whether the connection suffers.
    #[serde(skip_serializing_if = "go::is_default")]
    pub impacts_connectivity: bool,
    /// What the user can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_action: Option<DisplayMessageAction>,
}

/// A link below a warning.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DisplayMessageAction {
    /// Where it leads.
    #[serde(rename = "URL")]
    pub url: String,
    /// What it says.
    pub label: String,
}

/// Orders for tests and emergencies.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Debug {
    /// Seconds to stay away before the next poll.
    #[serde(skip_serializing_if = "go::is_default")]
    pub sleep_seconds: f64,
    /// Stop to upload logs.
    #[serde(skip_serializing_if = "go::is_default")]
    pub disable_log_tail: bool,
    /// Exit with this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
}

/// Where else the server can be reached; the candidates are tried before names are looked up.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ControlDialPlan {
    /// The candidates.
    #[serde(deserialize_with = "go::nullable")]
    pub candidates: Vec<ControlCandidate>,
}

/// One way to the server.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ControlCandidate {
    /// The address.
    #[serde(rename = "IP", with = "go::optional_text", skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The host of an egress proxy to go through.
    #[serde(rename = "ACEHost", skip_serializing_if = "String::is_empty")]
    pub ace_host: String,
    /// Seconds to wait before it is tried.
    #[serde(skip_serializing_if = "go::is_default")]
    pub dial_start_delay_sec: f64,
    /// Seconds until it is given up.
    #[serde(skip_serializing_if = "go::is_default")]
    pub dial_timeout_sec: f64,
    /// The highest that answers is taken.
    #[serde(skip_serializing_if = "go::is_default")]
    pub priority: i64,
}

/// Where tailnet lock stands; Towline sends none.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LockStatus {
    /// The hash of the newest entry.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub head: String,
    /// Whether the lock was taken off.
    #[serde(skip_serializing_if = "go::is_default")]
    pub disabled: bool,
}
