use std::collections::BTreeMap;
use std::sync::Arc;

use crypto::{Entropy, MachinePublic, NodePublic};
use ipnet::Ipv4Net;
use jiff::Timestamp;
use tailcfg::{DerpMap, NodeId, RegisterRequest, UserId};

use crate::address::AddressPool;
use crate::change::Change;
use crate::command::{Actor, Command, Context, Decision, Reply};
use crate::effects::Effects;
use crate::name::Domain;
use crate::presence::PresenceRecord;
use crate::record::{LoginName, PasswordHash, Role, TailnetId, TailnetRecord, User, UserStatus};
use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::secret::{KeyKind, SecretText};
use crate::tailnet::Tailnet;

/// The tailnets of one server and what they share.
#[derive(Debug, Default)]
pub struct Server {
    registry: Registry,
    tailnets: BTreeMap<TailnetId, Tailnet>,
    relays: Arc<DerpMap>,
}

/// A tailnet to be made, with its first user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTailnet {
    /// What people call it.
    pub name: String,
    /// Where the names of its devices live.
    pub domain: Domain,
    /// The login name of its owner.
    pub owner: LoginName,
    /// The hash of the owner's first password.
    pub password: Option<PasswordHash>,
}

/// Which tailnet a registration is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// This one: a device of it asks, or an auth key of it was shown.
    Tailnet(TailnetId),
    /// None yet: a person must say whose the device is. Open a login.
    Login,
}

impl Server {
    /// A server without tailnets, whose devices have addresses of `range` and use `relays`.
    pub fn new(range: Ipv4Net, relays: DerpMap) -> Self {
        let registry = Registry::new(AddressPool::new(range));
        Self { registry, tailnets: BTreeMap::new(), relays: Arc::new(relays) }
    }

    /// Takes what was written before a restart: the rows of one tailnet with the number of its last decision, and the
    /// presence of its devices. `now` is when the server starts.
    ///
    /// Rows without that of the tailnet itself make none.
    pub fn load(&mut self, rows: &[Change], revision: u64, presence: Vec<PresenceRecord>, now: Timestamp) {
        let record = rows.iter().find_map(|change| match change {
            Change::PutTailnet(record) => Some(record.clone()),
            _ => None,
        });
        let Some(record) = record else { return };
        let id = record.id;
        self.registry.observe(id, rows);
        let mut tailnet = Tailnet::new(record, Arc::clone(&self.relays), now);
        // Nobody listens yet.
        let _ = tailnet.commit(rows, &mut None, now);
        tailnet.set_revision(revision);
        tailnet.restore_presence(presence, now);
        self.tailnets.insert(id, tailnet);
    }

    /// What all tailnets share.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The relays that it was given.
    pub fn relays(&self) -> &DerpMap {
        &self.relays
    }

    /// Its tailnets, by number.
    pub fn tailnets(&self) -> impl Iterator<Item = &Tailnet> {
        self.tailnets.values()
    }

    /// A tailnet.
    pub fn tailnet(&self, id: TailnetId) -> Option<&Tailnet> {
        self.tailnets.get(&id)
    }

    /// A tailnet, to tell it of its devices' comings and goings.
    pub fn tailnet_mut(&mut self, id: TailnetId) -> Option<&mut Tailnet> {
        self.tailnets.get_mut(&id)
    }

    /// The tailnet with a name or domain.
    pub fn tailnet_by_name(&self, name: &str) -> Option<&Tailnet> {
        self.tailnet(self.registry.tailnet_by_name(name)?)
    }

    /// Decides to make a tailnet, whose starting policy lets each user reach their own devices.
    ///
    /// # Errors
    /// Its name or domain is taken, or is none, or its owner's login name is in as many tailnets as it may be.
    pub fn decide_tailnet(&mut self, new: NewTailnet, now: Timestamp) -> Result<Decision, Refusal> {
        crate::decide::check_tailnet_name(&new.name)?;
        let id = TailnetId(self.registry.draw_number());
        if self.registry.is_name_taken(id, &new.name, &new.domain) {
            return Err(Refusal::DomainTaken { given: format!("{} or {}", new.name, new.domain) });
        }
        self.registry.check_login(&new.owner)?;
        let owner = UserId(self.registry.draw_number());
        let display_name = new.owner.as_str().split('@').next().unwrap_or_default().to_owned();
        let user = User {
            id: owner,
            login: new.owner,
            display_name,
            profile_pic_url: String::new(),
            role: Role::Owner,
            status: UserStatus::Active,
            created: now,
            password: new.password,
        };
        let record = TailnetRecord { id, name: new.name, domain: new.domain, created: now };
        Ok(Decision {
            tailnet: id,
            base: 0,
            changes: vec![Change::PutTailnet(record), Change::PutUser(user), Change::PutHighestNumber(owner.0)],
            is_act: true,
            reply: Reply::User(owner),
            rules: None,
            reserved: Vec::new(),
        })
    }

