//! What each device is told: its first map, and from then on what differs.

mod dns;
mod ssh;
mod viewer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use policy::AllowedIps;
use roaring::RoaringTreemap;
use tailcfg::{Encoded, FilterRule, MapResponse, Node as WireNode, NodeId, PeerChange, Time};

pub use ssh::SshVerdict;
pub use viewer::Viewer;

use crate::device::Device;
use crate::tailnet::Tailnet;

/// A message of a map stream, its peers encoded before.
pub type Map = MapResponse<Encoded<WireNode>>;

/// The chunk of the filter that clients start with. It is always sent, and empty: a client that was never sent a filter
/// and one that was sent an empty one must do the same.
const BASE_CHUNK: &str = "base";

impl Tailnet {
    /// The first map of a device's stream, and what the stream is to remember.
    ///
    /// `None` when there is no such device.
    pub fn netmap(&self, node: NodeId, now: Timestamp) -> Option<(Map, Viewer)> {
        let mut viewer = Viewer::new(node);
        let map = self.update(&mut viewer, now)?;
        Some((map, viewer))
    }

    /// What differs from what a stream was last sent, as one message; `None` when nothing does.
    pub fn delta(&self, viewer: &mut Viewer, now: Timestamp) -> Option<Map> {
        self.update(viewer, now)
    }

    fn update(&self, viewer: &mut Viewer, now: Timestamp) -> Option<Map> {
        let device = self.device(viewer.node())?;
        let seen = viewer.seen;
        let mut map = Map::default();
        // Whether a device takes part is something that policy is compiled against: it shows in the views.
        let afresh = viewer.is_first() || self.view_stamp() > seen;
        self.update_peers(viewer, device, afresh, &mut map);
        if afresh || device.views.filter > seen {
            self.update_filter(viewer, device, &mut map);
        }
        if afresh || device.views.ssh > seen {
            self.update_ssh(viewer, device, &mut map);
        }
        // A user's role shows in the capabilities of their devices, also of those that don't take part.
        if afresh || device.stamps.newest() > seen || self.users_stamp() > seen {
            self.update_self(viewer, device, &mut map);
        }
        self.update_rest(viewer, device, &mut map);
        viewer.seen = self.ticks();
        if map == Map::default() {
            return None;
        }
        map.control_time = Some(Time::from(now));
        Some(map)
    }

    fn update_peers(&self, viewer: &mut Viewer, device: &Device, afresh: bool, map: &mut Map) {
        let sightings = device.views.sightings_since(viewer.seen).filter(|_| !afresh);
        let mut whole: BTreeSet<NodeId> = BTreeSet::new();
        let routes = match sightings {
            Some(sightings) => {
                take_sightings(viewer, &sightings, &mut whole, map);
                device.views.routes > viewer.seen
            }
            None => {
                self.look_around(viewer, device, &mut whole, map);
                true
            }
        };
        self.update_special(viewer, routes, &mut whole);
        for id in self.changed_since(viewer.seen) {
            let Some(peer) = self.device(id).filter(|_| viewer.visible.contains(id.0) && !whole.contains(&id)) else {
                continue;
            };
            if peer.stamps.whole > viewer.seen {
                whole.insert(id);
            } else if peer.stamps.patched() > viewer.seen {
                map.peers_changed_patch.push(patch(peer, viewer.seen));
            }
        }
        map.peers_changed_patch.sort_by_key(|patch| patch.node_id);
        let peers = whole.iter().filter_map(|id| self.device(*id));
        let encoded: Vec<_> =
            peers.filter_map(|peer| peer.encoded(self.domain(), viewer.special.get(&peer.node.id))).collect();
        if viewer.is_first() {
            map.peers = encoded;
        } else {
            map.peers_changed = encoded;
        }
        self.update_profiles(viewer, device, &whole, map);
    }

