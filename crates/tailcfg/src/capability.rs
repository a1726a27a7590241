use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// What a client of some age understands: a number that grows with each change of the protocol.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CapabilityVersion(pub u32);

impl CapabilityVersion {
    /// The Noise channel may start with an early payload.
    pub const EARLY_PAYLOAD: Self = Self(49);
    /// What a streaming map request says of endpoints and host is a hint, the truth comes by lite updates.
    pub const READ_ONLY_STREAMS: Self = Self(68);
    /// Reads [`crate::Node::cap_map`].
    pub const NODE_CAP_MAP: Self = Self(74);
    /// Reads named packet filters.
    pub const PACKET_FILTERS: Self = Self(81);
    /// Reports the hash of the services it hosts.
    pub const SERVICES_HASH: Self = Self(108);
    /// Filter sources may be peer capabilities.
    pub const CAP_FILTER_SOURCES: Self = Self(109);
    /// Reads [`crate::Node::home_derp`].
    pub const HOME_DERP: Self = Self(111);
    /// Takes absent allowed addresses as the node's own addresses.
    pub const ABSENT_ALLOWED_IPS: Self = Self(112);
    /// Reads [`crate::MapResponse::display_messages`].
    pub const DISPLAY_MESSAGES: Self = Self(117);
    /// Renews its node key while the old one keeps working.
    pub const SEAMLESS_RENEWAL: Self = Self(126);
    /// Waits as `Retry-After` says when a registration is answered with 429.
    pub const REGISTER_RETRY_AFTER: Self = Self(137);

    /// The oldest client that a server of ours serves: the oldest whose configuration file the Kubernetes proxies'
    /// contract still names, and old enough that named packet filters and capability maps can be relied on.
    pub const OLDEST_SERVED: Self = Self(95);

    /// What our node says it understands. Higher versions promise answers to relayed disco advertisements and rate
    /// limits that the node does not give.
    pub const OURS: Self = Self(131);

    /// The stock release that introduced this version or the newest one before it; `None` before 1.80.
    pub fn release(self) -> Option<&'static str> {
        Self::RELEASES.iter().rev().find(|(version, _)| *version <= self).map(|(_, release)| *release)
    }

    const RELEASES: [(Self, &'static str); 9] = [
        (Self(113), "1.80"),
        (Self(115), "1.82"),
        (Self(116), "1.84"),
        (Self(123), "1.86"),
        (Self(125), "1.88"),
        (Self(130), "1.90"),
        (Self(131), "1.92"),
        (Self(133), "1.96"),
        (Self(138), "1.98"),
    ];
}

impl fmt::Display for CapabilityVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A value that was encoded once, to be embedded in many messages; cloning it shares the text.
pub struct Encoded<T> {
    text: Arc<RawValue>,
    of: PhantomData<fn() -> T>,
}

impl<T> Encoded<T> {
    /// Encodes a value.
    pub fn new(value: &T) -> Result<Self, serde_json::Error>
    where
        T: Serialize,
    {
        serde_json::value::to_raw_value(value).map(|text| Self { text: text.into(), of: PhantomData })
    }

    /// The JSON text.
    pub fn get(&self) -> &str {
        self.text.get()
    }

    /// Reads the value back.
    pub fn decode<'a>(&'a self) -> Result<T, serde_json::Error>
    where
        T: Deserialize<'a>,
    {
        serde_json::from_str(self.get())
    }
}

impl<T> Clone for Encoded<T> {
    fn clone(&self) -> Self {
        Self { text: Arc::clone(&self.text), of: PhantomData }
    }
}

impl<T> PartialEq for Encoded<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.text, &other.text) || self.get() == other.get()
    }
}

impl<T> Eq for Encoded<T> {}

impl<T> fmt::Debug for Encoded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl<T> Serialize for Encoded<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Encoded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|text| Self { text: text.into(), of: PhantomData })
    }
}

/// Names of capabilities that the protocol itself gives a meaning.
pub mod cap {
    /// The node's user administers the tailnet.
    pub const IS_ADMIN: &str = "https://tailscale.com/cap/is-admin";
    /// The node's user owns the tailnet.
    pub const IS_OWNER: &str = "https://tailscale.com/cap/is-owner";
    /// The node may run the SSH server.
    pub const SSH: &str = "https://tailscale.com/cap/ssh";
    /// The node may send files to its user's other nodes.
    pub const FILE_SHARING: &str = "https://tailscale.com/cap/file-sharing";
    /// The node may take part in tailnet lock.
    pub const TAILNET_LOCK: &str = "https://tailscale.com/cap/tailnet-lock";
    /// Certificates can be had for the node's name.
    pub const HTTPS: &str = "https";
    /// The node may publish services to the internet.
    pub const FUNNEL: &str = "funnel";
    /// The client takes whole nodes in place of patches.
    pub const DISABLE_DELTA_UPDATES: &str = "disable-delta-updates";
    /// The client binds a random UDP port.
    pub const RANDOMIZE_CLIENT_PORT: &str = "randomize-client-port";
    /// The peer may be proposed as an exit node.
    pub const SUGGEST_EXIT_NODE: &str = "suggest-exit-node";
    /// User interfaces show the proposal.
    pub const SUGGEST_EXIT_NODE_UI: &str = "suggest-exit-node-ui";
    /// The services that the node hosts, with their addresses.
    pub const SERVICE_HOST: &str = "service-host";
    /// Names below a node's name resolve to the node.
    pub const DNS_SUBDOMAIN_RESOLVE: &str = "dns-subdomain-resolve";
    /// Names of nodes resolve to IPv6 addresses too.
    pub const MAGICDNS_AAAA: &str = "magicdns-aaaa";
    /// The tailnet's name for people.
    pub const TAILNET_DISPLAY_NAME: &str = "tailnet-display-name";
    /// App connectors and their domains.
    pub const APP_CONNECTORS: &str = "tailscale.com/app-connectors";
    /// What a peer may do as which Kubernetes groups.
    pub const KUBERNETES: &str = "tailscale.com/cap/kubernetes";
    /// A peer may use the node as a UDP relay.
    pub const RELAY: &str = "tailscale.com/cap/relay";
    /// The other direction of [`RELAY`].
    pub const RELAY_TARGET: &str = "tailscale.com/cap/relay-target";
    /// A peer may use the node's shared drives.
    pub const DRIVE: &str = "tailscale.com/cap/drive";
    /// The other direction of [`DRIVE`].
    pub const DRIVE_SHARER: &str = "tailscale.com/cap/drive-sharer";
    /// A peer may send files to the node.
    pub const FILE_SEND: &str = "https://tailscale.com/cap/file-send";
    /// A peer may be sent files.
    pub const FILE_SHARING_TARGET: &str = "https://tailscale.com/cap/file-sharing-target";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_value_is_embedded_as_it_is() {
        let encoded = Encoded::new(&CapabilityVersion(131)).unwrap();
        assert_eq!(serde_json::to_string(&[encoded.clone(), encoded.clone()]).unwrap(), "[131,131]");
        assert_eq!(encoded.decode().unwrap(), CapabilityVersion(131));
    }

    #[test]
    fn a_version_between_two_releases_belongs_to_the_older() {
        assert_eq!(CapabilityVersion(124).release(), Some("1.86"));
        assert_eq!(CapabilityVersion(145).release(), Some("1.98"));
        assert_eq!(CapabilityVersion(90).release(), None);
    }
}
