use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;

/// Who stands behind an address of the tailnet, as its network map says.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    /// The user's login name; of no meaning when the node has tags.
    pub login: String,
    /// The node's full name, with or without the dot at its end.
    pub node: String,
    /// The node's tags; a node with tags belongs to no user.
    pub tags: Vec<String>,
    /// What the policy grants it towards this node: capability to the values of its rules, as the map has them.
    pub capabilities: BTreeMap<String, Vec<Value>>,
}

/// Why nobody can be said to stand behind an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifyError {
    /// The address belongs to no node of the tailnet.
    #[error("no node of the tailnet has the address {0}")]
    Unknown(std::net::IpAddr),
    /// The network map is not there.
    #[error("who you are can't be told now: {0}")]
    Unavailable(String),
}

/// Knows who stands behind an address of the tailnet: the node that this proxy is.
pub trait Identify: Send + Sync + 'static {
    /// Who stands behind the source of a connection, as of now.
    fn whois(&self, source: SocketAddr) -> BoxFuture<'_, Result<Identity, IdentifyError>>;

    /// What a source is counted as: one address for each device, whichever of its own the device comes from.
    ///
    /// An address that belongs to no device stands for itself; whoever comes from it is refused later, by name.
    fn device(&self, source: IpAddr) -> IpAddr;

    /// Changes whenever the answers may have changed.
    fn changes(&self) -> watch::Receiver<u64>;
}
