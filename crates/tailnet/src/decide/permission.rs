use tailcfg::{NodeId, UserId};

use super::key::covers;
use super::name_of;
use crate::command::{Actor, Command, Proof};
use crate::record::{Owner, SettingsPatch, TokenHolder};
use crate::refusal::Refusal;
use crate::secret::KeyId;
use crate::tailnet::Tailnet;

/// Refuses commands that are not the actor's to give.
///
/// A device speaks for itself alone. A person may do what their role gives a scope for, and some things with what is
/// theirs. What a program may do, its token's scopes say, which the driver checked.
pub(super) fn check(tailnet: &Tailnet, command: &Command, actor: &Actor) -> Result<(), Refusal> {
    let allowed = match (actor, command) {
        (Actor::Server, _) => true,
        (Actor::Machine(machine), Command::Register(registration)) => {
            *machine == registration.machine && !matches!(registration.proof, Proof::Confirmed(_))
        }
        (Actor::Machine(machine), Command::UpdateHost(update)) => {
            tailnet.node(update.node).is_some_and(|node| node.machine_key == *machine)
        }
        (Actor::Machine(_), _) => false,
        (Actor::User(id), Command::Register(registration)) => registration.proof == Proof::Confirmed(*id),
        (_, Command::Register(_) | Command::UpdateHost(_) | Command::Sweep) => false,
        (Actor::User(id), command) => by_role(tailnet, *id, scopes(tailnet, command)) || own(tailnet, *id, command),
        (Actor::Client { id, .. }, Command::CreateApiToken(token)) => token.holder == TokenHolder::Client(id.clone()),
        (Actor::Client { .. }, Command::SetPassword(..) | Command::SetNames { .. }) => false,
        (Actor::Client { .. }, _) => true,
    };
    allowed.then_some(()).ok_or_else(|| Refusal::NotPermitted {
        who: name_of(tailnet, actor),
        what: deed(command).to_owned(),
        whom: "an administrator",
    })
}

fn by_role(tailnet: &Tailnet, id: UserId, scopes: Option<&[&str]>) -> bool {
    let held = tailnet.user(id).map(|user| user.role.scopes()).unwrap_or_default();
    scopes.is_some_and(|scopes| scopes.iter().all(|scope| covers(held.iter().copied(), scope)))
}

/// The scopes of the REST API that a command needs, all of them.
fn scopes(tailnet: &Tailnet, command: &Command) -> Option<&'static [&'static str]> {
    Some(match command {
        Command::Register(_) | Command::UpdateHost(_) | Command::Sweep => return None,
        Command::DeleteNode(_)
        | Command::ExpireNode(_)
        | Command::RenameNode(..)
        | Command::SetNodeTags(..)
        | Command::SetKeyExpiry(..)
        | Command::SetAuthorized(..) => &["devices:core"],
        Command::SetRoutes(..) => &["devices:routes"],
        Command::CreateUser(_)
        | Command::SetRole(..)
        | Command::SetPassword(..)
        | Command::SetDisplayName(..)
        | Command::ApproveUser(_)
        | Command::SuspendUser(_)
        | Command::RestoreUser(_)
        | Command::DeleteUser(_) => &["users"],
        Command::CreateAuthKey(_) => &["auth_keys"],
        Command::CreateOAuthClient(_) => &["oauth_keys"],
        // A person makes tokens for nobody else, whatever the role.
        Command::CreateApiToken(_) => return None,
        Command::Revoke(id) => scope_of_key(tailnet, id),
        Command::SetPolicy(_) => &["policy_file"],
        Command::UpdateDns(_) => &["dns"],
        Command::UpdateSettings(patch) => scopes_of_settings(patch),
        // Names of devices, certificates and who may sign in where hang on it.
        Command::SetNames { .. } => &["all"],
        Command::PutService(_) | Command::DeleteService(_) => &["services"],
    })
}

fn scopes_of_settings(patch: &SettingsPatch) -> &'static [&'static str] {
    let features = SettingsPatch { policy_link: None, ..patch.clone() } != SettingsPatch::default();
    match (patch.policy_link.is_some(), features) {
        (false, false) => &[],
        (true, false) => &["policy_file"],
        (false, true) => &["feature_settings"],
        (true, true) => &["policy_file", "feature_settings"],
    }
}

fn scope_of_key(tailnet: &Tailnet, id: &KeyId) -> &'static [&'static str] {
    if tailnet.auth_key(id).is_some() {
        &["auth_keys"]
    } else if tailnet.oauth_client(id).is_some() {
        &["oauth_keys"]
    } else {
        &["api_access_tokens"]
    }
}

/// Whether a command is about what is the user's own, and leaves it with them.
fn own(tailnet: &Tailnet, id: UserId, command: &Command) -> bool {
    let device = |node: &NodeId| tailnet.node(*node).is_some_and(|node| node.owner == Owner::User(id));
    match command {
        Command::DeleteNode(node) | Command::ExpireNode(node) | Command::RenameNode(node, _) => device(node),
        // Which tags may be given, their owners in the policy say.
        Command::SetNodeTags(node, tags) => device(node) && !tags.is_empty(),
        Command::SetPassword(user, _) | Command::SetDisplayName(user, _) => *user == id,
        Command::CreateApiToken(token) => token.holder == TokenHolder::User(id),
        Command::Revoke(key) => {
            let holder = TokenHolder::User(id);
            tailnet.api_token(key).is_some_and(|token| token.holder == holder)
                || tailnet.auth_key(key).is_some_and(|key| key.maker == holder)
        }
        _ => false,
    }
}

/// What a command does, for messages.
fn deed(command: &Command) -> &'static str {
    match command {
        Command::Register(_) => "let this device in",
        Command::UpdateHost(_) => "speak for that device",
        Command::Sweep => "clean up",
        Command::DeleteNode(_) => "delete that device",
        Command::ExpireNode(_) | Command::SetKeyExpiry(..) => "change when that device's key expires",
        Command::RenameNode(..) => "rename that device",
        Command::SetNodeTags(..) => "tag that device",
        Command::SetAuthorized(..) => "let devices in",
        Command::SetRoutes(..) => "approve routes",
        Command::CreateUser(_) => "make users",
        Command::SetRole(..) => "change roles",
        Command::SetPassword(..) => "set that password",
        Command::SetDisplayName(..) => "rename that user",
        Command::ApproveUser(_) | Command::SuspendUser(_) | Command::RestoreUser(_) => "let users in or keep them out",
        Command::DeleteUser(_) => "delete users",
        Command::CreateAuthKey(_) => "make auth keys",
        Command::CreateOAuthClient(_) => "make OAuth clients",
        Command::CreateApiToken(_) => "make that token",
        Command::Revoke(_) => "revoke that key",
        Command::SetPolicy(_) => "set the policy",
        Command::UpdateDns(_) => "change the DNS settings",
        Command::UpdateSettings(_) => "change the settings",
        Command::SetNames { .. } => "rename the tailnet",
        Command::PutService(_) | Command::DeleteService(_) => "change services",
    }
}
