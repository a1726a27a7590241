//! The owner of all tailnets: it lets one decision at a time be made, written down and taken, and tells who must hear.
//!
//! ```text
//! command ─▶ decide ─▶ Store::write ─▶ commit ─▶ effects ─▶ streams woken or ended, relays told
//!            └──────────── one at a time ─────────────┘
//! ```
//!
//! What is answered has been written. A caller that hangs up half way changes nothing of that: the work goes on without
//! it. When the database can't be written, nothing changes and everybody is still served what they had.

mod admission;
mod checks;
mod failure;
mod logins;
mod machines;
mod pings;
mod streams;
mod timers;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use crypto::{MachinePublic, SystemEntropy};
use jiff::Timestamp;
use tailcfg::{DerpMap, NodeId, UserId};
use tailnet::{
    Actor, Checks, Command, Decision, LoginName, Logins, NewTailnet, PolicyRecord, Reply, Server, TailnetId, UserStatus,
};
use telemetry::Metrics;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use failure::{Failure, findings};
pub(crate) use machines::Machines;
pub(crate) use pings::PingWhat;
pub(crate) use streams::NodeStream;

use crate::authority::{RootAuthority, TailnetAuthority};
use crate::clock::Clock;
use crate::config::ServerUrl;
use crate::metrics::ControlMetrics;
use crate::rate::RateLimit;
use crate::sign_in::{Candidate, Candidates};
use crate::store::{Entry, PolicyInForce, Store};
use pings::Pings;
use streams::Streams;

/// What the owner of the tailnets needs.
#[derive(Debug)]
pub(crate) struct CoordinationConfig {
    pub(crate) url: ServerUrl,
    pub(crate) relays: DerpMap,
    pub(crate) authority_folder: PathBuf,
    /// Ends all streams and held requests.
    pub(crate) stop: CancellationToken,
}

/// The owner of all tailnets of this server.
#[derive(Debug)]
pub(crate) struct Coordination {
    server: RwLock<Server>,
    /// Held from a decision to its commit.
    turn: tokio::sync::Mutex<()>,
    store: Store,
    clock: Clock,
    url: ServerUrl,
    authority_folder: PathBuf,
    authorities: Mutex<HashMap<TailnetId, Arc<TailnetAuthority>>>,
    logins: Mutex<Logins>,
    /// Counts logins that ended, for the requests that wait for one.
    login_ends: watch::Sender<u64>,
    checks: Mutex<Checks>,
    /// Counts confirmed logins by SSH, for the requests that wait for one.
    check_ends: watch::Sender<u64>,
    streams: Streams,
    pings: Pings,
    /// The version of the set of keys that relays admit.
    admission: watch::Sender<u64>,
    /// Deadlines have changed.
    replan: Notify,
    /// By site.
    registrations: RateLimit<IpAddr>,
    polls: RateLimit<NodeId>,
    checks_asked: RateLimit<NodeId>,
    certificates: RateLimit<NodeId>,
    reports: RateLimit<NodeId>,
    metrics: ControlMetrics,
    stop: CancellationToken,
}

impl Coordination {
    /// Reads everything that was written.
    pub(crate) async fn load(
        store: Store,
        config: CoordinationConfig,
        metrics: &Metrics,
    ) -> Result<Arc<Self>, crate::store::StoreError> {
        let clock = Clock::new();
        let now = clock.now();
        let mut server = Server::new(tailnet::MESH_V4, config.relays);
        for stored in store.load().await? {
            let presence = stored.presence.iter().filter_map(|(node, document)| match serde_json::from_str(document) {
                Ok(record) => Some(record),
                Err(error) => {
                    // The device says it again when it comes back.
                    tracing::warn!(%node, %error, "the last place of a device can't be read");
                    None
                }
            });
            server.load(&stored.changes, stored.revision, presence.collect(), now);
        }
        // Relays compare versions for equality only, also with one from before a restart.
        let version = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Ok(Arc::new(Self {
            server: RwLock::new(server),
            turn: tokio::sync::Mutex::default(),
            store,
            clock,
            url: config.url,
            authority_folder: config.authority_folder,
            authorities: Mutex::default(),
            logins: Mutex::default(),
            login_ends: watch::Sender::new(0),
            checks: Mutex::default(),
            check_ends: watch::Sender::new(0),
            streams: Streams::default(),
            pings: Pings::default(),
            admission: watch::Sender::new(version),
            replan: Notify::new(),
            registrations: RateLimit::new(200, Duration::from_millis(100), 4096),
            polls: RateLimit::new(60, Duration::from_secs(1), 65_536),
            checks_asked: RateLimit::new(30, Duration::from_secs(1), 65_536),
            // A node renews every few weeks; one that forgets its certificates with every start has two an hour.
            certificates: RateLimit::new(48, Duration::from_secs(30 * 60), 65_536),
            reports: RateLimit::new(30, Duration::from_secs(10), 65_536),
            metrics: ControlMetrics::register(metrics),
            stop: config.stop,
        }))
    }

