//! What a tailnet can be asked to do, by whom, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use crypto::{Entropy, MachinePublic, NodePublic};
use jiff::{SignedDuration, Timestamp};
use tailcfg::{CapabilityVersion, Hostinfo, NodeId, RegisterRequest, UserId};

use crate::change::Change;
use crate::name::Domain;
use crate::record::{DnsPatch, LoginName, PasswordHash, Role, ServiceName, SettingsPatch, TailnetId, TokenHolder};
use crate::registry::Registry;
use crate::rules::Rules;
use crate::secret::{KeyId, SecretText};
use crate::tag::Tag;
use crate::trial::TriedPolicy;

/// What a decision may draw on besides the tailnet's own state.
pub struct Context<'a> {
    /// Who asks; the driver has proven it.
    pub actor: Actor,
    /// The wall clock.
    pub now: Timestamp,
    /// What all tailnets of the server share. A decision takes numbers and addresses out of it.
    pub registry: &'a mut Registry,
    /// Randomness for ids and secrets.
    pub entropy: &'a mut dyn Entropy,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The server itself: its timers, and whoever holds its files.
    Server,
    /// A device, proven by its machine key.
    Machine(MachinePublic),
    /// A person, signed in or by a token. That the token's scopes allow the command was checked by the driver.
    User(UserId),
    /// A program, by an access token of its OAuth client. That its scopes allow the command was checked by the driver.
    Client {
        /// The client.
        id: KeyId,
        /// The tags that its devices may have, and those that these own.
        tags: BTreeSet<Tag>,
    },
}

/// What a tailnet can be asked to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// A device wants to join, to renew its key, or to leave.
    Register(Box<Registration>),
    /// A device says something new of itself (in a map request).
    UpdateHost(Box<HostUpdate>),
    /// Time has passed: deletes gone ephemeral devices and what was kept of keys long dead.
    Sweep,

    /// Deletes a device.
    DeleteNode(NodeId),
    /// Ends a device's key now, so that its user must log in again.
    ExpireNode(NodeId),
    /// Names a device; an empty name follows the machine's again.
    RenameNode(NodeId, String),
    /// Gives a device other tags; none makes it the actor's own.
    SetNodeTags(NodeId, Vec<String>),
    /// Says whether a device's key expires.
    SetKeyExpiry(NodeId, KeyExpiry),
    /// Lets a device in, or keeps it out.
    SetAuthorized(NodeId, bool),
    /// Says which routes a device may serve; all others of it may not be served any more.
    SetRoutes(NodeId, Vec<String>),

    /// Makes a user.
    CreateUser(NewUser),
    /// Says what a user may do.
    SetRole(UserId, Role),
    /// Gives a user a new password, by its hash.
    SetPassword(UserId, PasswordHash),
    /// Says what people call a user.
    SetDisplayName(UserId, String),
    /// Lets a user in that waits for it.
    ApproveUser(UserId),
    /// Keeps a user out, with all devices.
    SuspendUser(UserId),
    /// Lets a suspended user in again.
    RestoreUser(UserId),
    /// Deletes a user with their devices, auth keys and tokens.
    DeleteUser(UserId),

    /// Makes a key that devices join with.
    CreateAuthKey(NewAuthKey),
    /// Makes a credential for a program.
    CreateOAuthClient(NewOAuthClient),
    /// Makes a token for the REST API.
    CreateApiToken(NewApiToken),
    /// Takes away a key, a program's credential with all its tokens and auth keys, or a token.
    Revoke(KeyId),

    /// Puts a policy in force, which was tried beforehand so that nobody waits while it is.
    SetPolicy(Box<NewPolicy>),
    /// Changes how devices resolve names.
    UpdateDns(DnsPatch),
    /// Changes some settings.
    UpdateSettings(SettingsPatch),
    /// Gives the tailnet another name or domain; what is absent stays.
    SetNames {
        /// What people call it.
        name: Option<String>,
        /// Where the names of its devices live.
        domain: Option<Domain>,
    },
    /// Makes or changes a virtual service. Nobody is offered it yet: devices can't host services, so the REST API answers
    /// 501, and only policies are tried against services.
    PutService(NewService),
    /// Deletes a virtual service; see [`Command::PutService`].
    DeleteService(ServiceName),
}

/// A device wants to join, to renew its key, or to leave.
#[derive(Debug, Clone, PartialEq)]
pub struct Registration {
    /// The machine, proven by its channel.
    pub machine: MachinePublic,
    /// What it asks for.
    pub request: RegisterRequest,
    /// What proves that it may.
    pub proof: Proof,
}

/// What proves that a device may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing: it may only go on with what it has.
    None,
    /// An auth key.
    AuthKey(SecretText),
    /// A user who signed in and confirmed this very device.
    Confirmed(UserId),
}

/// A device says something new of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct HostUpdate {
    /// The device; the driver found it by machine key and node key together.
    pub node: NodeId,
    /// What it says.
    pub hostinfo: Hostinfo,
    /// What its client understands.
    pub version: CapabilityVersion,
}

