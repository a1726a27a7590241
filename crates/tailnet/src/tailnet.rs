//! One tailnet: its rows, where its devices are, and what follows from both.

mod commit;
mod credential;
mod ephemeral;
mod keys;
mod streams;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crypto::{MachinePublic, NodePublic};
use filter::CapMap;
use ipnet::IpNet;
use jiff::Timestamp;
use policy::{Compiled, Policy, PolicyError};
use tailcfg::{DerpMap, NodeId, UserId, UserProfile, cap};

use crate::device::Device;
use crate::name::{Domain, Label};
use crate::presence::Presence;
use crate::primary::Primaries;
use crate::record::{
    ApiToken, AuthKey, DnsSettings, LoginName, Node, OAuthClient, Owner, PolicyRecord, Role, Service, ServiceName,
    Settings, TailnetId, TailnetRecord, User, UserStatus,
};
use crate::refusal::Refusal;
use crate::registry::TAGGED_DEVICES;
use crate::rules::Rules;
use crate::secret::KeyId;

use keys::KeysKept;

/// One tailnet: users, devices, keys, policy, and who is connected.
///
/// See the crate's own words for how it decides and changes.
#[derive(Debug)]
pub struct Tailnet {
    record: TailnetRecord,
    settings: Settings,
    dns: DnsSettings,
    policy: PolicyRecord,
    users: BTreeMap<UserId, User>,
    profiles: BTreeMap<UserId, Arc<UserProfile>>,
    auth_keys: BTreeMap<KeyId, AuthKey>,
    oauth_clients: BTreeMap<KeyId, OAuthClient>,
    api_tokens: BTreeMap<KeyId, ApiToken>,
    keys_kept: KeysKept,
    services: BTreeMap<ServiceName, Service>,
    devices: BTreeMap<NodeId, Device>,
    by_machine: BTreeMap<MachinePublic, BTreeSet<NodeId>>,
    by_name: BTreeMap<Label, NodeId>,
    by_node_key: BTreeMap<NodePublic, NodeId>,
    pub(crate) rules: Rules,
    /// What was in force before, until whoever commits takes it: to drop a large policy takes its time.
    retired: Option<Rules>,
    primaries: Primaries,
    /// Those of the server.
    own_relays: Arc<DerpMap>,
    /// Those that devices are told of: the server's, as the policy would have them.
    relays: Arc<DerpMap>,
    revision: u64,
    /// Counts what viewers could notice; see [`crate::device::Stamps`].
    ticks: u64,
    /// Devices by the tick of their newest change, each once.
    recent: BTreeMap<u64, NodeId>,
    stamps: Stamps,
    deadlines: BTreeSet<(Timestamp, NodeId)>,
    unsaved: BTreeSet<NodeId>,
    next_stream: u64,
    started: Timestamp,
}

/// At which tick something changed last that many viewers see.
#[derive(Debug, Default, Clone, Copy)]
struct Stamps {
    /// Policy, or what it is compiled against: who sees whom, filters, routes, capabilities.
    view: u64,
    dns: u64,
    relays: u64,
    /// Users: their names, roles, and whether they may be here.
    users: u64,
    names: u64,
}

impl Tailnet {
    /// An empty tailnet; `now` is when the server started to serve it.
    pub(crate) fn new(record: TailnetRecord, relays: Arc<DerpMap>, now: Timestamp) -> Self {
        let policy = starting_policy(&record);
        let rules = Rules::new(&policy.text, policy::Topology::default());
        Self {
            record,
            settings: Settings::default(),
            dns: DnsSettings::default(),
            policy,
            users: BTreeMap::new(),
            profiles: BTreeMap::new(),
            auth_keys: BTreeMap::new(),
            oauth_clients: BTreeMap::new(),
            api_tokens: BTreeMap::new(),
            keys_kept: KeysKept::default(),
            services: BTreeMap::new(),
            devices: BTreeMap::new(),
            by_machine: BTreeMap::new(),
            by_name: BTreeMap::new(),
            by_node_key: BTreeMap::new(),
            rules,
            retired: None,
            primaries: Primaries::default(),
            relays: Arc::clone(&relays),
            own_relays: relays,
            revision: 0,
            ticks: 1,
            recent: BTreeMap::new(),
            stamps: Stamps::default(),
            deadlines: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            next_stream: 1,
            started: now,
        }
    }

