use jiff::Timestamp;
use tailcfg::{CapabilityVersion, NodeId, UserId};

use crate::address::PoolExhausted;
use crate::name::{DomainError, Label, LabelError};
use crate::record::{Role, User, UserStatus};
use crate::secret::KeyId;
use crate::tag::{Tag, TagError};

/// Why a tailnet does not do what it was asked to. Nothing changed.
///
/// Each message names the thing, what is wrong with it, and what to do next; it is meant for the user.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The auth key is of another server, cut, or was never made. A guess learns nothing more.
    #[error("this auth key is not valid: check that it was copied whole, or ask an administrator for a new one")]
    UnknownAuthKey,
    /// The auth key was used, and works once.
    #[error(
        "auth key {id} was already used and works only once: make a new one, or a reusable one for several devices"
    )]
    AuthKeyUsed {
        /// The key.
        id: KeyId,
    },
    /// The auth key's time is over.
    #[error("auth key {id} expired on {at}: make a new one")]
    AuthKeyExpired {
        /// The key.
        id: KeyId,
        /// When.
        at: Timestamp,
    },
    /// The auth key was taken away.
    #[error("auth key {id} was revoked: ask an administrator for a new one")]
    AuthKeyRevoked {
        /// The key.
        id: KeyId,
    },
    /// A program's credential or a token is unknown. A guess learns nothing more.
    #[error("this credential is not valid: check that it was copied whole, or ask an administrator for a new one")]
    UnknownCredential,
    /// A program's credential or a token was taken away.
    #[error("credential {id} was revoked: ask an administrator for a new one")]
    CredentialRevoked {
        /// The credential.
        id: KeyId,
    },
    /// A token's time is over.
    #[error("token {id} expired on {at}: sign in again, or make a new one")]
    TokenExpired {
        /// The token.
        id: KeyId,
        /// When.
        at: Timestamp,
    },

    /// The node key is bound to another machine.
    #[error("this node key belongs to another machine: log this device out and in again to get a key of its own")]
    NodeKeyOfOtherMachine,
    /// No device of the machine has the node key.
    #[error("no device is registered with this node key: log in again")]
    UnknownNodeKey,
    /// The device's node key has expired.
    #[error("the key of device {name} expired on {at}: log in again")]
    NodeKeyExpired {
        /// The device.
        name: Label,
        /// When.
        at: Timestamp,
    },
    /// The request names no node key.
    #[error("the request names no node key: update the client")]
    NoNodeKey,
    /// The client is too old.
    #[error(
        "this client is too old (capability version {version}, at least {oldest} is needed): update it",
        oldest = CapabilityVersion::OLDEST_SERVED
    )]
    ClientTooOld {
        /// What it understands.
        version: CapabilityVersion,
    },
    /// The user is kept out.
    #[error("user {login} is suspended: ask an administrator to restore the account")]
    UserSuspended {
        /// The user.
        login: String,
    },
    /// The user is not yet let in.
    #[error("user {login} is not approved yet: ask an administrator to approve the account")]
    UserNotApproved {
        /// The user.
        login: String,
    },

    /// A tag may not be given.
    #[error("{who} may not give {tag}: add them to its owners in the policy's \"tagOwners\", or ask for another tag")]
    TagNotPermitted {
        /// The tag.
        tag: Tag,
        /// Who asked.
        who: String,
    },
    /// A tag is not in the policy.
    #[error("{tag} is not in the policy: add it to \"tagOwners\" first")]
    UnknownTag {
        /// The tag.
        tag: Tag,
    },
    /// A device asks for a tag that its auth key does not give.
    #[error("auth key {id} does not give {tag}: ask for no tags, or for a key with this tag")]
    TagNotOfKey {
        /// The key.
        id: KeyId,
        /// The tag.
        tag: Tag,
    },
    /// A text is no tag.
    #[error(transparent)]
    BadTag(#[from] TagError),
    /// Tags are needed and none are given.
    #[error("{what} needs tags: name at least one that is in the policy's \"tagOwners\"")]
    TagsNeeded {
        /// What needs them.
        what: &'static str,
    },
    /// Tags can't be taken from a device by somebody who can't own it.
    #[error("only a user can take the last tag from a device, because it becomes that user's: sign in as one")]
    UntagWithoutUser,

    /// Too many of something.
    #[error("{what} has {count} {things}, at most {limit} are taken: leave some out")]
    TooMany {
        /// What has them.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// Of what.
        things: &'static str,
        /// How many may be.
        limit: usize,
    },
    /// There are so many of something that no more are made.
    #[error("{who} has {limit} {things} that still work, and may have no more: revoke some, or wait until some end")]
    Full {
        /// Whose they are.
        who: String,
        /// Of what.
        things: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// A device describes itself anew again and again.
    #[error("device {name} says something new of itself too often: this is taken when it says it again in {seconds} s")]
    DescribedTooOften {
        /// The device.
        name: Label,
        /// After how many seconds it may.
        seconds: u32,
    },
    /// A route has bits set behind its prefix.
    #[error("route {given} has bits set behind its prefix: write {meant}")]
    RouteHostBits {
        /// The route.
        given: String,
        /// What it should be.
        meant: String,
    },
    /// A text is no route.
    #[error("{given:?} is not a route: write an address and a prefix length, like \"10.0.0.0/16\"")]
    BadRoute {
        /// The start of the text.
        given: String,
    },
    /// A route that no device may serve.
    #[error("route {route} can't be served: {why}; leave it out")]
    UnusableRoute {
        /// The route.
        route: String,
        /// Why.
        why: &'static str,
    },

    /// A name is no name.
    #[error(transparent)]
    BadName(#[from] LabelError),
    /// A name means something else to programs.
    #[error("{name} can't be the name of a device, because programs look it up for another meaning: choose another")]
    NameUnusable {
        /// The name.
        name: Label,
    },
    /// A name is held by a tagged device.
    #[error("the name {name} is held by a tagged device: choose another, or rename or delete that device first")]
    NameReserved {
        /// The name.
        name: Label,
    },
    /// A name is held by another device or service.
    #[error("the name {name} is taken: choose another, or rename what has it first")]
    NameTaken {
        /// The name.
        name: Label,
    },
    /// A text is no domain.
    #[error(transparent)]
    BadDomain(#[from] DomainError),
    /// A domain or tailnet name is used by another tailnet.
    #[error("{given} is used by another tailnet of this server, or overlaps with one: choose another")]
    DomainTaken {
        /// The name.
        given: String,
    },

    /// No such device.
    #[error("there is no device {0} in this tailnet")]
    NoSuchNode(NodeId),
    /// No such user.
    #[error("there is no user {0} in this tailnet")]
    NoSuchUser(UserId),
    /// No such key.
    #[error("there is no key {0} in this tailnet")]
    NoSuchKey(KeyId),
    /// No such service.
    #[error("there is no service {0} in this tailnet")]
    NoSuchService(String),

    /// There is a user of this name.
    #[error("there is already a user {login}: choose another login name")]
    UserExists {
        /// The login name.
        login: String,
    },
    /// So many tailnets have a user of this name that no other may.
    #[error(
        "the login name {login} is used in {limit} tailnets of this server already, and may be in no more: \
         choose another login name"
    )]
    LoginNameFull {
        /// The login name.
        login: String,
        /// How many may have it.
        limit: usize,
    },
    /// The tailnet would be left without an owner.
    #[error("{login} is the only owner: make another user the owner first")]
    LastOwner {
        /// The user.
        login: String,
    },
    /// The actor's role is too low for this.
    #[error("{who} may not {what}: ask {whom}")]
    NotPermitted {
        /// Who asked.
        who: String,
        /// What for.
        what: String,
        /// Whom to ask.
        whom: &'static str,
    },
    /// The credential would give a role more than it has.
    #[error("a user who is {role} can't have the scope {scope:?}: leave it out")]
    ScopeBeyondRole {
        /// The role.
        role: Role,
        /// The scope.
        scope: String,
    },
    /// The credential would give more than the one it is made from.
    #[error("credential {id} does not have the scope {scope:?}: leave it out, or make a credential that has it")]
    ScopeBeyondClient {
        /// The credential.
        id: KeyId,
        /// The scope.
        scope: String,
    },

    /// The policy does not parse, names unknown things, or fails its own tests; the old one stays.
    #[error(transparent)]
    BadPolicy(#[from] policy::PolicyError),
    /// The policy changed since it was read.
    #[error("the policy was changed by somebody else: fetch it, merge your change and try again")]
    PolicyChanged {
        /// The mark of the one in force.
        etag: String,
    },
    /// The tailnet is not the one any more that a policy was tried on.
    #[error("too much changed in the tailnet while the policy was tried; nothing was set: try again")]
    TailnetChanged,

    /// A setting is out of range.
    #[error("{what} is {given}: {want}")]
    OutOfRange {
        /// The setting.
        what: &'static str,
        /// Its value.
        given: String,
        /// What it may be.
        want: &'static str,
    },

    /// The server has no address left.
    #[error(transparent)]
    PoolExhausted(#[from] PoolExhausted),
}

/// What kind of refusal this is, for whoever turns it into a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request makes no sense.
    Invalid,
    /// Who asked is not known well enough.
    Unauthenticated,
    /// Who asked may not.
    Forbidden,
    /// There is no such thing.
    Absent,
    /// Something else stands in the way.
    Conflict,
    /// A precondition does not hold.
    Precondition,
    /// The server has nothing left.
    Exhausted,
    /// It is too soon after the last one.
    TooOften,
}

impl Refusal {
    /// Refuses users who may not be here.
    pub(crate) fn unless_active(user: &User) -> Result<(), Self> {
        let login = user.login.to_string();
        match user.status {
            UserStatus::Active => Ok(()),
            UserStatus::Suspended => Err(Self::UserSuspended { login }),
            UserStatus::NeedsApproval => Err(Self::UserNotApproved { login }),
        }
    }

    /// What kind of refusal this is.
    pub fn kind(&self) -> RefusalKind {
        match self {
            Self::UnknownAuthKey
            | Self::AuthKeyUsed { .. }
            | Self::AuthKeyExpired { .. }
            | Self::AuthKeyRevoked { .. }
            | Self::UnknownCredential
            | Self::CredentialRevoked { .. }
            | Self::TokenExpired { .. }
            | Self::NodeKeyOfOtherMachine
            | Self::UnknownNodeKey
            | Self::NodeKeyExpired { .. } => RefusalKind::Unauthenticated,
            Self::UserSuspended { .. }
            | Self::UserNotApproved { .. }
            | Self::TagNotPermitted { .. }
            | Self::TagNotOfKey { .. }
            | Self::NotPermitted { .. }
            | Self::ScopeBeyondRole { .. }
            | Self::ScopeBeyondClient { .. } => RefusalKind::Forbidden,
            Self::NoSuchNode(_) | Self::NoSuchUser(_) | Self::NoSuchKey(_) | Self::NoSuchService(_) => {
                RefusalKind::Absent
            }
            Self::NameReserved { .. }
            | Self::NameTaken { .. }
            | Self::DomainTaken { .. }
            | Self::UserExists { .. }
            | Self::LoginNameFull { .. }
            | Self::LastOwner { .. }
            | Self::Full { .. }
            | Self::TailnetChanged => RefusalKind::Conflict,
            Self::PolicyChanged { .. } => RefusalKind::Precondition,
            Self::PoolExhausted(_) => RefusalKind::Exhausted,
            Self::DescribedTooOften { .. } => RefusalKind::TooOften,
            Self::NoNodeKey
            | Self::ClientTooOld { .. }
            | Self::UnknownTag { .. }
            | Self::BadTag(_)
            | Self::TagsNeeded { .. }
            | Self::UntagWithoutUser
            | Self::TooMany { .. }
            | Self::RouteHostBits { .. }
            | Self::BadRoute { .. }
            | Self::UnusableRoute { .. }
            | Self::BadName(_)
            | Self::NameUnusable { .. }
            | Self::BadDomain(_)
            | Self::BadPolicy(_)
            | Self::OutOfRange { .. } => RefusalKind::Invalid,
        }
    }
}
