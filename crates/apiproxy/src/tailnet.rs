//! The proxy as a node of the tailnet: who stands behind an address, and connections from its IP stack in user space.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use listen::Places;
use node::{Node, TcpListener, TcpStream, Whois};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::memory::{STACK_CONNECTIONS, STACK_CONNECTIONS_PER_ADDRESS, STACK_WINDOWS};
use crate::{AdmittedStream, Identify, IdentifyError, Identity, Listener};

/// How many handshakes may be under way; more clients are refused.
pub(crate) const HANDSHAKES: usize = STACK_CONNECTIONS / 3;
/// How many of them one device may have: one that never answers takes no place from the others.
pub(crate) const HANDSHAKES_PER_DEVICE: usize = HANDSHAKES / 4;
/// The tailnet's stack gives a client up later than this; nobody has to wait so long for a place.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Answers from the network map of a node.
#[derive(Debug)]
pub struct TailnetIdentities {
    node: Node,
    changes: watch::Receiver<u64>,
}

impl TailnetIdentities {
    /// Answers from the map of this node; needs a tokio runtime.
    pub fn new(node: Node) -> Self {
        let (sender, changes) = watch::channel(0);
        let mut snapshots = node.watch();
        tokio::spawn(async move {
            // Ends with the node, and what hangs on its answers with it.
            while snapshots.changed().await.is_ok() {
                sender.send_modify(|version| *version += 1);
                if sender.is_closed() {
                    return;
                }
            }
        });
        Self { node, changes }
    }
}

impl Identify for TailnetIdentities {
    fn whois(&self, source: SocketAddr) -> BoxFuture<'_, Result<Identity, IdentifyError>> {
        let known = self.node.whois(source.ip());
        let answer = match known {
            Some(whois) => identity(&whois),
            None => Err(IdentifyError::Unknown(source.ip())),
        };
        Box::pin(async move { answer })
    }

    fn device(&self, source: IpAddr) -> IpAddr {
        device(&self.node, source)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

/// The first address of the device that has this one; the address itself where none has it.
fn device(node: &Node, source: IpAddr) -> IpAddr {
    let known = node.whois(source);
    known.and_then(|whois| whois.node.addresses.first().map(|network| network.addr())).unwrap_or(source)
}

fn identity(whois: &Whois) -> Result<Identity, IdentifyError> {
    let mut capabilities = std::collections::BTreeMap::new();
    for name in whois.capabilities.0.keys() {
        let values = whois.capabilities.values(name).unwrap_or_default();
        let values: Result<Vec<serde_json::Value>, _> =
            values.iter().map(|value| serde_json::from_str(value.as_str())).collect();
        // What can't be read even as JSON says nothing about anybody.
        let unreadable = |error| IdentifyError::Unavailable(format!("the capability {name:?} can't be read: {error}"));
        capabilities.insert(name.clone(), values.map_err(unreadable)?);
    }
    Ok(Identity {
        login: whois.user.login_name.clone(),
        node: whois.node.name.clone(),
        tags: whois.node.tags.clone(),
        capabilities,
    })
}

/// Connections to a port of a node in user space. Their handshakes go on side by side: a slow client holds nobody up, and a
/// device that begins many and ends none holds only its own places.
#[derive(Debug)]
pub struct TailnetListener {
    node: Node,
    clients: TcpListener,
    places: Arc<Places>,
    handshakes: JoinSet<io::Result<(TcpStream, SocketAddr)>>,
}

impl TailnetListener {
    /// Takes the clients of a listener of this node, and bounds what its whole stack may hold.
    pub fn new(clients: TcpListener, node: Node) -> Self {
        clients.user_space().bound(STACK_WINDOWS, STACK_CONNECTIONS, STACK_CONNECTIONS_PER_ADDRESS);
        Self { node, clients, places: places(), handshakes: JoinSet::new() }
    }
}

fn places() -> Arc<Places> {
    Places::new(HANDSHAKES_PER_DEVICE, HANDSHAKES)
}

impl AdmittedStream for TcpStream {
    fn abort(self) {
        Self::abort(self);
    }
}

impl Listener for TailnetListener {
    type Stream = TcpStream;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            let incoming = tokio::select! {
                Some(done) = self.handshakes.join_next() => match done {
                    Ok(Ok(accepted)) => return Ok(accepted),
                    // A client that gave up, or is too slow, concerns nobody else.
                    Ok(Err(_)) | Err(_) => continue,
                },
                incoming = self.clients.accept() => incoming,
            };
            let Some(incoming) = incoming else {
                // The stack is gone, and there will be no more clients; whoever runs the node notices its end.
                return std::future::pending().await;
            };
            let from = incoming.from();
            let Ok(place) = self.places.take(device(&self.node, from.ip())) else {
                incoming.refuse();
                continue;
            };
            self.handshakes.spawn(async move {
                let _place = place;
                let stream = tokio::time::timeout(HANDSHAKE_TIME, incoming.accept()).await;
                Ok((stream.map_err(|_late| io::Error::from(io::ErrorKind::TimedOut))??, from))
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Allowed, CAPABILITY, Impersonated};
    use serde_json::json;

    #[test]
    fn a_device_that_ends_no_handshake_leaves_places_to_others() {
        let (places, address) = (places(), |last| IpAddr::from([100, 64, 0, last]));
        let begun: Vec<_> = std::iter::from_fn(|| places.take(address(1)).ok()).collect();
        assert_eq!(begun.len(), HANDSHAKES_PER_DEVICE);
        assert!(places.take(address(2)).is_ok());
    }

    #[test]
    fn a_whois_of_the_network_map_becomes_an_identity() {
        let whois = Whois {
            node: serde_json::from_value(json!({
                "ID": 1, "StableID": "n1", "Name": "laptop.taila31de.ts.net.", "User": 7,
                "Key": format!("nodekey:{}", "11".repeat(32)), "Addresses": ["100.64.0.7/32"],
            }))
            .map(std::sync::Arc::new)
            .unwrap(),
            user: serde_json::from_value(json!({"ID": 7, "LoginName": "alice@example.com", "DisplayName": "Alice"}))
                .unwrap(),
            capabilities: serde_json::from_value(
                json!({CAPABILITY: [{"impersonate": {"groups": ["readers"]}}], "x": null}),
            )
            .unwrap(),
        };
        let identity = identity(&whois).unwrap();
        assert_eq!(
            (identity.login.as_str(), identity.node.as_str()),
            ("alice@example.com", "laptop.taila31de.ts.net.")
        );
        let decided = Impersonated::decide(&identity, &Allowed::groups(["readers".to_owned()])).unwrap();
        assert_eq!((decided.user(), decided.groups()), ("alice@example.com", &["readers".to_owned()][..]));
    }
}
