use policy::{SshAction as PolicyAction, SshGrant};
use tailcfg::{SshAction, SshPolicy, SshPrincipal, SshRecorderFailureAction, SshRule};

use super::{Map, Viewer};
use crate::device::Device;
use crate::tailnet::Tailnet;

/// The port on which recorders take sessions.
const RECORDER_PORT: u16 = 80;

/// What a user reads whose login would need a check.
const NO_CHECK: &str = "This login has to be confirmed by its user, which this server cannot ask for yet.\r\n";

impl Tailnet {
    pub(super) fn update_ssh(&self, viewer: &mut Viewer, device: &Device, map: &mut Map) {
        let grants = if device.admitted { self.rules.ssh(device.node.id) } else { Vec::new() };
        let policy = SshPolicy { rules: grants.into_iter().map(rule).collect() };
        let known = viewer.ssh.as_ref();
        if known == Some(&policy) || (known.is_none() && policy.rules.is_empty()) {
            return;
        }
        viewer.ssh = Some(policy.clone());
        map.ssh_policy = Some(policy);
    }
}

fn rule(grant: SshGrant) -> SshRule {
    let principal = |address| SshPrincipal { node_ip: Some(address), ..SshPrincipal::default() };
    SshRule {
        rule_expires: None,
        action: Some(action(&grant)),
        principals: grant.principals.into_iter().map(principal).collect(),
        ssh_users: grant.users,
        accept_env: grant.accept_env,
    }
}

/// A login that needs a check is refused with a message: the rule stands before those that accept, and what it asks for
/// can't be left out.
fn action(grant: &SshGrant) -> SshAction {
    if grant.action != PolicyAction::Accept {
        return SshAction { message: NO_CHECK.to_owned(), reject: true, ..SshAction::default() };
    }
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
