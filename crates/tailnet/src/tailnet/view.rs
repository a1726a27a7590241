//! What policy makes of the tailnet, kept up to date: who serves routes, who sees whom, and who must hear of a change.
//!
//! The compiled policy is state like any other. A command changes it in proportion to the rules that name what the command
//! touched, not to the size of the tailnet; and each device remembers since when it could be told something new.

use std::collections::BTreeSet;
use std::sync::Arc;

use filter::CapMap;
use ipnet::IpNet;
use policy::{Affected, Change, Topology};
use tailcfg::{NodeId, UserId};

use super::Tailnet;
use crate::device::Device;
use crate::effects::{Effects, Wake};
use crate::record::{Node, ServiceName};
use crate::rules::{MOST_CHANGES, Rules, as_policy_node, as_policy_service, as_policy_user};

/// What may be otherwise for policy.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Devices that came, went or are other than they were.
    pub(super) nodes: BTreeSet<NodeId>,
    /// Devices that connected or left, and may serve routes.
    pub(super) routers: BTreeSet<NodeId>,
    /// Routes that were served by others.
    pub(super) routes: BTreeSet<IpNet>,
    pub(super) users: BTreeSet<UserId>,
    pub(super) services: BTreeSet<ServiceName>,
    /// The policy itself.
    pub(super) policy: bool,
    /// The policy compiled beforehand, if it was.
    pub(super) rules: Option<Rules>,
    /// The login domains of the tailnet; those of users are looked at whenever users are.
    pub(super) domains: bool,
    pub(super) https: bool,
}

impl Tailnet {
    /// Brings policy up to date with what was touched; says who must hear of it.
    pub(super) fn settle_view(&mut self, touched: Touched) -> Effects {
        let routes = self.elect(touched.nodes.iter().chain(&touched.routers), touched.routes.clone());
        if touched.policy {
            self.put_in_force(touched.rules);
            let mut effects = self.view_all();
            effects.join(self.settle_relays());
            return effects;
        }
        let changes = self.changes(&touched, routes);
        if changes.len() > MOST_CHANGES {
            let topology = self.topology();
            self.rules.recompile(topology);
            return self.view_all();
        }
        let affected = self.rules.apply(changes);
        self.view_affected(&touched.nodes, affected)
    }

    /// Makes the policy what devices go by. One that was compiled beforehand is read no more: everybody waits for this.
    fn put_in_force(&mut self, rules: Option<Rules>) {
        let topology = self.topology();
        let rules = match rules.filter(|rules| rules.policy().text() == self.policy.text) {
            Some(mut rules) => {
                // What it approves at once came to the tailnet with it.
                if !rules.follow(&topology) {
                    rules.recompile(topology);
                }
                rules
            }
            None => Rules::new(&self.policy.text, topology),
        };
        self.retired = Some(std::mem::replace(&mut self.rules, rules));
    }

    /// Works out which relays devices are told of.
    pub(super) fn settle_relays(&mut self) -> Effects {
        // A policy that the server's relays no longer fit, which were others when it was set, changes nothing of them.
        let own = |_| Arc::clone(&self.own_relays);
        let told = crate::relays::told(&self.own_relays, self.rules.compiled().policy()).unwrap_or_else(own);
        if self.relays == told {
            return Effects::default();
        }
        self.relays = told;
        self.stamps.relays = self.tick();
        Effects { wake: Wake::All, ..Effects::default() }
    }

