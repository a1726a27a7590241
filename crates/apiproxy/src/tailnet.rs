//! The proxy as a node of the tailnet: who stands behind an address, and connections from its IP stack in user space.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use node::{Node, TcpListener, TcpStream, Whois};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::memory::{STACK_CONNECTIONS, STACK_WINDOWS};
use crate::{Identify, IdentifyError, Identity, Listener};

/// How many handshakes may be under way; more clients are refused.
const HANDSHAKES: usize = STACK_CONNECTIONS / 3;
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

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
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

/// Connections to a port of a node in user space. Their handshakes go on side by side: a slow client holds nobody up.
#[derive(Debug)]
pub struct TailnetListener {
    clients: TcpListener,
    handshakes: JoinSet<io::Result<(TcpStream, SocketAddr)>>,
}

impl TailnetListener {
    /// Takes the clients of a listener, and bounds what its whole stack may hold.
    pub fn new(clients: TcpListener) -> Self {
        clients.user_space().bound(STACK_WINDOWS, STACK_CONNECTIONS);
        Self { clients, handshakes: JoinSet::new() }
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
            if self.handshakes.len() >= HANDSHAKES {
                incoming.refuse();
                continue;
            }
            self.handshakes.spawn(async move {
                let from = incoming.from();
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