    /// The time that everything here goes by.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The tailnets as they are, for looking.
    pub(crate) fn server(&self) -> RwLockReadGuard<'_, Server> {
        self.server.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn server_mut(&self) -> RwLockWriteGuard<'_, Server> {
        self.server.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a tailnet decide, writes the decision down and takes it. What this answers is durable.
    pub(crate) async fn execute(
        self: &Arc<Self>,
        tailnet: TailnetId,
        command: Command,
        actor: Actor,
    ) -> Result<Reply, Failure> {
        let name = command_name(&command);
        let decide = move |server: &mut Server, actor: Actor, now: Timestamp| {
            let decided = server.decide(tailnet, command, actor, now, &mut SystemEntropy);
            decided.ok_or(Failure::NoTailnet)?.map_err(Failure::Refused)
        };
        self.run(name, actor, decide).await
    }

    /// Makes a tailnet with its first user, and its certificate authority before that: without one it could give no
    /// certificate.
    pub(crate) async fn create_tailnet(
        self: &Arc<Self>,
        new: NewTailnet,
        root: RootAuthority,
    ) -> Result<Reply, Failure> {
        let decide = move |server: &mut Server, _: Actor, now: Timestamp| {
            let domain = new.domain.to_string();
            let decision = server.decide_tailnet(new, now)?;
            root.create_tailnet(decision.tailnet, &domain, now)?;
            Ok(decision)
        };
        self.run("CreateTailnet", Actor::Server, decide).await
    }

    /// Runs to its end even if the caller hangs up: what was written must be taken.
    async fn run(
        self: &Arc<Self>,
        command: &'static str,
        actor: Actor,
        decide: impl FnOnce(&mut Server, Actor, Timestamp) -> Result<Decision, Failure> + Send + 'static,
    ) -> Result<Reply, Failure> {
        let this = Arc::clone(self);
        let work = tokio::spawn(async move {
            let _turn = this.turn.lock().await;
            this.decide_and_write(command, actor, decide).await
        });
        work.await.unwrap_or(Err(Failure::Stopped))
    }

    async fn decide_and_write(
        &self,
        command: &'static str,
        actor: Actor,
        decide: impl FnOnce(&mut Server, Actor, Timestamp) -> Result<Decision, Failure>,
    ) -> Result<Reply, Failure> {
        let now = self.now();
        let who = self.actor_name(&actor);
        let mut decision = decide(&mut self.server_mut(), actor, now)?;
        if decision.changes.is_empty() {
            return Ok(decision.reply);
        }
        let entry = Entry {
            tailnet: decision.tailnet,
            revision: decision.base + 1,
            at: now,
            actor: &who,
            command,
            changes: &decision.changes,
            is_act: decision.is_act,
        };
        if let Err(error) = self.store.write(&entry).await {
            tracing::error!(%error, command, "a decision could not be written, so it is not taken");
            self.metrics.write_failures.inc();
            self.server_mut().discard(decision);
            return Err(Failure::Store(error));
        }
        self.metrics.decisions.inc();
        let effects = self.server_mut().commit(&mut decision, now);
        self.spread(decision.tailnet, &effects);
        Ok(decision.reply)
    }

    /// What is counted.
    pub(crate) fn metrics(&self) -> &ControlMetrics {
        &self.metrics
    }

    /// Tells whoever must hear of something.
    fn spread(&self, tailnet: TailnetId, effects: &tailnet::Effects) {
        self.streams.end(&effects.cut);
        self.streams.wake(tailnet, &effects.wake);
        if effects.admission {
            self.admission.send_modify(|version| *version += 1);
        }
        self.replan.notify_one();
    }

    /// Who an actor is, for the log of what was done.
    fn actor_name(&self, actor: &Actor) -> String {
        match actor {
            Actor::Server => "server".to_owned(),
            Actor::Machine(key) => key.to_string(),
            Actor::Client { id, .. } => format!("client {id}"),
            Actor::User(id) => {
                let server = self.server();
                let tailnet = server.registry().tailnet_of_user(*id).and_then(|tailnet| server.tailnet(tailnet));
                let login = tailnet.and_then(|tailnet| tailnet.user(*id)).map(|user| user.login.to_string());
                format!("user {id} {}", login.unwrap_or_default()).trim_end().to_owned()
            }
        }
    }

    /// The policies that were put in force in a tailnet, the newest first, without their texts.
    pub(crate) async fn policies(&self, tailnet: TailnetId) -> Result<Vec<PolicyInForce>, Failure> {
        self.store.load_policies(tailnet).await.map_err(Failure::Store)
    }

    /// One of the policies that were put in force in a tailnet.
    pub(crate) async fn policy(&self, tailnet: TailnetId, version: u64) -> Result<Option<PolicyRecord>, Failure> {
        self.store.load_policy(tailnet, version).await.map_err(Failure::Store)
    }

    /// Whose a password may be that comes with a login name.
    pub(crate) fn candidates(&self, login: &str) -> Candidates {
        let users = self.users_named(login);
        Candidates { users, most: self.server().registry().most_users_of_a_login() }
    }

