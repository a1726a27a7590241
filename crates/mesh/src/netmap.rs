use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crypto::NodePublic;
use tailcfg::{
    DerpMap, DisplayMessage, DnsConfig, FilterRule, MapResponse, Node, NodeId, PeerChange, SshPolicy, Time, UserId,
    UserProfile,
};

mod check;

pub use check::MapError;

/// The name of the filter chunk that the field before named chunks sets.
const BASE_CHUNK: &str = "base";

/// What the coordination server has told the node, merged from the first message of a stream and all that followed.
#[derive(Debug, Clone, PartialEq)]
pub struct Netmap {
    node: Arc<Node>,
    peers: BTreeMap<NodeId, Arc<Node>>,
    by_key: BTreeMap<NodePublic, NodeId>,
    by_address: BTreeMap<IpAddr, NodeId>,
    users: BTreeMap<UserId, UserProfile>,
    domain: String,
    dns: Arc<DnsConfig>,
    relays: Arc<DerpMap>,
    filter: BTreeMap<String, Arc<[FilterRule]>>,
    warnings: Vec<String>,
    messages: BTreeMap<String, DisplayMessage>,
    ssh_policy: Option<SshPolicy>,
}

/// What a message changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Changed {
    /// The node itself.
    pub node: bool,
    /// Which peers there are, or what is known of one.
    pub peers: bool,
    /// The packet filter's rules.
    pub filter: bool,
    /// How names resolve.
    pub dns: bool,
    /// The relays.
    pub relays: bool,
    /// Users that nodes name.
    pub users: bool,
    /// Warnings for the user.
    pub warnings: bool,
    /// Anything else.
    pub other: bool,
}

impl Changed {
    /// Everything, as after the first message of a stream.
    pub const ALL: Self = Self {
        node: true,
        peers: true,
        filter: true,
        dns: true,
        relays: true,
        users: true,
        warnings: true,
        other: true,
    };

    /// Whether anything changed.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

impl Netmap {
    /// Takes the first message of a stream, which must hold the node itself.
    ///
    /// # Errors
    /// A message that breaks a limit, contradicts itself or has no node.
    pub fn first(message: MapResponse) -> Result<Self, MapError> {
        let node = message.node.clone().ok_or(MapError::NoNode)?;
        check::node(&node)?;
        let mut made = Self {
            node: Arc::new(node),
            peers: BTreeMap::new(),
            by_key: BTreeMap::new(),
            by_address: BTreeMap::new(),
            users: BTreeMap::new(),
            domain: String::new(),
            dns: Arc::default(),
            relays: Arc::default(),
            filter: BTreeMap::new(),
            warnings: Vec::new(),
            messages: BTreeMap::new(),
            ssh_policy: None,
        };
        made.apply(message)?;
        made.index();
        Ok(made)
    }

    /// Merges a later message of the stream; what it does not mention stays as it was.
    ///
    /// # Errors
    /// A message that breaks a limit or contradicts itself; nothing of it is taken then.
    pub fn apply(&mut self, message: MapResponse) -> Result<Changed, MapError> {
        if message.keep_alive {
            return Ok(Changed::default());
        }
        check::message(self, &message)?;
        let mut changed = Changed::default();
        if let Some(node) = message.node {
            changed.node = *self.node != node;
            self.node = Arc::new(node);
        }
        let structure = self.apply_peers(message.peers, message.peers_removed, message.peers_changed);
        let patched = self.apply_patches(&message.peers_changed_patch);
        let presence = self.apply_presence(&message.online_change, &message.peer_seen_change, message.control_time);
        changed.peers = structure || patched || presence;
        if structure || patched || changed.node {
            changed.peers |= self.drop_self();
            self.index();
        }
        changed.filter = self.apply_filter(message.packet_filter, message.packet_filters);
        changed.users = self.apply_users(message.user_profiles);
        if let Some(dns) = message.dns_config {
            changed.dns = *self.dns != dns;
            self.dns = Arc::new(dns);
        }
        if let Some(relays) = message.derp_map {
            changed.relays = self.apply_relays(relays);
        }
        changed.warnings = self.apply_warnings(message.health, message.display_messages);
        if !message.domain.is_empty() && message.domain != self.domain {
            self.domain = message.domain;
            changed.other = true;
        }
        if message.ssh_policy.is_some() {
            self.ssh_policy = message.ssh_policy;
            changed.other = true;
        }
        Ok(changed)
    }

