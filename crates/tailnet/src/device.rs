use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use filter::CapMap;
use jiff::Timestamp;
use policy::AllowedIps;
use tailcfg::{Encoded, Hostinfo, Node as WireNode, NodeId, Time};

use crate::description::DescriptionLimit;
use crate::name::Domain;
use crate::presence::Presence;
use crate::record::Node;
use crate::registry::TAGGED_DEVICES;

/// A device as the tailnet holds it: what is kept, where it is, and since when its peers could have known.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) node: Arc<Node>,
    pub(crate) presence: Presence,
    pub(crate) stamps: Stamps,
    pub(crate) views: Views,
    /// Whether it takes part: its key is good, it was let in, and so was its user.
    pub(crate) admitted: bool,
    /// Whether its key has ended.
    pub(crate) expired: bool,
    /// Its next deadline: expiry of its key, absence, deletion.
    pub(crate) deadline: Option<Timestamp>,
    /// How often it may describe itself anew.
    pub(crate) descriptions: DescriptionLimit,
    /// Capabilities that its peers see.
    pub(crate) peer_caps: CapMap,
    /// What peers that may use none of its routes are sent, made when first asked for.
    encoded: OnceLock<Encoded<WireNode>>,
}

/// At which tick of the tailnet's clock something of a device changed last, as its peers see it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamps {
    /// Something that only a whole node can say.
    pub(crate) whole: u64,
    pub(crate) endpoints: u64,
    pub(crate) home: u64,
    pub(crate) disco_key: u64,
    pub(crate) node_key: u64,
    pub(crate) key_expiry: u64,
    pub(crate) cap: u64,
    pub(crate) online: u64,
    /// What others may be told of its routes.
    pub(crate) served: u64,
}

/// At which tick policy last had something new to say to a device.
#[derive(Debug, Default, Clone)]
pub(crate) struct Views {
    pub(crate) filter: u64,
    pub(crate) ssh: u64,
    /// Which routes it is told of, of whatever peer.
    pub(crate) routes: u64,
    /// Up to this tick, whom it met and lost is not known singly any more.
    pub(crate) forgotten: u64,
    /// Whom it met (`true`) and lost since, the latest last.
    sightings: VecDeque<(u64, NodeId, bool)>,
}

impl Views {
    /// How many sightings a device has room for. A device that is told of changes as they come needs one or two.
    const SIGHTINGS: usize = 16;

    /// Everything may be otherwise.
    pub(crate) fn stamp(&mut self, tick: u64) {
        (self.filter, self.ssh, self.routes, self.forgotten) = (tick, tick, tick, tick);
        self.sightings.clear();
    }

    /// The device met another, or lost it.
    pub(crate) fn note(&mut self, tick: u64, peer: NodeId, visible: bool) {
        if self.sightings.len() == Self::SIGHTINGS
            && let Some((oldest, ..)) = self.sightings.pop_front()
        {
            self.forgotten = self.forgotten.max(oldest);
        }
        self.sightings.push_back((tick, peer, visible));
    }

    /// Whom the device met and lost after a tick; `None` where that is not known.
    pub(crate) fn sightings_since(&self, seen: u64) -> Option<BTreeMap<NodeId, bool>> {
        let after = self.sightings.iter().filter(|(tick, ..)| *tick > seen);
        (self.forgotten <= seen).then(|| after.map(|(_, peer, visible)| (*peer, *visible)).collect())
    }
}

impl Stamps {
    /// The newest of all.
    pub(crate) fn newest(&self) -> u64 {
        self.whole.max(self.served).max(self.patched())
    }

    /// The newest of those that a patch can say.
    pub(crate) fn patched(&self) -> u64 {
        let Self { endpoints, home, disco_key, node_key, key_expiry, cap, online, .. } = *self;
        [endpoints, home, disco_key, node_key, key_expiry, cap, online].into_iter().max().unwrap_or(0)
    }
}

