use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use crypto::{MachinePublic, SystemEntropy};
use listen::{network, site};
use tailcfg::{RegisterResponse, UserId};
use tailnet::{
    Actor, Awaited, Command, LoginId, LoginRequest, LoginSource, LoginState, Logins, PendingLogin, Proof, Registration,
    Reply, TailnetId, Waiter,
};

use super::{Coordination, Failure};
use crate::machine::Caller;

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
        let registration = Registration {
            machine: pending.machine,
            request: pending.request.registration(),
            proof: Proof::Confirmed(user),
        };
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
    pub(super) fn open_login(&self, caller: Caller, request: LoginRequest) -> RegisterResponse {
        let now = self.now();
        let address = caller.source.ip().to_canonical();
        let source = LoginSource { address, site: site(address), network: network(address) };
        let id = self.logins().open(caller.machine, request, source, now, &mut SystemEntropy);
        // An earlier login of the machine may have been taken back: who waits for it is told.
        self.login_ends.send_modify(|count| *count += 1);
        self.ask_for_login(&id)
    }

    /// Shows a device the URL of a login.
    pub(super) fn ask_for_login(&self, id: &LoginId) -> RegisterResponse {
        let auth_url = self.url.join(&format!("/a/{}", id.as_str()));
        RegisterResponse { auth_url, ..RegisterResponse::default() }
    }

    /// Has a device's request wait for the login whose URL it names, in place of one that waits already; none where there is
    /// no such login of this machine.
    pub(super) fn wait_for_login(&self, url: &str, machine: &MachinePublic) -> Option<Waiter> {
        let id = LoginId::from_text(url.rsplit('/').next().unwrap_or_default());
        let now = self.now();
        let waiter = self.logins().wait(&id, machine, now)?;
        // The request that waited before goes on.
        self.login_ends.send_modify(|count| *count += 1);
        Some(waiter)
    }

    /// How the login of a request that waits stands now.
    pub(super) fn awaited(&self, waiter: &Waiter) -> Awaited {
        let now = self.now();
        self.logins().awaited(waiter, now)
    }

    /// Holds a device's request until the login that it waits for has ended, or it has been held for long enough: it asks
    /// again.
    pub(super) async fn await_login(&self, waiter: &Waiter) -> Awaited {
        let mut ends = self.login_ends.subscribe();
        let deadline = tokio::time::sleep(HOLD);
        tokio::pin!(deadline);
        loop {
            ends.mark_unchanged();
            let awaited = self.awaited(waiter);
            if awaited != Awaited::Login(LoginState::Open) {
                return awaited;
            }
            tokio::select! {
                _ = ends.changed() => {}
                () = deadline.as_mut() => return awaited,
                () = self.stop.cancelled() => return awaited,
            }
        }
    }

    /// Whether a machine waits for somebody to let it in.
    pub(super) fn waits_for_login(&self, machine: &MachinePublic) -> bool {
        let now = self.now();
        self.logins().has_one_of(machine, now)
    }

    fn logins(&self) -> MutexGuard<'_, Logins> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
