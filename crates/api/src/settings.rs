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
    /// Whether the policy file is kept elsewhere and must not be edited here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acls_externally_managed_on: Option<bool>,
    /// Where it is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acls_external_link: Option<String>,
    /// Whether an administrator lets new devices in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices_approval_on: Option<bool>,
    /// Whether devices update themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices_auto_updates_on: Option<bool>,
    /// How long a device's key lives: 1 to 180 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub devices_key_duration_days: Option<u16>,
    /// Whether an administrator lets new users in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_approval_on: Option<bool>,
    /// Who may join other tailnets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub users_role_allowed_to_join_external_tailnets: Option<ExternalTailnets>,
    /// Whether devices log who talks to whom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_flow_logging_on: Option<bool>,
    /// Whether a subnet router nearby is preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub regional_routing_on: Option<bool>,
    /// Whether devices tell what identifies their hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub posture_identity_collection_on: Option<bool>,
    /// Whether devices may get certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub https_enabled: Option<bool>,
}
