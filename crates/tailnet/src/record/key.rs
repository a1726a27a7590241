use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tailcfg::{NodeId, UserId};

use crate::secret::{KeyId, SecretHash};
use crate::tag::Tag;

/// How long a key, credential or token is still listed after its end, so that its last user can be told what became of
/// it.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Access tokens of programs live an hour and are made all the time.
const TOKEN_KEPT: SignedDuration = SignedDuration::from_hours(24);

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

impl AuthKey {
    /// When it stops to let devices in, or did: its time, its one use, or somebody who took it away.
    pub fn end(&self) -> Timestamp {
        let spent = self.spent.filter(|_| !self.reusable).map(|spent| spent.at);
        [self.revoked, spent].into_iter().flatten().fold(self.expires, Timestamp::min)
    }

    /// Until when it is listed.
    pub(crate) fn kept_until(&self) -> Timestamp {
        after(self.end(), KEPT)
    }
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

impl ApiToken {
    /// When it stops to work, or did.
    pub fn end(&self) -> Timestamp {
        self.revoked.map_or(self.expires, |revoked| revoked.min(self.expires))
    }

    /// Until when it is listed.
    pub(crate) fn kept_until(&self) -> Timestamp {
        after(self.end(), if matches!(self.holder, TokenHolder::Client(_)) { TOKEN_KEPT } else { KEPT })
    }
}

impl OAuthClient {
    /// Until when it is listed, once it was taken away.
    pub(crate) fn kept_until(&self) -> Option<Timestamp> {
        self.revoked.map(|revoked| after(revoked, KEPT))
    }
}

fn after(end: Timestamp, kept: SignedDuration) -> Timestamp {
    end.saturating_add(kept).unwrap_or(Timestamp::MAX)
}
