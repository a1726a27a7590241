use std::time::Duration;

use policy::{SshAction as PolicyAction, SshGrant};
use tailcfg::{NodeId, SshAction, SshPolicy, SshPrincipal, SshRecorderFailureAction, SshRule, UserId};

use super::{Map, Viewer};
use crate::device::Device;
use crate::tailnet::Tailnet;

/// The port on which recorders take sessions.
const RECORDER_PORT: u16 = 80;

/// Where a device's SSH server asks about a login that needs a check, within its channel to this server: the host is not
/// looked at. It fills in the names with a dollar sign.
const DELEGATE: &str = "https://unused/machine/ssh/action/$SRC_NODE_ID/to/$DST_NODE_ID\
                        ?ssh_user=$SSH_USER&local_user=$LOCAL_USER";

/// What a device's SSH server is to do about a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SshVerdict {
    /// This, now.
    Accept(SshAction),
    /// This, once its user has confirmed such a login within a time before now; zero asks every time.
    Check {
        /// The user, who alone can confirm it.
        user: UserId,
        /// How long a confirmation counts.
        period: Duration,
        /// What happens then.
        then: SshAction,
    },
    /// Nothing; the text is for the user.
    Refuse(&'static str),
}

impl Tailnet {
    pub(super) fn update_ssh(&self, viewer: &mut Viewer, device: &Device, map: &mut Map) {
        let grants = if device.admitted { self.rules.ssh(device.node.id) } else { Vec::new() };
        let policy = SshPolicy { rules: grants.into_iter().map(rule).collect() };
        let hash = hash(&policy);
        if viewer.ssh == Some(hash) || (viewer.ssh.is_none() && policy.rules.is_empty()) {
            return;
        }
        viewer.ssh = Some(hash);
        map.ssh_policy = Some(policy);
    }

    /// What the SSH server of a device is to do about a login from another to an account: what its rules say, first match
    /// first.
    pub fn ssh_verdict(&self, source: NodeId, destination: NodeId, account: &str) -> SshVerdict {
        let (from, to) = (self.device(source), self.device(destination));
        let (Some(from), Some(_)) = (from.filter(|from| from.admitted), to.filter(|to| to.admitted)) else {
            return SshVerdict::Refuse("One of the two devices takes no part in the tailnet.");
        };
        let addresses = from.node.addresses.both();
        let matching = self.rules.ssh(destination).into_iter().find(|grant| {
            let named = grant.principals.iter().any(|principal| addresses.contains(principal));
            named && grant.account(account).is_some()
        });
        let Some(grant) = matching else {
            return SshVerdict::Refuse("The policy doesn't let this login in.");
        };
        match (grant.action, from.node.owner.user()) {
            (PolicyAction::Accept, _) => SshVerdict::Accept(accept(&grant)),
            (PolicyAction::Check(period), Some(user)) => SshVerdict::Check { user, period, then: accept(&grant) },
            (PolicyAction::Check(_), None) => {
                SshVerdict::Refuse("This login has to be confirmed by a user, and a tagged device has none.")
            }
        }
    }
}

/// A hash of what a device is told of logins, taken a rule at a time: all of it as one text may be long.
fn hash(policy: &SshPolicy) -> [u8; 32] {
    let texts = policy.rules.iter().map(|rule| serde_json::to_vec(rule).unwrap_or_default());
    let hashes: Vec<u8> = texts.flat_map(|text| crypto::sha256(&text)).collect();
    crypto::sha256(&hashes)
}

fn rule(grant: SshGrant) -> SshRule {
    let action = match grant.action {
        PolicyAction::Accept => accept(&grant),
        PolicyAction::Check(_) => SshAction { hold_and_delegate: DELEGATE.to_owned(), ..SshAction::default() },
    };
    let principal = |address| SshPrincipal { node_ip: Some(address), ..SshPrincipal::default() };
    SshRule {
        rule_expires: None,
        action: Some(action),
        principals: grant.principals.iter().copied().map(principal).collect(),
        ssh_users: grant.users,
        accept_env: grant.accept_env,
    }
}

/// Lets a login in, as its rule says.
fn accept(grant: &SshGrant) -> SshAction {
    let recorders =
        grant.recorders.iter().map(|address| std::net::SocketAddr::new(*address, RECORDER_PORT).to_string());
    let refusal = || SshRecorderFailureAction {
        reject_session_with_message: "This session must be recorded, and no recorder takes it.".to_owned(),
        terminate_session_with_message: "The recording of this session failed, so it ends.".to_owned(),
        notify_url: String::new(),
    };
    SshAction {
        accept: true,
        allow_agent_forwarding: true,
        allow_local_port_forwarding: true,
        allow_remote_port_forwarding: true,
        recorders: recorders.collect(),
        on_recording_failure: grant.enforce_recorder.then(refusal),
        ..SshAction::default()
    }
}
