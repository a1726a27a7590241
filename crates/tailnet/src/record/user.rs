use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use tailcfg::UserId;

/// A person of a tailnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The user's number; no node of the server has the same.
    pub id: UserId,
    /// What policy calls the user.
    pub login: LoginName,
    /// What people call the user.
    pub display_name: String,
    /// A picture, or empty.
    pub profile_pic_url: String,
    /// What the user may do beyond using their own devices.
    pub role: Role,
    /// Whether the user may be here at all.
    pub status: UserStatus,
    /// When the account was made.
    pub created: Timestamp,
    /// The hash that the user's password must match; without one the user can't sign in by password.
    pub password: Option<PasswordHash>,
}

/// Whether a user may be in the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserStatus {
    /// In.
    Active,
    /// Kept out, with all devices, until an administrator restores the user.
    Suspended,
    /// Not yet let in.
    NeedsApproval,
}

/// What a user may do beyond using their own devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Everything but what concerns the owner.
    Admin,
    /// Users, devices and keys.
    ItAdmin,
    /// Policy, names and routes.
    NetworkAdmin,
    /// The bill.
    BillingAdmin,
    /// Looking at everything.
    Auditor,
    /// Nothing more.
    Member,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] =
        [Self::Owner, Self::Admin, Self::ItAdmin, Self::NetworkAdmin, Self::BillingAdmin, Self::Auditor, Self::Member];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::ItAdmin => "it-admin",
            Self::NetworkAdmin => "network-admin",
            Self::BillingAdmin => "billing-admin",
            Self::Auditor => "auditor",
            Self::Member => "member",
        }
    }

    /// Whether the role administers everything.
    pub const fn is_admin(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }

    /// The scopes of the REST API that a credential of a user in this role may have.
    pub const fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Owner | Self::Admin => &["all"],
            Self::ItAdmin => &[
                "all:read",
                "users",
                "user_invites",
                "devices:core",
                "devices:posture_attributes",
                "device_invites",
                "auth_keys",
                "feature_settings",
                "logs:configuration",
            ],
            Self::NetworkAdmin => {
                &["all:read", "policy_file", "dns", "devices:routes", "services", "networking_settings", "logs:network"]
            }
            Self::BillingAdmin => &["account_settings", "users:read"],
            Self::Auditor => &["all:read"],
            Self::Member => &[],
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name that a user signs in with and policy knows, `alice@example.com`; in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct LoginName(String);

/// A text is no login name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not a login name: write it like an e-mail address, \"alice@example.com\"")]
pub struct LoginNameError {
    /// The start of the text.
    pub given: String,
}

impl LoginName {
    /// The longest login name, as for e-mail addresses.
    const LIMIT: usize = 254;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LoginName {
    type Err = LoginNameError;

    /// Takes letters, digits and a few signs around one `@`: what can stand in policy, in a header and in a Kubernetes
    /// user name without quoting, and can't pass for a name of Kubernetes' own (`system:…`).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || LoginNameError { given: text.chars().take(80).collect() };
        let (local, domain) = text.split_once('@').ok_or_else(refused)?;
        let signs = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
        let part = |part: &str| !part.is_empty() && !part.starts_with('-') && part.bytes().all(signs);
        if text.len() > Self::LIMIT || !part(local) || !part(domain) {
            return Err(refused());
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl<'de> Deserialize<'de> for LoginName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for LoginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A password's hash with its method and salt (PHC string), made and checked by whoever signs users in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordHash(pub String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_names_are_lower_case_addresses() {
        assert_eq!("Alice.B+x@Example.com".parse::<LoginName>().unwrap().as_str(), "alice.b+x@example.com");
        for bad in ["alice", "@b", "a@", "a@b@c", "a b@c", "a@b\n", "system:x@y", "-i@b", "а@b", &"x@y".repeat(99)] {
            assert!(bad.parse::<LoginName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_role_is_written_as_it_is_named() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
    }

    #[test]
    fn members_have_no_scope_and_only_administrators_have_all() {
        assert!(Role::Member.scopes().is_empty());
        for role in Role::ALL {
            assert_eq!(role.scopes().contains(&"all"), role.is_admin());
        }
    }
}