/// Whether a device's key expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyExpiry {
    /// After the time that the settings say, counted from now.
    Enabled,
    /// Never.
    Disabled,
}

/// A user to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// The login name.
    pub login: LoginName,
    /// What people call the user; empty takes the login name's first part.
    pub display_name: String,
    /// What the user may do.
    pub role: Role,
    /// The hash of the first password.
    pub password: Option<PasswordHash>,
}

/// An auth key to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAuthKey {
    /// Whether it works more than once.
    pub reusable: bool,
    /// Whether devices that join with it are deleted once they are gone for a while.
    pub ephemeral: bool,
    /// Whether devices that join with it need no approval.
    pub preauthorized: bool,
    /// The tags of devices that join with it.
    pub tags: Vec<String>,
    /// How long it works; `None` for as long as possible.
    pub lifetime: Option<SignedDuration>,
    /// What it is for.
    pub description: String,
}

/// A credential for a program to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOAuthClient {
    /// What its tokens may do, as names of scopes that the maker may give.
    pub scopes: BTreeSet<String>,
    /// The tags that its devices may have, and those that these own.
    pub tags: Vec<String>,
    /// What it is for.
    pub description: String,
}

/// A token for the REST API to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiToken {
    /// Who acts when it is used.
    pub holder: TokenHolder,
    /// What it may do, as names of scopes that the holder may have.
    pub scopes: BTreeSet<String>,
    /// Only these of the holder's tags; empty for all.
    pub tags: Vec<String>,
    /// How long it works; `None` for as long as possible.
    pub lifetime: Option<SignedDuration>,
    /// What it is for.
    pub description: String,
}

/// A policy to be put in force.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPolicy {
    /// The policy, see [`Tailnet::policy_trial`](crate::Tailnet::policy_trial). Whether it cuts its author off was for
    /// whoever had it tried to ask.
    pub tried: TriedPolicy,
    /// What must be in force now.
    pub precondition: Option<PolicyPrecondition>,
    /// Who it is, for the record.
    pub who: String,
    /// Why, for the record.
    pub why: String,
}

/// What must be in force for a policy to replace it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPrecondition {
    /// A policy with this mark.
    Etag(String),
    /// The policy that the tailnet started with.
    NeverSet,
}

/// A virtual service to be made or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewService {
    /// Its name.
    pub name: ServiceName,
    /// What it is for.
    pub comment: String,
    /// What programs note about it.
    pub annotations: BTreeMap<String, String>,
    /// Ports as `tcp:443`, or `do-not-validate`.
    pub ports: Vec<String>,
    /// Its tags.
    pub tags: Vec<String>,
}

/// What a tailnet answers to a command, and what must be written down before anybody hears the answer.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Decision {
    /// The tailnet that decided.
    pub tailnet: TailnetId,
    /// The revision that it looked at. What is written must follow this one and no other: give it the number after this
    /// one and let the database refuse a second of that number.
    pub base: u64,
    /// What to write, in order; nothing to write when empty.
    pub changes: Vec<Change>,
    /// Whether somebody did something, which is to be on record. A device that only says something new of itself did not,
    /// and could fill every record with it.
    pub is_act: bool,
    /// The answer.
    pub reply: Reply,
    /// The policy that is among the changes, compiled; once they are taken, the one before.
    pub(crate) rules: Option<Rules>,
    /// Addresses taken out of the pool, to be given back if the decision is not written.
    pub(crate) reserved: Vec<std::net::Ipv4Addr>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// It is done.
    Done,
    /// A device is in.
    Registered(Registered),
    /// A device must be let in by a person: open a login and send its URL.
    LoginNeeded,
    /// A device's node key counts no more: it must make a new one and ask again.
    KeyExpired,
    /// A device left.
    LoggedOut,
    /// A user was made.
    User(UserId),
    /// A key, credential or token was made: this is the only time that its text is known.
    Secret {
        /// Its id.
        id: KeyId,
        /// Its text.
        text: SecretText,
        /// When it stops to work; `None` is never.
        expires: Option<Timestamp>,
    },
    /// A policy is in force; its mark.
    Policy {
        /// The mark.
        etag: String,
        /// What is odd about it.
        warnings: Vec<String>,
    },
}

/// A device is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Which one.
    pub node: NodeId,
    /// Its node key.
    pub node_key: NodePublic,
    /// Whether an administrator has let it in, where that is asked for.
    pub authorized: bool,
    /// Its user as the answer names it.
    pub user: tailcfg::User,
    /// The account behind it.
    pub login: tailcfg::Login,
}

impl Registered {
    /// The answer on the wire.
    pub fn response(&self) -> tailcfg::RegisterResponse {
        tailcfg::RegisterResponse {
            user: self.user.clone(),
            login: self.login.clone(),
            machine_authorized: self.authorized,
            ..tailcfg::RegisterResponse::default()
        }
    }
}
