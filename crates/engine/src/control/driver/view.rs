//! What the owner says: views, interfaces, changes of the network.

use std::sync::Arc;
use std::time::Instant;

use crypto::{DiscoPublic, NodePublic, SystemEntropy};
use mesh::View;
use path::RegionId;
use path::paths::PeerConfig;

use super::{Driver, NETWORK_INTERVAL, Resolved, moment};
use crate::counters::count_many;
use crate::slots::{Peer, Table};

impl Driver {
    pub(super) fn take_orders(&mut self) {
        let orders = self.orders.take();
        let now = Instant::now();
        if let Some(port) = orders.peer_api_port {
            self.peer_api_port = port;
        }
        if let Some(connected) = orders.control_connected {
            self.netcheck.handle_control(connected);
        }
        if let Some(addresses) = orders.interfaces {
            self.endpoints.handle_interfaces(&addresses, now);
            self.interfaces = addresses;
            self.take_families(now);
            if !self.has_regions() {
                // There is nobody to ask for more.
                self.paths.handle_own_endpoints(&self.endpoints.addresses(), now, &mut SystemEntropy);
            }
        }
        if let Some(view) = orders.view {
            self.take_view(view, now);
        }
        if orders.network_changed {
            let soonest = self.network_changed.map_or(now, |last| last + NETWORK_INTERVAL);
            self.network_due = Some(soonest.max(now));
        }
    }

    fn take_view(&mut self, view: View, now: Instant) {
        let before = self.shared.table.load_full();
        let relays = view.relays.clone();
        let table = Arc::new(Table::new(view, &before));
        // First what the data threads see, then what makes messages for them.
        self.shared.table.store(table.clone());
        for peer in before.peers().filter(|peer| table.peer(&peer.slot.node).is_none()) {
            self.remove_peer(peer, now);
        }
        for peer in table.peers() {
            let known = before.peer(&peer.slot.node).map(|known| config_of(&peer.slot.node, known));
            let config = config_of(&peer.slot.node, peer);
            if known.as_ref() != Some(&config) {
                self.paths.handle_peer(&config, now, &mut SystemEntropy);
                peer.slot.set_path(self.paths.choice(&peer.slot.node));
                if known.is_some_and(|known| has_restarted(&known, &config)) {
                    self.renew_session(peer);
                }
            }
        }
        if *relays != *before.view.relays {
            for region in self.relays.set_map(&relays) {
                self.health.forget(region);
                let closed = path::RelayState::Closed;
                self.paths.handle_relay(region, closed, now, &mut SystemEntropy);
                self.netcheck.handle_relay(region, closed, now, &mut SystemEntropy);
            }
            self.names.look_up(&relays);
            self.netcheck.handle_relay_map(self.names.relay_map(&relays), now, &mut SystemEntropy);
        }
        self.set_roles();
    }

    /// Begins a session anew with a peer that has restarted: it has forgotten the one that there was, and neither side
    /// would notice for many seconds.
    fn renew_session(&mut self, peer: &Peer) {
        let node = peer.slot.node;
        if self.wireguard.status(&node).is_some() {
            self.wireguard.remove(&node);
            peer.slot.set_key(None);
            self.wireguard.handle_wanted(node, moment(), &mut SystemEntropy);
        }
    }

    fn remove_peer(&mut self, peer: &Peer, now: Instant) {
        let node = peer.slot.node;
        self.wireguard.remove(&node);
        self.paths.handle_peer_removed(&node, now, &mut SystemEntropy);
        self.unsent.remove(&node);
        peer.slot.set_key(None);
        let dropped = peer.slot.take_waiting(&self.shared.waiting).len();
        count_many(&self.shared.counters.unsent_waiting, dropped);
        self.backlog.forget(&node);
    }

    /// Tells each relay's task what it is for.
    pub(super) fn set_roles(&mut self) {
        let table = self.shared.table.load_full();
        let mut homes: Vec<RegionId> = table.peers().filter_map(|peer| peer.view.home).collect();
        homes.sort_unstable();
        homes.dedup();
        self.relays.set_roles(self.netcheck.home(), |region| homes.binary_search(&region).is_ok());
    }

    /// A relay's name was looked up.
    pub(super) fn resolved(&mut self, answer: Resolved) {
        if self.names.take(answer, Instant::now()) {
            let relays = self.shared.table.load().view.relays.clone();
            let map = self.names.relay_map(&relays);
            self.netcheck.handle_relay_map(map, Instant::now(), &mut SystemEntropy);
        }
    }

    /// A peer says by itself which disco key it has now.
    pub(super) fn take_disco_key(&mut self, node: NodePublic, key: DiscoPublic) {
        let table = self.shared.table.load_full();
        if table.peer(&node).is_none_or(|peer| peer.view.disco == key) {
            return;
        }
        let mut view = table.view.clone();
        if let Some(peer) = view.peers.get_mut(&node) {
            peer.disco = key;
        }
        self.shared.table.store(Arc::new(Table::new(view, &table)));
        self.paths.handle_disco_key(&node, key, Instant::now(), &mut SystemEntropy);
    }
}

/// Whether a peer runs anew: it then has another disco key.
fn has_restarted(known: &PeerConfig, config: &PeerConfig) -> bool {
    known.disco != config.disco && !known.disco.is_zero() && !config.disco.is_zero()
}

fn config_of(node: &NodePublic, peer: &Peer) -> PeerConfig {
    let view = &peer.view;
    PeerConfig {
        node: *node,
        disco: view.disco,
        home: view.home,
        endpoints: view.endpoints.clone(),
        wireguard_only: view.wireguard_only,
    }
}
