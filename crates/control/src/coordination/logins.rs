use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use crypto::{MachinePublic, SystemEntropy};
use tailcfg::{RegisterRequest, RegisterResponse, UserId};
use tailnet::{Actor, Command, LoginId, LoginState, Logins, PendingLogin, Proof, Registration, Reply, TailnetId};

use super::{Coordination, Failure};

/// How long a device's request is held for a person; it asks again.
const HOLD: Duration = Duration::from_secs(10 * 60);

impl Coordination {
    /// The login of a URL, unless its time is over.
    pub(crate) fn login(&self, id: &LoginId) -> Option<PendingLogin> {
        let now = self.now();
        self.logins().get(id, now).cloned()
    }

    /// Lets the device of a login in, as this user's.
    pub(crate) async fn confirm_login(
        self: &Arc<Self>,
        id: &LoginId,
        tailnet: TailnetId,
        user: UserId,
    ) -> Result<(), Failure> {
        let Some(pending) = self.login(id) else { return Err(Failure::NoTailnet) };
        let registration =
            Registration { machine: pending.machine, request: pending.request, proof: Proof::Confirmed(user) };
        let command = Command::Register(Box::new(registration));
        match self.execute(tailnet, command, Actor::User(user)).await? {
            Reply::Registered(registered) => {
                self.end_login(id, LoginState::Joined { tailnet, node: registered.node });
                tracing::info!(node = %registered.node, %user, "a user let a device in");
            }
            _ => self.end_login(id, LoginState::Failed("the login could not be completed: start it again".to_owned())),
        }
        Ok(())
    }

    /// Keeps the device of a login out.
    pub(crate) fn refuse_login(&self, id: &LoginId, tailnet: TailnetId, user: UserId) {
        tracing::info!(%user, "a user refused a device");
        let login = self.server().tailnet(tailnet).and_then(|tailnet| Some(tailnet.user(user)?.login.to_string()));
        let who = login.unwrap_or_else(|| "somebody".to_owned());
        self.end_login(id, LoginState::Failed(format!("{who} refused this device in the browser")));
    }

    fn end_login(&self, id: &LoginId, state: LoginState) {
        self.logins().finish(id, state);
        self.login_ends.send_modify(|count| *count += 1);
    }

    /// Shows a device the URL that a person opens to let it in.
    pub(super) fn open_login(
        &self,
        machine: MachinePublic,
        request: RegisterRequest,
        source: IpAddr,
    ) -> RegisterResponse {
        let now = self.now();
        let id = self.logins().open(machine, request, Some(source), now, &mut SystemEntropy);
        // An earlier login of the machine may have been taken back: who waits for it is told.
        self.login_ends.send_modify(|count| *count += 1);
        RegisterResponse { auth_url: self.login_url(&id), ..RegisterResponse::default() }
    }

    fn login_url(&self, id: &LoginId) -> String {
        self.url.join(&format!("/a/{}", id.as_str()))
    }

    /// Holds a device's request until the login that it waits for has ended.
    ///
    /// `None` when there is no such login (any more): the device then needs another.
    pub(super) async fn await_login(&self, url: &str, machine: &MachinePublic) -> Option<Ended> {
        let id = LoginId::from_text(url.rsplit('/').next().unwrap_or_default());
        let mut ends = self.login_ends.subscribe();
        let deadline = tokio::time::sleep(HOLD);
        tokio::pin!(deadline);
        loop {
            ends.mark_unchanged();
            let now = self.now();
            match self.logins().awaited(&id, machine, now)?.state.clone() {
                LoginState::Open => {}
                LoginState::Joined { tailnet, .. } => return Some(Ended::Joined(tailnet)),
                LoginState::Failed(text) => return Some(Ended::Failed(text)),
            }
            tokio::select! {
                _ = ends.changed() => {}
                () = deadline.as_mut() => return Some(Ended::StillOpen),
                () = self.stop.cancelled() => return Some(Ended::StillOpen),
            }
        }
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a login that was waited for stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    /// The device is in, in this tailnet.
    Joined(TailnetId),
    /// It is not, and why.
    Failed(String),
    /// Nobody has decided; the device may ask again.
    StillOpen,
}