    /// Compares whom policy shows with whom the viewer was told of.
    fn look_around(&self, viewer: &mut Viewer, device: &Device, whole: &mut BTreeSet<NodeId>, map: &mut Map) {
        let visible: RoaringTreemap = if device.admitted {
            self.rules.peers(viewer.node()).filter(|id| *id != viewer.node()).map(|id| id.0).collect()
        } else {
            RoaringTreemap::new()
        };
        whole.extend((&visible - &viewer.visible).iter().map(NodeId));
        map.peers_removed = (&viewer.visible - &visible).iter().map(NodeId).collect();
        viewer.visible = visible;
    }

    /// Brings what the viewer was told of peers' addresses up to date, where that is more, or less, than they are: of all
    /// peers, or of those that are new to it or whose routes may be otherwise.
    fn update_special(&self, viewer: &mut Viewer, all: bool, whole: &mut BTreeSet<NodeId>) {
        if all {
            let special = self.special(viewer.node(), &viewer.visible);
            let differs = |id: &NodeId| special.get(id) != viewer.special.get(id);
            let touched = special.keys().chain(viewer.special.keys()).copied();
            whole.extend(touched.filter(|id| viewer.visible.contains(id.0)).filter(differs));
            viewer.special = special;
            return;
        }
        let served = |id: &NodeId| self.device(*id).is_some_and(|peer| peer.stamps.served > viewer.seen);
        let changed = self.changed_since(viewer.seen).filter(|id| viewer.visible.contains(id.0)).filter(served);
        let asked: RoaringTreemap = whole.iter().copied().chain(changed).map(|id| id.0).collect();
        let special = self.special(viewer.node(), &asked);
        for id in asked.iter().map(NodeId) {
            if special.get(&id) == viewer.special.get(&id) {
                continue;
            }
            whole.insert(id);
            match special.get(&id) {
                Some(told) => drop(viewer.special.insert(id, told.clone())),
                None => drop(viewer.special.remove(&id)),
            }
        }
    }

    /// What the viewer is told of the addresses of those peers of which it is told more, or less, than they are.
    fn special(&self, viewer: NodeId, visible: &RoaringTreemap) -> BTreeMap<NodeId, AllowedIps> {
        let peers = visible.iter().filter_map(|id| self.device(NodeId(id)));
        let special = peers.filter(|peer| self.rules.is_special(&peer.node));
        special
            .map(|peer| (peer.node.id, self.rules.allowed_ips(viewer, peer.node.id)))
            .filter(|(id, allowed)| self.device(*id).is_some_and(|peer| !peer.is_plain(allowed)))
            .collect()
    }

    /// Users that are named for the first time, or that changed.
    fn update_profiles(&self, viewer: &mut Viewer, device: &Device, whole: &BTreeSet<NodeId>, map: &mut Map) {
        let mut profiles = BTreeMap::new();
        for peer in whole.iter().filter_map(|id| self.device(*id)) {
            if let Some(profile) = self.peer_profile(&peer.node.owner) {
                profiles.insert(profile.id, profile);
            }
        }
        if self.users_stamp() > viewer.seen {
            let known = viewer.profiles.keys().filter_map(|id| self.profile(*id));
            profiles.extend(known.map(|profile| (profile.id, profile)));
        }
        let own = self.self_profile(&device.node);
        profiles.entry(own.id).or_insert_with(|| Arc::new(own));
        for (id, profile) in profiles {
            if viewer.profiles.get(&id).is_none_or(|known| !Arc::ptr_eq(known, &profile) && *known != profile) {
                map.user_profiles.push((*profile).clone());
                viewer.profiles.insert(id, profile);
            }
        }
    }

    fn update_self(&self, viewer: &mut Viewer, device: &Device, map: &mut Map) {
        let mut node = device.as_self(self.domain(), self.self_caps(&device.node));
        node.allowed_ips = Some(self.rules.own_allowed_ips(node.id)).filter(|_| device.admitted);
        node.primary_routes = self.primary_routes(node.id);
        if !device.admitted {
            node.allowed_ips = Some(node.addresses.clone());
            node.primary_routes = Vec::new();
        }
        node.expired = device.expired;
        // Where it is, the device knows best, and a client rebuilds everything whenever its own node is sent: that alone
        // is no reason to send it.
        let lasting = WireNode {
            disco_key: Default::default(),
            home_derp: Default::default(),
            legacy_derp: String::new(),
            ..node.clone()
        };
        if viewer.self_node.as_ref() != Some(&lasting) {
            viewer.self_node = Some(lasting);
            map.node = Some(node);
        }
    }

