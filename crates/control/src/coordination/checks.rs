//! Logins by SSH that their user has to confirm: what the SSH server of a device asks, held until that was done.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crypto::{MachinePublic, SystemEntropy};
use http::StatusCode;
use jiff::SignedDuration;
use tailcfg::{NodeId, SshAction, UserId};
use tailnet::{CheckId, Checks, PendingCheck, SshPath, SshVerdict, TailnetId};

use super::Coordination;
use crate::machine::{Refusal, SshLogin};

/// How long a device's request is held for a person; it asks again.
const HOLD: Duration = Duration::from_secs(5 * 60);

/// The longest account name that is asked about; Linux takes 32 bytes.
const ACCOUNT_LIMIT: usize = 256;

impl Coordination {
    /// Tells a device's SSH server what to do about a login.
    pub(super) async fn check_ssh(&self, machine: &MachinePublic, login: &SshLogin) -> Result<SshAction, Refusal> {
        if login.account.len() > ACCOUNT_LIMIT {
            return Err(Refusal::malformed("the account's name is too long"));
        }
        let tailnet = self.tailnet_of_destination(machine, login.destination).ok_or_else(|| {
            Refusal::new(
                StatusCode::FORBIDDEN,
                "a device asks about logins to itself, while it takes part in its tailnet",
            )
        })?;
        self.checks_asked.take(&login.destination, Instant::now()).map_err(|wait| Refusal {
            retry_after: Some(wait),
            ..Refusal::new(StatusCode::TOO_MANY_REQUESTS, "this device asks about logins too often")
        })?;
        let deadline = tokio::time::sleep(HOLD);
        tokio::pin!(deadline);
        let mut ends = self.check_ends.subscribe();
        loop {
            ends.mark_unchanged();
            // Looked at anew whenever something was confirmed: in between the policy may have become another.
            if let Some(action) = self.decide_ssh(tailnet, login) {
                return Ok(action);
            }
            tokio::select! {
                _ = ends.changed() => {}
                () = deadline.as_mut() => return Ok(ask_again(login, String::new())),
                () = self.stop.cancelled() => return Ok(ask_again(login, String::new())),
            }
        }
    }

    /// The tailnet of a device that this machine registered, if the device takes part.
    fn tailnet_of_destination(&self, machine: &MachinePublic, destination: NodeId) -> Option<TailnetId> {
        let server = self.server();
        let mut tailnets = server.tailnets();
        let own = |tailnet: &&tailnet::Tailnet| {
            tailnet.node(destination).is_some_and(|node| node.machine_key == *machine)
                && tailnet.is_admitted(destination)
        };
        tailnets.find(own).map(tailnet::Tailnet::id)
    }

    /// What is to be done about a login now; `None` while its user has to be waited for.
    fn decide_ssh(&self, tailnet: TailnetId, login: &SshLogin) -> Option<SshAction> {
        let verdict = {
            let server = self.server();
            server.tailnet(tailnet)?.ssh_verdict(login.source, login.destination, &login.account)
        };
        let (user, period, then) = match verdict {
            SshVerdict::Accept(action) => return Some(action),
            SshVerdict::Refuse(text) => return Some(reject(text)),
            SshVerdict::Check { user, period, then } => (user, period, then),
        };
        let now = self.now();
        let path = SshPath { tailnet, user, source: login.source, destination: login.destination };
        let mut checks = self.checks();
        let period = SignedDuration::try_from(period).unwrap_or(SignedDuration::ZERO);
        let asked = login.check.as_deref().map(CheckId::from_text);
        let confirmed = asked.as_ref().is_some_and(|id| checks.take_confirmed(id, &path, &login.account));
        if confirmed || checks.is_confirmed(&path, &login.account, period, now) {
            tracing::debug!(source = %path.source, destination = %path.destination, "a login by SSH is confirmed");
            return Some(then);
        }
        let Some(id) = asked else {
            let id = checks.open(path, &login.account, now, &mut SystemEntropy);
            let text = format!(
                "This login has to be confirmed by its user. Open this address and sign in:\r\n\r\n\t{}\r\n\r\n",
                self.url.join(&format!("/ssh/{}", id.as_str()))
            );
            return Some(ask_again(&SshLogin { check: Some(id.as_str().to_owned()), ..login.clone() }, text));
        };
        match checks.get(&id, now) {
            Some(_) => None,
            None => Some(reject("This login was not confirmed in time. Start it again.")),
        }
    }

    /// The login of a check's URL, unless its time is over or it was confirmed.
    pub(crate) fn pending_check(&self, id: &CheckId) -> Option<PendingCheck> {
        let now = self.now();
        self.checks().get(id, now).filter(|check| !check.confirmed).cloned()
    }

    /// A user has signed in to confirm a login; false where it is not theirs to confirm, or its time is over.
    pub(crate) fn confirm_check(&self, id: &CheckId, tailnet: TailnetId, user: UserId) -> bool {
        let now = self.now();
        let confirmed = self.checks().confirm(id, tailnet, user, now);
        if confirmed {
            tracing::info!(%user, "a user confirmed a login by SSH");
            self.check_ends.send_modify(|count| *count += 1);
        }
        confirmed
    }

    /// The full names of a login's two devices.
    pub(crate) fn names_of_check(&self, path: &SshPath) -> Option<(String, String)> {
        let server = self.server();
        let tailnet = server.tailnet(path.tailnet)?;
        let name = |id| tailnet.node(id).map(|node| tailnet.full_name(node));
        Some((name(path.source)?, name(path.destination)?))
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has the device ask about the same login again, which is held then; the user reads the text meanwhile.
fn ask_again(login: &SshLogin, message: String) -> SshAction {
    let SshLogin { source, destination, check, .. } = login;
    let check = check.as_deref().map(|id| format!("&check={id}")).unwrap_or_default();
    let hold_and_delegate = format!(
        "https://unused/machine/ssh/action/{source}/to/{destination}?ssh_user=$SSH_USER&local_user=$LOCAL_USER{check}"
    );
    SshAction { message, hold_and_delegate, ..SshAction::default() }
}

fn reject(text: &str) -> SshAction {
    SshAction { reject: true, message: format!("{text}\r\n"), ..SshAction::default() }
}
