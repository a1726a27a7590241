use std::collections::{BTreeMap, BTreeSet, HashMap};

use crypto::{Entropy, MachinePublic, NodePublic};
use tailcfg::{NodeId, StableNodeId, UserId};

use crate::address::AddressPool;
use crate::change::Change;
use crate::name::Domain;
use crate::record::{LoginName, TailnetId};
use crate::refusal::Refusal;
use crate::secret::{KeyId, random_text};

/// What all tailnets of a server share: numbers, addresses, and which key and name belong to which of them.
///
/// It is told of every change that was committed ([`Self::observe`]); decisions take numbers and addresses out of it.
#[derive(Debug)]
pub struct Registry {
    /// Addresses that are free.
    pub(crate) pool: AddressPool,
    next_number: u64,
    node_keys: HashMap<NodePublic, (TailnetId, NodeId, MachinePublic)>,
    nodes: BTreeMap<NodeId, Placed>,
    stable_ids: HashMap<StableNodeId, NodeId>,
    users: BTreeMap<UserId, (TailnetId, LoginName)>,
    /// The users of each login name, one of a tailnet.
    logins: BTreeMap<LoginName, BTreeSet<UserId>>,
    keys: HashMap<KeyId, TailnetId>,
    names: BTreeMap<TailnetId, (String, Domain)>,
    services: BTreeMap<(TailnetId, String), std::net::Ipv4Addr>,
}

/// What the registry remembers of a node, to forget it again.
#[derive(Debug)]
struct Placed {
    tailnet: TailnetId,
    node_key: NodePublic,
    stable_id: StableNodeId,
    address: std::net::Ipv4Addr,
}

/// The user that stands for the owner of every tagged device in the maps of others.
pub const TAGGED_DEVICES: UserId = UserId(2_147_455_555);

impl Default for Registry {
    fn default() -> Self {
        Self::new(AddressPool::default())
    }
}

impl Registry {
    /// How many tailnets may have a user of one login name.
    pub const LIMIT_OF_LOGIN: usize = 8;

    /// A server without tailnets.
    pub fn new(pool: AddressPool) -> Self {
        Self {
            pool,
            next_number: 1,
            node_keys: HashMap::new(),
            nodes: BTreeMap::new(),
            stable_ids: HashMap::new(),
            users: BTreeMap::new(),
            logins: BTreeMap::new(),
            keys: HashMap::new(),
            names: BTreeMap::new(),
            services: BTreeMap::new(),
        }
    }

    /// The tailnet and device that a node key belongs to.
    pub fn node_by_key(&self, key: &NodePublic) -> Option<(TailnetId, NodeId)> {
        self.node_keys.get(key).map(|(tailnet, node, _)| (*tailnet, *node))
    }

    /// The machine that a node key is bound to.
    pub(crate) fn machine_of_key(&self, key: &NodePublic) -> Option<MachinePublic> {
        self.node_keys.get(key).map(|(_, _, machine)| *machine)
    }

    /// The tailnet of a device.
    pub fn tailnet_of_node(&self, node: NodeId) -> Option<TailnetId> {
        self.nodes.get(&node).map(|placed| placed.tailnet)
    }

    /// The device with an id for programs.
    pub fn node_by_stable_id(&self, id: &StableNodeId) -> Option<NodeId> {
        self.stable_ids.get(id).copied()
    }

    /// The tailnet of a user.
    pub fn tailnet_of_user(&self, user: UserId) -> Option<TailnetId> {
        self.users.get(&user).map(|(tailnet, _)| *tailnet)
    }

    /// How many users the login name has that most users share; each is one of another tailnet.
    pub fn most_users_of_a_login(&self) -> usize {
        self.logins.values().map(BTreeSet::len).max().unwrap_or_default()
    }

    /// Refuses one more user of a login name: a password has to be tried against all of them.
    pub(crate) fn check_login(&self, login: &LoginName) -> Result<(), Refusal> {
        match self.logins.get(login) {
            Some(users) if users.len() >= Self::LIMIT_OF_LOGIN => {
                Err(Refusal::LoginNameFull { login: login.to_string(), limit: Self::LIMIT_OF_LOGIN })
            }
            _ => Ok(()),
        }
    }

    /// The tailnet that an auth key, OAuth client or token belongs to.
    pub fn tailnet_of_key(&self, id: &KeyId) -> Option<TailnetId> {
        self.keys.get(id).copied()
    }