impl Device {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self {
            node,
            presence: Presence::default(),
            stamps: Stamps::default(),
            views: Views::default(),
            admitted: false,
            expired: false,
            deadline: None,
            descriptions: DescriptionLimit::default(),
            peer_caps: CapMap::default(),
            encoded: OnceLock::new(),
        }
    }

    /// Must be called after whatever changes what peers see.
    pub(crate) fn forget_encoding(&mut self) {
        self.encoded = OnceLock::new();
    }

    /// The node as a peer sees it, encoded; `special` is what this peer is told of its addresses, when not just these.
    ///
    /// `None` if it can't be encoded: then this one peer is missing, and nobody's map breaks.
    pub(crate) fn encoded(&self, domain: &Domain, special: Option<&AllowedIps>) -> Option<Encoded<WireNode>> {
        if special.is_some() {
            return Encoded::new(&self.as_peer(domain, special)).ok();
        }
        if let Some(encoded) = self.encoded.get() {
            return Some(encoded.clone());
        }
        let encoded = Encoded::new(&self.as_peer(domain, None)).ok()?;
        Some(self.encoded.get_or_init(|| encoded).clone())
    }

    /// Whether a viewer is told of just its addresses.
    pub(crate) fn is_plain(&self, told: &AllowedIps) -> bool {
        told.primary.is_empty() && told.allowed == self.node.addresses.prefixes()
    }

    /// When it was last here; for one that was not here yet, when it was made.
    pub(crate) fn last_seen(&self) -> Time {
        Time::from(self.presence.last_seen.unwrap_or(self.node.created))
    }

    /// The node as a peer sees it.
    fn as_peer(&self, domain: &Domain, special: Option<&AllowedIps>) -> WireNode {
        let mut seen = WireNode {
            user: self.node.owner.user().unwrap_or(TAGGED_DEVICES),
            endpoints: self.presence.endpoints.clone(),
            last_seen: Some(self.last_seen()),
            online: Some(self.presence.online),
            cap_map: self.peer_caps.clone(),
            hostinfo: Some(hostinfo_for_peers(&self.node.hostinfo)),
            ..self.as_seen(domain)
        };
        if let Some(told) = special {
            seen.addresses.retain(|address| told.allowed.contains(address));
            seen.allowed_ips = Some(told.allowed.clone());
            seen.primary_routes.clone_from(&told.primary);
        }
        seen
    }

    /// The node as it sees itself: with its own capabilities, and as its own user when it is tagged.
    pub(crate) fn as_self(&self, domain: &Domain, caps: CapMap) -> WireNode {
        WireNode {
            user: self.node.owner.user().unwrap_or(tailcfg::UserId(self.node.id.0)),
            online: Some(true),
            cap_map: caps,
            hostinfo: Some((*self.node.hostinfo).clone()),
            ..self.as_seen(domain)
        }
    }

    /// What both have.
    fn as_seen(&self, domain: &Domain) -> WireNode {
        let node = &self.node;
        WireNode {
            id: node.id,
            stable_id: node.stable_id.clone(),
            name: format!("{}.", domain.name(&node.name)),
            key: node.node_key,
            key_expiry: Time::from(node.key_expiry),
            machine: node.machine_key,
            disco_key: self.presence.disco_key,
            addresses: node.addresses.prefixes().to_vec(),
            allowed_ips: Some(node.addresses.prefixes().to_vec()),
            legacy_derp: WireNode::legacy_derp_text(self.presence.home),
            home_derp: self.presence.home,
            created: Time::from(node.created),
            cap: node.cap,
            tags: node.owner.tags().map(ToString::to_string).collect(),
            machine_authorized: node.authorized,
            ..WireNode::default()
        }
    }
}

/// What peers may know of a host: not its logs, nor how to push to its phone, nor what it measured of its network, which
/// would change with every measurement.
pub(crate) fn hostinfo_for_peers(hostinfo: &Hostinfo) -> Hostinfo {
    let mut shown = hostinfo.clone();
    shown.net_info = None;
    shown.backend_log_id = String::new();
    for name in ["FrontendLogID", "PushDeviceToken"] {
        shown.rest.shift_remove(name);
    }
    shown
}