    /// The users of a login name, in all tailnets, that may sign in.
    pub(crate) fn users_named(&self, login: &str) -> Vec<Candidate> {
        let Ok(login) = login.parse::<LoginName>() else { return Vec::new() };
        let server = self.server();
        let named = server.tailnets().filter_map(|tailnet| Some((tailnet.id(), tailnet.user_by_login(&login)?)));
        let active = named.filter(|(_, user)| user.status != UserStatus::Suspended);
        active.map(|(tailnet, user)| (tailnet, user.id, user.password.clone())).collect()
    }

    /// Whether a user may act as who is signed in.
    pub(crate) fn may_sign_in(&self, tailnet: TailnetId, user: UserId) -> bool {
        let server = self.server();
        let user = server.tailnet(tailnet).and_then(|tailnet| tailnet.user(user));
        user.is_some_and(|user| user.status != UserStatus::Suspended)
    }

    /// A user's login name and their tailnet's domain.
    pub(crate) fn names_of(&self, tailnet: TailnetId, user: UserId) -> Option<(String, String)> {
        let server = self.server();
        let tailnet = server.tailnet(tailnet)?;
        Some((tailnet.user(user)?.login.to_string(), tailnet.domain().to_string()))
    }

    /// The tailnet and device that a request is for, machine key, node key, tenant and user checked together.
    ///
    /// Every request of a device goes through this.
    fn identify(
        &self,
        machine: &MachinePublic,
        node_key: &crypto::NodePublic,
    ) -> Result<(TailnetId, NodeId), tailnet::Refusal> {
        self.server().identify(machine, node_key)
    }

    /// The certificate to trust for names of a tailnet's devices, in PEM; without a domain that of the only tailnet there is.
    pub(crate) fn anchor(&self, domain: Option<&str>) -> Result<Option<String>, Failure> {
        let found = {
            let server = self.server();
            let mut asked = server.tailnets().filter(|tailnet| {
                domain.is_none_or(|domain| tailnet.domain().as_str().eq_ignore_ascii_case(domain.trim_end_matches('.')))
            });
            let first = asked.next().map(tailnet::Tailnet::id);
            first.filter(|_| asked.next().is_none())
        };
        found.map(|tailnet| Ok(self.authority(tailnet)?.anchor_pem().to_owned())).transpose()
    }

    /// The authority of a tailnet, read when it is first needed, and again once the tailnet has another domain.
    fn authority(&self, tailnet: TailnetId) -> Result<Arc<TailnetAuthority>, Failure> {
        let domain = self.server().tailnet(tailnet).ok_or(Failure::NoTailnet)?.domain().to_string();
        let mut authorities = self.authorities.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(authority) = authorities.get(&tailnet).filter(|authority| authority.domain() == domain) {
            return Ok(Arc::clone(authority));
        }
        let authority = Arc::new(TailnetAuthority::load(&self.authority_folder, tailnet, &domain, self.now())?);
        authorities.insert(tailnet, Arc::clone(&authority));
        Ok(authority)
    }
}

/// A command's name, for the log of what was done.
fn command_name(command: &Command) -> &'static str {
    match command {
        Command::Register(_) => "Register",
        Command::UpdateHost(_) => "UpdateHost",
        Command::Sweep => "Sweep",
        Command::DeleteNode(_) => "DeleteNode",
        Command::ExpireNode(_) => "ExpireNode",
        Command::RenameNode(..) => "RenameNode",
        Command::SetNodeTags(..) => "SetNodeTags",
        Command::SetKeyExpiry(..) => "SetKeyExpiry",
        Command::SetAuthorized(..) => "SetAuthorized",
        Command::SetRoutes(..) => "SetRoutes",
        Command::CreateUser(_) => "CreateUser",
        Command::SetRole(..) => "SetRole",
        Command::SetPassword(..) => "SetPassword",
        Command::SetDisplayName(..) => "SetDisplayName",
        Command::ApproveUser(_) => "ApproveUser",
        Command::SuspendUser(_) => "SuspendUser",
        Command::RestoreUser(_) => "RestoreUser",
        Command::DeleteUser(_) => "DeleteUser",
        Command::CreateAuthKey(_) => "CreateAuthKey",
        Command::CreateOAuthClient(_) => "CreateOAuthClient",
        Command::CreateApiToken(_) => "CreateApiToken",
        Command::Revoke(_) => "Revoke",
        Command::SetPolicy(_) => "SetPolicy",
        Command::UpdateDns(_) => "UpdateDns",
        Command::UpdateSettings(_) => "UpdateSettings",
        Command::SetNames { .. } => "SetNames",
        Command::PutService(_) => "PutService",
        Command::DeleteService(_) => "DeleteService",
    }
}

#[cfg(test)]
impl Coordination {
    /// Lets so much time pass at once.
    pub(crate) fn pass(&self, time: jiff::SignedDuration) {
        self.clock.pass(time);
        self.replan.notify_one();
    }

    /// Waits until devices have come or gone so that something holds.
    pub(crate) async fn until(&self, holds: impl Fn(&Server) -> bool) {
        // Relays hear of every device that comes or goes.
        let mut told = self.admission.subscribe();
        while !holds(&self.server()) {
            told.changed().await.unwrap();
        }
    }
}
