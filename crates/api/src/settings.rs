use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who may join other tailnets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExternalTailnets {
    /// Nobody.
    #[default]
    None,
    /// Administrators.
    Admin,
    /// Everybody.
    Member,
}

/// The settings of a tailnet; in a change, what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TailnetSettings {
    /// Whether the policy file is kept elsewhere and must not be edited here. Not offered here: it stays off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acls_externally_managed_on: Option<bool>,
    /// Where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acls_external_link: Option<String>,
    /// Whether an administrator lets new devices in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices_approval_on: Option<bool>,
    /// Whether devices update themselves. Not offered here: it stays off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices_auto_updates_on: Option<bool>,
    /// How long a device's key lives: 1 to 180 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices_key_duration_days: Option<u16>,
    /// Whether an administrator lets users in whom a program makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_approval_on: Option<bool>,
    /// Who may join other tailnets: nobody, on this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_role_allowed_to_join_external_tailnets: Option<ExternalTailnets>,
    /// Whether devices log who talks to whom. Not offered here: it stays off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_flow_logging_on: Option<bool>,
    /// Whether a subnet router nearby is preferred. Not offered here: it stays off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regional_routing_on: Option<bool>,
    /// Whether devices tell what identifies their hardware. Not offered here: it stays off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posture_identity_collection_on: Option<bool>,
    /// Whether devices may get certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_enabled: Option<bool>,
}

/// What a tailnet is called: an extension of the official API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TailnetNames {
    /// What people call it.
    pub name: String,
    /// Where the names of its devices live.
    pub domain: String,
}

/// Other names for a tailnet; what is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SetTailnetNames {
    /// What people call it from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where the names of its devices live from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}
