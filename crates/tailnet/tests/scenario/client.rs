//! What a client makes of the messages of a map stream: the protocol's own rules of merging, written down again.

use std::collections::BTreeMap;

use tailcfg::{DerpMap, DnsConfig, FilterRule, Node, NodeId, SshRule, UserId, UserProfile};
use tailnet::Map;

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Client {
    pub(crate) node: Option<Node>,
    pub(crate) peers: BTreeMap<NodeId, Node>,
    pub(crate) filter: BTreeMap<String, Vec<FilterRule>>,
    pub(crate) ssh: Vec<SshRule>,
    pub(crate) dns: Option<DnsConfig>,
    pub(crate) relays: Option<DerpMap>,
    pub(crate) domain: String,
    pub(crate) profiles: BTreeMap<UserId, UserProfile>,
}

impl Client {
    pub(crate) fn apply(&mut self, map: &Map) {
        // Through the wire and back: what is compared is what arrives.
        let text = serde_json::to_string(map).expect("a map is JSON");
        let map: tailcfg::MapResponse = serde_json::from_str(&text).expect("a client reads it");
        if let Some(node) = map.node {
            self.node = Some(node);
        }
        let own = self.node.as_ref().expect("the first message has the node itself").id;
        for profile in map.user_profiles {
            self.profiles.insert(profile.id, profile);
        }
        if !map.peers.is_empty() {
            self.peers = map.peers.into_iter().map(|peer| (peer.id, peer)).collect();
        }
        for peer in map.peers_changed {
            self.peers.insert(peer.id, peer);
        }
        for id in map.peers_removed {
            assert!(self.peers.remove(&id).is_some(), "a peer was removed that was not there: {id}");
        }
        for patch in map.peers_changed_patch {
            let peer = self.peers.get_mut(&patch.node_id).expect("a patch of a peer that is there");
            peer.apply(&patch);
        }
        if let Some(rules) = map.packet_filter {
            self.filter.insert("base".to_owned(), rules);
        }
        for (name, rules) in map.packet_filters {
            match rules {
                Some(rules) => drop(self.filter.insert(name, rules)),
                None => assert!(self.filter.remove(&name).is_some(), "a chunk was removed that was not there"),
            }
        }
        if let Some(policy) = map.ssh_policy {
            self.ssh = policy.rules;
        }
        self.dns = map.dns_config.or(self.dns.take());
        self.relays = map.derp_map.or(self.relays.take());
        if !map.domain.is_empty() {
            self.domain = map.domain;
        }
        assert!(!self.peers.contains_key(&own), "a node must never be among its own peers");
        for peer in self.peers.values() {
            assert!(self.profiles.contains_key(&peer.user), "the user of {} is not known", peer.name);
            assert!(peer.name.ends_with('.') && peer.id.0 > 0 && peer.last_seen.is_some());
        }
        assert!(self.profiles.contains_key(&self.node.as_ref().expect("checked above").user));
    }

    /// The same without what only the way here shows: profiles of users no longer named, and where the node itself is,
    /// which it knows best.
    pub(crate) fn settled(mut self) -> Self {
        let named: Vec<UserId> = self.peers.values().chain(&self.node).map(|node| node.user).collect();
        self.profiles.retain(|id, _| named.contains(id));
        if let Some(node) = &mut self.node {
            node.disco_key = Default::default();
            node.home_derp = Default::default();
            node.legacy_derp = String::new();
        }
        self
    }

    /// The same without when peers were seen: a server that starts again knows less of that.
    pub(crate) fn without_times(mut self) -> Self {
        self.peers.values_mut().for_each(|peer| peer.last_seen = None);
        self
    }

    /// Where two differ, by field: short enough to read in a failure.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, one: serde_json::Value, two: serde_json::Value| {
            if one != two {
                found.push(format!("{what}: {one} / {two}"));
            }
        };
        let nodes = |client: &Self| client.node.iter().chain(client.peers.values()).cloned().collect::<Vec<_>>();
        let (ours, theirs) = (nodes(self), nodes(other));
        compare(
            "peers",
            json_of(&self.peers.keys().collect::<Vec<_>>()),
            json_of(&other.peers.keys().collect::<Vec<_>>()),
        );
        for (one, two) in ours.iter().zip(&theirs) {
            let (one, two) = (json_of(one), json_of(two));
            for name in one.as_object().into_iter().chain(two.as_object()).flat_map(serde_json::Map::keys) {
                compare(name, one[name].clone(), two[name].clone());
            }
        }
        compare("filter", json_of(&self.filter), json_of(&other.filter));
        compare("ssh", json_of(&self.ssh), json_of(&other.ssh));
        compare("dns", json_of(&self.dns), json_of(&other.dns));
        compare("relays", json_of(&self.relays), json_of(&other.relays));
        compare("profiles", json_of(&self.profiles), json_of(&other.profiles));
        compare("domain", json_of(&self.domain), json_of(&other.domain));
        found
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.peers.values().map(|peer| peer.name.split('.').next().unwrap_or_default()).collect()
    }

    pub(crate) fn peer(&self, name: &str) -> &Node {
        let found = self.peers.values().find(|peer| peer.name.split('.').next() == Some(name));
        found.unwrap_or_else(|| panic!("{name} is not among {:?}", self.names()))
    }
}

fn json_of(value: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(value).expect("it is JSON")
}
