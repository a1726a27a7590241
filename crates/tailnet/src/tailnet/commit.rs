use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use tailcfg::{NodeId, UserId, UserProfile};

use super::Tailnet;
use super::view::Touched;
use crate::change::Change;
use crate::device::{Device, hostinfo_for_peers};
use crate::effects::{Effects, Wake};
use crate::record::{Node, ServiceName, User};
use crate::registry::TAGGED_DEVICES;
use crate::rules::Rules;

/// What changes touched, to be settled once they are all in.
#[derive(Debug, Default)]
struct Damage {
    /// Devices with what they were before; `None` for new ones.
    nodes: BTreeMap<NodeId, Option<Arc<Node>>>,
    gone: BTreeMap<NodeId, Device>,
    users: BTreeSet<UserId>,
    policy: bool,
    /// The policy compiled beforehand, if it was.
    rules: Option<Rules>,
    services: BTreeSet<ServiceName>,
    settings: bool,
    dns: bool,
    names: bool,
}

impl Tailnet {
    /// Takes changes that were written, in order. `rules` is the policy among them, if it was compiled beforehand, and then
    /// the one that was in force until now. Never fails: a tailnet is what its changes make of it.
    pub(crate) fn commit(&mut self, changes: &[Change], rules: &mut Option<Rules>, now: Timestamp) -> Effects {
        self.revision += 1;
        let damage = Damage { rules: rules.take(), ..self.apply(changes) };
        let effects = self.settle(damage, now);
        *rules = self.retired.take();
        effects
    }

    fn apply(&mut self, changes: &[Change]) -> Damage {
        let mut damage = Damage::default();
        for change in changes {
            self.apply_one(change, &mut damage);
        }
        damage
    }

    fn apply_one(&mut self, change: &Change, damage: &mut Damage) {
        match change {
            Change::PutTailnet(record) => {
                damage.names |= self.record != *record;
                self.record = record.clone();
            }
            Change::PutHighestNumber(_) => {}
            Change::PutSettings(settings) => {
                self.settings = settings.clone();
                damage.settings = true;
            }
            Change::PutDns(dns) => {
                self.dns = dns.clone();
                damage.dns = true;
            }
            Change::PutPolicy(policy) => {
                self.policy = policy.clone();
                damage.policy = true;
            }
            Change::PutUser(user) => {
                self.users.insert(user.id, user.clone());
                damage.users.insert(user.id);
            }
            Change::DeleteUser(id) => {
                self.users.remove(id);
                damage.users.insert(*id);
            }
            Change::PutNode(node) => self.put_node(node, damage),
            Change::DeleteNode(id) => self.delete_node(*id, damage),
            Change::PutService(service) => {
                self.services.insert(service.name.clone(), service.clone());
                damage.services.insert(service.name.clone());
            }
            Change::DeleteService(name) => {
                self.services.remove(name);
                damage.services.insert(name.clone());
            }
            Change::PutAuthKey(_)
            | Change::DeleteAuthKey(_)
            | Change::PutOAuthClient(_)
            | Change::DeleteOAuthClient(_)
            | Change::PutApiToken(_)
            | Change::DeleteApiToken(_) => self.apply_to_keys(change),
        }
    }

    fn put_node(&mut self, node: &Node, damage: &mut Damage) {
        let node = Arc::new(node.clone());
        let before = self.devices.get(&node.id).map(|device| Arc::clone(&device.node));
        if let Some(before) = &before {
            self.unindex(before);
        }
        self.by_machine.entry(node.machine_key).or_default().insert(node.id);
        self.by_name.insert(node.name.clone(), node.id);
        self.by_node_key.insert(node.node_key, node.id);
        let id = node.id;
        match self.devices.get_mut(&id) {
            Some(device) => device.node = node,
            None => drop(self.devices.insert(id, Device::new(node))),
        }
        damage.nodes.entry(id).or_insert(before);
    }

    fn delete_node(&mut self, id: NodeId, damage: &mut Damage) {
        let Some(device) = self.devices.remove(&id) else { return };
        let node = Arc::clone(&device.node);
        self.unindex(&node);
        self.recent.remove(&device.stamps.newest());
        if let Some(deadline) = device.deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.unsaved.remove(&id);
        damage.nodes.remove(&id);
        damage.gone.insert(id, device);
    }

    fn unindex(&mut self, node: &Node) {
        if let Some(nodes) = self.by_machine.get_mut(&node.machine_key) {
            nodes.remove(&node.id);
            if nodes.is_empty() {
                self.by_machine.remove(&node.machine_key);
            }
        }
        if self.by_name.get(&node.name) == Some(&node.id) {
            self.by_name.remove(&node.name);
        }
        if self.by_node_key.get(&node.node_key) == Some(&node.id) {
            self.by_node_key.remove(&node.node_key);
        }
    }

    /// Works out what follows from what was touched, and who must hear of it.
    fn settle(&mut self, damage: Damage, now: Timestamp) -> Effects {
        let mut effects = Effects::default();
        self.settle_profiles(&damage.users);
        let mut nodes: BTreeSet<NodeId> = damage.nodes.keys().copied().collect();
        if !damage.users.is_empty() {
            let of_touched_user =
                |device: &Device| device.node.owner.user().is_some_and(|owner| damage.users.contains(&owner));
            nodes.extend(self.devices.values().filter(|device| of_touched_user(device)).map(|device| device.node.id));
        }
        if damage.names {
            nodes.extend(self.devices.keys());
        }
        effects.join(self.settle_general(&damage));
        for id in &nodes {
            effects.join(self.settle_node(*id, damage.nodes.get(id), damage.names, now));
        }
        for (id, device) in &damage.gone {
            effects.cut.insert(*id);
            effects.admission |= device.admitted;
        }
        nodes.extend(damage.gone.keys());
        effects.join(self.settle_view(Touched {
            nodes,
            users: damage.users,
            services: damage.services,
            policy: damage.policy,
            rules: damage.rules,
            domains: damage.names,
            https: damage.settings,
            ..Touched::default()
        }));
        effects
    }