    /// The whole map as one message: what [`Netmap::first`] makes the same map of.
    pub fn to_message(&self) -> MapResponse {
        let filters = self.filter.iter().map(|(name, rules)| (name.clone(), Some(rules.to_vec())));
        MapResponse {
            node: Some(self.node.as_ref().clone()),
            peers: self.peers.values().map(|peer| peer.as_ref().clone()).collect(),
            user_profiles: self.users.values().cloned().collect(),
            domain: self.domain.clone(),
            dns_config: Some(self.dns.as_ref().clone()),
            derp_map: Some(self.relays.as_ref().clone()),
            packet_filters: filters.collect(),
            health: Some(self.warnings.clone()),
            display_messages: self.messages.iter().map(|(name, text)| (name.clone(), Some(text.clone()))).collect(),
            ssh_policy: self.ssh_policy.clone(),
            ..MapResponse::default()
        }
    }

    /// The node itself.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// The peers by number.
    pub fn peers(&self) -> &BTreeMap<NodeId, Arc<Node>> {
        &self.peers
    }

    /// The peer with a node key.
    pub fn peer_by_key(&self, key: &NodePublic) -> Option<&Arc<Node>> {
        self.peers.get(self.by_key.get(key)?)
    }

    /// The node that has an address of its own: a peer, or the node itself.
    pub fn node_at(&self, address: IpAddr) -> Option<&Arc<Node>> {
        let id = self.by_address.get(&address)?;
        if *id == self.node.id { Some(&self.node) } else { self.peers.get(id) }
    }

    /// The users that nodes name.
    pub fn users(&self) -> &BTreeMap<UserId, UserProfile> {
        &self.users
    }

    /// The tailnet's name.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// How names resolve.
    pub fn dns(&self) -> &Arc<DnsConfig> {
        &self.dns
    }

    /// The relays.
    pub fn relays(&self) -> &Arc<DerpMap> {
        &self.relays
    }

    /// The packet filter's rules, chunk by chunk in the order of their names.
    pub fn filter_rules(&self) -> impl Iterator<Item = &FilterRule> {
        self.filter.values().flat_map(|rules| rules.iter())
    }

    /// What the server warns the user of.
    pub fn warnings(&self) -> Vec<String> {
        let messages = self.messages.values().map(|message| match (&*message.title, &*message.text) {
            ("", text) => text.to_owned(),
            (title, "") => title.to_owned(),
            (title, text) => format!("{title}: {text}"),
        });
        self.warnings.iter().cloned().chain(messages).collect()
    }

    /// Who may open SSH sessions on the node.
    pub fn ssh_policy(&self) -> Option<&SshPolicy> {
        self.ssh_policy.as_ref()
    }

    /// The suffix of the tailnet's names, without dots at its ends: what follows the first label of the node's name.
    pub fn magic_dns_suffix(&self) -> &str {
        suffix_of(&self.node.name)
    }

    /// Takes out peers that the node itself has become, or that were given its key.
    fn drop_self(&mut self) -> bool {
        let before = self.peers.len();
        self.peers.retain(|_, peer| !is_same(&self.node, peer));
        self.peers.len() != before
    }

    /// Takes the list of peers, or removes and adds some; the node itself is left out.
    fn apply_peers(&mut self, all: Vec<Node>, removed: Vec<NodeId>, changed: Vec<Node>) -> bool {
        let touched = !all.is_empty() || !removed.is_empty() || !changed.is_empty();
        if !all.is_empty() {
            self.peers.clear();
        }
        for id in removed {
            self.peers.remove(&id);
        }
        for node in all.into_iter().chain(changed) {
            if !is_same(&self.node, &node) {
                self.peers.insert(node.id, Arc::new(node));
            }
        }
        touched
    }

    fn apply_patches(&mut self, patches: &[PeerChange]) -> bool {
        let mut touched = false;
        for patch in patches {
            let Some(peer) = self.peers.get_mut(&patch.node_id) else { continue };
            touched = true;
            let mut patch = std::borrow::Cow::Borrowed(patch);
            if is_stale_disco(peer, &patch) {
                patch.to_mut().disco_key = None;
            }
            Arc::make_mut(peer).apply(&patch);
        }
        touched
    }