    /// Its number.
    pub fn id(&self) -> TailnetId {
        self.record.id
    }

    /// Its number, names and age.
    pub fn record(&self) -> &TailnetRecord {
        &self.record
    }

    /// Where the names of its devices live.
    pub fn domain(&self) -> &Domain {
        &self.record.domain
    }

    /// How many decisions were committed. The next one must follow this one.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Its switches.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How its devices resolve names.
    pub fn dns(&self) -> &DnsSettings {
        &self.dns
    }

    /// The policy in force, as it was set.
    pub fn policy(&self) -> &PolicyRecord {
        &self.policy
    }

    /// The mark of the policy in force.
    pub fn policy_etag(&self) -> &str {
        self.rules.etag()
    }

    /// The policy in force, compiled: for questions of people.
    pub fn compiled(&self) -> &Compiled {
        self.rules.compiled()
    }

    /// Why the policy that should be in force is not, so that nothing is let through.
    pub fn policy_fault(&self) -> Option<&PolicyError> {
        self.rules.fault()
    }

    /// The relays that its devices use.
    pub fn relays(&self) -> &DerpMap {
        &self.relays
    }

    /// Its users, by number.
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// A user.
    pub fn user(&self, id: UserId) -> Option<&User> {
        self.users.get(&id)
    }

    /// The user with a login name.
    pub fn user_by_login(&self, login: &LoginName) -> Option<&User> {
        self.users.values().find(|user| user.login == *login)
    }