    fn update_filter(&self, viewer: &mut Viewer, device: &Device, map: &mut Map) {
        let rules = if device.admitted { self.rules.filter(device.node.id) } else { Vec::new() };
        let mut chunks: BTreeMap<String, Vec<FilterRule>> = BTreeMap::new();
        for rule in rules {
            chunks.entry(chunk_name(&rule)).or_insert_with(|| vec![rule]);
        }
        if viewer.is_first() {
            map.packet_filters.insert(BASE_CHUNK.to_owned(), Some(Vec::new()));
        }
        let gone = viewer.chunks.iter().filter(|name| !chunks.contains_key(*name));
        map.packet_filters.extend(gone.map(|name| (name.clone(), None)));
        let names = chunks.keys().cloned().collect();
        let new = chunks.into_iter().filter(|(name, _)| !viewer.chunks.contains(name));
        map.packet_filters.extend(new.map(|(name, rules)| (name, Some(rules))));
        viewer.chunks = names;
    }

    fn update_rest(&self, viewer: &mut Viewer, device: &Device, map: &mut Map) {
        // The device's own name is among those that it can have certificates for.
        if viewer.is_first() || self.dns_stamp() > viewer.seen || device.stamps.whole > viewer.seen {
            let dns = self.dns_config(&device.node);
            if viewer.dns.as_ref() != Some(&dns) {
                viewer.dns = Some(dns.clone());
                map.dns_config = Some(dns);
            }
        }
        if viewer.is_first() {
            map.collect_services = Some(false);
        }
        if viewer.is_first() || self.names_stamp() > viewer.seen {
            map.domain.clone_from(&self.record().name);
        }
        if viewer.is_first() || self.relays_stamp() > viewer.seen {
            map.derp_map = Some(self.relays().clone());
        }
    }
}

/// Takes over whom the viewer met and lost since it was last told.
fn take_sightings(
    viewer: &mut Viewer,
    sightings: &BTreeMap<NodeId, bool>,
    whole: &mut BTreeSet<NodeId>,
    map: &mut Map,
) {
    for (id, visible) in sightings {
        if *visible && viewer.visible.insert(id.0) {
            whole.insert(*id);
        } else if !*visible && viewer.visible.remove(id.0) {
            map.peers_removed.push(*id);
            viewer.special.remove(id);
        }
    }
}

/// A rule's name as a chunk of the filter: what it says, so that a rule that stays keeps its name.
fn chunk_name(rule: &FilterRule) -> String {
    let text = serde_json::to_string(rule).unwrap_or_default();
    let mut hash = crypto::sha256_hex(text.as_bytes());
    hash.truncate(24);
    format!("rule-{hash}")
}

/// What of a device changed after `seen`, where a patch can say it.
fn patch(device: &Device, seen: u64) -> PeerChange {
    let (node, presence, stamps) = (&device.node, &device.presence, &device.stamps);
    let online = stamps.online > seen;
    PeerChange {
        node_id: node.id,
        derp_region: if stamps.home > seen { presence.home } else { Default::default() },
        cap: (stamps.cap > seen).then_some(node.cap),
        cap_map: None,
        endpoints: (stamps.endpoints > seen).then(|| presence.endpoints.clone()),
        key: (stamps.node_key > seen).then_some(node.node_key),
        key_signature: Vec::new(),
        disco_key: (stamps.disco_key > seen).then_some(presence.disco_key),
        online: online.then_some(presence.online),
        last_seen: online.then(|| device.last_seen()),
        key_expiry: (stamps.key_expiry > seen).then(|| Time::from(node.key_expiry)),
    }
}
