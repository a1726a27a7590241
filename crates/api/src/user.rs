use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ApiError;
use crate::query::{Parameter, Query, value};

/// What a user may do with the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UserRole {
    /// Everything, and nobody can take it away.
    Owner,
    /// Using it.
    #[default]
    Member,
    /// Everything.
    Admin,
    /// Users and devices.
    ItAdmin,
    /// Policy, routes and names.
    NetworkAdmin,
    /// Billing; there is none here.
    BillingAdmin,
    /// Looking at everything.
    Auditor,
}

impl UserRole {
    /// Every role with its name on the wire.
    pub const NAMES: [(Self, &'static str); 7] = [
        (Self::Owner, "owner"),
        (Self::Member, "member"),
        (Self::Admin, "admin"),
        (Self::ItAdmin, "it-admin"),
        (Self::NetworkAdmin, "network-admin"),
        (Self::BillingAdmin, "billing-admin"),
        (Self::Auditor, "auditor"),
    ];

    /// The role's name on the wire.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find_map(|(role, name)| (*role == self).then_some(*name)).unwrap_or("")
    }

    /// The role of a name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::NAMES.iter().find_map(|(role, name)| (*name == text).then_some(*role))
    }
}

/// Whether a user can use the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UserStatus {
    /// Yes, and was here within 28 days.
    #[default]
    Active,
    /// Yes, and was not here for longer.
    Idle,
    /// No, by an administrator's word.
    Suspended,
    /// Not until an administrator says so.
    NeedsApproval,
    /// Never here; other servers say it.
    OverBillingLimit,
}

/// Whether a user belongs to the tailnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UserType {
    /// Yes.
    #[default]
    Member,
    /// No: something is shared with them.
    Shared,
}

/// A user of a tailnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// Their id.
    pub id: String,
    /// Their name for people.
    pub display_name: String,
    /// Their name in the policy, `alice@example.com`.
    pub login_name: String,
    /// Their picture, or empty.
    pub profile_pic_url: String,
    /// Their tailnet's id.
    pub tailnet_id: String,
    /// When they joined.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub created: Option<Timestamp>,
    /// Whether they belong to the tailnet.
    #[serde(rename = "type")]
    pub kind: UserType,
    /// What they may do.
    pub role: UserRole,
    /// Whether they can use it.
    pub status: UserStatus,
    /// How many devices they have.
    pub device_count: u64,
    /// When one of their devices was last here.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub last_seen: Option<Timestamp>,
    /// Whether one of their devices is here now.
    pub currently_connected: bool,
}

/// The users of a tailnet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserList {
    /// All of them at once.
    pub users: Vec<User>,
}

/// Which users are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserQuery {
    /// Only this kind.
    pub kind: Option<UserType>,
    /// Only those with this role.
    pub role: Option<UserRole>,
}

impl Query for UserQuery {
    const PARAMETERS: &'static [Parameter] = &[
        Parameter { name: "type", required: false, values: &["member", "shared", "all"] },
        Parameter {
            name: "role",
            required: false,
            values: &["owner", "member", "admin", "it-admin", "network-admin", "billing-admin", "auditor", "all"],
        },
    ];

    fn read(pairs: &[(String, String)]) -> Result<Self, ApiError> {
        let kind = match value(pairs, "type").unwrap_or("member") {
            "all" => None,
            "member" => Some(UserType::Member),
            "shared" => Some(UserType::Shared),
            _ => return Err(ApiError::bad_request("type is \"member\", \"shared\" or \"all\"")),
        };
        let role = match value(pairs, "role").unwrap_or("all") {
            "all" => None,
            name => Some(UserRole::parse(name).ok_or_else(|| ApiError::bad_request("role is no role of a user"))?),
        };
        Ok(Self { kind, role })
    }

    fn write(&self) -> Vec<(String, String)> {
        let kind = match self.kind {
            None => "all",
            Some(UserType::Member) => "member",
            Some(UserType::Shared) => "shared",
        };
        let role = self.role.map_or("all", UserRole::name);
        vec![("type".to_owned(), kind.to_owned()), ("role".to_owned(), role.to_owned())]
    }
}

/// A user's role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetUserRole {
    /// The role from now on.
    pub role: UserRole,
}

/// A user that is to be made, with a password of this server: an extension of the official API, which only invites.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateUser {
    /// Their name in the policy, `alice@example.com`.
    pub login_name: String,
    /// Their name for people; the login name when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// What they may do.
    #[serde(default)]
    pub role: UserRole,
    /// Their first password.
    pub password: String,
}

impl std::fmt::Debug for CreateUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateUser")
            .field("login_name", &self.login_name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// What people call a user: an extension of the official API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SetUserName {
    /// Their name for people from now on.
    pub display_name: String,
}

/// A user's new password: an extension of the official API.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetUserPassword {
    /// The password from now on; all of the user's sessions and tokens end.
    pub password: String,
}

impl std::fmt::Debug for SetUserPassword {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SetUserPassword(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_reads_back_from_its_name() {
        for (role, name) in UserRole::NAMES {
            assert_eq!(serde_json::to_value(role).unwrap(), name);
            assert_eq!(UserRole::parse(name), Some(role));
        }
    }

    #[test]
    fn members_of_every_role_are_listed_by_default() {
        assert_eq!(UserQuery::read(&[]).unwrap(), UserQuery { kind: Some(UserType::Member), role: None });
        assert!(UserQuery::read(&[("role".into(), "king".into())]).is_err());
    }
}