    /// Its devices, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.devices.values().map(|device| &*device.node)
    }

    /// A device.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.devices.get(&id).map(|device| &*device.node)
    }

    /// Where a device is right now.
    pub fn presence(&self, id: NodeId) -> Option<&Presence> {
        self.devices.get(&id).map(|device| &device.presence)
    }

    /// The device with a name.
    pub fn node_by_name(&self, name: &Label) -> Option<&Node> {
        self.node(*self.by_name.get(name)?)
    }

    /// The devices of a machine, by number.
    pub fn nodes_of_machine(&self, machine: &MachinePublic) -> impl Iterator<Item = &Node> {
        self.by_machine.get(machine).into_iter().flatten().filter_map(|id| self.node(*id))
    }

    /// A device's full name, without a trailing dot.
    pub fn full_name(&self, node: &Node) -> String {
        self.record.domain.name(&node.name)
    }

    /// Whether a device takes part: its key is good, and it and its user were let in.
    pub fn is_admitted(&self, id: NodeId) -> bool {
        self.devices.get(&id).is_some_and(|device| device.admitted)
    }

    /// The subnet routes that a device serves, among all that could.
    pub fn primary_routes(&self, id: NodeId) -> Vec<IpNet> {
        self.primaries.routes_of(id).collect()
    }

    /// The node keys that relays admit: those of devices that take part.
    pub fn admitted_keys(&self) -> impl Iterator<Item = NodePublic> {
        self.devices.values().filter(|device| device.admitted).map(|device| device.node.node_key)
    }

    /// Its virtual services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// A virtual service.
    pub fn service(&self, name: &ServiceName) -> Option<&Service> {
        self.services.get(name)
    }

    /// How many names are held in its domain.
    pub(crate) fn names_held(&self) -> usize {
        self.devices.len() + self.services.len()
    }

    /// The device that a request is for: its node key must be one that the request's machine registered here.
    ///
    /// Every request of a device goes through this.
    ///
    /// # Errors
    /// The node key is nobody's, or another machine's.
    pub fn identify(&self, machine: &MachinePublic, node_key: &NodePublic) -> Result<NodeId, Refusal> {
        let node = self.by_node_key.get(node_key).and_then(|id| self.node(*id)).ok_or(Refusal::UnknownNodeKey)?;
        if node.machine_key != *machine {
            return Err(Refusal::NodeKeyOfOtherMachine);
        }
        Ok(node.id)
    }

    /// What a device's own map and the answer to its registration call its user.
    ///
    /// A tagged device is its own user there, whose login name is the device's full name: programs that run on it read it
    /// off there.
    pub(crate) fn self_profile(&self, node: &Node) -> UserProfile {
        match &node.owner {
            Owner::User(id) => self.profiles.get(id).map(|profile| (**profile).clone()).unwrap_or_default(),
            Owner::Tags(_) => UserProfile {
                id: UserId(node.id.0),
                login_name: self.full_name(node),
                display_name: node.name.to_string(),
                ..UserProfile::default()
            },
        }
    }

    /// What the maps of others call a device's user.
    pub(crate) fn peer_profile(&self, owner: &Owner) -> Option<Arc<UserProfile>> {
        let id = owner.user().unwrap_or(TAGGED_DEVICES);
        self.profiles.get(&id).cloned()
    }

    /// The capabilities that a device is told it has: what every device has, what its user's role gives, and what policy
    /// says.
    pub(crate) fn self_caps(&self, node: &Node) -> CapMap {
        let mut caps = CapMap::default();
        for name in [cap::FILE_SHARING, "probe-udp-lifetime", "store-appc-routes"] {
            caps.grant(name);
        }
        if self.rules.has_ssh() {
            [cap::SSH, "ssh-behavior-v1", "ssh-env-vars"].into_iter().for_each(|name| caps.grant(name));
        }
        let role = node.owner.user().and_then(|id| self.user(id)).map(|user| user.role);
        if role.is_some_and(Role::is_admin) {
            caps.grant(cap::IS_ADMIN);
        }
        if role == Some(Role::Owner) {
            caps.grant(cap::IS_OWNER);
        }
        if self.settings.https {
            caps.grant(cap::HTTPS);
        }
        if let Ok(name) = tailcfg::RawJson::parse(&serde_json::Value::from(self.record.name.as_str()).to_string()) {
            caps.0.insert(cap::TAILNET_DISPLAY_NAME.to_owned(), Some(vec![name]));
        }
        caps.merge(&self.rules.attributes(node.id));
        caps
    }

    /// A device with where it is.
    pub(crate) fn device(&self, id: NodeId) -> Option<&Device> {
        self.devices.get(&id)
    }

    /// Devices that changed after a tick, as their peers see them.
    pub(crate) fn changed_since(&self, tick: u64) -> impl Iterator<Item = NodeId> {
        self.recent.range(tick.saturating_add(1)..).map(|(_, id)| *id)
    }

    /// The profile of a user.
    pub(crate) fn profile(&self, id: UserId) -> Option<Arc<UserProfile>> {
        self.profiles.get(&id).cloned()
    }

    /// The tick up to which everything has happened.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticks
    }

    /// The tick of the last change of who sees whom, and of what each is told by policy.
    pub(crate) fn view_stamp(&self) -> u64 {
        self.stamps.view
    }

    /// The tick of the last change of how names resolve.
    pub(crate) fn dns_stamp(&self) -> u64 {
        self.stamps.dns
    }

    /// The tick of the last change of the relays.
    pub(crate) fn relays_stamp(&self) -> u64 {
        self.stamps.relays
    }

    /// The tick of the last change of a user.
    pub(crate) fn users_stamp(&self) -> u64 {
        self.stamps.users
    }

    /// The tick of the last change of the tailnet's names.
    pub(crate) fn names_stamp(&self) -> u64 {
        self.stamps.names
    }

    /// Whether a user may be here.
    fn is_active(&self, id: UserId) -> bool {
        self.users.get(&id).is_some_and(|user| user.status == UserStatus::Active)
    }

    /// The server's own relays.
    pub(crate) fn server_relays(&self) -> Arc<DerpMap> {
        Arc::clone(&self.own_relays)
    }

    /// Says how many decisions were written before a restart.
    pub(crate) fn set_revision(&mut self, revision: u64) {
        self.revision = revision;
    }
}

/// The policy of a tailnet that nobody has set one for: every user reaches their own devices, and nobody else's.
fn starting_policy(record: &TailnetRecord) -> PolicyRecord {
    PolicyRecord {
        text: Policy::default_for_new_tailnet().to_owned(),
        version: 0,
        who: String::new(),
        why: String::new(),
        when: record.created,
    }
}
