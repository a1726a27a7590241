use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tailcfg::{NodeId, UserId};

use crate::secret::{KeyId, SecretHash};
use crate::tag::Tag;

/// A key that devices join with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthKey {
    /// Its id.
    pub id: KeyId,
    /// The hash of its text.
    pub hash: SecretHash,
    /// What it is for, in its maker's words.
    pub description: String,
    /// Who made it; devices that join with an untagged key are this user's.
    pub maker: TokenHolder,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops to work.
    pub expires: Timestamp,
    /// Whether it works more than once.
    pub reusable: bool,
    /// Whether devices that join with it are deleted once they are gone for a while.
    pub ephemeral: bool,
    /// Whether devices that join with it need no approval.
    pub preauthorized: bool,
    /// The tags of devices that join with it; none for its maker's own devices.
    pub tags: BTreeSet<Tag>,
    /// The first time that it was used.
    pub spent: Option<KeySpent>,
    /// When it was taken away.
    pub revoked: Option<Timestamp>,
}

/// The use of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySpent {
    /// When.
    pub at: Timestamp,
    /// The device that joined.
    pub node: NodeId,
}

/// Who holds a key or token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenHolder {
    /// A person.
    User(UserId),
    /// A program, by its OAuth client.
    Client(KeyId),
}

/// A program that gets access tokens with a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OAuthClient {
    /// Its id.
    pub id: KeyId,
    /// The hash of its secret.
    pub hash: SecretHash,
    /// What it is for, in its maker's words.
    pub description: String,
    /// Who made it.
    pub maker: Option<UserId>,
    /// When it was made.
    pub created: Timestamp,
    /// What its tokens may do, as names of scopes.
    pub scopes: BTreeSet<String>,
    /// The tags that devices it makes may have, and those that these own.
    pub tags: BTreeSet<Tag>,
    /// When it was taken away.
    pub revoked: Option<Timestamp>,
}

/// A token that a request to the REST API carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Its id.
    pub id: KeyId,
    /// The hash of its text.
    pub hash: SecretHash,
    /// What it is for, in its maker's words.
    pub description: String,
    /// Who acts when it is used.
    pub holder: TokenHolder,
    /// When it was made.
    pub created: Timestamp,
    /// When it stops to work.
    pub expires: Timestamp,
    /// What it may do, as names of scopes.
    pub scopes: BTreeSet<String>,
    /// The tags that a program's devices made with it may have, and those that these own.
    pub tags: BTreeSet<Tag>,
    /// When it was taken away.
    pub revoked: Option<Timestamp>,
}