    fn settle_profiles(&mut self, users: &BTreeSet<UserId>) {
        if self.profiles.is_empty() {
            let tagged = UserProfile {
                id: TAGGED_DEVICES,
                login_name: "tagged-devices".to_owned(),
                display_name: "Tagged Devices".to_owned(),
                ..UserProfile::default()
            };
            self.profiles.insert(TAGGED_DEVICES, Arc::new(tagged));
        }
        if !users.is_empty() {
            self.stamps.users = self.tick();
        }
        for id in users {
            let profile = self.users.get(id).map(profile_of);
            if self.profiles.get(id).map(|profile| &**profile) == profile.as_ref() {
                continue;
            }
            match profile {
                Some(profile) => drop(self.profiles.insert(*id, Arc::new(profile))),
                None => drop(self.profiles.remove(id)),
            }
        }
    }

    fn settle_general(&mut self, damage: &Damage) -> Effects {
        let mut effects = Effects::default();
        if damage.dns || damage.names || damage.settings || !damage.services.is_empty() {
            self.stamps.dns = self.tick();
            effects.wake = Wake::All;
        }
        if damage.names {
            self.stamps.names = self.tick();
        }
        if damage.settings || damage.names {
            // The switches and the tailnet's name show in the capabilities of every device.
            self.stamps.view = self.tick();
        }
        if damage.settings {
            let all: Vec<_> = self.devices.keys().copied().collect();
            all.into_iter().for_each(|id| self.plan(id));
        }
        if !damage.users.is_empty() {
            effects.wake = Wake::All;
        }
        effects
    }

    /// Settles one device: whether it takes part, and what of it its peers see anew. Who must hear of it is for
    /// [`Tailnet::settle_view`].
    pub(super) fn settle_node(
        &mut self,
        id: NodeId,
        before: Option<&Option<Arc<Node>>>,
        renamed: bool,
        now: Timestamp,
    ) -> Effects {
        let mut effects = Effects::default();
        let Some(node) = self.devices.get(&id).map(|device| Arc::clone(&device.node)) else { return effects };
        let expired = node.is_expired(now);
        let admitted = node.authorized && !expired && node.owner.user().is_none_or(|user| self.is_active(user));
        let tick = self.tick();
        let Some(device) = self.devices.get_mut(&id) else { return effects };
        let newest = device.stamps.newest();
        effects.admission |= device.admitted != admitted;
        device.admitted = admitted;
        device.expired = expired;
        match before {
            Some(Some(before)) => {
                stamp(device, before, tick);
                if !node.describes_itself_as(before) {
                    device.descriptions.take(now);
                }
                effects.admission |= admitted && before.node_key != node.node_key;
                if before.node_key != node.node_key {
                    // The old key's stream goes on until the new key's replaces it only where both are one session;
                    // after the change the old key is nobody's.
                    effects.cut.insert(id);
                }
            }
            Some(None) => device.stamps.whole = tick,
            None => {}
        }
        if renamed {
            device.stamps.whole = tick;
        }
        device.forget_encoding();
        self.note_recent(id, newest);
        if expired {
            effects.join(self.end_absence(id, now));
        }
        self.plan(id);
        effects
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    /// Takes note of a device's newest change, in place of the one that it had.
    pub(super) fn note_recent(&mut self, id: NodeId, before: u64) {
        if self.recent.get(&before) == Some(&id) {
            self.recent.remove(&before);
        }
        if let Some(device) = self.devices.get(&id) {
            self.recent.insert(device.stamps.newest(), id);
        }
    }

    /// Works out a device's next deadline.
    pub(super) fn plan(&mut self, id: NodeId) {
        let Some(device) = self.devices.get(&id) else { return };
        let expiry = device.node.key_expiry.filter(|_| device.admitted);
        let next = [device.presence.gone_at, expiry].into_iter().flatten().min();
        if device.deadline == next {
            return;
        }
        if let Some(before) = device.deadline {
            self.deadlines.remove(&(before, id));
        }
        if let Some(next) = next {
            self.deadlines.insert((next, id));
        }
        if let Some(device) = self.devices.get_mut(&id) {
            device.deadline = next;
        }
    }
}

/// Stamps what of a device differs from what it was, as its peers see it.
fn stamp(device: &mut Device, before: &Node, tick: u64) {
    let node = &device.node;
    let stamps = &mut device.stamps;
    if node.node_key != before.node_key {
        stamps.node_key = tick;
    }
    if node.key_expiry != before.key_expiry {
        stamps.key_expiry = tick;
    }
    if node.cap != before.cap {
        stamps.cap = tick;
    }
    let hosts_differ = || hostinfo_for_peers(&node.hostinfo) != hostinfo_for_peers(&before.hostinfo);
    let differs = node.name != before.name
        || node.owner != before.owner
        || node.addresses != before.addresses
        || node.authorized != before.authorized
        || node.machine_key != before.machine_key
        || hosts_differ();
    if differs {
        stamps.whole = tick;
    }
}

fn profile_of(user: &User) -> UserProfile {
    UserProfile {
        id: user.id,
        login_name: user.login.to_string(),
        display_name: user.display_name.clone(),
        profile_pic_url: user.profile_pic_url.clone(),
        groups: Vec::new(),
    }
}