    fn apply_presence(
        &mut self,
        online: &BTreeMap<NodeId, bool>,
        seen: &BTreeMap<NodeId, bool>,
        now: Option<Time>,
    ) -> bool {
        let mut touched = false;
        for (id, seen) in seen {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            let at = if *seen { now.or(peer.last_seen) } else { None };
            Arc::make_mut(peer).last_seen = at;
            touched = true;
        }
        for (id, online) in online {
            let Some(peer) = self.peers.get_mut(id) else { continue };
            Arc::make_mut(peer).online = Some(*online);
            touched = true;
        }
        touched
    }

    fn apply_filter(
        &mut self,
        base: Option<Vec<FilterRule>>,
        mut chunks: BTreeMap<String, Option<Vec<FilterRule>>>,
    ) -> bool {
        let before = self.filter.clone();
        if let Some(rules) = base {
            self.filter.insert(BASE_CHUNK.to_owned(), rules.into());
        }
        if chunks.get("*").is_some_and(Option::is_none) {
            self.filter.clear();
            chunks.remove("*");
        }
        for (name, rules) in chunks {
            match rules {
                Some(rules) => drop(self.filter.insert(name, rules.into())),
                None => drop(self.filter.remove(&name)),
            }
        }
        self.filter != before
    }

    /// Takes new profiles; those that no node names any more go once they outnumber the rest.
    fn apply_users(&mut self, profiles: Vec<UserProfile>) -> bool {
        let touched = !profiles.is_empty();
        self.users.extend(profiles.into_iter().map(|profile| (profile.id, profile)));
        if touched && self.users.len() > check::MAX_USERS / 2 {
            let nodes = self.peers.values().chain([&self.node]);
            let named: BTreeSet<UserId> = nodes.flat_map(|node| [node.user, node.sharer]).collect();
            self.users.retain(|id, _| named.contains(id));
        }
        touched
    }

    fn apply_relays(&mut self, mut relays: DerpMap) -> bool {
        if relays.regions.is_none() {
            relays.regions.clone_from(&self.relays.regions);
        }
        if relays.home_params.is_none() {
            relays.home_params.clone_from(&self.relays.home_params);
        }
        let changed = *self.relays != relays;
        self.relays = Arc::new(relays);
        changed
    }

    fn apply_warnings(
        &mut self,
        texts: Option<Vec<String>>,
        mut messages: BTreeMap<String, Option<DisplayMessage>>,
    ) -> bool {
        let before = (self.warnings.clone(), self.messages.clone());
        if let Some(texts) = texts {
            self.warnings = texts;
        }
        if messages.get("*").is_some_and(Option::is_none) {
            self.messages.clear();
            messages.remove("*");
        }
        for (name, message) in messages {
            match message {
                Some(message) => drop(self.messages.insert(name, message)),
                None => drop(self.messages.remove(&name)),
            }
        }
        (&before.0, &before.1) != (&self.warnings, &self.messages)
    }

    /// Finds peers by key and address. Of two nodes with one address the node itself, then the lowest number counts.
    fn index(&mut self) {
        self.by_key = self.peers.values().map(|peer| (peer.key, peer.id)).collect();
        self.by_address.clear();
        for node in [&self.node].into_iter().chain(self.peers.values()) {
            for address in node.addresses.iter().filter(|prefix| prefix.prefix_len() == prefix.max_prefix_len()) {
                self.by_address.entry(address.addr()).or_insert(node.id);
            }
        }
    }
}

/// Whether two records are of one node.
fn is_same(one: &Node, other: &Node) -> bool {
    one.id == other.id || one.key == other.key || one.stable_id == other.stable_id
}

/// What follows the first label of a full name, without the trailing dot.
pub(crate) fn suffix_of(name: &str) -> &str {
    let name = name.trim_end_matches('.');
    name.split_once('.').map_or("", |(_, suffix)| suffix)
}

/// Whether a patch tells a disco key that is older than what is known: of a peer that is gone since before it was last
/// seen. A peer may have told its new key by itself meanwhile.
fn is_stale_disco(peer: &Node, patch: &PeerChange) -> bool {
    patch.disco_key.is_some()
        && patch.online == Some(false)
        && patch.last_seen.is_none_or(|seen| peer.last_seen.is_some_and(|known| seen <= known))
}

#[cfg(test)]
mod tests;