    /// The tailnet with a name or domain, as people write it.
    pub fn tailnet_by_name(&self, name: &str) -> Option<TailnetId> {
        let same = |(own, domain): &(String, Domain)| own == name || domain.as_str() == name;
        self.names.iter().find(|(_, names)| same(names)).map(|(id, _)| *id)
    }

    /// Whether another tailnet than `tailnet` stands in the way of a name or domain.
    pub(crate) fn is_name_taken(&self, tailnet: TailnetId, name: &str, domain: &Domain) -> bool {
        let clash = |(own, theirs): &(String, Domain)| own == name || theirs.overlaps(domain);
        self.names.iter().any(|(id, names)| *id != tailnet && clash(names))
    }

    /// A number that no node, user or tailnet of the server has had.
    ///
    /// Nodes and users draw from one sequence, because a tagged node's own map has a user with the node's number.
    pub(crate) fn draw_number(&mut self) -> u64 {
        if self.next_number == TAGGED_DEVICES.0 {
            self.next_number += 1;
        }
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// An id for programs for the node with this number; unique, since the number stands in it behind letters of fixed
    /// length.
    pub(crate) fn stable_id(node: NodeId, entropy: &mut dyn Entropy) -> StableNodeId {
        StableNodeId(format!("n{}{node}CNTRL", random_text(8, entropy)))
    }

    /// Takes note of changes of a tailnet that were written.
    pub fn observe(&mut self, tailnet: TailnetId, changes: &[Change]) {
        for change in changes {
            match change {
                Change::PutTailnet(record) => {
                    self.past(record.id.0);
                    self.names.insert(record.id, (record.name.clone(), record.domain.clone()));
                }
                Change::PutHighestNumber(number) => self.past(*number),
                Change::PutUser(user) => {
                    self.past(user.id.0);
                    self.forget_user(user.id);
                    self.users.insert(user.id, (tailnet, user.login.clone()));
                    self.logins.entry(user.login.clone()).or_default().insert(user.id);
                }
                Change::DeleteUser(id) => self.forget_user(*id),
                Change::PutNode(node) => self.place(tailnet, node),
                Change::DeleteNode(id) => self.forget(*id),
                Change::PutAuthKey(key) => drop(self.keys.insert(key.id.clone(), tailnet)),
                Change::PutOAuthClient(client) => drop(self.keys.insert(client.id.clone(), tailnet)),
                Change::PutApiToken(token) => drop(self.keys.insert(token.id.clone(), tailnet)),
                Change::DeleteAuthKey(id) | Change::DeleteOAuthClient(id) | Change::DeleteApiToken(id) => {
                    self.keys.remove(id);
                }
                Change::PutService(service) => {
                    self.pool.take(service.addresses.v4);
                    self.pool.seen(service.addresses.v4);
                    self.services.insert((tailnet, service.name.to_string()), service.addresses.v4);
                }
                Change::DeleteService(name) => {
                    if let Some(address) = self.services.remove(&(tailnet, name.to_string())) {
                        self.pool.release(address);
                    }
                }
                Change::PutSettings(_) | Change::PutDns(_) | Change::PutPolicy(_) => {}
            }
        }
    }

    fn place(&mut self, tailnet: TailnetId, node: &crate::record::Node) {
        self.past(node.id.0);
        self.pool.take(node.addresses.v4);
        self.pool.seen(node.addresses.v4);
        let placed =
            Placed { tailnet, node_key: node.node_key, stable_id: node.stable_id.clone(), address: node.addresses.v4 };
        if let Some(before) = self.nodes.insert(node.id, placed) {
            self.node_keys.remove(&before.node_key);
        }
        self.node_keys.insert(node.node_key, (tailnet, node.id, node.machine_key));
        self.stable_ids.insert(node.stable_id.clone(), node.id);
    }

    fn forget(&mut self, id: NodeId) {
        let Some(placed) = self.nodes.remove(&id) else { return };
        self.node_keys.remove(&placed.node_key);
        self.stable_ids.remove(&placed.stable_id);
        self.pool.release(placed.address);
    }

    fn forget_user(&mut self, id: UserId) {
        let Some((_, login)) = self.users.remove(&id) else { return };
        if let Some(users) = self.logins.get_mut(&login) {
            users.remove(&id);
            if users.is_empty() {
                self.logins.remove(&login);
            }
        }
    }

    fn past(&mut self, number: u64) {
        self.next_number = self.next_number.max(number.saturating_add(1));
    }
}
