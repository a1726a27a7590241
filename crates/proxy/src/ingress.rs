use std::io;

use node::{Destination, Listen, UserSpace};
use tokio_util::sync::CancellationToken;

use crate::backends::Backends;
use crate::relay::{Paired, Relay};

/// Takes every TCP connection and UDP flow of the tailnet at these addresses, at any port, and hands it on.
///
/// Ends with the token, with the relay's draining, or with the node.
pub(crate) fn start(
    user_space: &UserSpace,
    to: Destination,
    backends: Backends,
    relay: Relay,
    ends: CancellationToken,
) -> io::Result<()> {
    let place = Listen { to, port: None };
    let mut clients = user_space.listen_at(place)?;
    let mut flows = user_space.forward_udp(place)?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = ends.cancelled() => return,
                () = relay.draining.cancelled() => return,
                client = clients.accept() => match client {
                    // Who comes once the end has begun is not let in by chance.
                    Some(client) if !relay.draining.is_cancelled() => {
                        relay.tasks.spawn(relay.clone().serve_client(client, backends.clone()));
                    }
                    Some(_) | None => return,
                },
                flow = flows.accept() => match flow {
                    Some((socket, from, to)) if !relay.draining.is_cancelled() => {
                        let flow = Paired { socket, with: from };
                        relay.tasks.spawn(relay.clone().serve_flow(flow, to, backends.clone()));
                    }
                    Some(_) | None => return,
                },
            }
        }
    });
    Ok(())
}
