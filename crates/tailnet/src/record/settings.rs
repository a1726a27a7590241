use serde::{Deserialize, Serialize};

/// Switches of a tailnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether an administrator lets each new device in.
    pub devices_approval: bool,
    /// Whether an administrator lets each new user in.
    pub users_approval: bool,
    /// Days until the key of a person's device expires.
    pub key_duration_days: u16,
    /// Whether devices can have certificates for their names.
    pub https: bool,
    /// Whether devices update themselves.
    pub auto_updates: bool,
    /// Whether devices report their traffic.
    pub flow_logging: bool,
    /// Whether devices prefer routers of their region.
    pub regional_routing: bool,
    /// Whether devices report what identifies them.
    pub posture_identity: bool,
    /// Whether the policy file is kept elsewhere, so that people are told not to edit it here.
    pub policy_managed_elsewhere: bool,
    /// Where the policy file is kept then.
    pub policy_link: String,
    /// Who may join other tailnets.
    pub external_role: ExternalRole,
    /// Minutes after which a gone ephemeral device is deleted.
    pub ephemeral_minutes: u16,
}

/// Who may join other tailnets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExternalRole {
    /// Nobody.
    #[default]
    None,
    /// Administrators.
    Admin,
    /// Everybody.
    Member,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            devices_approval: false,
            users_approval: false,
            key_duration_days: Self::KEY_DURATION_LIMIT,
            https: false,
            auto_updates: false,
            flow_logging: false,
            regional_routing: false,
            posture_identity: false,
            policy_managed_elsewhere: false,
            policy_link: String::new(),
            external_role: ExternalRole::None,
            ephemeral_minutes: 30,
        }
    }
}

impl Settings {
    /// The longest time that a person's device may keep its key, in days.
    pub const KEY_DURATION_LIMIT: u16 = 180;

    /// These settings with a patch applied.
    pub fn patched(&self, patch: &SettingsPatch) -> Self {
        let patch = patch.clone();
        Self {
            devices_approval: patch.devices_approval.unwrap_or(self.devices_approval),
            users_approval: patch.users_approval.unwrap_or(self.users_approval),
            key_duration_days: patch.key_duration_days.unwrap_or(self.key_duration_days),
            https: patch.https.unwrap_or(self.https),
            auto_updates: patch.auto_updates.unwrap_or(self.auto_updates),
            flow_logging: patch.flow_logging.unwrap_or(self.flow_logging),
            regional_routing: patch.regional_routing.unwrap_or(self.regional_routing),
            posture_identity: patch.posture_identity.unwrap_or(self.posture_identity),
            policy_managed_elsewhere: patch.policy_managed_elsewhere.unwrap_or(self.policy_managed_elsewhere),
            policy_link: patch.policy_link.unwrap_or_else(|| self.policy_link.clone()),
            external_role: patch.external_role.unwrap_or(self.external_role),
            ephemeral_minutes: patch.ephemeral_minutes.unwrap_or(self.ephemeral_minutes),
        }
    }
}

/// A change of some settings; what is absent stays.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SettingsPatch {
    /// See [`Settings::devices_approval`].
    pub devices_approval: Option<bool>,
    /// See [`Settings::users_approval`].
    pub users_approval: Option<bool>,
    /// See [`Settings::key_duration_days`].
    pub key_duration_days: Option<u16>,
    /// See [`Settings::https`].
    pub https: Option<bool>,
    /// See [`Settings::auto_updates`].
    pub auto_updates: Option<bool>,
    /// See [`Settings::flow_logging`].
    pub flow_logging: Option<bool>,
    /// See [`Settings::regional_routing`].
    pub regional_routing: Option<bool>,
    /// See [`Settings::posture_identity`].
    pub posture_identity: Option<bool>,
    /// See [`Settings::policy_managed_elsewhere`].
    pub policy_managed_elsewhere: Option<bool>,
    /// See [`Settings::policy_link`].
    pub policy_link: Option<String>,
    /// See [`Settings::external_role`].
    pub external_role: Option<ExternalRole>,
    /// See [`Settings::ephemeral_minutes`].
    pub ephemeral_minutes: Option<u16>,
}
