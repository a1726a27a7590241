use serde::{Deserialize, Serialize};

/// Switches of a tailnet. Those that the official API has beside these change nothing here, and are not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether an administrator lets each new device in.
    pub devices_approval: bool,
    /// Whether an administrator lets each user in that a program makes.
    pub users_approval: bool,
    /// Days until the key of a person's device expires.
    pub key_duration_days: u16,
    /// Whether devices can have certificates for their names.
    pub https: bool,
    /// Where the policy file is kept, for people to read.
    pub policy_link: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            devices_approval: false,
            users_approval: false,
            key_duration_days: Self::KEY_DURATION_LIMIT,
            https: false,
            policy_link: String::new(),
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
            policy_link: patch.policy_link.unwrap_or_else(|| self.policy_link.clone()),
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
    /// See [`Settings::policy_link`].
    pub policy_link: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_were_written_with_switches_of_nothing_still_read() {
        let written = r#"{"https": true, "auto_updates": true, "external_role": "member", "ephemeral_minutes": 30}"#;
        assert_eq!(serde_json::from_str::<Settings>(written).unwrap(), Settings { https: true, ..Settings::default() });
    }
}