    /// Has the devices that may serve routes compared anew; gives the routes for which that may have another outcome.
    fn elect<'a>(&mut self, nodes: impl Iterator<Item = &'a NodeId>, mut routes: BTreeSet<IpNet>) -> BTreeSet<IpNet> {
        for id in nodes {
            let device = self.devices.get(id).filter(|device| device.admitted);
            let online = device.is_some_and(|device| device.presence.online);
            let served = device.into_iter().flat_map(|device| device.node.served_routes());
            let subnets = served.filter(|route| route.prefix_len() > 0).collect();
            routes.extend(self.primaries.set(*id, online, subnets));
        }
        for route in &routes {
            self.unsaved.extend(self.primaries.elect(route));
        }
        routes
    }

    /// What differs from what the policy was compiled against, among what was touched.
    fn changes(&self, touched: &Touched, routes: BTreeSet<IpNet>) -> Vec<Change> {
        let known = self.rules.topology();
        let mut changes = Vec::new();
        for id in &touched.users {
            let key = policy::UserId(id.0);
            let user = self.users.get(id).filter(|user| self.is_active(user.id)).map(as_policy_user);
            if user.as_ref() != known.users.get(&key) {
                changes.push(user.map_or(Change::UserGone(key), |user| Change::User(key, user)));
            }
        }
        for id in &touched.nodes {
            let key = policy::NodeId(id.0);
            let node = self.devices.get(id).filter(|device| device.admitted).map(|device| as_policy_node(&device.node));
            if node.as_ref() != known.nodes.get(&key) {
                changes.push(node.map_or(Change::NodeGone(key), |node| Change::Node(key, Box::new(node))));
            }
        }
        for route in routes {
            let routers = self.routers(&route);
            if known.routers.get(&route).map(Vec::as_slice).unwrap_or_default() != routers {
                changes.push(Change::Routers(route, routers));
            }
        }
        for name in &touched.services {
            let service = self.services.get(name).map(as_policy_service);
            if service.as_ref() != known.services.get(name.as_str()) {
                changes.push(Change::Service(name.as_str().into(), service));
            }
        }
        if touched.domains || !touched.users.is_empty() {
            let domains = self.login_domains();
            if domains != known.domains {
                changes.push(Change::Domains(domains));
            }
        }
        if touched.https && self.settings.https != known.https {
            changes.push(Change::Https(self.settings.https));
        }
        changes
    }

    /// The tailnet as policy sees it, from nothing.
    fn topology(&self) -> Topology {
        let admitted = self.devices.values().filter(|device| device.admitted);
        let active = self.users.values().filter(|user| self.is_active(user.id));
        Topology {
            users: active.map(|user| (policy::UserId(user.id.0), as_policy_user(user))).collect(),
            nodes: admitted.map(|device| (policy::NodeId(device.node.id.0), as_policy_node(&device.node))).collect(),
            services: self.services.values().map(|s| (s.name.as_str().into(), as_policy_service(s))).collect(),
            routers: self.primaries.routes().map(|route| (route, self.routers(&route))).collect(),
            domains: self.login_domains(),
            https: self.settings.https,
        }
    }

    /// Who serves a route, in order of preference.
    fn routers(&self, route: &IpNet) -> Vec<policy::NodeId> {
        self.primaries.preferences(route).into_iter().map(|node| policy::NodeId(node.0)).collect()
    }

    /// The domains that login names of this tailnet may have: those of its users, and its own name.
    fn login_domains(&self) -> BTreeSet<String> {
        let of_users = self.users.values().filter_map(|user| user.login.as_str().split_once('@'));
        of_users.map(|(_, domain)| domain.to_owned()).chain([self.record.name.clone()]).collect()
    }

    /// Everything may be otherwise for everybody.
    fn view_all(&mut self) -> Effects {
        self.stamps.view = self.tick();
        let all: Vec<NodeId> = self.devices.keys().copied().collect();
        all.into_iter().for_each(|id| self.settle_caps(id));
        Effects { wake: Wake::All, ..Effects::default() }
    }

    /// Stamps whatever a change concerns, and gives those who must hear of it.
    fn view_affected(&mut self, touched: &BTreeSet<NodeId>, affected: Affected) -> Effects {
        let tick = self.tick();
        let mut whom: BTreeSet<NodeId> = BTreeSet::new();
        for id in touched {
            if let Some(device) = self.devices.get_mut(id) {
                device.views.stamp(tick);
            }
        }
        whom.extend(self.note_sightings(tick, &affected));
        let others: BTreeSet<NodeId> = affected.nodes.iter().map(|id| NodeId(id.0)).collect();
        let with_filter = affected.filters.iter().map(|id| NodeId(id.0)).chain(others.iter().copied());
        for id in with_filter {
            if let Some(device) = self.devices.get_mut(&id) {
                // What a device is told of routes depends on what its filter lets in.
                (device.views.filter, device.views.routes) = (tick, tick);
                whom.insert(id);
            }
        }
        for id in affected.ssh.iter().map(|id| NodeId(id.0)).chain(others.iter().copied()) {
            if let Some(device) = self.devices.get_mut(&id) {
                device.views.ssh = tick;
                whom.insert(id);
            }
        }
        let mut wake = Wake::Some(whom);
        for id in others.iter().chain(touched.difference(&others)) {
            self.settle_caps(*id);
            self.stamp_served(*id);
            wake.join(Wake::Some(self.rules.peers(*id).chain([*id]).collect()));
        }
        Effects { wake, ..Effects::default() }
    }

    /// Tells devices whom they met and lost; gives those that did.
    fn note_sightings(&mut self, tick: u64, affected: &Affected) -> BTreeSet<NodeId> {
        let mut sightings: Vec<(NodeId, NodeId, bool)> = Vec::new();
        let mut add = |pair: &policy::Pair, visible: bool| {
            let (one, other) = (NodeId(pair.0.0), NodeId(pair.1.0));
            sightings.extend([(one, other, visible), (other, one, visible)]);
        };
        for pair in &affected.met {
            // Who met and parted in one step is named twice.
            let both = !affected.parted.is_empty() && affected.parted.contains(pair);
            add(pair, !both || self.rules.are_peers(NodeId(pair.0.0), NodeId(pair.1.0)));
        }
        affected.parted.difference(&affected.met).for_each(|pair| add(pair, false));
        sightings.sort_unstable();
        let mut rest = sightings.as_slice();
        while let Some((viewer, ..)) = rest.first().copied() {
            let count = rest.iter().take_while(|(one, ..)| *one == viewer).count();
            let (own, later) = rest.split_at(count);
            rest = later;
            let Some(device) = self.devices.get_mut(&viewer).filter(|device| device.views.forgotten < tick) else {
                continue;
            };
            own.iter().for_each(|(_, peer, visible)| device.views.note(tick, *peer, *visible));
        }
        sightings.into_iter().map(|(viewer, ..)| viewer).collect()
    }

    /// What others are told of a device's routes may be otherwise.
    fn stamp_served(&mut self, id: NodeId) {
        let tick = self.tick();
        let Some(device) = self.devices.get_mut(&id) else { return };
        let newest = device.stamps.newest();
        device.stamps.served = tick;
        self.note_recent(id, newest);
    }

    /// Takes the capabilities that a device's peers see anew; a device that has others is sent as a whole.
    fn settle_caps(&mut self, id: NodeId) {
        let Some(caps) = self.devices.get(&id).map(|device| self.peer_caps(device)) else { return };
        let tick = self.ticks + 1;
        let Some(device) = self.devices.get_mut(&id).filter(|device| device.peer_caps != caps) else { return };
        self.ticks = tick;
        let newest = device.stamps.newest();
        device.peer_caps = caps;
        device.stamps.whole = tick;
        device.forget_encoding();
        self.note_recent(id, newest);
    }

    fn peer_caps(&self, device: &Device) -> CapMap {
        let node: &Node = &device.node;
        let mut caps = self.rules.peer_attributes(node.id);
        if node.is_exit_node() {
            // User interfaces list only exit nodes that have both.
            caps.grant(tailcfg::cap::SUGGEST_EXIT_NODE);
            caps.grant(tailcfg::cap::SUGGEST_EXIT_NODE_UI);
        }
        caps
    }
}