    /// Decides what a tailnet does about a command; nothing changes but that numbers and addresses are set aside.
    ///
    /// # Errors
    /// `None` when there is no such tailnet, else the reason why nothing is done.
    pub fn decide(
        &mut self,
        tailnet: TailnetId,
        command: Command,
        actor: Actor,
        now: Timestamp,
        entropy: &mut dyn Entropy,
    ) -> Option<Result<Decision, Refusal>> {
        let tailnet = self.tailnets.get(&tailnet)?;
        let mut context = Context { actor, now, registry: &mut self.registry, entropy };
        Some(tailnet.decide(command, &mut context))
    }

    /// Whether a decision is still the next one. The database must refuse it too, by its number.
    pub fn is_current(&self, decision: &Decision) -> bool {
        self.tailnet(decision.tailnet).map_or(0, Tailnet::revision) == decision.base
    }

    /// Takes a decision that was written. A decision without changes needs no writing, and has no effect. Drop it where
    /// nobody waits: a policy that is in force no more goes with it.
    pub fn commit(&mut self, decision: &mut Decision, now: Timestamp) -> Effects {
        if decision.changes.is_empty() {
            return Effects::default();
        }
        self.registry.observe(decision.tailnet, &decision.changes);
        if let Some(Change::PutTailnet(record)) = decision.changes.first() {
            let relays = &self.relays;
            self.tailnets
                .entry(decision.tailnet)
                .or_insert_with(|| Tailnet::new(record.clone(), Arc::clone(relays), now));
        }
        self.tailnets
            .get_mut(&decision.tailnet)
            .map(|tailnet| tailnet.commit(&decision.changes, &mut decision.rules, now))
            .unwrap_or_default()
    }

    /// Gives back what a decision set aside that was not written.
    pub fn discard(&mut self, decision: Decision) {
        for address in decision.reserved {
            self.registry.pool.release(address);
        }
    }

    /// Which tailnet a registration is for.
    ///
    /// # Errors
    /// It shows an auth key that is nobody's.
    pub fn route(&self, request: &RegisterRequest) -> Result<Route, Refusal> {
        if let Some((tailnet, _)) = self.registry.node_by_key(&request.node_key) {
            return Ok(Route::Tailnet(tailnet));
        }
        let Some(auth) = request.auth.as_ref().filter(|auth| !auth.auth_key.is_empty()) else {
            return Ok(Route::Login);
        };
        let (kind, id) = SecretText::new(auth.auth_key.clone()).identify().ok_or(Refusal::UnknownAuthKey)?;
        let tailnet = self.registry.tailnet_of_key(&id).filter(|_| kind == KeyKind::Auth);
        tailnet.map(Route::Tailnet).ok_or(Refusal::UnknownAuthKey)
    }

    /// The tailnet and device that a request is for: tenant, machine key and node key, checked together.
    ///
    /// # Errors
    /// The node key is nobody's, or another machine's.
    pub fn identify(&self, machine: &MachinePublic, node_key: &NodePublic) -> Result<(TailnetId, NodeId), Refusal> {
        let (id, _) = self.registry.node_by_key(node_key).ok_or(Refusal::UnknownNodeKey)?;
        let tailnet = self.tailnet(id).ok_or(Refusal::UnknownNodeKey)?;
        tailnet.identify(machine, node_key).map(|node| (id, node))
    }

    /// The tailnet that an API token or an OAuth client's secret belongs to; whether it works, that tailnet says.
    ///
    /// # Errors
    /// It is nobody's.
    pub fn tailnet_of_secret(&self, text: &SecretText) -> Result<&Tailnet, Refusal> {
        let (_, id) = text.identify().ok_or(Refusal::UnknownCredential)?;
        let tailnet = self.registry.tailnet_of_key(&id).and_then(|id| self.tailnet(id));
        tailnet.ok_or(Refusal::UnknownCredential)
    }

    /// Gives all tailnets other relays; says for each whom that concerns.
    pub fn set_relays(&mut self, relays: DerpMap) -> Vec<(TailnetId, Effects)> {
        self.relays = Arc::new(relays);
        let relays = &self.relays;
        self.tailnets.iter_mut().map(|(id, tailnet)| (*id, tailnet.set_relays(Arc::clone(relays)))).collect()
    }
}
