use std::net::IpAddr;
use std::sync::Arc;

use filter::{Filter, FilterError, Local};
use ipnet::IpNet;
use jiff::Timestamp;
use tailcfg::{FilterRule, MapResponse, Node};

use crate::exit_node::ExitNode;
use crate::local::answered_for;
use crate::{Changed, MapError, Netmap, Preferences};

/// What one node knows and wants: the state from which everything else follows.
#[derive(Debug, Clone)]
pub struct Mesh {
    preferences: Preferences,
    netmap: Option<Netmap>,
    /// The networks that the machine is on.
    attached: Vec<IpNet>,
    filter: Arc<Filter>,
    filter_error: Option<FilterError>,
    /// When it is now, as far as expiry of keys is concerned.
    now: Timestamp,
}

impl Mesh {
    /// A node that knows no network yet.
    pub fn new(preferences: Preferences, now: Timestamp) -> Self {
        let filter = Arc::new(Filter::blocking(Local::default()));
        Self { preferences, netmap: None, attached: Vec::new(), filter, filter_error: None, now }
    }

    /// Takes the first message of a map stream in place of whatever was known.
    ///
    /// # Errors
    /// A message that can't be one; what was known stays.
    pub fn handle_first_map(&mut self, message: MapResponse, now: Timestamp) -> Result<Changed, MapError> {
        self.netmap = Some(Netmap::first(message)?);
        self.now = now;
        self.compile_filter();
        Ok(Changed::ALL)
    }

    /// Merges a later message of a map stream.
    ///
    /// # Errors
    /// A message that contradicts itself or what is known, or comes before a first one; what was known stays.
    pub fn handle_map(&mut self, message: MapResponse, now: Timestamp) -> Result<Changed, MapError> {
        let changed = self.netmap.as_mut().ok_or(MapError::NoNode)?.apply(message)?;
        self.now = now;
        if changed.filter || changed.node {
            self.compile_filter();
        }
        Ok(changed)
    }

    /// Takes what the user wants now.
    pub fn set_preferences(&mut self, preferences: Preferences) {
        let refilter = preferences.advertise_routes != self.preferences.advertise_routes;
        self.preferences = preferences;
        if refilter {
            self.compile_filter();
        }
    }

    /// Takes the networks that the machine is on now; tells whether they are others than before.
    pub fn set_attached(&mut self, attached: Vec<IpNet>) -> bool {
        if attached == self.attached {
            return false;
        }
        self.attached = attached;
        self.compile_filter();
        true
    }

    /// Forgets the network, as after a logout.
    pub fn forget_network(&mut self) {
        self.netmap = None;
        self.compile_filter();
    }

    /// Takes note of the time, for keys that have expired by themselves.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// When the next key expires.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let netmap = self.netmap.as_ref()?;
        let nodes = netmap.peers().values().chain([netmap.node()]);
        nodes.filter_map(|node| node.key_expiry.get()).filter(|expiry| *expiry > self.now).min()
    }

    /// What the user wants.
    pub fn preferences(&self) -> &Preferences {
        &self.preferences
    }

    /// What the coordination server has told.
    pub fn netmap(&self) -> Option<&Netmap> {
        self.netmap.as_ref()
    }

    /// The packet filter in force; it blocks everything while there is none that can be understood.
    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }

    /// The networks that the machine is on.
    pub fn attached(&self) -> &[IpNet] {
        &self.attached
    }

    /// The node's own addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.netmap.as_ref().map(|netmap| addresses(netmap.node())).unwrap_or_default()
    }

    /// The exit node that the preferences name.
    pub fn exit_node(&self) -> ExitNode {
        self.netmap.as_ref().map_or(ExitNode::None, |netmap| ExitNode::of(netmap, &self.preferences))
    }

    /// Whether the node's own key has expired.
    pub fn is_expired(&self) -> bool {
        self.netmap.as_ref().is_some_and(|netmap| self.has_expired(netmap.node()))
    }

    /// Whether an administrator still has to let the node in.
    pub fn awaits_approval(&self) -> bool {
        self.netmap.as_ref().is_some_and(|netmap| !netmap.node().machine_authorized)
    }

    /// What the user should know: the server's warnings and what is wrong here.
    pub fn warnings(&self) -> Vec<String> {
        let mut all = self.netmap.as_ref().map(Netmap::warnings).unwrap_or_default();
        if let Some(error) = &self.filter_error {
            all.push(format!("all connections to this node are blocked, as its packet filter can't be read: {error}"));
        }
        if self.exit_node() == ExitNode::Missing {
            all.push(
                "the exit node is not in the tailnet or offers no default route: traffic to the internet is blocked"
                    .to_owned(),
            );
        }
        all
    }

    /// Whether a peer can be talked to: its key holds, and something leads to it.
    pub(crate) fn is_usable(&self, peer: &Node) -> bool {
        let reachable = peer.is_wireguard_only || !peer.disco_key.is_zero() || peer.home_region().is_some();
        reachable && !self.has_expired(peer)
    }

    fn has_expired(&self, node: &Node) -> bool {
        node.expired || node.key_expiry.get().is_some_and(|expiry| expiry <= self.now)
    }

    fn compile_filter(&mut self) {
        let Some(netmap) = &self.netmap else {
            self.filter = Arc::new(Filter::blocking(Local::default()));
            self.filter_error = None;
            return;
        };
        let local = answered_for(netmap.node(), &self.preferences, &self.attached);
        let rules: Vec<FilterRule> = netmap.filter_rules().cloned().collect();
        let (filter, error) = match Filter::compile(&rules, local.clone()) {
            Ok(filter) => (filter, None),
            Err(error) => (Filter::blocking(local), Some(error)),
        };
        self.filter = Arc::new(filter);
        self.filter_error = error;
    }
}

/// A node's own addresses, IPv4 first.
pub(crate) fn addresses(node: &Node) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = node.addresses.iter().map(ipnet::IpNet::addr).collect();
    all.sort_by_key(IpAddr::is_ipv6);
    all
}
