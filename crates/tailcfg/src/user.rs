use serde::{Deserialize, Serialize};

use crate::go::{self, Time};
use crate::id::UserId;

/// The user that a registration ended with.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct User {
    /// The user's number.
    #[serde(rename = "ID")]
    pub id: UserId,
    /// The name for people.
    pub display_name: String,
    /// A picture, or empty.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "String::is_empty")]
    pub profile_pic_url: String,
    /// When the account was made.
    pub created: Time,
}

/// The account that a user logged in with.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Login {
    /// The login's number; the server uses the user's.
    #[serde(rename = "ID")]
    pub id: UserId,
    /// Who vouches for the login.
    pub provider: String,
    /// The name that policy knows, `alice@example.com`.
    pub login_name: String,
    /// The name for people.
    pub display_name: String,
    /// A picture, or empty.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "String::is_empty")]
    pub profile_pic_url: String,
}

/// What a map says of a user whose nodes it names.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UserProfile {
    /// The user's number.
    #[serde(rename = "ID")]
    pub id: UserId,
    /// `alice@example.com`; `tagged-devices` for the owner of tagged peers; a tagged node's own name in its own map.
    pub login_name: String,
    /// The name for people.
    pub display_name: String,
    /// A picture, or empty.
    #[serde(rename = "ProfilePicURL", skip_serializing_if = "String::is_empty")]
    pub profile_pic_url: String,
    /// The groups that policy puts the user in, where the server tells them.
    #[serde(deserialize_with = "go::nullable", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}
